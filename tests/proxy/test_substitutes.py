"""What a request may cost others, who serves in its place, and what the response says of it."""

import asyncio
from typing import Any

import aiohttp
import orjson
import pytest
from aiohttp import web
from multidict import CIMultiDict

from llmswap.config.load import loads
from llmswap.core.events import Generation, LoadRequested, RequestId, SwapClass, UpstreamExited, UpstreamStopped
from llmswap.core.fleet import ModelId
from llmswap.core.states import State
from llmswap.proxy.calls import Call, fill_nothing
from llmswap.proxy.dialects import Ask
from llmswap.proxy.request_keys import RECORD, SERVED
from llmswap.proxy.swapping import SERVED_BY, served
from llmswap.runtime.gate import Lease, Ticket
from llmswap.runtime.observing import RequestRecord
from tests.proxy.rig import Rig, model, rig_on
from tests.raw import Reply, request
from tests.stack import until

CHAT = "/v1/chat/completions"
JSON = "Content-Type: application/json\r\n"
NEVER = "X-LLMSwap-Swap: never-swap\r\n"
WARM = "X-LLMSwap-Swap: prefer-warm\r\n"
ANSWERS = ("x-llmswap-swap-seconds", "x-llmswap-residency", "x-llmswap-served-by")

CONFIG = """
models:
  big:
    cmd: server --port ${PORT}
    swapClassByID: {title: never-swap, chat: prefer-warm}
    filters: {setParams: {top_p: 0.5}, setParamsByID: {chat: {seed: 1}}}
    substitutes: [plain, renamed]
  plain:
    cmd: server --port ${PORT}
    filters: {stripParams: top_k, setParamsByID: {plain: {temperature: 0}}}
  renamed:
    cmd: server --port ${PORT}
    useModelName: org/renamed
  shy:
    cmd: server --port ${PORT}
    swapClass: never-swap
"""


async def ask(rig: Rig, body: dict[str, Any], headers: str = "", path: str = CHAT) -> Reply:
    return await rig.raw(request("POST", path, orjson.dumps(body), headers=JSON + headers))


def load(rig: Rig, name: str) -> None:
    rig.loop.post(LoadRequested(ModelId(name)))
    assert rig.state(name) is State.READY


def said(reply: Reply) -> tuple[str | None, ...]:
    """Give what a response says of its swap, its model's residency and its substitute."""
    assert ("x-llmswap-queue-seconds" in reply.headers) is ("x-llmswap-swap-seconds" in reply.headers)
    return tuple(reply.headers.get(name) for name in ANSWERS)


@pytest.mark.parametrize(
    ("body", "headers"),
    [
        ({"model": "shy"}, ""),
        ({"model": "big"}, NEVER),
        ({"model": "title"}, ""),
        ({"model": "title", "stream": True}, "X-LLMSwap-Swap:  Never-Swap \r\n"),
    ],
)
async def test_never_swap_is_refused_at_once_and_nothing_is_started(body: dict[str, Any], headers: str) -> None:
    async with rig_on(loads(CONFIG)) as rig:
        reply = await ask(rig, body, headers)
        error = orjson.loads(reply.body)["error"]
        assert (reply.status, error["code"]) == (503, "would_swap")
        assert int(reply.headers["retry-after"]) >= 1
        for word in ("is not up", "may not cause a swap", "X-LLMSwap-Swap: may-swap", "`substitutes`"):
            assert word in error["message"]
        assert not rig.starts
        assert not rig.upstream.seen


async def test_the_request_goes_before_the_name_and_the_name_before_the_model() -> None:
    async with rig_on(loads(CONFIG)) as rig:
        assert (await ask(rig, {"model": "title"}, "X-LLMSwap-Swap: may-swap\r\n")).status == 200
        assert (await ask(rig, {"model": "shy"}, "X-LLMSwap-Swap: may-swap\r\n")).status == 200
        assert (await ask(rig, {"model": "big"})).status == 200
        assert [start.model for start in rig.starts] == ["big", "shy", "big"]


