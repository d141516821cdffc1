"""Listening: where it may, how much, how long, and how it ends."""

import asyncio
import gzip
import logging
import shutil
import ssl
import subprocess
import time
from pathlib import Path

import aiohttp
import pytest
from aiohttp import web

from llmswap.config.settings import AccessSettings
from llmswap.proxy import connection, server
from llmswap.proxy.connection import Crowd
from llmswap.proxy.door import Route, Scope
from llmswap.proxy.routes import DOOR
from llmswap.proxy.server import BindRefused, check_bind, parse_listen, serve
from tests.proxy.front import KEY, ask, front, session
from tests.stack import until

GET = b"GET /health HTTP/1.1\r\nHost: localhost\r\n\r\n"
LAST = b"GET /health HTTP/1.1\r\nHost: localhost\r\nConnection: close\r\n\r\n"


@pytest.mark.parametrize("listen", ["127.0.0.1:8080", "127.9.9.9:1", "[::1]:8080", "localhost:8080"])
def test_loopback_may_be_listened_on_without_keys(listen: str) -> None:
    check_bind(listen, AccessSettings())


@pytest.mark.parametrize("listen", [":8080", "0.0.0.0:8080", "[::]:8080", "192.0.2.1:80", "no-such-host.invalid:80"])
def test_other_addresses_need_keys_or_an_explicit_word(listen: str, caplog: pytest.LogCaptureFixture) -> None:
    with pytest.raises(BindRefused) as refusal:
        check_bind(listen, AccessSettings())
    for way_out in ("apiKeys", "allowUnauthenticated: true", "--allow-unauthenticated", "127.0.0.1"):
        assert way_out in str(refusal.value)
    check_bind(listen, AccessSettings(api_keys=(KEY,)))
    assert not caplog.records
    check_bind(listen, AccessSettings(allow_unauthenticated=True))
    assert [record.levelno for record in caplog.records] == [logging.WARNING]


@pytest.mark.parametrize(
    ("listen", "expected"),
    [("127.0.0.1:80", ("127.0.0.1", 80)), (":80", (None, 80)), ("[::1]:0", ("::1", 0)), ("box:65535", ("box", 65535))],
)
def test_listen_addresses_are_read(listen: str, expected: tuple[str | None, int]) -> None:
    assert parse_listen(listen) == expected


@pytest.mark.parametrize(
    "listen", ["", "8080", "127.0.0.1", "127.0.0.1:http", "127.0.0.1:65536", "::1:80", "a:-1", "a:\u0661"]
)
def test_nonsense_addresses_are_refused_with_an_example(listen: str) -> None:
    with pytest.raises(OSError, match="like"):
        parse_listen(listen)


