"""An operator's orders to sleep and to wake: each is answered with what came of it, not with what was asked."""

import time
from functools import partial
from typing import Any

import orjson
from aiohttp import web

from llmswap.config.settings import Launch, Sleeping
from llmswap.core.events import LoadRequested, SleepRequested
from llmswap.core.fleet import ModelId
from llmswap.core.snapshot import Snapshot, UpstreamView
from llmswap.core.states import State
from llmswap.proxy.context import CONTEXT, Context
from llmswap.proxy.dialects import Dialect, error_body
from llmswap.proxy.errors import RequestError
from llmswap.runtime.canary import TIMEOUT_S
from llmswap.runtime.sleeping import AWAKE_TIMEOUT_S

MARGIN_S = 10.0  # beyond all that has a limit of its own: probes, kill, sweep
PLACE_S = 60.0  # for those who must go before a model can be woken

_CANARY_CALLS = 3  # its name, and a completion by each of two routes
_ON_THE_WAY = frozenset({State.STARTING, State.WAKING})
_MAY_WAKE = frozenset({State.READY, State.SLEEP_PENDING, State.ASLEEP, State.WAKING})


async def sleep(request: web.Request) -> web.Response:
    """Put a model to sleep once it is idle; answers when it is verified asleep, or was stopped, or is still busy."""
    context, before = request.app[CONTEXT], _addressed(request)
    launch, sleeping = _way_to_sleep(context, before.model)
    if sleeping is None:
        return _cannot(before)
    if before.state is State.ASLEEP:
        return _told(before)
    if before.state not in (State.READY, State.SLEEP_PENDING):
        return _told(before, 409, "not_ready", f"only a ready model can be put to sleep, and it is {before.state}")
    lapses_s = time.monotonic() + sleeping.drain_s
    context.loop.post(SleepRequested(before.model, lapses_s))
    limit_s = sleeping.drain_s + _sleeping_s(sleeping) + _ending_s(context, launch)
    await context.loop.wait_for(partial(_sleep_ended, before), limit_s)
    return _sleep_answer(before, _view(context.loop.snapshot(), before.model), sleeping)


def _sleep_ended(before: UpstreamView, snapshot: Snapshot) -> bool:
    view = snapshot.upstreams.get(before.model)
    if view is None or snapshot.draining or view.generation != before.generation:
        return True
    if _stayed_up(before, view):
        return not view.sleep_ordered  # it lapsed, or was not accepted
    return view.state not in (State.SLEEP_PENDING, State.STOPPING)


def _stayed_up(before: UpstreamView, view: UpstreamView) -> bool:
    return view.state is State.READY and view.since_s == before.since_s


def _sleep_answer(before: UpstreamView, view: UpstreamView, sleeping: Sleeping) -> web.Response:
    if view.generation == before.generation:
        if view.state is State.ASLEEP:
            return _told(view)
        if _stayed_up(before, view):
            return _still_up(view, sleeping)
        if view.state in (State.WAKING, State.READY):
            return _told(view, 409, "woken", "it fell asleep, and was woken at once for those who wait")
        if view.state in (State.SLEEP_PENDING, State.STOPPING):
            return _told(view, 504, "sleep_timeout", _why(view) or f"it is still {view.state}")
    return _told(view, 502, "sleep_failed", _why(view) or "it was stopped before it slept")


def _still_up(view: UpstreamView, sleeping: Sleeping) -> web.Response:
    if not view.can_sleep:
        reason = view.sleep_failure or "its config has changed, and it is stopped as soon as it is idle"
        return _told(view, 409, "cannot_sleep", f"it cannot sleep: {reason}")
    if view.in_flight:
        return _told(view, 504, "busy", f"still busy after {sleeping.drain_s:g} s; it goes on serving")
    return _told(view, 409, "cannot_sleep", "it cannot sleep now: `sleepers` allows no more")


