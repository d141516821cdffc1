"""Is it up, and does it get anywhere? /health says that the event loop runs; /ready looks at the scheduler, too."""

import time
from collections.abc import AsyncIterator

import orjson
from aiohttp import web

from llmswap.proxy.context import CONTEXT, Context
from llmswap.proxy.request_keys import IS_ADMIN

LAG_MAX_S = 10.0
OVERDUE_GRACE_S = 1.0  # a queue timeout fires a little after its time


async def beating(app: web.Application) -> AsyncIterator[None]:
    """Keep the heart beating while the application runs."""
    heartbeat = app[CONTEXT].heartbeat
    heartbeat.start()
    yield
    heartbeat.stop()


async def health(request: web.Request) -> web.Response:
    """Say that the process answers; 503 for a moment after it did not for more than LAG_MAX_S."""
    blocked = _blocked(request.app[CONTEXT].heartbeat.lag_s)
    return web.Response(status=503, text=blocked) if blocked else web.Response(text="OK")


async def ready(request: web.Request) -> web.Response:
    """Say whether requests get anywhere: 200, or 503 with the reasons. Models are named to admins only."""
    reasons = _reasons(request.app[CONTEXT], named=request[IS_ADMIN])
    body = orjson.dumps({"ready": not reasons, "reasons": reasons})
    return web.Response(status=503 if reasons else 200, body=body, content_type="application/json")


def _blocked(lag_s: float) -> str:
    return f"the event loop was blocked for {lag_s:.0f} s" if lag_s > LAG_MAX_S else ""


def _reasons(context: Context, *, named: bool) -> list[str]:
    if context.loop.dead is not None:
        return ["the scheduler has failed and llmswap is stopping"]
    reasons = []
    snapshot = context.loop.snapshot()
    if snapshot.draining:
        reasons.append("shutting down")
    if blocked := _blocked(context.heartbeat.lag_s):
        reasons.append(blocked)
    now_s = time.monotonic()
    for view in snapshot.upstreams.values():
        name = f"upstream {view.model}" if named else "an upstream"
        if view.stuck:
            reasons.append(f"{name} cannot be stopped")
        model = context.loaded.fleet.models.get(view.model)
        if model is None or view.oldest_waiting_s is None:
            continue
        overdue_s = now_s - view.oldest_waiting_s - model.queue_timeout_s
        if overdue_s > OVERDUE_GRACE_S:
            reasons.append(f"a request for {name} waits {overdue_s:.0f} s longer than its queue timeout")
    return reasons
