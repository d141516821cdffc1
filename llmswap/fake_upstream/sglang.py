"""SGLang's own routes: memory release and resume, pausing, health that generates, readiness that does not."""

import asyncio
import hmac
from collections.abc import Awaitable, Callable
from typing import Any

from aiohttp import web

from llmswap.fake_upstream.dozing import exit_soon
from llmswap.fake_upstream.engine import Refused
from llmswap.fake_upstream.releasing import TAGS, Releaser
from llmswap.fake_upstream.serve import hand_over
from llmswap.fake_upstream.state import FAKE, json_response, read_json

VERSION = "0.5.23"
MODES = ("abort", "retract", "in_place")
HEALTH_WAIT_S = 20.0
RELEASER: web.AppKey[Releaser] = web.AppKey("releaser", Releaser)
Handler = Callable[[web.Request], Awaitable[web.StreamResponse]]


def add_routes(app: web.Application) -> None:
    """Add them to an application that has its FAKE."""
    releaser = app[RELEASER] = Releaser(app[FAKE].engine)
    app.on_cleanup.append(lambda _: releaser.close())
    add = app.router.add_route
    add("GET", "/health", health)
    add("GET", "/health_generate", health_generate)
    add("GET", "/ready", ready)
    for path in ("/model_info", "/get_model_info"):
        add("GET", path, model_info)
    for path in ("/server_info", "/get_server_info"):
        add("GET", path, server_info)
    for method in ("GET", "POST"):
        add(method, "/release_memory_occupation", _guarded(release))
        add(method, "/resume_memory_occupation", _guarded(resume))
        add(method, "/flush_cache", _guarded(flush_cache))
    add("POST", "/pause_generation", _guarded(pause))
    add("POST", "/continue_generation", _guarded(carry_on))
    add("POST", "/update_weights_from_disk", _guarded(update_weights))


def _guarded(handler: Handler) -> Handler:
    """Ask for the admin key, if there is one."""

    async def handle(request: web.Request) -> web.StreamResponse:
        key = request.app[FAKE].options.admin_key
        given = request.headers.get("Authorization", "").removeprefix("Bearer ")
        if key and not hmac.compare_digest(given.encode(), key.encode()):
            raise Refused(401, "Unauthorized")
        return await handler(request)

    return handle


def _up(request: web.Request) -> bool:
    fake = request.app[FAKE]
    return fake.engine.phase.well and not fake.closing


async def health(request: web.Request) -> web.Response:
    """Say whether it can serve, by generating a token: also on released memory, which is its death."""
    fake = request.app[FAKE]
    if fake.faults.fires("health_hang"):
        await asyncio.Event().wait()
    if not _up(request) or fake.faults.fires("health_503"):
        return web.Response(status=503)
    if not fake.options.health_generates or fake.faults.has("health_lies"):
        return web.Response()
    return await health_generate(request)


async def health_generate(request: web.Request) -> web.Response:
    """Generate one token and say whether that worked within 20 s."""
    engine = request.app[FAKE].engine
    hand_over(request)
    try:
        async with asyncio.timeout(max(0.1, HEALTH_WAIT_S * engine.knobs.time_scale)), engine.slot():
            await engine.spend(engine.knobs.prefill_ms(1) / 1000)
    except TimeoutError:
        return web.Response(status=503)
    return web.Response()


async def ready(request: web.Request) -> web.Response:
    """Say whether it takes requests, without generating."""
    return web.Response(status=200 if _up(request) and not request.app[RELEASER].paused else 503)


async def model_info(request: web.Request) -> web.Response:
    """Give what it serves."""
    options = request.app[FAKE].options
    return json_response({"model_path": options.models[0], "tokenizer_path": options.models[0], "is_generation": True})


async def server_info(request: web.Request) -> web.Response:
    """Give how it was started."""
    options = request.app[FAKE].options
    info = {
        "version": VERSION,
        "model_path": options.models[0],
        "served_model_name": options.models[0],
        "tp_size": len(options.gpus),
        "enable_memory_saver": options.can_free,
        "enable_weights_cpu_backup": options.weights_backup,
    }
    return json_response(info)


async def _tags(request: web.Request) -> frozenset[str]:
    """Read the tags from a body that must be there."""
    tags = (await read_json(request)).get("tags") or []
    if not isinstance(tags, list) or not TAGS.issuperset(tags):
        raise Refused(400, f"tags must be a list of {', '.join(sorted(TAGS))}; got {tags!r}")
    return frozenset(tags)


async def release(request: web.Request) -> web.Response:
    """Release memory."""
    await request.app[RELEASER].release(await _tags(request))
    if request.app[FAKE].faults.fires("sleep_200_die"):
        exit_soon()
    return json_response(None)


async def resume(request: web.Request) -> web.Response:
    """Take memory back."""
    await request.app[RELEASER].resume(await _tags(request))
    return json_response(None)


async def flush_cache(request: web.Request) -> web.Response:
    """Empty the prefix cache, if nothing is at work."""
    fake = request.app[FAKE]
    if fake.faults.fires("sleep_step_500"):
        raise Refused(500, "simulated failure to flush the cache")
    if fake.engine.busy:
        return web.Response(status=400, text="The cache is not flushed: requests are at work.\n")
    fake.engine.cache.clear()
    return web.Response(text="Cache flushed.\n")


async def pause(request: web.Request) -> web.Response:
    """Pause generation."""
    mode = (await read_json(request)).get("mode", "abort")
    if mode not in MODES:
        raise Refused(400, f"mode must be one of {', '.join(MODES)}; got {mode!r}")
    await request.app[RELEASER].pause(mode)
    return json_response({"status": "ok", "message": "Generation is paused."})


async def carry_on(request: web.Request) -> web.Response:
    """Continue generation."""
    await read_json(request)
    request.app[RELEASER].carry_on()
    return json_response({"status": "ok", "message": "Generation goes on."})


async def update_weights(request: web.Request) -> web.Response:
    """Read the weights from disk again."""
    body: dict[str, Any] = await read_json(request)
    if not isinstance(body.get("model_path"), str):
        raise Refused(400, "missing 'model_path' in the request body")
    await request.app[RELEASER].update_weights()
    return json_response({"success": True, "message": "Weights are updated.", "num_paused_requests": 0})
