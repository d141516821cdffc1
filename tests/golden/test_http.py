"""Golden rows of the HTTP surface: keys, preflight, errors, the model list, unload, logs, cancel."""

import asyncio
import base64
import time

import aiohttp
import pytest

from llmswap.config.settings import AccessSettings
from tests.dialogue import ask as chat
from tests.dialogue import listening
from tests.proxy.front import KEY, ask, front
from tests.stack import Stack, fake, until


async def test_g046_health_is_open_and_the_rest_asks_for_a_key(stack: Stack, http: aiohttp.ClientSession) -> None:
    program = stack.start({"apiKeys": [KEY], "models": {"m1": {"cmd": fake("m1")}}})
    async with http.get(program.url + "/health") as answer:
        assert (answer.status, await answer.text()) == (200, "OK")
    for path in ("/ui/", "/metrics", "/running", "/logs", "/v1/models", "/upstream/m1/", "/api/version"):
        async with http.get(program.url + path) as answer:
            assert answer.status == 401, path
            assert answer.headers["WWW-Authenticate"] == 'Basic realm="llmswap"'
            body = await answer.json()
            assert body["error"]["type"] == "authentication_error"
            assert body["error"]["message"] == "unauthorized: invalid or missing API key"
    async with http.get(program.url + "/running", headers={"Authorization": f"Bearer {KEY}"}) as answer:
        assert answer.status == 200


@pytest.mark.parametrize(
    "headers",
    [
        {"Authorization": f"bearer {KEY}"},
        {"Authorization": f"BEARER {KEY}"},
        {"Authorization": "bAsIc " + base64.b64encode(f"anybody:{KEY}".encode()).decode()},
        {"x-api-key": KEY},
        {"Authorization": "Basic @@@", "x-api-key": KEY},
    ],
)
async def test_g047_a_key_may_come_in_several_ways(headers: dict[str, str]) -> None:
    async with front(access=AccessSettings(api_keys=("another", KEY))) as served:
        assert (await ask(served, "GET", "/v1/models", headers)).status == 200


async def test_g048_preflight_needs_no_key_and_filters_the_headers_it_allows() -> None:
    """Ours: permissions only for origins in `allowedOrigins`, never `*`."""
    origin = {"Origin": "https://chat.example"}
    async with front(access=AccessSettings(api_keys=(KEY,), allowed_origins=("https://chat.example",))) as served:
        for path in ("/v1/chat/completions", "/running", "/nowhere", "/upstream/m1/x"):
            answer = await ask(served, "OPTIONS", path, origin)
            assert answer.status == 204
            assert answer.headers["access-control-allow-origin"] == "https://chat.example"
            assert answer.headers["access-control-allow-methods"] == "GET, POST, PUT, PATCH, DELETE, OPTIONS"
            assert answer.headers["access-control-max-age"] == "86400"
        for requested, allowed in (
            (None, "Content-Type, Authorization, Accept, X-Requested-With"),
            ("Valid, Bad Header", "Valid"),
            ("Bad@Header", ""),
            ("x-a,X-B", "x-a, X-B"),
        ):
            asked = {} if requested is None else {"Access-Control-Request-Headers": requested}
            answer = await ask(served, "OPTIONS", "/v1/models", origin | asked)
            assert answer.headers["access-control-allow-headers"] == allowed


async def test_g057_a_wrong_method_is_405_and_get_answers_head() -> None:
    async with front() as served:
        wrong = await ask(served, "GET", "/v1/chat/completions")
        assert (wrong.status, wrong.headers["allow"]) == (405, "POST")
        assert (await ask(served, "HEAD", "/v1/models")).status == 200


async def test_g066_the_model_list(stack: Stack, http: aiohttp.ClientSession) -> None:
    """Ours: an Origin is named back only if it is in `allowedOrigins`."""
    models = {
        "m1": {
            "cmd": fake("m1", boot=60),
            "aliases": ["other"],
            "metadata": {"note": "kept", "context_length": 1},
            "capabilities": {"in": ["text"], "out": ["text"], "tools": True, "context": 4096},
        },
        "m2": {"cmd": fake("m2"), "metadata": {"context_length": 1}},
        "hidden": {"cmd": fake("hidden"), "unlisted": True, "aliases": ["hidden-alias"]},
    }
    program = stack.start({"includeAliasesInList": True, "allowedOrigins": ["https://chat.example"], "models": models})
    waiting = asyncio.create_task(chat(http, program, "m1"))
    await program.until_state("m1", "starting")
    async with http.get(program.url + "/v1/models", headers={"Origin": "https://chat.example"}) as answer:
        assert answer.headers["Access-Control-Allow-Origin"] == "https://chat.example"
        data = {record["id"]: record for record in (await answer.json())["data"]}
    async with http.get(program.url + "/models", headers={"Origin": "https://evil.example"}) as answer:
        assert "Access-Control-Allow-Origin" not in answer.headers
    assert list(data) == ["m1", "m2", "other"]
    assert [record["status"]["value"] for record in data.values()] == ["loaded", "unloaded", "loaded"]
    assert data["m1"]["meta"] == {"llamaswap": {"note": "kept", "type": "model", "aliases": ["other"]}, "n_ctx": 4096}
    assert data["m1"]["context_length"] == 4096
    assert data["m2"]["meta"]["llamaswap"] == {"context_length": 1, "type": "model"}
    assert data["other"]["meta"]["llamaswap"]["modelID"] == "m1"
    program.terminate()
    assert (await waiting)[0] == 503


