"""Small answers: the front page, redirects, and what is not there yet."""

from aiohttp import web

from llmswap import __version__
from llmswap.proxy.errors import RequestError

_FRONT_PAGE = f"""llmswap {__version__}

GET  /v1/models            the models
POST /v1/chat/completions  and the other OpenAI and Anthropic routes: the model is started when asked for
GET  /running              what runs now
GET  /api/status           the same and more, as `llmswap status` shows it
GET  /upstream/MODEL/      a model's own server
GET  /logs/stream          what is being logged
GET  /metrics              for Prometheus
GET  /health, /ready       is it up, does it get anywhere
"""


async def front(request: web.Request) -> web.Response:
    """Say what this is and where to go. llama-swap redirects to its UI here."""
    del request
    return web.Response(text=_FRONT_PAGE)


async def favicon(request: web.Request) -> web.Response:
    """Keep browsers quiet."""
    del request
    return web.Response(status=204)


async def to_front(request: web.Request) -> web.Response:
    """Redirect `/upstream`, which names no model; llama-swap sends it to its UI's model list."""
    del request
    raise web.HTTPFound("/")


async def not_yet(request: web.Request) -> web.Response:
    """Refuse what llama-swap has and llmswap does not have yet."""
    raise RequestError(404, f"{request.rel_url.raw_path[:200]} is not available yet in llmswap", "not_available_yet")


async def nothing_here(request: web.Request) -> web.Response:
    """Say that a path, or a method on it, is not served."""
    allowed: set[str] = set()
    for resource in request.app.router.resources():
        if resource is not request.match_info.route.resource:
            allowed |= (await resource.resolve(request))[1]
    if not allowed:
        raise RequestError(404, "there is nothing at this path")
    allow = ", ".join(sorted(allowed))
    raise RequestError(405, f"{request.method} is not allowed here, only {allow}", headers={"Allow": allow})
