"""What the door notes on every request before its handler runs, and on its way out."""

from aiohttp import web

from llmswap.proxy.hop.messages import Delivery

REQUEST_ID: web.RequestKey[str] = web.RequestKey("llmswap.request_id", str)

# May see log lines and start-up failures: a key matched, or no key is needed and the peer is this machine.
IS_ADMIN: web.RequestKey[bool] = web.RequestKey("llmswap.is_admin", bool)

# The response whose head is on the wire. From then on a failure can only be told by breaking the connection.
STARTED: web.RequestKey[web.StreamResponse] = web.RequestKey("llmswap.started", web.StreamResponse)

# What a request that has gone to an upstream has brought its client so far.
DELIVERY: web.RequestKey[Delivery] = web.RequestKey("llmswap.delivery", Delivery)
