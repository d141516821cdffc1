"""Log routes: what was said lately, and what is being said."""

from aiohttp import web

from llmswap.proxy.context import CONTEXT, Context
from llmswap.proxy.errors import RequestError
from llmswap.runtime.logbook import LogRing

_PLAIN = "text/plain; charset=utf-8"


async def history(request: web.Request) -> web.Response:
    """Give what the combined log holds. A browser is sent to the live view."""
    if "text/html" in request.headers.get("Accept", ""):
        raise web.HTTPFound("/logs/stream")
    body = request.app[CONTEXT].logs.combined.history()
    return web.Response(body=body, headers={"Content-Type": _PLAIN})


async def stream(request: web.Request) -> web.StreamResponse:
    """Follow a log: the combined one, `proxy`, `upstream`, or a model's. `?no-history` leaves out what was before."""
    ring = _ring(request.app[CONTEXT], request.match_info.get("id", ""))
    response = web.StreamResponse(headers={"Content-Type": _PLAIN, "X-Accel-Buffering": "no"})
    if request.version.minor > 0:
        response.enable_chunked_encoding()
    await response.prepare(request)
    with ring.subscribe(history="no-history" not in request.query) as lines:
        async for data in lines:
            await response.write(data)
    await response.write_eof()
    return response


def _ring(context: Context, name: str) -> LogRing:
    logs = context.logs
    known = {"": logs.combined, "proxy": logs.proxy, "upstream": logs.upstream}.get(name)
    if known is not None:
        return known
    model = context.loaded.fleet.resolve(name)
    if model is None:
        raise RequestError(400, f"there is no log named {name[:200]!r}: give proxy, upstream or a model")
    return logs.model(model)
