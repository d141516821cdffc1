"""Is it up, and does it get anywhere? /health says only that the process answers; /ready looks at the scheduler."""

import asyncio
import time
from collections.abc import AsyncIterator

import orjson
from aiohttp import web

from llmswap.proxy.context import CONTEXT, Context
from llmswap.proxy.request_keys import IS_ADMIN

BEAT_S = 1.0
LAG_MAX_S = 10.0
OVERDUE_GRACE_S = 1.0  # a queue timeout fires a little after its time


class Heartbeat:
    """Measures how late the event loop runs what is due."""

    def __init__(self) -> None:
        self._due_s = 0.0
        self._last_lag_s = 0.0
        self._timer: asyncio.TimerHandle | None = None

    def start(self) -> None:
        """Begin to beat."""
        self._due_s = time.monotonic() + BEAT_S
        self._timer = asyncio.get_running_loop().call_at(self._due_s, self._beat)

    def stop(self) -> None:
        """Stop beating."""
        if self._timer is not None:
            self._timer.cancel()

    def _beat(self) -> None:
        self._last_lag_s = time.monotonic() - self._due_s
        self.start()

    @property
    def lag_s(self) -> float:
        """How late the last beat was, or the coming one already is."""
        return max(self._last_lag_s, time.monotonic() - self._due_s)


HEARTBEAT: web.AppKey[Heartbeat] = web.AppKey("llmswap.heartbeat", Heartbeat)


async def beating(app: web.Application) -> AsyncIterator[None]:
    """Keep the heart beating while the application runs."""
    app[HEARTBEAT].start()
    yield
    app[HEARTBEAT].stop()


async def health(request: web.Request) -> web.Response:
    """Say that the process answers."""
    del request
    return web.Response(text="OK")


async def ready(request: web.Request) -> web.Response:
    """Say whether requests get anywhere: 200, or 503 with the reasons. Models are named to admins only."""
    reasons = _reasons(request.app[CONTEXT], request.app[HEARTBEAT].lag_s, named=request[IS_ADMIN])
    body = orjson.dumps({"ready": not reasons, "reasons": reasons})
    return web.Response(status=503 if reasons else 200, body=body, content_type="application/json")


def _reasons(context: Context, lag_s: float, *, named: bool) -> list[str]:
    if context.loop.dead is not None:
        return ["the scheduler has failed and llmswap is stopping"]
    reasons = []
    snapshot = context.loop.snapshot()
    if snapshot.draining:
        reasons.append("shutting down")
    if lag_s > LAG_MAX_S:
        reasons.append(f"the event loop was blocked for {lag_s:.0f} s")
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
