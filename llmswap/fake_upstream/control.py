"""What only tests need: look inside and turn knobs (`/_fake/*`), echo, big bodies, websockets."""

import hashlib
import os
from dataclasses import asdict

from aiohttp import WSMsgType, web

from llmswap.fake_upstream.gpus import machine_of
from llmswap.fake_upstream.serve import asked_time_s, before_answer
from llmswap.fake_upstream.sglang import RELEASER
from llmswap.fake_upstream.state import CALL, FAKE, Fake, json_response
from llmswap.fake_upstream.vllm import SLEEPER

CHUNK = bytes(64 * 1024)


def add_routes(app: web.Application) -> None:
    """Add the `/_fake/` routes, and the websocket."""
    add = app.router.add_route
    add("GET", "/_fake/state", show_state)
    add("GET", "/_fake/config", show_config)
    add("PATCH", "/_fake/config", turn_knobs)
    add("GET", "/_fake/fail", show_faults)
    add("POST", "/_fake/fail", arm_fault)
    add("DELETE", "/_fake/fail", clear_faults)
    add("GET", "/_fake/journal", show_journal)
    add("DELETE", "/_fake/journal", clear_journal)
    add("GET", "/_fake/gpus", show_gpus)
    add("GET", "/_fake/bytes", many_bytes)
    add("GET", "/ws", websocket)


async def show_state(request: web.Request) -> web.Response:
    """Give everything there is to know, as JSON."""
    fake = request.app[FAKE]
    engine = fake.engine
    ledger = [asdict(entry) for entry in engine.ledger.entries()] if engine.ledger else None
    return json_response(
        {
            "pid": os.getpid(),
            "persona": fake.options.persona,
            "models": fake.options.models,
            "phase": engine.phase,
            "boot_phase": engine.boot_phase,
            "age_s": engine.age_s(),
            "running": engine.running,
            "waiting": len(engine.waiting),
            "parked": engine.parked,
            **_sleep_state(request.app),
            "garbage": engine.garbage or engine.weights_lost,
            "gpus": fake.options.gpus,
            "gpu_gib": engine.held_gib,
            "host_gib": engine.host_gib,
            "ledger": ledger,
            "totals": {
                "prompt_tokens": engine.metrics.prompt_tokens,
                "cached_tokens": engine.metrics.cached_tokens,
                "output_tokens": engine.metrics.output_tokens,
                "finished": dict(engine.metrics.finished_by_reason),
            },
        }
    )


def _sleep_state(app: web.Application) -> dict[str, object]:
    sleeper = app.get(SLEEPER)
    dozer = sleeper or app.get(RELEASER)
    return {
        "paused": dozer is not None and dozer.paused,
        "sleep_level": sleeper.level if sleeper else None,
        "asleep_tags": sorted(dozer.asleep) if dozer else [],
    }


def _config(fake: Fake) -> web.Response:
    return json_response(asdict(fake.knobs))


async def show_config(request: web.Request) -> web.Response:
    """Give the knobs."""
    return _config(request.app[FAKE])


async def turn_knobs(request: web.Request) -> web.Response:
    """Turn some knobs: a JSON object of knob -> value. All or none are turned."""
    fake = request.app[FAKE]
    before = asdict(fake.knobs)
    try:
        for name, value in dict(await request.json()).items():
            fake.knobs.turn(name, value)
    except (ValueError, TypeError) as error:
        for name, value in before.items():
            setattr(fake.knobs, name, value)
        return json_response({"error": str(error)}, 400)
    return _config(fake)


def _faults(fake: Fake) -> web.Response:
    return json_response([{"fail": fault.text, "occasions": fault.occasions} for fault in fake.faults.armed])


async def show_faults(request: web.Request) -> web.Response:
    """Give what is armed, and how many occasions each has had."""
    return _faults(request.app[FAKE])


async def arm_fault(request: web.Request) -> web.Response:
    """Arm `{"fail": "NAME[:arg][@nth]"}`; `@1` means the next occasion only."""
    fake = request.app[FAKE]
    try:
        fake.faults.arm(str((await request.json())["fail"]))
    except (ValueError, TypeError, KeyError) as error:
        return json_response({"error": str(error)}, 400)
    return _faults(fake)


async def clear_faults(request: web.Request) -> web.Response:
    """Disarm everything."""
    request.app[FAKE].faults.clear()
    return _faults(request.app[FAKE])


async def show_gpus(request: web.Request) -> web.Response:
    """Give the whole ledger in bytes, by GPU and process; 404 without one."""
    ledger = request.app[FAKE].engine.ledger
    if ledger is None:
        return json_response({"error": "it was started without --gpu-ledger"}, 404)
    return json_response(asdict(machine_of(ledger.book())))


async def show_journal(request: web.Request) -> web.Response:
    """Give the calls received and the operations gone through, oldest first."""
    return json_response(request.app[FAKE].journal.show())


async def clear_journal(request: web.Request) -> web.Response:
    """Forget them."""
    request.app[FAKE].journal.clear()
    return await show_journal(request)


async def many_bytes(request: web.Request) -> web.StreamResponse:
    """Send `n` zero bytes, with their length, or chunked with `chunked=1`."""
    left = int(request.query.get("n", "0"))
    response = web.StreamResponse(headers={"Content-Type": "application/octet-stream"})
    if request.query.get("chunked"):
        response.enable_chunked_encoding()
    else:
        response.content_length = left
    await response.prepare(request)
    while left > 0:
        await response.write(CHUNK[:left])
        left -= len(CHUNK)
    await response.write_eof()
    return response


async def websocket(request: web.Request) -> web.WebSocketResponse:
    """Echo every message; `close:CODE` as text closes with that code."""
    socket = web.WebSocketResponse(max_msg_size=0)
    await socket.prepare(request)
    async for message in socket:
        if message.type is WSMsgType.TEXT and message.data.startswith("close:"):
            await socket.close(code=int(message.data.removeprefix("close:")), message=b"as asked")
        elif message.type is WSMsgType.TEXT:
            await socket.send_str(message.data)
        elif message.type is WSMsgType.BINARY:
            await socket.send_bytes(message.data)
    return socket


async def echo(request: web.Request) -> web.StreamResponse:
    """Say what came: method, raw path, headers in order, length and digest of the body as it was on the wire."""
    call, digest = request[CALL], hashlib.sha256()
    async for piece in request.content.iter_any():
        call.body_bytes += len(piece)
        digest.update(piece)
    if refusal := await before_answer(request):
        return refusal
    if takes_s := asked_time_s(request):
        engine = request.app[FAKE].engine
        async with engine.slot():
            await engine.spend(takes_s)
    return json_response(
        {
            "method": request.method,
            "path": request.raw_path,
            "headers": call.headers,
            "body_bytes": call.body_bytes,
            "body_sha256": digest.hexdigest(),
        }
    )
