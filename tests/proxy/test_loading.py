"""The loading stream: decided after admission, readable by strict clients, over when the answer begins."""

import asyncio
import time
from typing import Any

import aiohttp
import orjson
import pytest
from aiohttp import web

from llmswap.config.load import loads
from llmswap.core.commands import Sleep, Wake
from llmswap.core.events import LoadRequested, SleepRequested, UnloadRequested, UpstreamAsleep, UpstreamReady
from llmswap.core.fleet import ModelId
from llmswap.proxy import loading
from tests.proxy.rig import Rig, model, rig_of, rig_on
from tests.raw import request
from tests.stack import until

CHAT = "/v1/chat/completions"
LOADS = {"send_loading_state": True}
ASK = {"model": "m", "stream": True}


@pytest.fixture(autouse=True)
def quick_ticks(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(loading, "TICK_S", 0.01)


async def sse(_: web.Request) -> web.StreamResponse:
    response = web.StreamResponse(headers={"Content-Type": "text/event-stream"})
    await response.prepare(_)
    await response.write(b'data: {"choices":[{"index":0,"delta":{"content":"hi"},"finish_reason":"stop"}]}\n\n')
    await response.write(b"data: [DONE]\n\n")
    return response


def events(text: str) -> list[Any]:
    blocks = text.split("\n\n")
    assert blocks.pop() == ""
    assert all(block.startswith("data: ") and "\n" not in block for block in blocks), text
    return [block[6:] if block == "data: [DONE]" else orjson.loads(block[6:]) for block in blocks]


def banner(parts: list[Any]) -> str:
    return "".join(
        part["choices"][0]["delta"].get("reasoning_content", "")
        for part in parts
        if isinstance(part, dict) and "choices" in part
    )


async def ask(http: aiohttp.ClientSession, rig: Rig, body: dict[str, Any] = ASK, path: str = CHAT) -> tuple[int, str]:
    async with http.post(rig.url + path, json=body) as answer:
        return answer.status, await answer.text()


async def test_the_banner_comes_first_and_the_upstreams_stream_after_it(http: aiohttp.ClientSession) -> None:
    async with rig_of(model("m", aliases=("alias",), **LOADS)) as rig:
        rig.auto, rig.upstream.answer = False, sse
        async with http.post(rig.url + CHAT, json={"model": "alias", "stream": True}) as answer:
            assert answer.status == 200
            assert answer.headers["Content-Type"] == "text/event-stream"
            assert answer.headers["X-Accel-Buffering"] == "no"
            first = await answer.content.readuntil(b"\n\n")
            assert not rig.upstream.seen
            rig.ready()
            parts = events(first.decode() + (await answer.read()).decode())
        assert parts[-1] == "[DONE]"
        assert parts[-2]["choices"][0]["delta"] == {"content": "hi"}
        own = parts[:-2]
        for part in own:
            assert set(part) == {"id", "object", "created", "model", "choices"}
            assert (part["object"], part["model"]) == ("chat.completion.chunk", "alias")
            assert [choice["index"] for choice in part["choices"]] == [0]
            assert [choice["finish_reason"] for choice in part["choices"]] == [None]
        assert len({part["id"] for part in own}) == 1
        assert [("role" in part["choices"][0]["delta"]) for part in own] == [True] + [False] * (len(own) - 1)
        text = banner(parts)
        assert text.startswith("llmswap: loading alias\n")
        assert "starting" in text
        assert "llmswap: ready after " in text


async def test_openais_own_types_accept_every_chunk(http: aiohttp.ClientSession) -> None:
    from openai.types.chat import ChatCompletionChunk

    async with rig_of(model("m", **LOADS)) as rig:
        rig.auto, rig.upstream.answer = False, sse
        asked = asyncio.create_task(ask(http, rig))
        await until(lambda: rig.starts, "the start is ordered")
        rig.ready()
        chunks = [
            ChatCompletionChunk.model_validate(part, strict=True)
            for part in events((await asked)[1])
            if "reasoning_content" in str(part)
        ]
        assert chunks[0].choices[0].delta.role == "assistant"
        assert "loading m" in chunks[0].choices[0].delta.reasoning_content  # type: ignore[attr-defined]


async def test_it_tells_the_place_in_the_queue_and_makes_few_remarks(http: aiohttp.ClientSession) -> None:
    async with rig_of(model("a"), model("m", **LOADS)) as rig:
        release = asyncio.Event()

        async def held(asked: web.Request) -> web.StreamResponse:
            await release.wait()
            return await sse(asked)

        rig.upstream.answer = held
        busy = asyncio.create_task(ask(http, rig, {"model": "a"}))
        await until(lambda: rig.upstream.seen, "a is busy")
        async with http.post(rig.url + CHAT, json=ASK) as answer:
            text = ""
            while text.count("reasoning_content") < 3 * loading.REMARK_EVERY:
                text += (await answer.content.readuntil(b"\n\n")).decode()
            release.set()
            said = banner(events(text + await answer.text()))
        await busy
        assert "queue position #1" in said
        assert 1 <= sum(said.count(remark) for remark in loading._REMARKS) <= 4


SIDE_BY_SIDE = """
models:
  m: {cmd: "x ${PORT}", sendLoadingState: true}
  n: {cmd: "x ${PORT}"}
groups:
  alone: {members: [m]}
  beside: {members: [n], exclusive: false}
"""


async def test_a_ready_model_that_must_wait_for_another_has_no_banner(http: aiohttp.ClientSession) -> None:
    async with rig_on(loads(SIDE_BY_SIDE)) as rig:
        assert (await ask(http, rig, {"model": "m"}))[0] == 200
        release = asyncio.Event()

        async def held(asked: web.Request) -> web.StreamResponse:
            await release.wait()
            return await sse(asked)

        rig.upstream.answer = held
        busy = asyncio.create_task(ask(http, rig, {"model": "n"}))
        await until(lambda: rig.in_flight("n"), "n is busy")
        asked = asyncio.create_task(ask(http, rig))
        await until(lambda: rig.waiting("m"), "m waits until n can be evicted")
        assert rig.state("m") == "ready"
        release.set()
        assert "reasoning_content" not in (await asked)[1]
        await busy


async def test_an_answer_that_need_not_wait_has_no_banner(http: aiohttp.ClientSession) -> None:
    async with rig_of(model("m", **LOADS)) as rig:
        rig.upstream.answer = sse
        assert "reasoning_content" in (await ask(http, rig))[1] or rig.state("m") == "ready"
        assert "reasoning_content" not in (await ask(http, rig))[1]


@pytest.mark.parametrize(
    ("settings", "body", "path"),
    [
        ({}, ASK, CHAT),
        (LOADS, {"model": "m"}, CHAT),
        (LOADS, {"model": "m", "stream": False}, CHAT),
        (LOADS, ASK, "/v1/completions"),
        (LOADS, ASK, "/v/chat/completions"),
        (LOADS, ASK, "/v1/messages"),
        (LOADS, ASK, "/upstream/m/v1/chat/completions"),
    ],
)
async def test_only_streaming_chats_of_models_that_say_so_see_it(
    http: aiohttp.ClientSession, settings: dict[str, Any], body: dict[str, Any], path: str
) -> None:
    async with rig_of(model("m", **settings)) as rig:
        rig.auto = False
        asked = asyncio.create_task(ask(http, rig, body, path))
        await until(lambda: rig.starts, "the start is ordered")
        rig.ready()
        assert await asked == (200, '{"ok": true}')


async def test_a_refusal_at_the_door_is_no_stream(http: aiohttp.ClientSession) -> None:
    async with rig_of(model("m", **LOADS), limit=1) as rig:
        rig.auto = False
        first = asyncio.create_task(ask(http, rig))
        await until(lambda: rig.starts, "the first waits")
        assert (await ask(http, rig))[0] == 429
        rig.upstream.answer = sse
        rig.ready()
        assert (await first)[0] == 200


async def test_a_failed_start_is_an_error_event_and_a_proper_end(http: aiohttp.ClientSession) -> None:
    async with rig_of(model("m", **LOADS)) as rig:
        rig.auto = False
        asked = asyncio.create_task(ask(http, rig))
        await until(lambda: rig.starts, "the start is ordered")
        rig.fail("exited with code 3 during start")
        status, text = await asked
        parts = events(text)
        assert status == 200
        assert "not loaded after" in banner(parts)
        assert parts[-2]["error"]["code"] == "start_failed"
        assert "exited with code 3" in parts[-2]["error"]["message"]
        assert parts[-1] == "[DONE]"


@pytest.mark.parametrize("status", [400, 404, 429, 500, 503])
async def test_an_upstreams_refusal_after_the_banner_is_an_error_event(
    http: aiohttp.ClientSession, status: int
) -> None:
    async with rig_of(model("m", **LOADS)) as rig:

        async def refuse(_: web.Request) -> web.StreamResponse:
            return web.json_response({"error": {"message": "too long"}}, status=status)

        rig.auto, rig.upstream.answer = False, refuse
        asked = asyncio.create_task(ask(http, rig))
        await until(lambda: rig.starts, "the start is ordered")
        rig.ready()
        parts = events((await asked)[1])
        assert any("error" in part for part in parts if isinstance(part, dict))
        assert parts[-1] == "[DONE]"


async def test_unloading_and_cancelling_end_the_stream_with_an_error(http: aiohttp.ClientSession) -> None:
    async with rig_of(model("m", **LOADS)) as rig:
        rig.auto = False
        asked = asyncio.create_task(ask(http, rig))
        await until(lambda: rig.starts, "the start is ordered")
        rig.loop.post(UnloadRequested((ModelId("m"),)))
        assert events((await asked)[1])[-1] == "[DONE]"

        asked = asyncio.create_task(ask(http, rig))
        await until(lambda: len(rig.starts) == 2, "another start is ordered")
        assert rig.context.in_flight.cancel(2)
        parts = events((await asked)[1])
        assert (parts[-2]["error"]["code"], parts[-1]) == ("cancelled", "[DONE]")


async def test_a_client_that_leaves_the_banner_gives_its_place_back() -> None:
    async with rig_of(model("m", **LOADS)) as rig:
        rig.auto = False
        async with await rig.connect() as client:
            body = orjson.dumps(ASK)
            await client.send(request("POST", CHAT, body, headers="Content-Type: application/json\r\n"))
            await client.read_until(b"reasoning_content")
            client.reset()
            await until(lambda: rig.idle, "its place is free")
        rig.ready()
        assert not rig.upstream.seen


async def test_nothing_is_added_to_what_a_client_has_not_taken(
    http: aiohttp.ClientSession, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(loading, "BACKLOG_MAX", -1)  # as if much were lying there already
    async with rig_of(model("m", **LOADS)) as rig:
        rig.auto, rig.upstream.answer = False, sse
        asked = asyncio.create_task(ask(http, rig))
        await until(lambda: rig.starts, "the start is ordered")
        rig.ready()
        status, text = await asked
        assert (status, banner(events(text)), events(text)[-1]) == (200, "", "[DONE]")


async def test_an_upstream_is_not_invited_to_compress_what_continues_a_plain_stream(
    http: aiohttp.ClientSession,
) -> None:
    async with rig_of(model("m", **LOADS)) as rig:
        rig.auto, rig.upstream.answer = False, sse
        asked = asyncio.create_task(ask(http, rig))
        await until(lambda: rig.waiting("m"), "it waits")
        await asyncio.sleep(0.05)
        rig.ready()
        assert (await asked)[0] == 200
        assert rig.upstream.last.headers["Accept-Encoding"] == "identity"
        await ask(http, rig)
        assert "gzip" in rig.upstream.last.headers["Accept-Encoding"]


async def test_a_model_that_is_woken_is_said_to_be(http: aiohttp.ClientSession) -> None:
    sleepy = 'models: {m: {cmd: "x ${PORT}", sendLoadingState: true, sleep: {preset: vllm-l1}}}\n'
    async with rig_on(loads(sleepy)) as rig:
        woken: list[Wake] = []

        def asleep(order: Sleep) -> None:
            rig.loop.post(UpstreamAsleep(order.model, order.generation))

        rig.loop.performs({Sleep: asleep, Wake: woken.append})
        rig.upstream.answer = sse
        rig.loop.post(LoadRequested(ModelId("m")))
        rig.loop.post(SleepRequested(ModelId("m"), time.monotonic() + 5))
        asking = asyncio.create_task(ask(http, rig))
        await until(lambda: woken, "the wake")
        assert not rig.upstream.seen
        rig.loop.post(UpstreamReady(woken[0].model, woken[0].generation))
        said = banner(events((await asking)[1]))
        assert said.startswith("llmswap: waking m\n")
        assert "\nwaking " in said
