"""One request, top to bottom: the model found, the gate passed, the lease given back whatever happens."""

import asyncio
from typing import Any

import aiohttp
import orjson
import pytest
from aiohttp import web
from yarl import URL

from llmswap.config.settings import Filters
from llmswap.core.commands import Reject, RejectReason
from llmswap.core.events import RequestId
from llmswap.core.fleet import ModelId
from llmswap.proxy import refusals
from llmswap.proxy.inflight import InFlight
from tests.proxy.rig import Rig, model, rig_of
from tests.raw import request
from tests.stack import until

JSON = {"Content-Type": "application/json"}
CHAT = "/v1/chat/completions"


async def post(
    http: aiohttp.ClientSession, rig: Rig, body: bytes | dict[str, Any], path: str = CHAT, **headers: str
) -> tuple[int, Any]:
    data = body if isinstance(body, bytes) else orjson.dumps(body)
    async with http.post(URL(rig.url + path, encoded=True), data=data, headers={**JSON, **headers}) as answer:
        text = await answer.read()
        return answer.status, orjson.loads(text) if text.startswith(b"{") else text


async def test_a_request_reaches_its_model_and_the_answer_its_client(http: aiohttp.ClientSession) -> None:
    async with rig_of(model("m")) as rig:
        body = b'{"model": "m",  "messages": []}'
        assert await post(http, rig, body, CHAT + "?x=%2F1") == (200, {"ok": True})
        assert rig.upstream.last.target == CHAT + "?x=%2F1"
        assert rig.upstream.last.body == body
        assert [start.model for start in rig.starts] == ["m"]


@pytest.mark.parametrize("name", ["org/name", "\u00e9", "e\u0301", "\U0001f600", "x" * 10_000, "a b", "%2F", "-1"])
async def test_model_names_match_exactly_whatever_they_are(http: aiohttp.ClientSession, name: str) -> None:
    async with rig_of(model(name), model("other")) as rig:
        assert (await post(http, rig, {"model": name}))[0] == 200
        for wrong in (name + " ", name.upper() + "!", name[:-1]):
            status, error = await post(http, rig, {"model": wrong})
            assert status == 404
            assert len(error["error"]["message"]) < 400


async def test_unicode_forms_are_different_models(http: aiohttp.ClientSession) -> None:
    async with rig_of(model("\u00e9")) as rig:
        status, error = await post(http, rig, {"model": "e\u0301"})
        assert (status, error["error"]["code"]) == (404, "model_not_found")
        assert "GET /v1/models" in error["error"]["message"]


async def test_an_alias_stays_in_the_body_and_is_served_by_its_model(http: aiohttp.ClientSession) -> None:
    async with rig_of(model("m", aliases=("gpt-4",))) as rig:
        assert (await post(http, rig, {"model": "gpt-4"}))[0] == 200
        assert rig.upstream.last.json == {"model": "gpt-4"}
        assert [start.model for start in rig.starts] == ["m"]


async def test_filters_act_on_json_that_says_it_is_json(http: aiohttp.ClientSession) -> None:
    filtered = model("m", use_model_name="real", filters=Filters(strip=("top_k",), set={"seed": 1}))
    async with rig_of(filtered) as rig:
        await post(http, rig, b'{"model":"m","top_k":1}', **{"Content-Type": "application/json; charset=utf-8"})
        assert rig.upstream.last.body == b'{"model":"real","seed":1}'
        assert rig.upstream.last.headers["Content-Length"] == "25"
        await post(http, rig, b'{"model":"m","top_k":1}', **{"Content-Type": "text/plain"})
        assert rig.upstream.last.body == b'{"model":"m","top_k":1}'


@pytest.mark.parametrize(
    ("content_type", "body", "query", "status"),
    [
        ("text/plain", b'{"model":"m"}', "", 200),
        ("application/x-www-form-urlencoded", b'{"model":"m"}', "", 200),
        ("application/x-www-form-urlencoded", b"model=m&x=1", "", 200),
        ("application/x-www-form-urlencoded", b"x=1", "?model=m", 200),
        ("application/octet-stream", b"\x00\x01", "?model=m", 200),
        ("text/plain", b'{"x":1}', "?model=m", 200),
        ("text/plain", b"model=m", "", 200),
        ("", b'{"model":"m"}', "", 200),
        ("", b"", "?model=m", 200),
        ("", b"", "", 404),
        ("application/x-www-form-urlencoded", b"x=1", "", 404),
        ("application/json", b'{"x":1}', "?model=m", 404),
        ("text/plain", b"hello", "", 415),
        ("application/xml", b"<model>m</model>", "", 415),
        ("text/plain", b'{"model":"m"', "", 400),
        (";;;=\xff", b'{"model":"m"}', "", 200),
        ("application/json", b"model=m", "", 400),
        ("multipart/form-data", b"x", "", 400),
    ],
)
async def test_the_model_is_found_whatever_the_type_says(
    content_type: str, body: bytes, query: str, status: int
) -> None:
    async with rig_of(model("m")) as rig:
        headers = f"Content-Type: {content_type}\r\n" if content_type else ""
        assert (await rig.raw(request("POST", CHAT + query, body, headers=headers))).status == status
        assert [seen.body for seen in rig.upstream.seen] == ([body] if status == 200 else [])


