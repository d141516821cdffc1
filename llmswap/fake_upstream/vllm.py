"""vLLM's own routes: sleep and wake (with VLLM_SERVER_DEV_MODE=1), version, load, tokenizer."""

import asyncio
import os

from aiohttp import web

from llmswap.fake_upstream.dialect import conversation, text_of
from llmswap.fake_upstream.engine import Refused
from llmswap.fake_upstream.sleeping import Sleeper, SleepFailed
from llmswap.fake_upstream.state import FAKE, json_response, read_json
from llmswap.fake_upstream.tokens import token_id, tokenize

VERSION = "0.33.0"
MODES = ("abort", "wait", "keep")
SLEEPER: web.AppKey[Sleeper] = web.AppKey("sleeper", Sleeper)
LAST_WORDS_S = 0.02  # real time, for the answer to leave before the process does


def add_routes(app: web.Application) -> None:
    """Add them to an application that has its FAKE."""
    fake = app[FAKE]
    app[SLEEPER] = Sleeper(fake.engine)
    add = app.router.add_route
    add("GET", "/version", version)
    add("GET", "/load", load)
    add("POST", "/tokenize", tokens)
    if fake.options.dev_mode:
        add("POST", "/sleep", sleep)
        add("POST", "/wake_up", wake_up)
        add("GET", "/is_sleeping", is_sleeping)
        add("POST", "/collective_rpc", collective_rpc)
        for cache in ("prefix", "mm", "encoder"):
            add("POST", f"/reset_{cache}_cache", reset_cache)


async def version(request: web.Request) -> web.Response:
    """Give the version whose contract is simulated."""
    del request
    return json_response({"version": VERSION})


async def load(request: web.Request) -> web.Response:
    """Give the number of requests at work."""
    engine = request.app[FAKE].engine
    return json_response({"server_load": engine.running + len(engine.waiting) + engine.parked})


async def tokens(request: web.Request) -> web.Response:
    """Tokenize a prompt or a conversation."""
    body = await read_json(request)
    text = conversation(body["messages"]) if "messages" in body else text_of(body.get("prompt"))
    pieces = tokenize(text)
    context = request.app[FAKE].options.context_tokens
    ids = [token_id(piece) for piece in pieces]
    return json_response({"count": len(ids), "max_model_len": context, "tokens": ids, "token_strs": None})


async def sleep(request: web.Request) -> web.Response:
    """Fall asleep; reads the query only, as the real one does."""
    level, mode = request.query.get("level", "1"), request.query.get("mode", "abort")
    if level not in ("0", "1", "2") or mode not in MODES:
        raise Refused(400, f"level must be 0, 1 or 2 and mode one of {', '.join(MODES)}; got {level!r}, {mode!r}")
    try:
        await request.app[SLEEPER].sleep(int(level), mode)
    except SleepFailed as error:
        raise Refused(500, str(error)) from error
    if request.app[FAKE].faults.fires("sleep_200_die"):
        asyncio.get_running_loop().call_later(LAST_WORDS_S, os._exit, 1)
    return json_response({"status": "sleeping", "level": int(level)})


async def wake_up(request: web.Request) -> web.Response:
    """Wake some tags, or all."""
    tags = request.query.getall("tags", [])
    sleeper = request.app[SLEEPER]
    try:
        await sleeper.wake(frozenset(tags))
    except SleepFailed as error:
        raise Refused(500, str(error)) from error
    return json_response({"status": "sleeping" if sleeper.level is not None else "awake", "tags": tags or None})


async def is_sleeping(request: web.Request) -> web.Response:
    """True at every level, and after a partial wake."""
    return json_response({"is_sleeping": request.app[SLEEPER].level is not None})


async def collective_rpc(request: web.Request) -> web.Response:
    """Call a method on every worker; of all of them, `reload_weights` does something."""
    method = (await read_json(request)).get("method")
    if not isinstance(method, str):
        raise Refused(400, "missing 'method' in the request body")
    if method == "reload_weights":
        try:
            await request.app[SLEEPER].reload_weights()
        except SleepFailed as error:
            raise Refused(500, str(error)) from error
    return json_response({"results": [None]})


async def reset_cache(request: web.Request) -> web.Response:
    """Empty a cache."""
    request.app[FAKE].engine.cache.clear()
    return json_response({"success": True})
