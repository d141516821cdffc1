"""The URL table: every route, with the scope it asks for and who answers it."""

from collections.abc import Iterator

from aiohttp import web

from llmswap.proxy import (
    admin,
    health,
    inference,
    logs,
    models,
    pages,
    passthrough,
    performance,
    queue,
    scraping,
    sleep_orders,
)
from llmswap.proxy.context import CONTEXT, Context
from llmswap.proxy.dialects import Dialect
from llmswap.proxy.door import Door, Route, Scope
from llmswap.proxy.finished import FINISHED, Finished

DOOR: web.AppKey[Door] = web.AppKey("llmswap.door", Door)

# Routes whose body names the model.
_BODY_PATHS = (
    "/v1/chat/completions",
    "/v1/responses",
    "/v1/completions",
    "/v1/messages",
    "/v1/messages/count_tokens",
    "/v1/embeddings",
    "/reranking",
    "/rerank",
    "/v1/rerank",
    "/v1/reranking",
    "/infill",
    "/completion",
    "/v1/audio/speech",
    "/v1/audio/voices",
    "/v1/audio/transcriptions",
    "/v1/images/generations",
    "/v1/images/edits",
    "/sdapi/v1/txt2img",
    "/sdapi/v1/img2img",
    "/audioapi/v1/tasks/run",
    "/v/chat/completions",
    "/v/responses",
    "/v/completions",
    "/v/messages",
    "/v/messages/count_tokens",
    "/v/embeddings",
    "/v/rerank",
    "/v/reranking",
)
_ANTHROPIC_PATHS = ("/v1/messages", "/v1/messages/count_tokens", "/v/messages", "/v/messages/count_tokens")

# Routes whose query names the model.
_QUERY_PATHS = ("/v1/audio/voices", "/sdapi/v1/loras", "/props")

# llama-swap has them, llmswap does not yet.
_NOT_YET_PATHS = (
    "/ui",
    "/ui/{rest:.*}",
    "/api/events",
    "/api/metrics/{rest:.*}",
    "/api/captures/{id}",
    "/api/profiles",
    "/api/profiles/active",
    "/comfyui",
    "/comfyui/{rest:.*}",
)

_FIXED = (
    Route("GET", "/", Scope.OPEN, pages.front),
    Route("GET", "/favicon.ico", Scope.OPEN, pages.favicon),
    Route("GET", "/health", Scope.OPEN, health.health),
    Route("GET", "/wol-health", Scope.OPEN, health.health),
    Route("GET", "/ready", Scope.OPEN, health.ready),
    Route("GET", "/v1/models", Scope.INFERENCE, models.list_models),
    Route("GET", "/models", Scope.INFERENCE, models.list_models),
    Route("GET", "/v1/models/{id:.+}", Scope.INFERENCE, models.one_model),
    Route("GET", "/metrics", Scope.METRICS, admin.metrics),
    Route("GET", "/sd/prometheus", Scope.METRICS, scraping.targets),
    Route("GET", "/upstream-metrics/{model:.+}", Scope.METRICS, scraping.scrape),
    Route("GET", "/running", Scope.READ, admin.running),
    Route("GET", "/api/status", Scope.READ, admin.status),
    Route("GET", "/api/queue", Scope.READ, queue.queue),
    Route("GET", "/api/version", Scope.READ, admin.version),
    Route("GET", "/api/hardware", Scope.READ, performance.hardware),
    Route("GET", "/api/performance", Scope.READ, performance.performance),
    Route("GET", "/logs", Scope.ADMIN, logs.history),
    Route("GET", "/logs/stream", Scope.ADMIN, logs.stream, acts=True),
    Route("GET", "/logs/stream/{id:.*}", Scope.ADMIN, logs.stream, acts=True),
    Route("GET", "/unload", Scope.ADMIN, admin.unload_all, acts=True),
    Route("POST", "/api/models/unload", Scope.ADMIN, admin.unload_all),
    Route("POST", "/api/models/unload/{model:.+}", Scope.ADMIN, admin.unload_one),
    Route("POST", "/api/models/sleep/{model:.+}", Scope.ADMIN, sleep_orders.sleep),
    Route("POST", "/api/models/wake/{model:.+}", Scope.ADMIN, sleep_orders.wake),
    Route("POST", "/api/inflight/{id}/cancel", Scope.ADMIN, admin.cancel),
    Route("GET", "/upstream", Scope.OPEN, pages.to_front),
    Route("*", "/upstream/{rest:.*}", Scope.ADMIN, passthrough.upstream, for_model=True, takes_body=True),
    # All the rest. Last, because aiohttp answers what no route matches in its own way, 100-continue included.
    Route("*", "/{rest:.*}", Scope.OPEN, pages.nothing_here),
)


def table() -> Iterator[Route]:
    """Give every line of the table."""
    yield from _FIXED
    for path in _BODY_PATHS:
        dialect = Dialect.ANTHROPIC if path in _ANTHROPIC_PATHS else Dialect.OPENAI
        yield Route("POST", path, Scope.INFERENCE, inference.infer, for_model=True, takes_body=True, dialect=dialect)
    for path in _QUERY_PATHS:
        yield Route("GET", path, Scope.INFERENCE, inference.infer_by_query, acts=True, for_model=True)
    for path in _NOT_YET_PATHS:
        yield Route("*", path, Scope.READ, pages.not_yet)


def build_app(context: Context) -> web.Application:
    """Put the HTTP surface together."""
    app = web.Application()
    app[CONTEXT] = context
    app[FINISHED] = Finished(context)
    routes: dict[web.AbstractRoute, Route] = {}
    for line in sorted(table(), key=lambda line: line.path):  # methods of one path side by side share a resource
        resource = app.router.add_resource(line.path)
        routes[resource.add_route(line.method, line.handler, expect_handler=_expect_later)] = line
        if line.method == "GET" and not line.acts:
            routes[resource.add_route("HEAD", line.handler, expect_handler=_expect_later)] = line
    door = Door(context, routes)
    app[DOOR] = door
    app.middlewares.append(door.enter)
    app.on_response_prepare.extend((door.leave, passthrough.seal))
    app.cleanup_ctx.append(health.beating)
    app.on_startup.append(_refuse_undeclared)
    app.on_shutdown.append(_end_log_streams)
    app.on_cleanup.append(_tell_the_last)
    return app


async def _expect_later(request: web.Request) -> None:
    """Leave `Expect: 100-continue` to the door, which first checks whether the body is wanted."""
    del request


async def _end_log_streams(app: web.Application) -> None:
    """Let those who follow a log reach its end, so that nobody has to be cut off."""
    app[CONTEXT].logs.end()


async def _tell_the_last(app: web.Application) -> None:
    app[FINISHED].flush()


async def _refuse_undeclared(app: web.Application) -> None:
    """Fail the start if a route was added without a declared scope."""
    for route in app.router.routes():
        if not app[DOOR].knows(route):
            raise RuntimeError(f"route {route.method} {route.get_info()} has no declared scope: add it to the table")