@pytest.mark.parametrize(
    ("path", "target"),
    [
        ("/v/chat/completions", "/chat/completions"),
        ("/v/messages/count_tokens?beta=true", "/messages/count_tokens?beta=true"),
        ("/audioapi/v1/tasks/run", "/v1/tasks/run"),
        ("/v1/embeddings", "/v1/embeddings"),
        ("/infill", "/infill"),
        ("/v1/%65mbeddings", "/v1/embeddings"),
    ],
)
async def test_prefixes_are_taken_off_and_paths_come_from_the_table(path: str, target: str) -> None:
    async with rig_of(model("m")) as rig:
        reply = await rig.raw(request("POST", path, b'{"model":"m"}', headers="Content-Type: application/json\r\n"))
        assert reply.status == 200
        assert rig.upstream.last.target == target


async def test_a_get_names_its_model_in_the_query(http: aiohttp.ClientSession) -> None:
    async with rig_of(model("m", aliases=("a b",))) as rig:
        async with http.get(rig.url + "/props?model=a%20b&autoload=false") as answer:
            assert answer.status == 200
        assert rig.upstream.last.target == "/props?model=a%20b&autoload=false"
        assert rig.upstream.last.headers.get("Content-Length") is None
        async with http.get(rig.url + "/props") as answer:
            assert answer.status == 404


async def test_beyond_the_concurrency_limit_it_is_429_as_json(http: aiohttp.ClientSession) -> None:
    async with rig_of(model("m"), limit=1) as rig:
        release = asyncio.Event()
        rig.upstream.answer = lambda _: _after(release)
        first = asyncio.create_task(post(http, rig, {"model": "m"}))
        await until(lambda: rig.upstream.seen, "the first is served")
        async with http.post(
            rig.url + CHAT, json={"model": "m", "stream": True}, headers={"Accept": "text/html"}
        ) as answer:
            error = await answer.json()
            assert (answer.status, answer.headers["Retry-After"]) == (429, "1")
            assert error["error"]["code"] == "concurrency_limit"
            assert error["error"]["message"] == "Too many requests"
        release.set()
        assert (await first)[0] == 200


async def _after(event: asyncio.Event) -> web.StreamResponse:
    await event.wait()
    return web.json_response({"ok": True})


async def test_a_failed_start_says_why_and_an_operator_sees_the_log(http: aiohttp.ClientSession) -> None:
    async with rig_of(model("m")) as rig:
        rig.auto = False
        rig.context.logs.write_upstream(ModelId("m"), b"loading\nCUDA out of memory\n")
        asked = asyncio.create_task(post(http, rig, {"model": "m"}))
        await until(lambda: rig.starts, "the start is ordered")
        rig.fail("exited with code 1 during start")
        status, error = await asked
        assert (status, error["error"]["code"]) == (502, "start_failed")
        assert "exited with code 1" in error["error"]["message"]
        assert "CUDA out of memory" in error["error"]["message"]

        status, error = await post(http, rig, {"model": "m"})  # too early to try again
        assert status == 503
        assert "exited with code 1" in error["error"]["message"]


class _Stranger(dict[Any, Any]):
    """A request on which the door has noted nothing."""


@pytest.mark.parametrize("reason", list(RejectReason))
async def test_every_refusal_has_a_status_and_says_when_to_come_back(reason: RejectReason) -> None:
    async with rig_of(model("m")) as rig:
        rig.context.logs.write_upstream(ModelId("m"), b"secret path\n")
        reject = Reject(RequestId(1), reason, "because", 1.2)
        error = refusals.refusal(rig.context, _Stranger(), ModelId("m"), reject)  # type: ignore[arg-type]
        assert error.headers == {"Retry-After": "2"}
        assert "secret path" not in error.message
        assert error.status == {
            "over_limit": 429,
            "upstream_failed": 502,
            "start_timeout": 504,
            "model_removed": 404,
        }.get(reason, 503)
        assert not refusals.refusal(
            rig.context,
            _Stranger(),  # type: ignore[arg-type]
            ModelId("m"),
            Reject(RequestId(1), RejectReason.QUEUE_FULL, "x"),
        ).headers


async def test_a_client_that_leaves_while_it_waits_gives_its_place_back(http: aiohttp.ClientSession) -> None:
    async with rig_of(model("m")) as rig:
        rig.auto = False
        asked = asyncio.create_task(post(http, rig, {"model": "m"}))
        await until(lambda: rig.waiting("m"), "it waits")
        asked.cancel()
        await until(lambda: rig.idle, "its place is free")
        rig.ready()
        assert not rig.upstream.seen


