"""Usage that is asked for where nobody else asks, through the whole proxy; and that no client ever notices."""

import asyncio
import gzip
import io
from collections.abc import Sequence

import aiohttp
import orjson
import pytest
from aiohttp import web
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from llmswap.config.settings import Filters, Launch
from llmswap.core.fleet import ModelId
from llmswap.proxy.metering import meter as meter_module
from llmswap.proxy.metering import sieve as sieve_module
from llmswap.proxy.metering.asking import ASKED_BODY_MAX
from llmswap.runtime.observing import RequestOutcome, RequestRecord, Usage
from tests.proxy.answers import CHAT, COMPLETIONS, MESSAGES, STOP, STREAMS, TALK, TIMINGS, USED, event, stream, totals
from tests.proxy.rig import Rig, model, rig_of
from tests.proxy.test_inference import JSON
from tests.proxy.test_metering import counts, cut_up
from tests.proxy.test_records import Observer
from tests.stack import until

WISH = b'"stream_options":{"include_usage":true}'
BODY = b'{"model": "m",  "stream": true, "messages": []}'
ASKED_BODY = BODY[:-1] + b"," + WISH + b"}"
BEFORE, OURS, AFTER = stream(*TALK, STOP, done=False), event(totals(USED)), event("[DONE]")


class Engine:
    """Answers as an engine that counts if it is asked to.

    Attributes:
        unasked: What it sends to who does not ask, piece by piece.
        asked: And to who does.
        refuses: The status that who asks gets, if any.
        counted: Its answers have a Content-Length.
    """

    def __init__(self, rig: Rig, asked: Sequence[bytes], unasked: Sequence[bytes] = (BEFORE + AFTER,)) -> None:
        self.asked, self.unasked, self.refuses, self.headers, self.counted = asked, unasked, 0, {}, False
        rig.upstream.answer = self.answer
        self.rig = rig

    async def answer(self, request: web.Request) -> web.StreamResponse:
        asked = b"include_usage" in self.rig.upstream.last.body
        if asked and self.refuses:
            return web.json_response({"error": {"message": "what is that?"}}, status=self.refuses)
        response = web.StreamResponse(headers={"Content-Type": "text/event-stream", **self.headers})
        if self.counted:
            response.content_length = sum(map(len, self.asked if asked else self.unasked))
        await response.prepare(request)
        for data in self.asked if asked else self.unasked:
            await response.write(data)
            await asyncio.sleep(0)
        return response

    @property
    def bodies(self) -> list[bytes]:
        return [seen.body for seen in self.rig.upstream.seen]


async def talk(
    http: aiohttp.ClientSession, rig: Rig, body: bytes = BODY, path: str = CHAT
) -> tuple[int, bytes, RequestRecord]:
    """Post; gives the status, the bytes of the body, and the record."""
    observer = Observer(rig)
    async with http.post(rig.url + path, data=io.BytesIO(body), headers=JSON) as answer:
        data = await answer.read()
    return answer.status, data, await observer.last()


async def test_it_is_asked_for_and_what_comes_of_it_hidden(http: aiohttp.ClientSession) -> None:
    async with rig_of(model("m")) as rig:
        engine = Engine(rig, [BEFORE + OURS + AFTER])
        status, data, record = await talk(http, rig)
    assert (status, data) == (200, BEFORE + AFTER)
    assert engine.bodies == [ASKED_BODY]
    assert (record.usage.input_tokens, record.usage.output_tokens, record.usage.estimated) == (11, 5, False)
    assert (record.bytes_out, record.bytes_in, record.outcome) == (len(data), len(ASKED_BODY), RequestOutcome.OK)


async def test_legacy_completions_too(http: aiohttp.ClientSession) -> None:
    async with rig_of(model("m")) as rig:
        engine = Engine(rig, [BEFORE + OURS + AFTER])
        assert (await talk(http, rig, BODY + b"\n ", COMPLETIONS))[1] == BEFORE + AFTER
    assert engine.bodies == [ASKED_BODY + b"\n "]


