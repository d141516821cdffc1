"""`/upstream`: the longest name wins, the path goes on untouched, and some paths do not go on at all."""

import asyncio
import re
import time

import aiohttp
import pytest
from aiohttp import WSMsgType, web

from llmswap.config.load import loads
from llmswap.config.settings import AccessSettings
from llmswap.core.commands import Sleep, Start
from llmswap.core.events import LoadRequested, SleepRequested
from llmswap.core.fleet import ModelId
from llmswap.proxy.bodies import BodyLimits
from tests.proxy.rig import Rig, model, rig_of, rig_on
from tests.raw import request
from tests.stack import until

IGNORED = {"ignore_paths": (re.compile(r".*\.(js|css)$"),)}


async def get(rig: Rig, path: str) -> int:
    return (await rig.raw(request("GET", path))).status


@pytest.mark.parametrize(
    ("path", "start", "target"),
    [
        ("/upstream/m/", "m", "/"),
        ("/upstream/m/a/b?x=%2F&y", "m", "/a/b?x=%2F&y"),
        ("/upstream/alias/slots", "m", "/slots"),
        ("/upstream/author/model/v1/x", "author/model", "/v1/x"),
        ("/upstream/author/other/v1/x", "author", "/other/v1/x"),
        ("/upstream/author%2Fmodel/v1/x", "author/model", "/v1/x"),
        ("/upstream/author%2fmodel/", "author/model", "/"),
        ("/upstream//author//model//x", "author/model", "//x"),
        ("/upstream/%C3%A9/x", "\u00e9", "/x"),
        ("/upstream/m/workflows%2Fa.json", "m", "/workflows%2Fa.json"),
        ("/upstream/m/%252F/%E2%82%ac;v=1/~a//b/", "m", "/%252F/%E2%82%ac;v=1/~a//b/"),
        ("/upstream/m/a%20b+c%3F", "m", "/a%20b+c%3F"),
        ("/upstream/m/x?../..%2f", "m", "/x?../..%2f"),
        ("http://localhost/upstream/m/x", "m", "/x"),
    ],
)
async def test_the_longest_name_wins_and_the_rest_stays_as_it_was(path: str, start: str, target: str) -> None:
    models = (model("m", aliases=("alias",)), model("author"), model("author/model"), model("\u00e9"))
    async with rig_of(*models) as rig:
        assert await get(rig, path) == 200
        assert rig.upstream.last.target == target
        assert [entry.model for entry in rig.starts] == [start]


@pytest.mark.parametrize("path", ["/upstream/x/y", "/upstream/M/", "/upstream/", "/upstream/m%252F/", "/upstream/%FF/"])
async def test_an_unknown_model_is_404(path: str) -> None:
    async with rig_of(model("m")) as rig:
        assert await get(rig, path) == 404
        assert not rig.starts


async def test_a_bare_model_is_redirected_and_nothing_starts() -> None:
    async with rig_of(model("m"), model("a/b")) as rig:
        reply = await rig.raw(request("GET", "/upstream/m?a=%20b"))
        assert (reply.status, reply.headers["location"]) == (301, "/upstream/m/?a=%20b")
        reply = await rig.raw(request("POST", "/upstream/a%2Fb", b"{}"))
        assert (reply.status, reply.headers["location"]) == (308, "/upstream/a%2Fb/")
        assert not rig.starts


@pytest.mark.parametrize(
    "path",
    [
        "/upstream/m/../x",
        "/upstream/m/a/./x",
        "/upstream/m/%2e%2e/x",
        "/upstream/m/%2E./x",
        "/upstream/m/a/..",
        "/upstream/m/..%2fx",
        "/upstream/m/a%2f..%2fx",
        "/upstream/../m/x",
        "/upstream/m/a\\b",
        "/upstream/m/a%5cb",
        "/upstream/m/%5C..%5Cx",
        "/upstream/m/a%00b",
        "/%75pstream/m/x",
        "/upstream/m/" + "%25" * 8 + "2525252525x",
    ],
)
async def test_paths_that_two_parsers_may_read_differently_are_refused(path: str) -> None:
    async with rig_of(model("m")) as rig:
        assert await get(rig, path) in {400, 404}
        assert not rig.upstream.seen
        assert not rig.starts


