"""The access log as events: one for each request, with what became of it at its model."""

import logging
from typing import Any

import orjson
import pytest
from aiohttp import web

from llmswap.core.commands import RejectReason
from llmswap.core.events import RequestId
from llmswap.core.fleet import ModelId
from llmswap.proxy.completed import of_model, timed_out
from llmswap.runtime.logbook import LogBook, ProxyLogHandler
from llmswap.runtime.logevents import events_of
from llmswap.runtime.observing import RequestOutcome, RequestRecord, Usage
from tests.proxy.rig import Rig, model, rig_of
from tests.raw import request
from tests.stack import until

LOGGER = "llmswap.proxy.access_log"
CHAT = "/v1/chat/completions"


@pytest.fixture
def caught(caplog: pytest.LogCaptureFixture) -> pytest.LogCaptureFixture:
    caplog.set_level(logging.INFO, LOGGER)
    return caplog


def told(caught: pytest.LogCaptureFixture) -> list[Any]:
    records = [record for record in caught.records if record.name == LOGGER]
    return [event for record in records for event in events_of(record) or ()]


async def completed(caught: pytest.LogCaptureFixture, count: int = 1) -> list[dict[str, Any]]:
    def found() -> list[Any]:
        return [event for event in told(caught) if event.name == "request.completed"]

    await until(lambda: len(found()) >= count, f"{count} events")
    assert len(found()) == count
    return [{key: value for key, value in event.fields.items() if value is not None} for event in found()]


async def post(rig: Rig, body: bytes, headers: str = "") -> None:
    await rig.raw(request("POST", CHAT, body, headers=headers))


async def test_a_request_for_a_model_is_one_event_with_what_became_of_it(caught: pytest.LogCaptureFixture) -> None:
    async with rig_of(model("m")) as rig:
        await post(rig, b'{"model":"m"}')
        (fields,) = await completed(caught)
    assert fields.pop("duration_s") >= fields.pop("waited_s") >= fields.pop("swap_s") >= 0
    assert fields.pop("id")
    assert fields == {
        "method": "POST",
        "route": CHAT,
        "path": CHAT,
        "remote": "127.0.0.1",
        "caller": "loopback",
        "model": "m",
        "asked": "m",
        "serving": "m",
        "generation": 1,
        "residency": "miss",
        "stream": False,
        "status": 200,
        "upstream_status": 200,
        "outcome": "ok",
        "bytes": len(b'{"ok": true}'),
    }


async def test_the_second_is_a_hit_without_a_swap(caught: pytest.LogCaptureFixture) -> None:
    async with rig_of(model("m")) as rig:
        for _ in range(2):
            await post(rig, b'{"model":"m"}')
        fields = (await completed(caught, 2))[1]
    assert (fields["residency"], "swap_s" in fields) == ("hit", False)


async def test_a_request_for_no_model_is_an_event_without_one(caught: pytest.LogCaptureFixture) -> None:
    async with rig_of(model("m")) as rig:
        await rig.raw(request("GET", "/v1/models/m?key=secret"))
        (fields,) = await completed(caught)
    assert (fields["route"], fields["path"], fields["status"]) == ("/v1/models/{id}", "/v1/models/m", 200)
    assert not {"model", "outcome", "caller", "stream"} & set(fields)
    assert "secret" not in str(fields)


async def test_an_unknown_model_is_only_what_was_asked_for(caught: pytest.LogCaptureFixture) -> None:
    async with rig_of(model("m")) as rig:
        await post(rig, orjson.dumps({"model": "no\nsuch"}))
        (fields,) = await completed(caught)
    assert (fields["status"], fields["outcome"], fields["asked"]) == (404, "client_error", "no\nsuch")
    assert "model" not in fields


async def test_hostile_names_make_lines_that_are_whole(caught: pytest.LogCaptureFixture) -> None:
    bad = 'x\n{"event":"forged"}\x1b[2J"' + "y" * 10_000
    async with rig_of(model("m")) as rig:
        caller = "call=er level=error"
        head = f'User-Agent: a"gent \\ \x9b\u2028\r\nX-LLMSwap-Caller: {caller}\r\n'
        await post(rig, orjson.dumps({"model": bad}), head)
        await post(rig, orjson.dumps({"model": "m", "user": bad}), head)
        await completed(caught, 2)
    for form in ("json", "logfmt"):
        book = LogBook()
        handler = ProxyLogHandler(book)
        handler.configure("", form)
        for record in caught.records:
            if record.name == LOGGER:
                handler.handle(record)
        data = book.proxy.history()
        lines = data.decode().splitlines()
        assert len(lines) == data.count(b"\n") == 2
        assert all(line.startswith(('{"time":', "time=")) for line in lines)
        assert all(len(line) < 6_000 for line in lines)
        if form == "json":
            refused, served = map(orjson.loads, lines)
            assert (refused["event"], served["event"]) == ("request.completed",) * 2
            assert served["caller"] == caller
            assert served["user_agent"] == 'a"gent \\ \x9b\u2028'
            assert "yyy" not in lines[1], "what a client says beside the model's name is none of the log's business"


async def test_a_wait_in_vain_is_told_apart_from_its_line(caught: pytest.LogCaptureFixture) -> None:
    record = RequestRecord("r-1", "POST", CHAT, CHAT, 10.0, model=ModelId("m"), entered_s=10.5, ended_s=15.5)
    record.request, record.position, record.caller = RequestId(1), 3, "agent"
    words, fields = timed_out(record)
    assert words == "m: a request waited 5.0 s in vain"
    assert fields == {"id": "r-1", "model": "m", "waited_s": 5.0, "position": 3, "caller": "agent"}
    record.refusal, record.outcome = RejectReason.QUEUE_TIMEOUT, RequestOutcome.QUEUE_TIMEOUT
    assert (of_model(record)["waited_s"], of_model(record)["residency"]) == (5.0, None)
    assert not told(caught)


def test_tokens_and_traces_are_there_when_they_are_known_and_only_then() -> None:
    record = RequestRecord("r-1", "POST", CHAT, CHAT, 10.0, model=ModelId("m"), granted_s=10.0, ended_s=12.0)
    fields = of_model(record)
    assert {
        name: fields.get(name) for name in ("ttft_s", "input_tokens", "output_tokens", "trace_id")
    } == dict.fromkeys(("ttft_s", "input_tokens", "output_tokens", "trace_id"))
    record.usage = Usage(input_tokens=7, output_tokens=0, first_token_s=10.25, estimated=True)
    record.trace_id, record.span_id = "ab" * 16, "cd" * 8
    fields = of_model(record)
    assert (fields["ttft_s"], fields["input_tokens"], fields["output_tokens"]) == (0.25, 7, 0)
    assert fields["estimated"] is True
    assert (fields["trace_id"], fields["span_id"], fields["trace_flags"]) == ("ab" * 16, "cd" * 8, "01")


async def test_bytes_that_go_past_aiohttp_are_counted(caught: pytest.LogCaptureFixture) -> None:
    async def streams(asked: web.Request) -> web.StreamResponse:
        response = web.StreamResponse()
        await response.prepare(asked)
        await response.write(bytes(100_000))
        return response

    async with rig_of(model("m")) as rig:
        rig.upstream.answer = streams
        await post(rig, b'{"model":"m"}')
        (fields,) = await completed(caught)
    assert fields["bytes"] == 100_000