async def wake(request: web.Request) -> web.Response:
    """Wake a model with nobody waiting for it; answers when it is verified up, by a cold start if the wake failed."""
    context, before = request.app[CONTEXT], _addressed(request)
    launch, sleeping = _way_to_sleep(context, before.model)
    if sleeping is None:
        return _cannot(before)
    if before.state not in _MAY_WAKE:
        reason = f"it is {before.state}, not asleep; a request for it starts it"
        return _told(before, 409, "not_asleep", reason)
    context.loop.post(LoadRequested(before.model))
    limit_s = PLACE_S + _waking_s(sleeping) + _ending_s(context, launch) + launch.ready_timeout_s
    in_time = await context.loop.wait_for(partial(_wake_ended, before.model), limit_s)
    view = _view(context.loop.snapshot(), before.model)
    if view.state is State.READY:
        cold_start = view.generation != before.generation
        return _told(view, reason=view.sleep_failure if cold_start else None, cold_start=cold_start)
    if not in_time:
        return _told(view, 504, "wake_timeout", _why(view) or f"not up after {limit_s:g} s")
    return _told(view, 502, "wake_failed", _why(view) or "it was stopped before it woke")


def _wake_ended(model: ModelId, snapshot: Snapshot) -> bool:
    """Whether it is up, or nobody means to bring it up any more."""
    view = snapshot.upstreams.get(model)
    if view is None or snapshot.draining or view.state is State.READY:
        return True
    return not view.wanted and view.state not in _ON_THE_WAY


def _addressed(request: web.Request) -> UpstreamView:
    """Look at the model that the path names.

    Raises:
        RequestError: 404, there is none; 503, a shutdown has begun.
    """
    context = request.app[CONTEXT]
    model = context.loaded.fleet.resolve(request.match_info["model"])
    if model is None:
        raise RequestError(404, "model not found; GET /v1/models lists those there are", "model_not_found")
    return _view(context.loop.snapshot(), model)


def _view(snapshot: Snapshot, model: ModelId) -> UpstreamView:
    if snapshot.draining:
        raise RequestError(503, "llmswap is shutting down", "draining")
    view = snapshot.upstreams.get(model)
    if view is None:
        raise RequestError(404, f"{model} has just been removed from the config", "model_not_found")
    return view


def _way_to_sleep(context: Context, model: ModelId) -> tuple[Launch, Sleeping | None]:
    launch = context.settings_of(model).launch
    return launch, launch.sleeping


def _sleeping_s(sleeping: Sleeping) -> float:
    """How long falling asleep may take."""
    heard_s = _CANARY_CALLS * TIMEOUT_S if sleeping.canary else 0.0
    return sum(step.timeout_s for step in sleeping.sleep) + heard_s


def _waking_s(sleeping: Sleeping) -> float:
    """How long a wake may take, with the proof that it worked."""
    heard_s = _CANARY_CALLS * TIMEOUT_S if sleeping.warmup or sleeping.canary else 0.0
    return sum(step.timeout_s for step in sleeping.wake) + AWAKE_TIMEOUT_S + heard_s


def _ending_s(context: Context, launch: Launch) -> float:
    """How long it may take until memory is seen to be free, and after a failure until the tree is gone."""
    return 2 * context.loaded.settings.memory.cap_s + launch.stop_grace_s + MARGIN_S


def _why(view: UpstreamView) -> str:
    """Tell what went wrong with the sleep or wake, then with the start that was to make up for it."""
    return "; then: ".join(dict.fromkeys(reason for reason in (view.sleep_failure, view.failure) if reason))


def _cannot(view: UpstreamView) -> web.Response:
    reason = "it has no way to sleep: set `sleepMode: enable` and its endpoints, or a `sleep` preset, in the config"
    return _told(view, 409, "cannot_sleep", reason)


def _told(
    view: UpstreamView,
    status: int = 200,
    code: str | None = None,
    reason: str | None = None,
    *,
    cold_start: bool = False,
) -> web.Response:
    """Say where the model is now; why, if it is not where it was ordered to; and how it came up, if not by waking."""
    body: dict[str, Any] = {"model": view.model, "state": view.state}
    if cold_start:
        body["cold_start"] = True
    if reason:
        body["reason"] = reason
    if status >= 400:
        body |= orjson.loads(error_body(Dialect.OPENAI, status, f"{view.model}: {reason}", code))
    return web.Response(status=status, body=orjson.dumps(body), content_type="application/json")
