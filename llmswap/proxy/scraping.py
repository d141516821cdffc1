"""Upstreams' own metrics for Prometheus: which of them there are now, and each one's, fetched through llmswap.

Looking changes nothing: a scrape takes no place at the gate, so it starts, wakes, delays and keeps alive nobody. It has
a connection of its own, which is cut the moment its upstream is no longer ready.
"""

import asyncio
import math
from functools import partial
from urllib.parse import quote, unquote

import orjson
from aiohttp import web
from multidict import CIMultiDict

from llmswap.config.settings import AccessSettings
from llmswap.core.events import Generation
from llmswap.core.fleet import ModelId
from llmswap.core.snapshot import Snapshot
from llmswap.core.states import State
from llmswap.proxy.context import CONTEXT, Context
from llmswap.proxy.errors import RequestError
from llmswap.proxy.hop.connection import Connection, Exchange
from llmswap.proxy.hop.head import request_head
from llmswap.proxy.hop.messages import Head, Outgoing, UpstreamFault
from llmswap.proxy.hop.pool import connect, parse_address
from llmswap.proxy.origin import host_name, is_trusted
from llmswap.proxy.request_keys import REQUEST_ID

PREFIX = "/upstream-metrics/"
SCRAPE_LIMIT_S = 10.0  # Prometheus' own default
BODY_MAX = 16 * 1024 * 1024

_ASKED = ("Accept", "Accept-Encoding")  # all that an upstream is told of who asks
_TOLD = ("Content-Type", "Content-Encoding")  # all that it says of its answer, the status apart
_UNTYPED = "text/plain; version=0.0.4; charset=utf-8"  # some builds of llama.cpp do not say
_NO_PAGE = "sandbox"  # whatever it calls its answer, no browser shall take it for a page of ours


async def targets(request: web.Request) -> web.Response:
    """List the upstreams that are ready, as Prometheus' `http_sd` wants it: each is a path of ours."""
    context = request.app[CONTEXT]
    scheme, host = _reached_at(request, context.loaded.settings.access)
    tls = {"__scheme__": "https"} if scheme == "https" else {}
    ready = [view.model for view in context.loop.snapshot().upstreams.values() if view.state is State.READY]
    found = [
        {"targets": [host], "labels": {"__metrics_path__": PREFIX + quote(model), **tls, "model": model}}
        for model in sorted(ready)
    ]
    return web.Response(body=orjson.dumps(found), content_type="application/json")


def _reached_at(request: web.Request, access: AccessSettings) -> tuple[str, str]:
    """Give the scheme and the `host[:port]` under which the client reached us, or the proxy before us that we trust."""
    scheme, host = request.scheme, request.headers.get("Host", "")
    if is_trusted(request.remote or "", access.trusted_proxies):
        scheme = request.headers.get("X-Forwarded-Proto") or scheme
        forwarded = request.headers.get("X-Forwarded-Host", "")
        host = forwarded if host_name(forwarded) else host
    if host_name(host) is None:  # HTTP/1.0 may have none
        sockname = request.get_extra_info("sockname")
        address, port = (str(sockname[0]), sockname[1]) if isinstance(sockname, tuple) else ("localhost", 80)
        host = f"[{address}]:{port}" if ":" in address else f"{address}:{port}"
    return scheme, host


async def scrape(request: web.Request) -> web.Response:
    """Give what a ready upstream answers to `GET /metrics`.

    Raises:
        RequestError: 404 if there is no such model or it is not, or no longer, ready; 502 or 504 if it cannot be asked;
            the upstream's own status if that is not 200.
    """
    context = request.app[CONTEXT]
    model = _find(context, request.match_info["model"])
    base_url = context.gate.ready_url(model)
    if base_url is None:
        raise _not_ready(model)
    generation = context.loop.snapshot().upstreams[model].generation
    loop = asyncio.get_running_loop()
    fetched = loop.create_task(_fetch(context, request, model, base_url))
    left = loop.create_task(context.loop.wait_for(partial(_has_left, model, generation), math.inf))
    try:
        await asyncio.wait((fetched, left), timeout=SCRAPE_LIMIT_S, return_when=asyncio.FIRST_COMPLETED)
        if left.done():
            raise _not_ready(model)
        if not fetched.done():
            raise RequestError(504, f"{model} did not give its metrics within {SCRAPE_LIMIT_S:g} s", "upstream_timeout")
        head, body = fetched.result()
    except UpstreamFault as fault:
        raise fault.as_request_error() from fault
    finally:
        for task in (fetched, left):
            task.cancel()
        await asyncio.gather(fetched, left, return_exceptions=True)
    return _answer(model, head, body)


