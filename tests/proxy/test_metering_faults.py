"""Real answers of simulated engines, spoilt in every way, through the proxy: numbers are right or unknown."""

import gzip
import re
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import Any

import aiohttp
import orjson
import pytest

from llmswap.config.settings import Launch, ModelSettings
from llmswap.core.fleet import ModelId
from llmswap.runtime.observing import RequestOutcome, RequestRecord, UpstreamError, Usage
from tests.fake_upstream.harness import Served, events_of, served
from tests.proxy.answers import CHAT, COMPLETIONS, MESSAGES, RESPONSES
from tests.proxy.rig import Rig, rig_of
from tests.proxy.test_inference import JSON
from tests.proxy.test_records import Observer
from tests.stack import Stack, fake

PROMPTS: dict[str, dict[str, Any]] = {
    CHAT: {"messages": [{"role": "user", "content": "what is the time"}]},
    COMPLETIONS: {"prompt": "what is the time"},
    RESPONSES: {"input": "what is the time"},
    MESSAGES: {"messages": [{"role": "user", "content": "what is the time"}], "max_tokens": 50},
}
PERSONAS = ("vllm", "sglang", "llamacpp", "generic")
CHANGES = re.compile(rb'"(?:id|created|created_at|item_id|\w+_ms|\w+_per_second)": ?(?:"[^"]*"|[0-9.e+-]+)')


@asynccontextmanager
async def engine(persona: str, *flags: str) -> AsyncIterator[tuple[Rig, Served]]:
    """Serve a simulated engine through the proxy, as the model that it is."""
    served_as = ("--persona", persona, "--model", "m", "--reasoning-tokens", "2")
    settings = ModelSettings(ModelId("m"), Launch(ModelId("m"), f"serve --persona {persona}", "unused"))
    async with rig_of(settings) as rig, served(*served_as, *flags) as fake:
        assert fake.http._base_url is not None
        rig.upstream.url = str(fake.http._base_url).rstrip("/")
        yield rig, fake


async def ask(rig: Rig, http: aiohttp.ClientSession, path: str, **more: Any) -> tuple[bytes, RequestRecord]:
    observer = Observer(rig)
    body = orjson.dumps({"model": "m", **PROMPTS[path], **more})
    async with http.post(rig.url + path, data=body, headers=JSON, auto_decompress=False) as answer:
        data = await answer.read()
        assert answer.status == 200, data
    return data, await observer.last()


async def directly(fake: Served, path: str, **more: Any) -> bytes:
    body = orjson.dumps({"model": "m", **PROMPTS[path], **more})
    async with fake.http.post(path, data=body, headers=JSON, auto_decompress=False) as answer:
        return await answer.read()


def same(data: bytes) -> bytes:
    """Leave out what differs from answer to answer, and the nulls that asking brings."""
    return CHANGES.sub(b"", data).replace(b', "usage": null', b"")


@pytest.mark.parametrize("path", [*PROMPTS])
@pytest.mark.parametrize("persona", PERSONAS)
@pytest.mark.parametrize("stream", [True, False], ids=["stream", "whole"])
async def test_every_engine_and_api(http: aiohttp.ClientSession, persona: str, path: str, stream: bool) -> None:
    async with engine(persona) as (rig, fake):
        data, record = await ask(rig, http, path, stream=stream)
        assert same(data) == same(await directly(fake, path, stream=stream))
        total = fake.fake.engine.metrics
    usage = record.usage
    assert (usage.output_tokens, usage.estimated) == (6, False)
    assert usage.input_tokens is not None
    assert 2 * usage.input_tokens == total.prompt_tokens
    assert record.outcome is RequestOutcome.OK
    if stream:
        assert usage.done is True
        assert record.first_byte_s <= usage.first_token_s <= usage.last_token_s <= record.ended_s  # type: ignore[operator]
        assert usage.chunks > 6
    if persona == "llamacpp" and path != MESSAGES:
        assert None not in (usage.cached_tokens, usage.prefill_s, usage.decode_s)


@pytest.mark.parametrize("path", [CHAT, COMPLETIONS])
async def test_a_client_that_asks_gets_what_it_asks_for(http: aiohttp.ClientSession, path: str) -> None:
    options = {"include_usage": True, "continuous_usage_stats": True}
    async with engine("vllm") as (rig, fake):
        data, record = await ask(rig, http, path, stream=True, stream_options=options)
        assert same(data) == same(await directly(fake, path, stream=True, stream_options=options))
    last = events_of(data.decode())[-2][1]
    assert last["choices"] == []
    assert record.usage.output_tokens == last["usage"]["completion_tokens"] == 6


SPOILT = {
    "no_usage": True,
    "null_usage": True,
    "usage_zero": True,
    "bad_json_chunk": False,
    "giant_chunk:1048576": False,
    "split_utf8": False,
    "crlf": False,
}
"""Fault -> whether it leaves a stream without usage."""


@pytest.mark.parametrize("path", [*PROMPTS])
@pytest.mark.parametrize("fault", SPOILT)
async def test_spoilt_streams(http: aiohttp.ClientSession, fault: str, path: str) -> None:
    async with engine("vllm", "--fail", fault) as (rig, fake):
        data, record = await ask(rig, http, path, stream=True)
        assert same(data) == same(await directly(fake, path, stream=True))
    usage = record.usage
    assert usage.output_tokens == 6
    assert usage.estimated is SPOILT[fault]
    assert (usage.input_tokens is None) is SPOILT[fault]
    assert (usage.done, record.outcome) == (True, RequestOutcome.OK)