@pytest.mark.parametrize("value", ["", "never", "may-swap, never-swap", "\u00e9"])
async def test_a_class_that_does_not_exist_is_refused_and_names_those_that_do(value: str) -> None:
    async with rig_on(loads(CONFIG)) as rig:
        reply = await ask(rig, {"model": "big"}, f"X-LLMSwap-Swap: {value}\r\n")
        error = orjson.loads(reply.body)["error"]
        assert (reply.status, error["code"]) == (400, "invalid_swap_class")
        assert "may-swap, prefer-warm, never-swap" in error["message"]
        assert not rig.starts


async def test_a_model_that_is_up_serves_whatever_the_class() -> None:
    async with rig_on(loads(CONFIG)) as rig:
        load(rig, "big")
        for name in ("title", "chat", "big"):
            reply = await ask(rig, {"model": name})
            assert (reply.status, said(reply)) == (200, ("0.000", "hit", None))
        assert [seen.json["model"] for seen in rig.upstream.seen] == ["title", "chat", "big"]


async def test_a_substitute_gets_the_body_as_if_it_had_been_asked_for_by_its_id() -> None:
    async with rig_on(loads(CONFIG)) as rig:
        load(rig, "plain")
        reply = await ask(rig, {"model": "chat", "top_k": 1, "x": 2})
        assert (reply.status, said(reply)) == (200, ("0.000", "hit", "plain"))
        assert rig.upstream.last.json == {"model": "plain", "x": 2, "temperature": 0}
        load(rig, "renamed")
        reply = await ask(rig, {"model": "title", "top_k": 1})
        assert (reply.status, said(reply)) == (200, ("0.000", "hit", "renamed"))
        assert rig.upstream.last.json == {"model": "org/renamed", "top_k": 1}
        assert [start.model for start in rig.starts] == ["plain", "renamed"]


async def test_a_substitute_has_its_own_time_limits(monkeypatch: pytest.MonkeyPatch) -> None:
    config = CONFIG.replace("    useModelName: org", "    timeouts: {responseHeader: 7}\n    useModelName: org")
    async with rig_on(loads(config)) as rig:
        load(rig, "renamed")
        limits = []

        async def forward(*given: Any, **_: Any) -> web.StreamResponse:
            limits.append(given[3].response_header_s)
            return web.Response()

        monkeypatch.setattr(rig.context.upstream, "forward", forward)
        await ask(rig, {"model": "title"})
        await ask(rig, {"model": "big"})
        assert limits == [7.0, None]


async def test_prefer_warm_swaps_if_no_substitute_is_up() -> None:
    async with rig_on(loads(CONFIG)) as rig:
        load(rig, "shy")
        reply = await ask(rig, {"model": "chat"})
        assert (reply.status, *said(reply)[1:]) == (200, "miss", None)
        assert rig.upstream.last.json == {"model": "chat", "top_p": 0.5, "seed": 1}
        assert rig.state("big") is State.READY


async def test_a_swap_is_timed_in_the_head() -> None:
    async with rig_on(loads(CONFIG)) as rig:
        rig.auto = False
        asked = asyncio.create_task(ask(rig, {"model": "big"}))
        await until(lambda: rig.starts, "the start is ordered")
        await asyncio.sleep(0.05)  # the start takes that long
        rig.ready()
        reply = await asked
        queue_s, swap_s = reply.headers["x-llmswap-queue-seconds"], reply.headers["x-llmswap-swap-seconds"]
        assert said(reply) == (swap_s, "miss", None)
        assert 0.05 <= float(swap_s) <= float(queue_s) + 0.001 < 5


async def test_streams_say_it_in_the_head_too_and_upstreams_cannot_say_it_for_us() -> None:
    async def stream(asked: web.Request) -> web.StreamResponse:
        headers = {"Content-Type": "text/event-stream", "X-LLMSwap-Residency": "theirs", "x-llmswap-served-by": "them"}
        response = web.StreamResponse(headers=headers)
        await response.prepare(asked)
        await response.write(b"data: 1\n\n")
        return response

    async with rig_on(loads(CONFIG)) as rig:
        rig.upstream.answer = stream
        load(rig, "big")
        reply = await ask(rig, {"model": "big", "stream": True})
        assert said(reply) == ("0.000", "hit", None)
        assert reply.data.lower().count(b"x-llmswap-") == 3


async def test_a_loading_stream_says_only_what_is_known_in_its_head() -> None:
    async with rig_on(loads(CONFIG + "sendLoadingState: true\n")) as rig:
        rig.auto = False
        asked = asyncio.create_task(ask(rig, {"model": "big", "stream": True}))
        await until(lambda: rig.starts, "the start is ordered")
        rig.fail("exited with code 1")
        assert said(await asked) == (None, "miss", None)