def _find(context: Context, name: str) -> ModelId:
    """Find the model of a path. Prometheus percent-encodes `__metrics_path__` once more, others take it as it is."""
    resolve = context.loaded.fleet.resolve
    model = resolve(unquote(name)) or resolve(name)
    if model is None:
        raise RequestError(404, "model not found; GET /sd/prometheus lists those that are ready", "model_not_found")
    return model


def _not_ready(model: ModelId) -> RequestError:
    return RequestError(404, f"{model} is not ready, and a scrape does not start or wake it", "not_ready")


def _has_left(model: ModelId, generation: Generation, snapshot: Snapshot) -> bool:
    view = snapshot.upstreams.get(model)
    return view is None or view.generation != generation or view.state is not State.READY


async def _fetch(context: Context, request: web.Request, model: ModelId, base_url: str) -> tuple[Head, bytes]:
    """Ask an upstream for its metrics on a connection of their own.

    Raises:
        RequestError: 404, it ceased to be ready before it was asked; 502, its answer is too large.
        UpstreamFault: It could not be reached, or broke off.
    """
    address = parse_address(base_url)
    headers = CIMultiDict({"Host": str(address), "X-Request-Id": request[REQUEST_ID]})
    headers.extend({name: request.headers[name] for name in _ASKED if name in request.headers})
    asked = request_head(Outgoing("GET", "/metrics", headers), f"{address.prefix}/metrics", upgrade=False)
    connection = await connect(address, context.settings_of(model).timeouts)
    exchange = Exchange(connection, "GET", _close, None, upgrade=False)
    try:
        if context.gate.ready_url(model) != base_url:
            raise _not_ready(model)
        connection.transport.write(asked)
        exchange.sent()
        while exchange.head is None:
            await exchange.change()
        return exchange.head, await _body(exchange, model)
    finally:
        exchange.drop()
        connection.transport.abort()


def _close(connection: Connection) -> None:
    connection.transport.close()


async def _body(exchange: Exchange, model: ModelId) -> bytes:
    body = bytearray()

    def take(payload: bytes) -> bool:
        body.extend(payload)
        return len(body) <= BODY_MAX

    exchange.flow_to(take)
    while len(body) <= BODY_MAX and not exchange.done:
        if exchange.stalled:
            exchange.resume()
        else:
            await exchange.change()
    if len(body) > BODY_MAX:
        raise RequestError(502, f"the metrics of {model} are larger than {BODY_MAX} bytes", "upstream_failed")
    return bytes(body)


def _answer(model: ModelId, head: Head, body: bytes) -> web.Response:
    """Give the upstream's answer on.

    Raises:
        RequestError: It is none; with the upstream's status if that says so.
    """
    if head.status != 200:
        status = head.status if head.status >= 400 else 502
        hint = "; llama.cpp serves them only with --metrics, SGLang only with --enable-metrics"
        hint = hint if head.status in (404, 501) else ""
        raise RequestError(status, f"{model} answers GET /metrics with {head.status}{hint}", "no_metrics")
    said = CIMultiDict(head.fields)
    headers = {name: said[name] for name in _TOLD if said.get(name)}
    headers = {"Content-Type": _UNTYPED, **headers, "Content-Security-Policy": _NO_PAGE}
    return web.Response(body=body, headers=headers)