CONTROL = [
    "sleep",
    "sleep?level=1",
    "wake_up",
    "is_sleeping",
    "collective_rpc",
    "reset_prefix_cache",
    "reset_mm_cache",
    "v1/load_lora_adapter",
    "v1/unload_lora_adapter",
    "pause",
    "resume",
    "shutdown",
    "update_weights_from_disk",
    "%73leep",
    "%2573leep",
    "/sleep",
    "//sleep//",
    "SLEEP",
    "Sleep/",
    "sleep;x=1",
    "x/sleep",
    "a%2Fsleep",
    "%20sleep",
]


@pytest.mark.parametrize("path", CONTROL)
async def test_an_engines_controls_are_the_schedulers(path: str) -> None:
    async with rig_of(model("m")) as rig:
        assert (await rig.raw(request("POST", "/upstream/m/" + path))).status == 403
        assert not rig.starts


async def test_control_paths_pass_if_it_is_meant_so() -> None:
    async with rig_of(model("m"), access=AccessSettings(allow_control=True)) as rig:
        assert (await rig.raw(request("POST", "/upstream/m/%73leep?level=1"))).status == 200
        assert rig.upstream.last.target == "/%73leep?level=1"


@pytest.mark.parametrize("path", ["/sleeping", "/v1/asleep", "/reset", "/pauses/1", "/x?sleep"])
async def test_what_only_resembles_control_passes(path: str) -> None:
    async with rig_of(model("m")) as rig:
        assert await get(rig, "/upstream/m" + path) == 200


async def test_static_files_do_not_start_a_model() -> None:
    async with rig_of(model("m"), **IGNORED) as rig:
        assert await get(rig, "/upstream/m/foo.js") == 409
        assert await get(rig, "/upstream/m/foo%2Ejs") == 409
        assert not rig.starts
        rig.auto = False
        starting = asyncio.create_task(get(rig, "/upstream/m/page"))
        await until(lambda: rig.starts, "the start is ordered")
        assert await get(rig, "/upstream/m/foo.js") == 409
        rig.ready()
        assert await starting == 200
        assert await get(rig, "/upstream/m/foo.js") == 200
        assert await get(rig, "/upstream/m/foo.js/x") == 200


@pytest.mark.parametrize("method", ["GET", "POST", "PUT", "PATCH", "DELETE"])
async def test_any_method_and_body_goes_through(method: str) -> None:
    async with rig_of(model("m", use_model_name="real")) as rig:
        body = b'\x00\xff{"model":"x"}' * 20_000
        headers = "Content-Type: application/json\r\nContent-Encoding: gzip\r\n"
        assert (await rig.raw(request(method, "/upstream/m/x", body, headers=headers))).status == 200
        seen = rig.upstream.last
        assert (seen.method, seen.body, seen.headers["Content-Encoding"]) == (method, body, "gzip")


async def test_a_body_of_unknown_length_streams_within_its_limits() -> None:
    async with rig_of(model("m"), limits=BodyLimits(upload_max=1000, idle_s=0.2)) as rig:
        head = (
            b"POST /upstream/m/x HTTP/1.1\r\nHost: localhost\r\nConnection: close\r\nTransfer-Encoding: chunked\r\n\r\n"
        )
        assert (await rig.raw(head + b"5\r\nhello\r\n0\r\n\r\n")).status == 200
        assert rig.upstream.last.body == b"hello"
        assert (await rig.raw(head + b"5\r\nhello\r\n")).status == 408
        assert (await rig.raw(head + b"7D0\r\n" + b"x" * 2000 + b"\r\n0\r\n\r\n")).status == 413
        assert (await rig.raw(request("POST", "/upstream/m/x", b"x" * 1001))).status == 413


async def test_an_upstreams_page_is_sandboxed_and_leaves_no_state_in_the_browser() -> None:
    async with rig_of(model("m")) as rig:

        async def page(asked: web.Request) -> web.StreamResponse:
            headers = {"Set-Cookie": "a=b", "Clear-Site-Data": "*", "Service-Worker-Allowed": "/", "X-Own": "1"}
            headers["Content-Security-Policy"] = "default-src *"
            if asked.raw_path == "/stream":
                response = web.StreamResponse(headers=headers)
                await response.prepare(asked)
                await response.write(b"x")
                return response
            return web.Response(text="<p>", headers=headers)

        rig.upstream.answer = page
        for path in ("/page", "/stream"):
            reply = await rig.raw(request("GET", "/upstream/m" + path))
            assert reply.headers["content-security-policy"].startswith("sandbox allow-scripts")
            assert reply.headers["x-own"] == "1"
            assert {"set-cookie", "clear-site-data", "service-worker-allowed"}.isdisjoint(reply.headers)
        reply = await rig.raw(request("GET", "/props?model=m"))
        assert reply.headers["content-security-policy"] == "default-src *"