async def test_a_head_that_dawdles_is_answered_408_and_closed(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(connection, "HEAD_TIMEOUT_S", 0.3)
    async with front() as served:
        began_s = time.monotonic()
        async with await served.connect() as client:
            reading = asyncio.create_task(client.read_to_end())
            for byte in b"GET /health HTTP/1.1\r\nX: ":
                await client.send(bytes([byte]))
                if reading.done():
                    break
                await asyncio.sleep(0.02)
            reply = await reading
        assert reply.status == 408
        assert b'"error"' in reply.body
        assert 0.25 < time.monotonic() - began_s < 4


async def test_a_connection_that_never_says_anything_is_closed_silently(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(connection, "HEAD_TIMEOUT_S", 0.1)
    async with front() as served:
        reply = await served.raw(b"")
        assert (reply.data, reply.closed) == (b"", "eof")


async def test_later_heads_have_the_same_limit_and_idling_between_requests_does_not_count(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(connection, "HEAD_TIMEOUT_S", 0.2)
    async with front() as served, await served.connect() as client:
        for _ in range(2):
            await client.send(GET)
            await client.read_until(b"\r\n\r\nOK")
            await asyncio.sleep(0.3)  # idle for longer than a head may take
        await client.send(GET[:9])
        reply = await client.read_to_end()
        assert reply.status == 408


async def test_idle_connections_end_after_the_keep_alive_time(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(server, "KEEPALIVE_S", 0.2)
    async with front() as served:
        assert (await served.raw(GET)).closed == "eof"


def test_a_stranger_gets_so_many_connections_and_the_familiar_more() -> None:
    crowd = Crowd(lambda address: address in {"127.0.0.1", "198.51.100.1"})
    assert all(crowd.enter("192.0.2.1") for _ in range(connection.REMOTE_MAX_PER_ADDRESS))
    assert crowd.enter("192.0.2.1") is None
    assert crowd.enter("192.0.2.2") == "192.0.2.2"
    crowd.leave("192.0.2.1")
    assert crowd.enter("192.0.2.1")
    assert all(crowd.enter(address) for address in ("127.0.0.1", "198.51.100.1") for _ in range(1000))
    others = [crowd.enter(f"203.0.{n // 250}.{n % 250}") for n in range(1000)]
    assert len([place for place in others if place]) == connection.REMOTE_MAX - connection.REMOTE_MAX_PER_ADDRESS - 1


async def test_one_connection_too_many_is_told_so_and_room_comes_back(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(connection, "FAMILIAR_MAX", 1)
    async with front() as served:
        async with await served.connect() as first:
            await first.send(GET)
            await first.read_until(b"\r\n\r\nOK")
            refused = await served.raw(b"")
            assert refused.status == 503
            assert refused.headers["retry-after"] == "1"

        async def served_again() -> bool:
            return (await served.raw(LAST)).status == 200

        await until(served_again, "room for a connection")


async def test_heads_are_limited_in_lines_count_and_total() -> None:
    async with front() as served:

        async def status(headers: str, target: str = "/health") -> int:
            data = f"GET {target} HTTP/1.1\r\nHost: localhost\r\nConnection: close\r\n{headers}\r\n"
            return (await served.raw(data.encode())).status

        assert await status("X: " + "x" * 8000 + "\r\n") == 200
        assert await status("X: " + "x" * 9000 + "\r\n") == 400
        assert await status("", "/health?" + "x" * 8100) == 200
        assert await status("", "/health?" + "x" * 9000) == 400
        assert await status("".join(f"X-{n}: 1\r\n" for n in range(60))) == 200
        assert await status("".join(f"X-{n}: 1\r\n" for n in range(70))) == 400
        assert await status("".join(f"X-{n}: {'x' * 7000}\r\n" for n in range(5))) == 431


@pytest.mark.parametrize(
    "data",
    [
        b"GET /health HTTP/9.9\r\nHost: localhost\r\n\r\n",
        b"GET /health\r\n\r\n",
        b"GET /health HTTP/1.1\r\nHost : localhost\r\n\r\n",
        b"GET /health HTTP/1.1\r\nHost: localhost\r\nContent-Length: +1\r\n\r\n",
        b"POST /health HTTP/1.1\r\nHost: localhost\r\nContent-Length: 1\r\nTransfer-Encoding: chunked\r\n\r\n",
        b"GET /health HTTP/1.1\r\nHost: localhost\r\nX: a\x00b\r\n\r\n",
        b"NONSENSE\r\n\r\n",
        b"\x16\x03\x01\x02\x00\x01",
        b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n",
    ],
)
async def test_malformed_heads_are_answered_400_in_json_and_logged_quietly(
    data: bytes, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level(logging.INFO)
    async with front() as served:
        reply = await served.raw(data)
        assert reply.status == 400
        assert reply.closed == "eof"
        assert b'"error":{"message":' in reply.body
        assert "server" not in reply.headers
        assert not [record for record in caplog.records if record.levelno > logging.INFO]


async def echo(request: web.Request) -> web.Response:
    return web.Response(body=await request.read())


def with_echo(app: web.Application) -> None:
    route = app.router.add_post("/echo", echo, expect_handler=_nothing)
    app[DOOR]._routes[route] = Route("POST", "/echo", Scope.INFERENCE, echo, takes_body=True)  # type: ignore[index]


async def _nothing(request: web.Request) -> None:
    return None


async def test_a_body_is_asked_for_only_once_it_may_come(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(server, "LINGERING_S", 0.05)

    def head(path: str = "/echo", length: int = 5, expect: str = "100-continue", extra: str = "") -> bytes:
        return (
            f"POST {path} HTTP/1.1\r\nHost: localhost\r\nContent-Length: {length}\r\nExpect: {expect}\r\n"
            f"Connection: close\r\n{extra}\r\n"
        ).encode()

    async with front(access=AccessSettings(api_keys=(KEY,)), extend=with_echo) as served:
        key = f"x-api-key: {KEY}\r\n"
        async with await served.connect() as client:
            await client.send(head(extra=key))
            assert await client.read_until(b"\r\n\r\n") == b"HTTP/1.1 100 Continue\r\n\r\n"
            await client.send(b"hello")
            reply = await client.read_to_end()
            assert (reply.status, reply.body) == (200, b"hello")
        assert (await served.raw(head())).status == 401
        assert (await served.raw(head(extra=key, length=64 * 1024 * 1024))).status == 413
        assert (await served.raw(head(extra=key, expect="200-ok"))).status == 417
        assert (await served.raw(head("/nowhere", extra=key))).status == 404


async def test_compressed_bodies_reach_the_handler_as_they_came() -> None:
    squeezed = gzip.compress(b"hello")
    async with front(extend=with_echo) as served:
        answer = await ask(served, "POST", "/echo", {"Content-Encoding": "gzip"}, squeezed)
        assert (answer.status, answer.body) == (200, squeezed)


async def test_a_refused_upload_ends_soon(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(server, "LINGERING_S", 0.1)
    async with front(access=AccessSettings(api_keys=(KEY,))) as served:
        reply = await served.raw(
            b"POST /v1/completions HTTP/1.1\r\nHost: localhost\r\nContent-Length: 99\r\n\r\nabc", 3
        )
        assert (reply.status, reply.closed) == (401, "eof")


async def test_an_error_that_says_connection_close_closes_it() -> None:
    head = b"POST /v1/completions HTTP/1.1\r\nHost: localhost\r\nContent-Encoding: gzip\r\nContent-Length: 1\r\n\r\nx"
    async with front() as served:
        reply = await served.raw(head)
        assert (reply.status, reply.closed, reply.headers["connection"]) == (415, "eof", "close")


async def test_pipelined_requests_are_answered_in_order() -> None:
    async with front() as served:
        paths = ["/health", "/nowhere", "/v1/models", "/health"]
        head = "Host: localhost\r\n"
        data = "".join(f"GET {path} HTTP/1.1\r\n{head}X-Request-Id: r{n}\r\n\r\n" for n, path in enumerate(paths))
        reply = await served.raw(data.encode() + LAST)
        places = [reply.data.lower().index(b"x-request-id: r%d" % n) for n in range(4)]
        assert places == sorted(places)
        assert reply.data.count(b"HTTP/1.1 200") == 4


async def test_stop_accepting_lets_responses_end_and_closes_idle_connections() -> None:
    entered, go_on = asyncio.Event(), asyncio.Event()

    async def slow(request: web.Request) -> web.Response:
        entered.set()
        await go_on.wait()
        return web.Response(text="done")

    def extend(app: web.Application) -> None:
        route = app.router.add_get("/slow", slow, allow_head=False)
        app[DOOR]._routes[route] = Route("GET", "/slow", Scope.OPEN, slow)  # type: ignore[index]

    async with front(extend=extend) as served:
        assert served.server is not None
        async with await served.connect() as idle, await served.connect() as busy:
            await idle.send(GET)
            await idle.read_until(b"\r\n\r\nOK")
            await busy.send(GET.replace(b"/health", b"/slow"))
            await entered.wait()
            await served.server.stop_accepting()
            assert (await idle.read_to_end()).closed == "eof"
            with pytest.raises(ConnectionRefusedError):
                await asyncio.open_connection("127.0.0.1", served.port)
            go_on.set()
            reply = await busy.read_to_end()
            assert (reply.status, reply.closed) == (200, "eof")
            assert reply.headers["connection"] == "close"


async def test_close_breaks_off_what_does_not_end() -> None:
    async def endless(request: web.Request) -> web.StreamResponse:
        response = web.StreamResponse()
        await response.prepare(request)
        await response.write(b"and")
        await asyncio.Event().wait()
        return response

    def extend(app: web.Application) -> None:
        route = app.router.add_get("/endless", endless, allow_head=False)
        app[DOOR]._routes[route] = Route("GET", "/endless", Scope.OPEN, endless)  # type: ignore[index]

    async with front(extend=extend) as served:
        assert served.server is not None
        async with await served.connect() as client:
            await client.send(GET.replace(b"/health", b"/endless"))
            await client.read_until(b"and")
            await asyncio.wait_for(served.server.close(0.1), 3)
            reply = await client.read_to_end()
            assert not reply.data.endswith(b"0\r\n\r\n")


async def test_announcing_the_end_closes_each_connection_after_its_answer() -> None:
    async with front() as served:
        assert served.server is not None
        served.server.announce_end()
        reply = await served.raw(GET)
        assert (reply.status, reply.closed) == (200, "eof")
        assert reply.headers["connection"] == "close"


async def test_the_pure_python_parser_is_refused_unless_forced(monkeypatch: pytest.MonkeyPatch) -> None:
    class Parser:
        pass

    monkeypatch.setattr(server, "HttpRequestParser", Parser)
    with pytest.raises(RuntimeError, match="LLMSWAP_ALLOW_PURE_PARSER"):
        await serve(web.Application(), "127.0.0.1:0")
    monkeypatch.setenv("LLMSWAP_ALLOW_PURE_PARSER", "1")
    server._require_c_parser()


async def test_a_taken_port_is_an_os_error_that_leaves_nothing_running() -> None:
    async with front() as served:
        with pytest.raises(OSError, match="in use"):
            await serve(web.Application(), f"127.0.0.1:{served.port}")


@pytest.mark.skipif(shutil.which("openssl") is None, reason="needs openssl to make a certificate")
async def test_https_is_served_as_http_1_1(tmp_path: Path) -> None:
    cert, key = tmp_path / "cert.pem", tmp_path / "key.pem"
    self_signed = (
        "openssl req -x509 -newkey ec -pkeyopt ec_paramgen_curve:prime256v1 -nodes -days 2 -subj /CN=localhost"
    )
    names = "subjectAltName=DNS:localhost,IP:127.0.0.1"
    command = [*self_signed.split(), "-addext", names, "-keyout", str(key), "-out", str(cert)]
    subprocess.run(command, check=True, capture_output=True)  # noqa: ASYNC221  nothing else runs yet
    context = ssl.create_default_context(ssl.Purpose.CLIENT_AUTH)
    context.load_cert_chain(cert, key)
    async with front(tls=context) as served:
        assert served.url.startswith("https://")
        trusting = ssl.create_default_context(cafile=cert)
        connector = aiohttp.TCPConnector(ssl=trusting)
        async with session(connector=connector) as client, client.get(served.url + "/health") as response:
            assert (response.status, await response.text()) == (200, "OK")


async def test_requests_are_answered_over_ipv6_and_at_its_own_address() -> None:
    async with front(listen="[::1]:0") as served:
        answer = await ask(served, "GET", "/health")
        assert answer.status == 200
        assert served.url.startswith("http://[::1]:")