async def test_g069_unload_by_slash_id_and_by_alias(stack: Stack, http: aiohttp.ClientSession) -> None:
    models = {"author/model": {"cmd": fake("author/model"), "aliases": ["short"]}}
    program = stack.start({"models": models})
    for name in ("author/model", "short"):
        assert (await chat(http, program, "author/model"))[0] == 200
        async with http.post(f"{program.url}/api/models/unload/{name}") as answer:
            assert (answer.status, await answer.text()) == (200, "OK")
        assert await program.running() == {}
    async with http.post(program.url + "/api/models/unload/nope") as answer:
        assert answer.status == 404
        assert (await answer.json())["error"]["message"] == "model not found"


async def test_g070_log_streams(stack: Stack, http: aiohttp.ClientSession) -> None:
    program = stack.start({"logToStdout": "both", "models": {"author/model": {"cmd": fake("author/model")}}})
    assert (await chat(http, program, "author/model"))[0] == 200
    async with http.get(program.url + "/logs") as answer:
        assert "author/model: ready" in await answer.text()
    async with http.get(program.url + "/logs/stream/author/model") as history:
        said = await asyncio.wait_for(history.content.readany(), 5)
        assert said
    async with http.get(program.url + "/logs/stream/proxy?no-history") as news:
        async with http.post(program.url + "/api/models/unload") as answer:
            assert answer.status == 200
        said = b""
        while b"author/model: stopped" not in said:
            said += await asyncio.wait_for(news.content.readany(), 5)
        assert b"ready" not in said
    async with http.get(program.url + "/logs/stream/nope") as answer:
        assert answer.status == 400
    html = {"Accept": "text/html"}
    async with http.get(program.url + "/logs", headers=html, allow_redirects=False) as answer:
        assert answer.status == 302


async def test_g072_a_request_in_flight_can_be_cancelled(stack: Stack, http: aiohttp.ClientSession) -> None:
    program = stack.start({"models": {"m1": {"cmd": fake("m1", itl=50, output_tokens="exact:500")}}})
    async with listening(http, program, "m1") as stream:
        await stream.hear(1)
        async with http.post(program.url + "/api/inflight/1/cancel") as answer:
            assert (answer.status, await answer.json()) == (200, {"msg": "ok"})
        with pytest.raises(aiohttp.ClientPayloadError):
            await stream.hear_out()
        assert not stream.complete

    async def over() -> bool:
        return not any(one["in_flight"] for one in await status(http, program.url))

    await until(over, "the row is gone")
    for number in ("1", "99", "x"):
        async with http.post(f"{program.url}/api/inflight/{number}/cancel") as answer:
            assert answer.status == 404


async def status(http: aiohttp.ClientSession, url: str) -> list[dict[str, object]]:
    async with http.get(url + "/api/status") as answer:
        models: list[dict[str, object]] = (await answer.json())["models"]
        return models


async def test_g090_unload_all_gives_each_its_own_grace(stack: Stack, http: aiohttp.ClientSession) -> None:
    """Ours: all at once instead of group after group, so the longest grace is the whole wait."""
    models = {
        name: {"cmd": fake(name, ignore_sigterm=True), "unloadTimeout": grace_s}
        for name, grace_s in (("quick", 1), ("slow", 2), ("slow2", 2))
    }
    groups = {"all": {"swap": False, "exclusive": False, "members": list(models)}}
    program = stack.start({"models": models, "groups": groups})
    for name in models:
        assert (await chat(http, program, name))[0] == 200
    began_s = time.monotonic()

    async def unload() -> tuple[int, str]:
        async with http.get(program.url + "/unload") as answer:
            return answer.status, await answer.text()

    unloading = asyncio.create_task(unload())
    await program.until_state("slow", "stopping")
    assert (await program.running())["slow2"] == "stopping"
    await program.until_state("quick", "stopped")
    assert time.monotonic() - began_s > 0.9
    assert await program.running() == {"slow": "stopping", "slow2": "stopping"}
    assert not unloading.done()
    assert await unloading == (200, "OK")
    assert time.monotonic() - began_s > 1.9
    assert await program.running() == {}