async def test_pages_that_are_trusted_pass_as_they_are() -> None:
    async with rig_of(model("m"), access=AccessSettings(trust_pages=True)) as rig:

        async def page(asked: web.Request) -> web.StreamResponse:
            return web.Response(text="<p>", headers={"Set-Cookie": "a=b"})

        rig.upstream.answer = page
        reply = await rig.raw(request("GET", "/upstream/m/page"))
        assert reply.headers["set-cookie"] == "a=b"
        assert "content-security-policy" not in reply.headers


async def echo(asked: web.Request) -> web.StreamResponse:
    socket = web.WebSocketResponse()
    await socket.prepare(asked)
    async for message in socket:
        await socket.send_str(f"echo {message.data}")
    return socket


@pytest.mark.parametrize("path", ["/upstream/m/ws", "/props?model=m"])
async def test_a_websocket_is_a_request_like_any_other(http: aiohttp.ClientSession, path: str) -> None:
    async with rig_of(model("m")) as rig:
        rig.upstream.answer = echo
        async with http.ws_connect(rig.url + path) as socket:
            await socket.send_str("hello")
            assert (await socket.receive()).data == "echo hello"
            assert rig.in_flight("m") == 1
        await until(lambda: rig.idle, "its place is free")


@pytest.mark.parametrize("path", ["/upstream/m/ws", "/props?model=m"])
async def test_an_ignored_websocket_starts_nothing_and_counts_for_nothing(
    http: aiohttp.ClientSession, path: str
) -> None:
    async with rig_of(model("m", ignore_websockets=True), limit=1) as rig:
        rig.upstream.answer = echo
        with pytest.raises(aiohttp.WSServerHandshakeError) as caught:
            await http.ws_connect(rig.url + path)
        assert caught.value.status == 409
        assert not rig.starts
        rig.upstream.answer = None
        assert await get(rig, "/upstream/m/") == 200
        rig.upstream.answer = echo
        async with http.ws_connect(rig.url + path) as one, http.ws_connect(rig.url + path) as two:
            for socket in (one, two):
                await socket.send_str("hello")
                assert (await socket.receive()).type is WSMsgType.TEXT
            assert rig.idle
        assert not rig.context.in_flight.cancel(2)


async def test_a_sleep_cuts_an_ignored_websocket_off_so_that_nothing_reaches_the_sleeper(
    http: aiohttp.ClientSession,
) -> None:
    sleepy = 'models: {m: {cmd: "x ${PORT}", compat: {ignoreWebsockets: true}, sleep: {preset: vllm-l1}}}\n'
    async with rig_on(loads(sleepy)) as rig:
        ordered: list[Sleep] = []
        rig.loop.performs({Sleep: ordered.append})
        rig.upstream.answer = echo
        rig.loop.post(LoadRequested(ModelId("m")))
        async with http.ws_connect(rig.url + "/upstream/m/ws") as socket:
            await socket.send_str("hello")
            assert (await socket.receive()).data == "echo hello"
            rig.loop.post(SleepRequested(ModelId("m"), time.monotonic() + 5))
            assert ordered
            assert (await socket.receive()).type in {WSMsgType.CLOSED, WSMsgType.CLOSE, WSMsgType.ERROR}


async def test_a_post_cannot_pass_for_an_ignored_websocket() -> None:
    async with rig_of(model("m", ignore_websockets=True)) as rig:
        data = b"POST /upstream/m/x HTTP/1.1\r\nHost: localhost\r\nConnection: Upgrade, close\r\nUpgrade: websocket\r\n"
        await rig.raw(data + b"Content-Length: 2\r\n\r\n{}")
        assert [start.model for start in rig.starts] == ["m"]


async def test_a_start_is_ordered_once_for_many_requests() -> None:
    async with rig_of(model("m")) as rig:
        rig.auto = False
        asked = [asyncio.create_task(get(rig, "/upstream/m/x")) for _ in range(5)]
        await until(lambda: rig.waiting("m") == 5, "all wait")
        rig.ready()
        assert await asyncio.gather(*asked) == [200] * 5
        assert [type(start) for start in rig.starts] == [Start]