async def test_a_client_that_leaves_while_served_ends_the_upstreams_work(http: aiohttp.ClientSession) -> None:
    async with rig_of(model("m")) as rig:
        aborted = asyncio.Event()

        async def endless(asked: web.Request) -> web.StreamResponse:
            response = web.StreamResponse(headers={"Content-Type": "text/event-stream"})
            await response.prepare(asked)
            try:
                while True:
                    await response.write(b"data: x\n\n")
                    await asyncio.sleep(0.005)
            finally:
                aborted.set()

        rig.upstream.answer = endless
        async with http.post(rig.url + CHAT, json={"model": "m"}) as answer:
            await answer.content.readany()
            assert rig.in_flight("m") == 1
        answer.close()
        async with asyncio.timeout(5):
            await aborted.wait()
        await until(lambda: rig.idle, "its place is free")


async def test_a_waiting_request_can_be_cancelled_by_an_operator(http: aiohttp.ClientSession) -> None:
    async with rig_of(model("m")) as rig:
        rig.auto = False
        asked = asyncio.create_task(post(http, rig, {"model": "m"}))
        await until(lambda: rig.waiting("m"), "it waits")
        assert not rig.context.in_flight.cancel(99)
        assert rig.context.in_flight.cancel(1)
        status, error = await asked
        assert (status, error["error"]["code"]) == (503, "cancelled")
        assert not rig.context.in_flight.cancel(1)


async def test_cancelling_twice_is_cancelling_once() -> None:
    in_flight = InFlight()

    async def worked_on() -> None:
        async with asyncio.timeout(None) as scope:
            with in_flight.listed(7, scope):
                assert in_flight.cancel(7)
                assert in_flight.cancel(7)
                try:
                    await asyncio.Event().wait()
                finally:
                    assert in_flight.cancel(7)

    with pytest.raises(TimeoutError):
        await worked_on()
    assert not in_flight.cancel(7)


async def test_a_timeout_of_something_else_is_no_cancellation(
    http: aiohttp.ClientSession, monkeypatch: pytest.MonkeyPatch
) -> None:
    async with rig_of(model("m")) as rig:

        async def slow(*_: Any, **__: Any) -> None:
            raise TimeoutError

        monkeypatch.setattr(rig.context.upstream, "forward", slow)
        assert (await post(http, rig, {"model": "m"}))[0] == 504


async def test_a_stream_cancelled_by_an_operator_does_not_look_complete(
    http: aiohttp.ClientSession, caplog: pytest.LogCaptureFixture
) -> None:
    async with rig_of(model("m")) as rig:
        rig.upstream.answer = _stalling
        async with http.post(rig.url + CHAT, json={"model": "m"}) as answer:
            assert await answer.content.readany() == b"data: 1\n\n"
            assert rig.context.in_flight.cancel(1)
            with pytest.raises(aiohttp.ClientError):
                await answer.content.read()
        assert [record for record in caplog.records if record.levelname == "ERROR"] == []


async def _stalling(asked: web.Request) -> web.StreamResponse:
    response = web.StreamResponse(headers={"Content-Type": "text/event-stream"})
    await response.prepare(asked)
    await response.write(b"data: 1\n\n")
    await asyncio.Event().wait()
    return response


async def test_a_bug_of_ours_is_a_500_and_leaks_no_place(
    http: aiohttp.ClientSession, monkeypatch: pytest.MonkeyPatch
) -> None:
    async with rig_of(model("m"), limit=1) as rig:

        async def broken(*_: Any, **__: Any) -> None:
            raise ZeroDivisionError("a bug")

        monkeypatch.setattr(rig.context.upstream, "forward", broken)
        for _ in range(3):
            status, error = await post(http, rig, {"model": "m"})
            assert (status, error["error"]["type"]) == (500, "server_error")
            assert "a bug" not in error["error"]["message"]
        monkeypatch.undo()
        assert (await post(http, rig, {"model": "m"}))[0] == 200


async def test_an_error_on_the_messages_route_is_anthropics(http: aiohttp.ClientSession) -> None:
    async with rig_of(model("m")) as rig:
        status, error = await post(http, rig, {"model": "x"}, "/v1/messages")
        assert (status, error["type"], error["error"]["type"]) == (404, "error", "not_found_error")


async def test_the_last_event_reaches_a_client_that_reads_late(caplog: pytest.LogCaptureFixture) -> None:
    async def dies(asked: web.Request) -> web.StreamResponse:
        response = web.StreamResponse(headers={"Content-Type": "text/event-stream"})
        await response.prepare(asked)
        await response.write(b"data: x\n\n")
        await asyncio.sleep(0.05)
        asked.transport.abort()
        return response

    async with rig_of(model("m")) as rig, await rig.connect() as client:
        rig.upstream.answer = dies
        await client.send(request("POST", CHAT, b'{"model":"m","stream":true}'))
        await until(lambda: rig.upstream.seen and rig.idle, "the stream broke off")
        await asyncio.sleep(0.1)  # a reset that is to overtake the event has done so by now
        reply = await client.read_to_end()
        assert b"upstream_failed" in reply.data
        assert not reply.data.endswith(b"0\r\n\r\n")
        assert reply.closed == "eof"
    assert "m cut request" in caplog.text  # the operator hears of it, too