async def test_errors_of_a_dispatched_request_say_it_as_well() -> None:
    async def refuse(asked: web.Request) -> web.StreamResponse:
        asked.transport.abort()  # type: ignore[union-attr]
        raise ConnectionResetError

    async with rig_on(loads(CONFIG)) as rig:
        load(rig, "plain")
        rig.upstream.answer = refuse
        reply = await ask(rig, {"model": "title"})
        assert (reply.status, said(reply)) == (502, ("0.000", "hit", "plain"))
        assert len(rig.upstream.seen) == 1  # it is alive: to ask it again would be to ask for the same
        assert said(await ask(rig, {"model": "shy"})) == (None,) * 3


@pytest.mark.parametrize(
    ("content_type", "body", "query", "sent", "target"),
    [
        ("text/plain", b'{"model":"title","x":1}', "", b'{"model":"plain","x":1}', ""),
        ("text/plain", b'{"x":1}', "?a=%20&model=title&b=", b'{"x":1}', "?a=%20&model=plain&b="),
        (
            "application/x-www-form-urlencoded",
            b"a=%C3%A9+\xff&model=title&b=1",
            "",
            b"a=%C3%A9+\xff&model=plain&b=1",
            "",
        ),
        ("application/x-www-form-urlencoded", b"x=&y", "?m%6fdel=tit%6ce&z", b"x=&y", "?m%6fdel=plain&z"),
        ("application/octet-stream", b"\x00\xff", "?model=title", b"\x00\xff", "?model=plain"),
    ],
)
async def test_wherever_the_model_is_named_the_substitute_reads_its_own_name(
    content_type: str, body: bytes, query: str, sent: bytes, target: str
) -> None:
    async with rig_on(loads(CONFIG)) as rig:
        load(rig, "plain")
        headers = f"Content-Type: {content_type}\r\n{NEVER}"
        reply = await rig.raw(request("POST", CHAT + query, body, headers=headers))
        assert (reply.status, said(reply)[2]) == (200, "plain")
        assert (rig.upstream.last.body, rig.upstream.last.target) == (sent, CHAT + target)


async def test_a_get_names_the_substitute_in_its_query() -> None:
    async with rig_on(loads(CONFIG)) as rig:
        load(rig, "renamed")
        reply = await rig.raw(request("GET", "/props?model=big&x=1", headers=NEVER))
        assert (reply.status, rig.upstream.last.target) == (200, "/props?model=org%2Frenamed&x=1")


async def test_a_form_with_files_names_the_substitute(http: aiohttp.ClientSession) -> None:
    async with rig_on(loads(CONFIG)) as rig:
        load(rig, "plain")
        form = aiohttp.FormData()
        form.add_field("file", b"\x00" * 1000, filename="a.wav")
        form.add_field("model", "title")
        async with http.post(rig.url + "/v1/audio/transcriptions", data=form) as answer:
            assert (answer.status, answer.headers[SERVED_BY]) == (200, "plain")
        assert b'name="model"\r\n\r\nplain\r\n' in rig.upstream.last.body
        assert len(rig.upstream.last.body) == int(rig.upstream.last.headers["Content-Length"])


async def test_pages_of_a_model_are_served_by_no_other() -> None:
    async with rig_on(loads(CONFIG)) as rig:
        load(rig, "plain")
        reply = await rig.raw(request("GET", "/upstream/title/slots"))
        assert (reply.status, orjson.loads(reply.body)["error"]["code"]) == (503, "would_swap")
        assert not rig.upstream.seen
        reply = await rig.raw(request("GET", "/upstream/shy/slots"))
        assert (reply.status, orjson.loads(reply.body)["error"]["code"]) == (503, "would_swap")
        assert [start.model for start in rig.starts] == ["plain"]
        assert (await rig.raw(request("GET", "/upstream/big/slots", headers=WARM))).status == 200
        assert [start.model for start in rig.starts] == ["plain", "big"]