@pytest.mark.parametrize("fault", ["no_usage", "null_usage", "usage_zero"])
@pytest.mark.parametrize("path", [*PROMPTS])
async def test_spoilt_bodies_are_unknown(http: aiohttp.ClientSession, fault: str, path: str) -> None:
    async with engine("vllm", "--fail", fault) as (rig, fake):
        data, record = await ask(rig, http, path)
        assert same(data) == same(await directly(fake, path))
    usage = record.usage
    known = (usage.input_tokens, usage.output_tokens, usage.cached_tokens, usage.reasoning_tokens)
    assert known == (None, None, None, None)
    assert not usage.estimated


@pytest.mark.parametrize("stream", [True, False], ids=["stream", "whole"])
@pytest.mark.parametrize("path", [CHAT, MESSAGES])
async def test_packed_answers_pass_and_are_unknown(http: aiohttp.ClientSession, path: str, stream: bool) -> None:
    async with engine("vllm", "--fail", "gzip") as (rig, fake):
        data, record = await ask(rig, http, path, stream=stream)
        assert same(gzip.decompress(data)) == same(gzip.decompress(await directly(fake, path, stream=stream)))
        assert not fake.fake.engine.running
    assert (record.usage.input_tokens, record.usage.output_tokens, record.usage.first_token_s) == (None, None, None)
    assert record.outcome is RequestOutcome.OK


@pytest.mark.parametrize("fault", ["error_chunk:3", "end_midstream:3"])
@pytest.mark.parametrize("path", [*PROMPTS])
async def test_streams_that_fail(http: aiohttp.ClientSession, fault: str, path: str) -> None:
    async with engine("vllm", "--fail", fault) as (rig, fake):
        data, record = await ask(rig, http, path, stream=True)
        assert same(data) == same(await directly(fake, path, stream=True))
    assert (record.usage.output_tokens, record.usage.estimated) == (3, True)
    assert record.usage.failed is fault.startswith("error")
    assert (record.outcome, record.upstream_error) == (RequestOutcome.UPSTREAM_ERROR, UpstreamError.BAD_STREAM)


async def test_a_stream_that_is_cut_keeps_what_has_been_counted(http: aiohttp.ClientSession) -> None:
    async with engine("vllm", "--fail", "disconnect_midstream:4") as (rig, _):
        observer = Observer(rig)
        body = orjson.dumps({"model": "m", "stream": True, **PROMPTS[CHAT]})
        async with http.post(rig.url + CHAT, data=body, headers=JSON) as answer:
            with pytest.raises(aiohttp.ClientError):
                await answer.read()
        record = await observer.last()
    assert (record.usage.output_tokens, record.usage.estimated, record.usage.done) == (4, True, False)
    assert record.upstream_error is UpstreamError.RESET


async def test_a_stall_is_the_longest_gap(http: aiohttp.ClientSession) -> None:
    async with engine("vllm", "--fail", "stall:3:0.3", "--time-scale", "1", "--boot", "0", "--ttft", "1") as (rig, _):
        usage = (await ask(rig, http, CHAT, stream=True))[1].usage
    assert usage.max_gap_s is not None
    assert usage.max_gap_s >= 0.3
    assert usage != Usage()


@pytest.mark.parametrize("path", ["/v1/embeddings", "/v1/rerank"])
async def test_what_has_no_answer_to_count_has_an_input(http: aiohttp.ClientSession, path: str) -> None:
    async with engine("vllm") as (rig, _):
        observer = Observer(rig)
        body = {"model": "m", "input": "one two three", "query": "one two", "documents": ["three", "four"]}
        async with http.post(rig.url + path, json=body) as answer:
            said = (await answer.json())["usage"]
        usage = (await observer.last()).usage
    assert (usage.input_tokens, usage.output_tokens) == (said["prompt_tokens"], None)
    assert said["prompt_tokens"] > 0


@pytest.mark.parametrize("persona", ["vllm", "llamacpp"])
async def test_the_whole_program_counts_what_its_engine_counts(
    stack: Stack, http: aiohttp.ClientSession, persona
) -> None:
    program = stack.start({"models": {"m": {"cmd": fake("m", persona=persona, time_scale=0, metrics=True)}}})
    for stream in (True, False):
        body = {"model": "m", "stream": stream, "max_tokens": 20, **PROMPTS[CHAT]}
        async with http.post(program.url + CHAT, json=body) as answer:
            assert answer.status == 200
            assert not stream or b'"usage"' not in await answer.read()
    async with http.get(f"{program.url}/upstream/m/metrics") as answer:
        lines = (await answer.text()).splitlines()
    for kind, name in (("input", "prompt_tokens_total"), ("output", "(?:generation_tokens|tokens_predicted)_total")):
        counted = [float(line.rsplit(" ", 1)[1]) for line in lines if re.match(rf"[a-z]+:{name}[ {{]", line)]
        assert counted
        assert await program.metric("llmswap_tokens_total", model="m", token_type=kind) == sum(counted) > 0
