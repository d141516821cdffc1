"""What an operator asks and orders: what runs, stop this, cancel that."""

import math
import time
from collections.abc import Mapping
from typing import Any
from urllib.parse import urlsplit

import orjson
from aiohttp import web

from llmswap import __version__
from llmswap.config.settings import PORT_MACRO, Launch
from llmswap.core.events import Generation, UnloadRequested
from llmswap.core.fleet import ModelId
from llmswap.core.snapshot import Snapshot, UpstreamView
from llmswap.core.states import HOLDING, State
from llmswap.core.upstreams import UNBORN
from llmswap.proxy.context import CONTEXT, Context
from llmswap.proxy.errors import RequestError
from llmswap.proxy.finished import FINISHED
from llmswap.proxy.models import UNLOADED
from llmswap.runtime.footprints import Seen
from llmswap.runtime.redaction import redact_command

STOP_MARGIN_S = 10.0  # beyond the grace: kill, sweep, reap


def as_json(data: Mapping[str, Any], status: int = 200) -> web.Response:
    """Answer with JSON."""
    return web.Response(status=status, body=orjson.dumps(data), content_type="application/json")


async def running(request: web.Request) -> web.Response:
    """List every upstream that is not stopped; secrets in commands are hidden."""
    context = request.app[CONTEXT]
    upstreams = context.loop.snapshot().upstreams
    views = [view for view in upstreams.values() if view.state not in UNLOADED]
    views.sort(key=lambda view: view.model.encode())
    return as_json({"running": [_running(context, view) for view in views]})


def _running(context: Context, view: UpstreamView) -> dict[str, Any]:
    entry: dict[str, Any] = {"model": view.model, "state": view.state, "cmd": "", "proxy": "", "ttl": 0}
    settings = context.loaded.settings.models.get(view.model)
    if settings is None:  # removed by a reload, still draining
        return entry | {"name": "", "description": ""}
    launch = _at_its_port(settings.launch, context.gate.shown_url(view.model))
    model = context.loaded.fleet.models[view.model]
    entry["cmd"] = context.logs.hide(redact_command(launch.cmd))
    entry["proxy"] = launch.proxy
    entry["ttl"] = math.ceil(model.idle_ttl_s or 0)
    return entry | {"name": settings.name, "description": settings.description}


def _at_its_port(launch: Launch, url: str | None) -> Launch:
    """Fill in the port: the one in use, as far as that is known, else the configured one."""
    port = urlsplit(url).port if url is not None and PORT_MACRO in launch.proxy else launch.port
    return launch if port is None else launch.at_port(port)


async def status(request: web.Request) -> web.Response:
    """Give everything `llmswap status` shows."""
    context = request.app[CONTEXT]
    snapshot = context.loop.snapshot()
    now_s = time.monotonic()
    swaps = [{"target": swap.target, "waiting_for": list(swap.waiting_for)} for swap in snapshot.swaps]
    held = context.footprints()
    models = [_status(context, view, now_s, held.get(view.model, {})) for view in snapshot.upstreams.values()]
    return as_json({"version": __version__, "draining": snapshot.draining, "models": models, "swaps": swaps})


def _status(context: Context, view: UpstreamView, now_s: float, held: Mapping[State, Seen]) -> dict[str, Any]:
    model = context.loaded.fleet.models.get(view.model)
    idle_since_s = view.idle_since_s if view.rests_since_s is None else view.rests_since_s
    sleep_after_s = model.sleep_after_s if model is not None and view.rests_since_s is None else None
    return {
        "model": view.model,
        "state": view.state,
        "generation": view.generation,
        "in_flight": view.in_flight,
        "waiting": view.waiting,
        "since_s": None if view.generation == UNBORN else max(0.0, now_s - view.since_s),
        "oldest_wait_s": None if view.oldest_waiting_s is None else max(0.0, now_s - view.oldest_waiting_s),
        "failure": view.failure,
        "retry_in_s": None if view.retry_at_s is None else max(0.0, view.retry_at_s - now_s),
        "ttl_left_s": _left_s(idle_since_s, None if model is None else model.idle_ttl_s, now_s),
        "stuck": view.stuck,
        "sleeps": model is not None and model.sleeps,
        "sleep_left_s": _left_s(idle_since_s, sleep_after_s, now_s),
        "sleep_failure": view.sleep_failure,
        "memory": {state.value: _memory(seen) for state, seen in held.items()},
    }


def _left_s(since_s: float | None, limit_s: float | None, now_s: float) -> float | None:
    return None if since_s is None or limit_s is None else max(0.0, since_s + limit_s - now_s)


def _memory(seen: Seen) -> dict[str, Any]:
    return {
        "gpu_bytes": None if seen.problem and not seen.by_gpu else sum(seen.by_gpu.values()),
        "by_gpu": dict(seen.by_gpu),
        "host_bytes": seen.host_bytes,
        "problem": seen.problem or None,
    }


async def unload_all(request: web.Request) -> web.Response:
    """Stop every upstream; answers when they are gone."""
    await _unload(request.app[CONTEXT], ())
    return web.Response(text="OK") if request.method == "GET" else as_json({"msg": "ok"})


async def unload_one(request: web.Request) -> web.Response:
    """Stop one upstream, by model id or alias; answers when it is gone."""
    context = request.app[CONTEXT]
    model = context.loaded.fleet.resolve(request.match_info["model"])
    if model is None:
        raise RequestError(404, "model not found", "model_not_found")
    await _unload(context, (model,))
    return web.Response(text="OK")


async def _unload(context: Context, models: tuple[ModelId, ...]) -> None:
    """Order the stop and wait for it.

    Raises:
        RequestError: 504, some are still there after their grace and a margin.
    """
    upstreams = context.loop.snapshot().upstreams
    going = {
        view.model: view.generation
        for view in upstreams.values()
        if view.state in HOLDING and (not models or view.model in models)
    }
    context.loop.post(UnloadRequested(models))
    known = context.loaded.settings.models
    grace_s = max((known[model].launch.stop_grace_s for model in going if model in known), default=0.0)
    limit_s = grace_s + context.loaded.settings.memory.cap_s + STOP_MARGIN_S
    if not await context.loop.wait_for(lambda now: not _still_there(now, going), limit_s):
        left = _still_there(context.loop.snapshot(), going)
        names = sorted(f"{view.model} ({view.failure})" if view.stuck else view.model for view in left)
        raise RequestError(504, f"ordered to stop, but still there: {', '.join(names)}", "stop_timeout")


def _still_there(snapshot: Snapshot, going: Mapping[ModelId, Generation]) -> list[UpstreamView]:
    """Of these lives of upstreams, those that have not ended; a later life of the same model is another matter."""
    views = (snapshot.upstreams.get(model) for model in going)
    return [view for view in views if view and view.state in HOLDING and view.generation == going[view.model]]


async def cancel(request: web.Request) -> web.Response:
    """Break off one request that is being served or waits."""
    number = request.match_info["id"]
    if not number.isdecimal() or not request.app[CONTEXT].in_flight.cancel(int(number)):
        raise RequestError(404, "no request with this id is in flight")
    return as_json({"msg": "ok"})


async def metrics(request: web.Request) -> web.Response:
    """Give the Prometheus exposition, of every answer that has been given."""
    request.app[FINISHED].flush()
    body, content_type = await request.app[CONTEXT].metrics(request.headers.get("Accept", ""))
    return web.Response(body=body, headers={"Content-Type": content_type})


async def version(request: web.Request) -> web.Response:
    """Say which llmswap this is, in llama-swap's form."""
    del request
    return as_json({"version": __version__, "commit": "", "build_date": ""})
