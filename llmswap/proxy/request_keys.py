"""What the door notes on every request before its handler runs, and on its way out."""

from aiohttp import web

from llmswap.proxy.hop.messages import Delivery
from llmswap.proxy.metering.meter import Meter
from llmswap.proxy.swapping import Served
from llmswap.runtime.observing import RequestRecord

REQUEST_ID: web.RequestKey[str] = web.RequestKey("llmswap.request_id", str)

# May see log lines and start-up failures: a key matched, or no key is needed and the peer is this machine.
IS_ADMIN: web.RequestKey[bool] = web.RequestKey("llmswap.is_admin", bool)

# Which of the keys it presented, in a form that gives nothing away. Absent if it presented none.
KEY_MARK: web.RequestKey[str] = web.RequestKey("llmswap.key_mark", str)

# How it came to be served. Absent until it has been dispatched.
SERVED: web.RequestKey[Served] = web.RequestKey("llmswap.served", Served)

# The response whose head is on the wire. From then on a failure can only be told by breaking the connection.
STARTED: web.RequestKey[web.StreamResponse] = web.RequestKey("llmswap.started", web.StreamResponse)

# What becomes of a request for a model. Absent on other routes.
RECORD: web.RequestKey[RequestRecord] = web.RequestKey("llmswap.record", RequestRecord)

# What a request that has gone to an upstream has brought its client so far.
DELIVERY: web.RequestKey[Delivery] = web.RequestKey("llmswap.delivery", Delivery)

# What counts the tokens of its answer. Absent until that has been asked for.
METER: web.RequestKey[Meter] = web.RequestKey("llmswap.meter", Meter)