@settings(max_examples=25, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(places=st.lists(st.integers(0), max_size=12))
async def test_however_the_engine_sends_it(places: list[int]) -> None:
    async with rig_of(model("m")) as rig, aiohttp.ClientSession() as http:
        Engine(rig, cut_up(BEFORE + OURS + AFTER, places))
        _, data, record = await talk(http, rig)
    assert data == BEFORE + AFTER
    assert counts(record.usage) == counts(Usage(11, 5, done=True, finish_reasons=("stop",), response_model="big"))


@pytest.mark.parametrize("answer", [one for one in STREAMS if len(one.body) < 2**16], ids=str)
async def test_what_every_engine_says_arrives_byte_for_byte(http: aiohttp.ClientSession, answer) -> None:
    async with rig_of(model("m")) as rig:
        Engine(rig, (), cut_up(answer.body, [100, 200, 1000, 1001]))
        body = b'{"model": "m", "stream": true, "stream_options": null}'
        _, data, record = await talk(http, rig, body, answer.path)
    assert data == answer.body
    assert counts(record.usage) == counts(Usage(**answer.says))


@pytest.mark.parametrize("said", [b'{"include_usage":false}', b'{"include_usage":true}', b"{}", b"null"])
async def test_who_says_something_of_it_is_left_alone(http: aiohttp.ClientSession, said: bytes) -> None:
    body = BODY.replace(b"{", b'{"stream_options": ' + said + b", ", 1)
    async with rig_of(model("m")) as rig:
        engine = Engine(rig, [BEFORE + OURS + AFTER], [BEFORE + OURS + AFTER])
        assert (await talk(http, rig, body))[1] == BEFORE + OURS + AFTER
    assert engine.bodies == [body]


@pytest.mark.parametrize(
    ("path", "body"),
    [
        (CHAT, b'{"model": "m"}'),
        (CHAT, b'{"model": "m", "stream": false}'),
        (MESSAGES, BODY),
        ("/v1/responses", BODY),
        ("/completion", BODY),
        (CHAT, BODY[:-1] + b', "x": "%b"}' % (b"x" * ASKED_BODY_MAX)),
    ],
    ids=["no stream", "stream is false", "messages", "responses", "llama.cpp's own", "too large"],
)
async def test_nothing_is_asked_for_elsewhere(http: aiohttp.ClientSession, path: str, body: bytes) -> None:
    async with rig_of(model("m")) as rig:
        engine = Engine(rig, ())
        assert (await talk(http, rig, body, path))[1] == BEFORE + AFTER
    assert engine.bodies == [body]


@pytest.mark.parametrize(
    "filters",
    [Filters(strip=("stream_options",)), Filters(set={"stream": False}), Filters(set_by_name={"x": {"stream": True}})],
)
async def test_a_filter_that_concerns_it_keeps_it_from_a_model(http: aiohttp.ClientSession, filters: Filters) -> None:
    async with rig_of(model("m", filters=filters)) as rig:
        engine = Engine(rig, ())
        await talk(http, rig)
    assert WISH not in engine.bodies[0]


@pytest.mark.parametrize("status", [400, 422])
async def test_who_does_not_know_the_question_is_asked_once_in_a_life(http: aiohttp.ClientSession, status: int) -> None:
    async with rig_of(model("m"), model("n")) as rig:
        engine = Engine(rig, ())
        engine.refuses = status
        for _ in range(2):
            got, data, record = await talk(http, rig)
            assert (got, data, record.upstream_status) == (200, BEFORE + AFTER, 200)
            assert (record.usage.output_tokens, record.usage.estimated) == (5, True)
        assert engine.bodies == [ASKED_BODY, BODY, BODY]
        await talk(http, rig, BODY.replace(b'"m"', b'"n"'))  # another model's engine, for which m is stopped
        await talk(http, rig)
    assert engine.bodies[-2:] == [ASKED_BODY, BODY]


async def test_a_request_that_is_bad_in_itself_gets_the_answer_to_itself(http: aiohttp.ClientSession) -> None:
    async with rig_of(model("m")) as rig:
        engine = Engine(rig, [BEFORE + OURS + AFTER])

        async def refuse(_request: web.Request) -> web.StreamResponse:
            return web.Response(status=400, body=rig.upstream.last.body)

        rig.upstream.answer = refuse
        status, data, record = await talk(http, rig)
        assert (status, data, record.outcome) == (400, BODY, RequestOutcome.CLIENT_ERROR)
        rig.upstream.answer = engine.answer
        assert (await talk(http, rig))[2].usage.input_tokens == 11
    assert engine.bodies == [ASKED_BODY, BODY, ASKED_BODY]


async def test_an_answer_that_cannot_be_sifted_is_asked_for_anew(http: aiohttp.ClientSession) -> None:
    packed = gzip.compress(BEFORE + AFTER)
    async with rig_of(model("m")) as rig:
        engine = Engine(rig, [gzip.compress(BEFORE + OURS + AFTER)], [packed])
        engine.headers = {"Content-Encoding": "gzip"}
        for _ in range(2):
            _, data, record = await talk(http, rig)
            assert data == BEFORE + AFTER
            assert counts(record.usage) == counts(Usage(done=None))
    assert engine.bodies == [ASKED_BODY, BODY, BODY]


async def test_an_answer_of_a_declared_length_is_not_shortened(http: aiohttp.ClientSession) -> None:
    async with rig_of(model("m")) as rig:
        engine = Engine(rig, [BEFORE + OURS + AFTER])
        engine.counted = True
        assert (await talk(http, rig))[1] == BEFORE + AFTER
    assert engine.bodies == [ASKED_BODY, BODY]


async def test_an_engine_whose_command_says_that_it_counts_anyway_is_not_asked(http: aiohttp.ClientSession) -> None:
    command = "/opt/llama-server -m x.gguf --port ${PORT}"
    timed = stream(*TALK, {**STOP, "timings": TIMINGS})
    async with rig_of(model("m")) as rig:
        settings_of = rig.context.loaded.settings.models
        entry = model("m")
        settings_of["m"] = type(entry)(entry.id, Launch(ModelId("m"), command, "unused"))  # type: ignore[index]
        engine = Engine(rig, (), [timed])
        _, data, record = await talk(http, rig)
        assert (data, record.usage.output_tokens, record.usage.cached_tokens) == (timed, 5, 4)
        engine.asked, engine.unasked = [BEFORE + OURS + AFTER], [BEFORE + AFTER]  # it looked like one, and is none
        assert (await talk(http, rig))[2].usage.estimated
        assert (await talk(http, rig))[2].usage.input_tokens == 11
    assert engine.bodies == [BODY, BODY, ASKED_BODY]


async def test_an_engine_that_turns_out_to_count_anyway_is_asked_only_once(http: aiohttp.ClientSession) -> None:
    timed = stream(*TALK, {**STOP, "timings": TIMINGS})
    async with rig_of(model("m")) as rig:
        engine = Engine(rig, [BEFORE, event(totals(USED, timings=TIMINGS)), AFTER], [timed])
        assert (await talk(http, rig))[1] == BEFORE + AFTER
        assert (await talk(http, rig))[1] == timed
    assert engine.bodies == [ASKED_BODY, BODY]


async def test_what_is_held_when_the_engine_breaks_off_still_arrives(http: aiohttp.ClientSession) -> None:
    async with rig_of(model("m")) as rig:

        async def break_off(request: web.Request) -> web.StreamResponse:
            response = web.StreamResponse(headers={"Content-Type": "text/event-stream"})
            await response.prepare(request)
            await response.write(BEFORE + OURS[:40])
            await asyncio.sleep(0.05)
            assert request.transport is not None
            request.transport.abort()
            return response

        rig.upstream.answer = break_off
        client = await rig.connect()
        async with client:
            await client.send(b"POST %b HTTP/1.1\r\nHost: localhost\r\nContent-Type: application/json\r\n"
                              b"Content-Length: %d\r\n\r\n%b" % (CHAT.encode(), len(BODY), BODY))  # fmt: skip
            got = await client.read_until(b"upstream_failed")
    begun, _, error = got.rpartition(OURS[:40])[2].partition(b"\n\n")
    assert begun.strip(b"\r\n0123456789abcdef") == b""  # the framing of chunks
    assert error.startswith(b'\ndata: {"src"')  # an empty line of its own goes before it


async def test_what_is_held_when_the_stream_ends_still_arrives(http: aiohttp.ClientSession) -> None:
    async with rig_of(model("m")) as rig:
        Engine(rig, [BEFORE, OURS[:40]])
        _, data, record = await talk(http, rig)
    assert data == BEFORE + OURS[:40]
    assert record.bytes_out == len(data)


async def test_nothing_waits_for_the_end_of_an_event(http: aiohttp.ClientSession) -> None:
    go_on = asyncio.Event()
    async with rig_of(model("m")) as rig:

        async def halves(request: web.Request) -> web.StreamResponse:
            response = web.StreamResponse(headers={"Content-Type": "text/event-stream"})
            await response.prepare(request)
            await response.write(BEFORE[:300])
            await go_on.wait()
            await response.write(BEFORE[300:] + OURS + AFTER)
            return response

        rig.upstream.answer = halves
        async with http.post(rig.url + CHAT, data=BODY, headers=JSON) as answer:
            assert await answer.content.readexactly(300) == BEFORE[:300]
            go_on.set()
            assert BEFORE[:300] + await answer.read() == BEFORE + AFTER


async def test_errors_of_meter_and_sieve_cost_no_byte(http: aiohttp.ClientSession, monkeypatch, caplog) -> None:
    monkeypatch.setattr(meter_module.Tally, "event", lambda *_: 1 // 0)
    monkeypatch.setattr(sieve_module.Sieve, "_is_ours", lambda *_: 1 // 0)
    async with rig_of(model("m")) as rig:
        Engine(rig, [BEFORE, OURS[:40], OURS[40:], AFTER])
        status, data, record = await talk(http, rig)
    assert (status, data) == (200, BEFORE + OURS + AFTER)
    assert record.usage == Usage()
    assert (caplog.text.count("not metered"), caplog.text.count("not sifted")) == (1, 1)


@pytest.mark.parametrize("refuses", [0, 400])
async def test_a_stream_that_began_with_the_loading_of_its_model_too(http: aiohttp.ClientSession, refuses: int) -> None:
    async with rig_of(model("m", send_loading_state=True)) as rig:
        engine, rig.auto = Engine(rig, [BEFORE + OURS + AFTER]), False
        engine.refuses = refuses
        asked = asyncio.create_task(talk(http, rig))
        await until(lambda: bool(rig.starts), "it starts")
        rig.ready()
        _, data, record = await asked
    assert b"reasoning_content" in data
    assert data.endswith(BEFORE + AFTER)
    assert (record.usage.output_tokens, record.usage.estimated) == (5, bool(refuses))


@pytest.mark.parametrize(
    ("fields", "limit"),
    [
        ({"max_tokens": 7}, 7),
        ({"max_completion_tokens": 8, "max_tokens": 7}, 8),
        ({"max_output_tokens": 9}, 9),
        ({"n_predict": -1}, None),
        ({"max_tokens": None}, None),
        ({"max_tokens": True}, None),
        ({"max_tokens": "7"}, None),
        ({}, None),
    ],
)
async def test_the_record_says_how_long_the_answer_may_get(http: aiohttp.ClientSession, fields, limit) -> None:
    async with rig_of(model("m")) as rig:
        record = (await talk(http, rig, orjson.dumps({"model": "m", **fields})))[2]
    assert record.max_tokens == limit


@pytest.mark.parametrize(
    ("sent", "outcome"),
    [
        (stream(*TALK, STOP, done=False), RequestOutcome.OK),
        (stream(*TALK, done=False), RequestOutcome.UPSTREAM_ERROR),
        (stream(*TALK, {"error": {"message": "boom"}}), RequestOutcome.UPSTREAM_ERROR),
    ],
    ids=["no [DONE]", "no end", "an error"],
)
async def test_a_stream_that_fails_under_status_200_is_an_error(http: aiohttp.ClientSession, sent, outcome) -> None:
    async with rig_of(model("m")) as rig:
        Engine(rig, [sent])
        status, data, record = await talk(http, rig)
    assert (status, data, record.outcome) == (200, sent, outcome)
    assert (record.error is None) == (outcome is RequestOutcome.OK)