async def test_what_is_said_to_llmswap_is_not_passed_on() -> None:
    async with rig_on(loads(CONFIG)) as rig:
        await ask(rig, {"model": "big"}, "X-LLMSwap-Swap: may-swap\r\nx-llmswap-caller: me\r\nX-LLMSwap-New: 1\r\n")
        assert [name for name in rig.upstream.last.headers if name.lower().startswith("x-llmswap")] == []


async def test_a_call_whose_substitute_dies_under_it_is_served_all_the_same() -> None:
    async with rig_on(loads(CONFIG)) as rig:
        load(rig, "plain")
        dying = rig.loop.snapshot().upstreams[ModelId("plain")].generation
        tries = 0

        async def dies(asked: web.Request) -> web.StreamResponse:
            nonlocal tries
            tries += 1
            if tries == 1:
                rig.loop.post(UpstreamExited(ModelId("plain"), dying, "exited with code 1"))
                rig.loop.post(UpstreamStopped(ModelId("plain"), dying))
                asked.transport.abort()  # type: ignore[union-attr]
            return web.json_response({"ok": True})

        rig.upstream.answer = dies
        reply = await ask(rig, {"model": "chat"})
        assert (reply.status, *said(reply)[1:]) == (200, "miss", None)
        assert [seen.json["model"] for seen in rig.upstream.seen] == ["plain", "chat"]
        assert [start.model for start in rig.starts] == ["plain", "big"]


async def test_a_substitute_that_a_reload_has_just_removed_is_no_500() -> None:
    async with rig_on(loads(CONFIG)) as rig:
        load(rig, "plain")
        without = loads(
            CONFIG.replace("  plain:", "  other:").replace("[plain, renamed]", "[]").replace("plain:", "other:")
        )
        rig.context.loaded = without
        reply = await ask(rig, {"model": "title"})
        assert (reply.status, reply.headers["retry-after"]) == (503, "1")
        assert "plain" in orjson.loads(reply.body)["error"]["message"]


def test_a_model_id_in_a_header_is_always_printable() -> None:
    fields = dict(served(1.2345, None, ModelId("a b/\u00e9\r\n%2F(x)")).fields)
    assert fields == {
        "X-LLMSwap-Queue-Seconds": "1.234",
        "X-LLMSwap-Swap-Seconds": "0.000",
        "X-LLMSwap-Residency": "hit",
        "X-LLMSwap-Served-By": "a%20b/%C3%A9%0D%0A%252F(x)",
    }
    assert served(0.0004, None, None) is served(0.0, None, None)
    assert dict(served(0.0, 0.0, None).fields)["X-LLMSwap-Residency"] == "miss"


def test_the_waits_for_both_leases_of_a_call_that_is_sent_twice_are_added_up() -> None:
    noted: dict[Any, Any] = {RECORD: RequestRecord("1", "POST", "/", "/", 0.0)}
    ask = Ask("m")
    call = Call(noted, model("m"), ask, "/", CIMultiDict(), fill_nothing, SwapClass.MAY_SWAP, "")  # type: ignore[arg-type]
    for waited_s, swap_s in ((1.0, None), (2.0, 1.5), (4.0, 1.0)):
        call.granted(
            Ticket(RequestId(1), ModelId("m")), Lease(RequestId(1), ModelId("m"), Generation(1), "", waited_s, swap_s)
        )
    assert [value for _, value in noted[SERVED].fields] == ["7.000", "2.500", "miss"]


async def test_the_access_log_names_a_substitute(caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level("INFO", logger="llmswap")
    async with rig_on(loads(CONFIG)) as rig:
        load(rig, "plain")
        await ask(rig, {"model": "title"})
        await ask(rig, {"model": "plain"})
        await until(lambda: caplog.text.count(CHAT) == 2, "both are logged")
    substituted, plain = [line for line in caplog.text.splitlines() if CHAT in line]
    assert substituted.endswith("s by substitute plain")
    assert plain.endswith("s")


async def test_pages_of_allowed_origins_may_read_the_headers() -> None:
    origin = "https://chat.example.org"
    async with rig_on(loads(CONFIG + f'allowedOrigins: ["{origin}"]\n')) as rig:
        reply = await ask(rig, {"model": "big"}, f"Origin: {origin}\r\n")
        assert "X-LLMSwap-Residency" in reply.headers["access-control-expose-headers"]
        assert "access-control-expose-headers" not in (await ask(rig, {"model": "big"})).headers
