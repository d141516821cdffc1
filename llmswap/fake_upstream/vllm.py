"""vLLM's own routes: sleep and wake (with VLLM_SERVER_DEV_MODE=1), version, load, tokenizer.

Of the control routes, /server_info and /abort_requests are missing.
"""

import asyncio

from aiohttp import web

from llmswap.fake_upstream.dialect import conversation, text_of
from llmswap.fake_upstream.dozing import exit_soon
from llmswap.fake_upstream.engine import Phase, Refused
from llmswap.fake_upstream.sleeping import Sleeper
from llmswap.fake_upstream.state import FAKE, json_response, read_json
from llmswap.fake_upstream.tokens import token_id, tokenize

MODES = ("abort", "wait", "keep")
SLEEPER: web.AppKey[Sleeper] = web.AppKey("sleeper", Sleeper)


def add_routes(app: web.Application) -> None:
    """Add them to an application that has its FAKE."""
    fake = app[FAKE]
    sleeper = app[SLEEPER] = Sleeper(fake.engine)
    app.on_cleanup.append(lambda _: sleeper.close())
    add = app.router.add_route
    add("GET", "/version", version)
    add("GET", "/load", load)
    add("POST", "/tokenize", tokens)
    if not fake.options.dev_mode:
        return
    add("POST", "/sleep", sleep)
    add("POST", "/wake_up", wake_up)
    add("GET", "/is_sleeping", is_sleeping)
    add("POST", "/collective_rpc", collective_rpc)
    for cache in ("prefix", "mm", "encoder"):
        add("POST", f"/reset_{cache}_cache", reset_cache)
    if not fake.options.old:
        add("POST", "/pause", pause)
        add("POST", "/resume", resume)
        add("GET", "/is_paused", is_paused)
        add("POST", "/release_kv_cache_memory", release_kv_cache_memory)


def _answer(request: web.Request, payload: dict[str, object]) -> web.Response:
    """Give a control route's answer; older versions give an empty one."""
    return web.Response() if request.app[FAKE].options.old else json_response(payload)


async def version(request: web.Request) -> web.Response:
    """Give the version whose contract is simulated."""
    return json_response({"version": request.app[FAKE].options.version})


async def load(request: web.Request) -> web.Response:
    """Give the number of requests at work."""
    engine = request.app[FAKE].engine
    return json_response({"server_load": engine.running + engine.queued})


async def tokens(request: web.Request) -> web.Response:
    """Tokenize a prompt or a conversation."""
    body = await read_json(request)
    text = conversation(body["messages"]) if "messages" in body else text_of(body.get("prompt"))
    pieces = tokenize(text)
    context = request.app[FAKE].options.context_tokens
    ids = [token_id(piece) for piece in pieces]
    return json_response({"count": len(ids), "max_model_len": context, "tokens": ids, "token_strs": None})


def _mode(request: web.Request) -> str:
    """Read the mode; versions that do not know it freeze what is in flight."""
    if request.app[FAKE].options.old:
        return "keep"
    mode = request.query.get("mode", "abort")
    if mode not in MODES:
        raise Refused(400, f"mode must be one of {', '.join(MODES)}; got {mode!r}")
    return mode


async def sleep(request: web.Request) -> web.Response:
    """Fall asleep; reads the query only, as the real one does."""
    level = request.query.get("level", "1")
    if level not in ("0", "1", "2"):
        raise Refused(400, f"level must be 0, 1 or 2; got {level!r}")
    await request.app[SLEEPER].sleep(int(level), _mode(request))
    if request.app[FAKE].faults.fires("sleep_200_die"):
        exit_soon()
    return _answer(request, {"status": "sleeping", "level": int(level)})


async def wake_up(request: web.Request) -> web.Response:
    """Wake some tags, or all."""
    tags = request.query.getall("tags", [])
    sleeper = request.app[SLEEPER]
    await sleeper.wake(frozenset(tags))
    return _answer(request, {"status": "sleeping" if sleeper.is_sleeping else "awake", "tags": tags or None})


async def is_sleeping(request: web.Request) -> web.Response:
    """True at every level, while paused, and after a partial wake; or what a fault makes of it."""
    asleep, fake = request.app[SLEEPER].is_sleeping, request.app[FAKE]
    fault = fake.faults.fires("state_query")
    match fault.word("500") if fault else "":
        case "500" | "404" as status:
            raise Refused(int(status), f"simulated {status}")
        case "hang":
            await asyncio.Event().wait()
        case "shape":
            return json_response({"sleeping": {"weights": asleep}})
        case "lie":
            asleep = not asleep
    if fake.engine.phase is Phase.DEAD:
        raise Refused(500, "EngineCore encountered an issue. See stack trace (above) for the root cause.")
    return json_response({"is_sleeping": asleep})


async def collective_rpc(request: web.Request) -> web.Response:
    """Call a method on every worker; of all of them, `reload_weights` does something."""
    method = (await read_json(request)).get("method")
    if not isinstance(method, str):
        raise Refused(400, "missing 'method' in the request body")
    if method == "reload_weights":
        await request.app[SLEEPER].reload_weights()
    return _answer(request, {"results": [None] * len(request.app[FAKE].options.gpus)})


async def reset_cache(request: web.Request) -> web.Response:
    """Empty a cache."""
    fake = request.app[FAKE]
    if fake.faults.fires("sleep_step_500"):
        raise Refused(500, "simulated failure to reset a cache")
    fake.engine.cache.clear()
    return _answer(request, {"success": True})


async def pause(request: web.Request) -> web.Response:
    """Stop serving."""
    await request.app[SLEEPER].pause(_mode(request))
    return json_response({"status": "paused"})


async def resume(request: web.Request) -> web.Response:
    """Serve again."""
    await request.app[SLEEPER].resume()
    return json_response({"status": "resumed"})


async def is_paused(request: web.Request) -> web.Response:
    """Say whether it is paused."""
    return json_response({"is_paused": request.app[SLEEPER].paused})


async def release_kv_cache_memory(request: web.Request) -> web.Response:
    """Free the KV cache of a paused engine."""
    await request.app[SLEEPER].release_kv_cache()
    return json_response({"status": "kv_cache_released"})
