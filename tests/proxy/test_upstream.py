"""The hop over real sockets: requests out, answers in, both ends misbehaving."""

import asyncio
import gzip
import shutil
import socket
import ssl
import subprocess
from contextlib import ExitStack
from pathlib import Path

import pytest

from llmswap.config.settings import Timeouts
from llmswap.proxy.hop import pool
from llmswap.proxy.hop.messages import End, Head
from tests.proxy.raw_upstream import (
    LAST,
    OK,
    SSE,
    Connection,
    chunk,
    front,
    raw_upstream,
    says,
    says_and_closes,
)
from tests.raw import RawClient, request
from tests.stack import until

GET = request("GET", "/v1/x")


def answer(body: bytes, *fields: str, status: str = "200 OK") -> bytes:
    head = "\r\n".join((f"HTTP/1.1 {status}", *fields, f"Content-Length: {len(body)}", "", ""))
    return head.encode() + body


# the request


async def test_the_request_arrives_as_it_was_sent() -> None:
    async with raw_upstream(says(OK)) as upstream, front(upstream.url + "/base/") as proxy:
        body = b'{"model": "m"}'
        reply = await proxy.exchange(request("POST", "/v1/a%20b%2Fc/../d?x=%31&y", body, headers="X-Mine: 1\r\n"))
        assert reply.status == 200
        assert reply.body == b"{}"
        seen = upstream.seen[0]
        assert seen.line == "POST /base/v1/a%20b%2Fc/../d?x=%31&y HTTP/1.1"
        assert seen.body == body
        assert seen.headers["x-mine"] == "1"
        assert seen.headers["content-length"] == str(len(body))
        assert "connection" not in seen.headers
        delivery = proxy.delivery
        assert (delivery.status, delivery.bytes_in, delivery.bytes_out, delivery.end) == (200, 14, 2, End.COMPLETE)
        assert delivery.first_byte_s is not None


async def test_a_large_body_goes_out_whole() -> None:
    body = bytes(range(256)) * 4096
    async with raw_upstream(says(OK)) as upstream, front(upstream.url) as proxy:
        async with await proxy.connect() as client:
            await client.send(request("POST", "/", body))
            assert (await client.read_to_end()).status == 200
        assert upstream.seen[0].body == body
        assert proxy.delivery.bytes_in == len(body)


@pytest.mark.parametrize("chunked", [True, False])
async def test_a_streamed_body_keeps_its_framing(chunked: bool) -> None:
    async with raw_upstream(says(OK)) as upstream, front(upstream.url, streamed=True) as proxy:
        head = "POST / HTTP/1.1\r\nHost: h\r\nConnection: close\r\n"
        wire = (
            "Transfer-Encoding: chunked\r\n\r\n3\r\nabc\r\n2\r\nde\r\n0\r\n\r\n"
            if chunked
            else "Content-Length: 5\r\n\r\nabcde"
        )
        assert (await proxy.exchange((head + wire).encode())).status == 200
        seen = upstream.seen[0]
        assert seen.body == b"abcde"
        assert seen.headers.get("transfer-encoding") == ("chunked" if chunked else None)
        assert seen.headers.get("content-length") == (None if chunked else "5")


async def pour(client: RawClient) -> None:
    for _ in range(1000):
        client.writer.write(b"x" * 100_000)
        await client.writer.drain()


async def test_a_slow_upstream_stops_the_upload() -> None:
    async def takes_its_time(connection: Connection) -> None:
        await connection.head()
        await enough.wait()
        await connection.send(OK)

    enough = asyncio.Event()
    async with raw_upstream(takes_its_time, limit=1024) as upstream, front(upstream.url, streamed=True) as proxy:
        async with await proxy.connect() as client:
            client.writer.write(b"POST / HTTP/1.1\r\nHost: h\r\nContent-Length: 100000000\r\n\r\n")
            client.writer.transport.set_write_buffer_limits(0)
            with pytest.raises(TimeoutError):
                await asyncio.wait_for(pour(client), 0.5)
            assert 0 < proxy.delivery.bytes_in < 20_000_000  # what kernel buffers hold, not what the client has
            enough.set()
            client.writer.transport.abort()
        await until(lambda: proxy.delivery.end is not None, "the hop is over")


@pytest.mark.parametrize("announced", [4, 6])
async def test_a_body_of_another_length_than_announced_is_400_and_never_complete(announced: int) -> None:
    async with raw_upstream(says(OK)) as upstream, front(upstream.url, streamed=True, announced=announced) as proxy:
        assert (await proxy.exchange(request("POST", "/", b"12345"))).status == 400
        assert upstream.seen == []


async def test_an_early_answer_is_passed_on_and_the_connection_not_used_again() -> None:
    async def refuses(connection: Connection) -> None:
        await connection.head()
        await connection.send(answer(b"no", status="413 Too Large"))
        await connection.until_gone()

    async with raw_upstream(refuses) as upstream, front(upstream.url, streamed=True) as proxy:
        for _ in range(2):
            async with await proxy.connect() as client:
                await client.send(b"POST / HTTP/1.1\r\nHost: h\r\nContent-Length: 50\r\n\r\nhalf")
                reply = await client.read_until(b"no")
                assert reply.startswith(b"HTTP/1.1 413 ")
        assert len(upstream.connections) == 2
        await asyncio.wait_for(upstream.connections[0].gone.wait(), 5)


async def test_expectations_and_hop_by_hop_headers_stay_here() -> None:
    fields = "Expect: 100-continue\r\nTE: trailers\r\nKeep-Alive: 5\r\nProxy-Connection: x\r\nUpgrade: h2c\r\n"
    async with raw_upstream(says(OK)) as upstream, front(upstream.url) as proxy:
        await proxy.exchange(request("POST", "/", b"x", headers=fields))
        assert not {"expect", "te", "keep-alive", "proxy-connection", "upgrade"} & upstream.seen[0].headers.keys()


async def test_a_value_that_breaks_its_line_never_leaves() -> None:
    async with raw_upstream(says(OK)) as upstream, front(upstream.url, headers={"X": "1\r\nEvil: 1"}) as proxy:
        assert (await proxy.exchange(GET)).status == 400
        assert upstream.seen == []


# the answer


async def test_the_answers_head_is_cleaned_and_the_body_left_alone() -> None:
    body = gzip.compress(b"x" * 1000)
    fields = ("Content-Encoding: gzip", "Server: up", "Access-Control-Allow-Origin: *", "X-Kept: yes", "Date: then")
    async with raw_upstream(says(answer(body, *fields))) as upstream, front(upstream.url) as proxy:
        reply = await proxy.exchange(GET)
        assert reply.body == body
        assert reply.headers["content-encoding"] == "gzip"
        assert reply.headers["x-kept"] == "yes"
        assert reply.headers["date"] == "then"
        assert reply.headers.get("server") != "up"
        assert "access-control-allow-origin" not in reply.headers


@pytest.mark.parametrize("size", [0, 1, 40_000, 3_000_000])
@pytest.mark.parametrize("framing", ["counted", "chunked", "open"])
@pytest.mark.parametrize("version", ["1.1", "1.0"])
async def test_bodies_arrive_whole_in_every_framing(size: int, framing: str, version: str) -> None:
    body = bytes(i * 7 % 251 for i in range(997)) * (size // 997 + 1)
    body = body[:size]
    pieces = [body[at : at + 50_000] for at in range(0, size, 50_000)]
    head = b"HTTP/1.1 200 OK\r\n"
    if framing == "counted":
        wire = [head + b"Content-Length: %d\r\n\r\n" % size, *pieces]
    elif framing == "chunked":
        wire = [head + b"Transfer-Encoding: chunked\r\n\r\n", *map(chunk, pieces), LAST]
    else:
        wire = [head + b"\r\n", *pieces]
    async with raw_upstream(says_and_closes(*wire)) as upstream, front(upstream.url) as proxy:
        sent = GET.replace(b"HTTP/1.1", b"HTTP/" + version.encode()).replace(b"Connection: close\r\n", b"")
        async with await proxy.connect() as client:
            await client.send(sent)
            if version == "1.0":
                reply = await client.read_to_end()
                assert reply.closed == "eof"
                assert reply.body == body
            else:
                got_head = await client.read_until(b"\r\n\r\n")
                got = bytearray()
                if b"chunked" in got_head:
                    while length := int(await client.reader.readline(), 16):
                        got += (await client.reader.readexactly(length + 2))[:-2]
                else:
                    got += await client.reader.readexactly(size)
                assert got == body
        assert proxy.delivery.bytes_out == size
        assert proxy.delivery.end == End.COMPLETE


async def test_events_come_one_by_one_and_are_not_buffered_anywhere() -> None:
    async def streams(connection: Connection) -> None:
        await connection.request()
        await connection.send(SSE)
        for number in range(3):
            await connection.send(chunk(b"data: %d\n\n" % number))
            await asyncio.wait_for(read[number].wait(), 5)
        await connection.send(LAST)

    read = [asyncio.Event() for _ in range(3)]
    async with raw_upstream(streams) as upstream, front(upstream.url) as proxy, await proxy.connect() as client:
        await client.send(GET)
        assert b"X-Accel-Buffering: no\r\n" in await client.read_until(b"\r\n\r\n")
        for number in range(3):
            assert await client.read_until(b"\n\n\r\n") == chunk(b"data: %d\n\n" % number)
            read[number].set()
        assert (await client.read_to_end()).data == LAST


async def test_interim_answers_are_dropped() -> None:
    interim = b"HTTP/1.1 103 Early Hints\r\nLink: </x>\r\n\r\nHTTP/1.1 102 Processing\r\n\r\n"
    async with raw_upstream(says(interim, OK)) as upstream, front(upstream.url) as proxy:
        reply = await proxy.exchange(GET)
        assert reply.status == 200
        assert b"103" not in reply.data
        assert reply.body == b"{}"


@pytest.mark.parametrize(
    "wire",
    [b"HTTP/1.1 102 P\r\n\r\n" * 20, b"HTTP/1.1 101 Switching\r\nUpgrade: websocket\r\nConnection: Upgrade\r\n\r\n"],
)
async def test_interim_answers_nobody_asked_for_are_refused(wire: bytes) -> None:
    async with raw_upstream(says(wire)) as upstream, front(upstream.url) as proxy:
        assert (await proxy.exchange(GET)).status == 502


@pytest.mark.parametrize("status", ["204 No Content", "304 Not Modified"])
async def test_answers_without_a_body_leave_the_connection_in_use(status: str) -> None:
    wire = f"HTTP/1.1 {status}\r\nETag: x\r\n\r\n".encode()
    async with raw_upstream(says(wire)) as upstream, front(upstream.url) as proxy, await proxy.connect() as client:
        for _ in range(3):
            await client.send(GET.replace(b"Connection: close\r\n", b""))
            head = await client.read_until(b"\r\n\r\n")
            assert head.startswith(b"HTTP/1.1 " + status.encode())
            assert b"chunked" not in head
        assert len(upstream.connections) == 1


async def test_head_gets_the_length_and_no_body() -> None:
    bodiless = says(b"HTTP/1.1 200 OK\r\nContent-Length: 1000\r\n\r\n")
    async with raw_upstream(bodiless) as upstream, front(upstream.url) as proxy:
        reply = await proxy.exchange(request("HEAD", "/"))
        assert reply.status == 200
        assert reply.headers["content-length"] == "1000"
        assert reply.body == b""


async def test_a_tap_sees_the_payload_without_its_framing() -> None:
    class Ear:
        def __init__(self) -> None:
            self.status, self.heard = 0, b""

        def head(self, head: Head) -> None:
            self.status = head.status
            assert head.content_type == "text/event-stream"

        def plain(self, data: bytes) -> bool:
            known = data == b"data: 1\n\n"
            self.heard += data if known else b""
            return known

        def chunk(self, data: bytes) -> None:
            self.heard += data

    ear = Ear()
    two = says(SSE, chunk(b"data: 1\n\n"), chunk(b"data: 2\n\n"), LAST)
    async with raw_upstream(two) as upstream, front(upstream.url, tap=ear) as proxy:
        await proxy.exchange(GET)
    assert (ear.status, ear.heard) == (200, b"data: 1\n\ndata: 2\n\n")


# failures


async def test_nobody_listening_is_502() -> None:
    async with raw_upstream(says(OK)) as upstream:
        url = upstream.url
    async with front(url) as proxy:
        reply = await proxy.exchange(GET)
        assert reply.status == 502
        assert b"upstream_unreachable" in reply.body
        assert proxy.delivery.end == End.UPSTREAM_DIED
        assert proxy.delivery.status == 0


async def test_an_upstream_that_does_not_answer_in_time_is_504_and_dropped() -> None:
    async def silent(connection: Connection) -> None:
        await connection.request()
        await connection.until_gone()

    async with raw_upstream(silent) as upstream, front(upstream.url, Timeouts(response_header_s=0.1)) as proxy:
        reply = await proxy.exchange(GET)
        assert reply.status == 504
        assert b"upstream_timeout" in reply.body
        await asyncio.wait_for(upstream.connections[0].gone.wait(), 5)
        assert len(upstream.connections) == 1


async def test_a_connection_that_is_not_accepted_in_time_is_504() -> None:
    with socket.socket() as deaf, ExitStack() as waiting:
        deaf.bind(("127.0.0.1", 0))
        deaf.listen(0)  # whoever comes once this queue is full gets no answer to its SYN
        for _ in range(4):
            filler = waiting.enter_context(socket.socket())
            filler.setblocking(False)
            filler.connect_ex(deaf.getsockname())
        async with front(f"http://127.0.0.1:{deaf.getsockname()[1]}", Timeouts(connect_s=0.1)) as proxy:
            reply = await proxy.exchange(GET)
            assert reply.status == 504
            assert proxy.delivery.end == End.UPSTREAM_DIED


def self_signed(directory: Path) -> tuple[Path, ssl.SSLContext]:
    """Make a certificate for localhost, and a server that shows it."""
    key, cert = directory / "key.pem", directory / "cert.pem"
    make = "openssl req -x509 -newkey ec -pkeyopt ec_paramgen_curve:prime256v1 -nodes -days 2 -subj /CN=localhost"
    names = ["-addext", "subjectAltName=DNS:localhost", "-keyout", str(key), "-out", str(cert)]
    subprocess.run([*make.split(), *names], check=True, capture_output=True)
    context = ssl.create_default_context(ssl.Purpose.CLIENT_AUTH)
    context.load_cert_chain(cert, key)
    return cert, context


@pytest.mark.skipif(shutil.which("openssl") is None, reason="needs openssl to make a certificate")
async def test_an_https_upstream_is_spoken_to_if_it_is_trusted(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    cert, server_side = self_signed(tmp_path)
    body = b"x" * 500_000
    async with raw_upstream(says(answer(body)), ssl=server_side) as upstream:
        for trusted in (False, True):
            if trusted:
                monkeypatch.setenv("SSL_CERT_FILE", str(cert))
            pool._tls_context.cache_clear()
            async with front(f"https://localhost:{upstream.port}") as proxy:
                reply = await proxy.exchange(GET)
                assert (reply.status, reply.body == body) == ((200, True) if trusted else (502, False))
    pool._tls_context.cache_clear()
    assert len(upstream.seen) == 1


async def test_only_what_was_idle_too_long_is_closed() -> None:
    async with raw_upstream(says(OK)) as upstream, front(upstream.url, Timeouts(idle_conn_s=0.05)) as proxy:
        await proxy.exchange(GET)
        await until(upstream.connections[0].reader.at_eof, "the idle connection is closed", 10)
        await proxy.exchange(GET)
        assert len(upstream.connections) == 2


async def test_an_idle_upstream_that_speaks_is_not_listened_to() -> None:
    async def talks(connection: Connection) -> None:
        await connection.request()
        await connection.send(OK)
        await asyncio.wait_for(answered.wait(), 5)
        await connection.send(b"HTTP/1.1 200 OK\r\nContent-Length: 6\r\n\r\npoison")
        await connection.until_gone()

    answered = asyncio.Event()
    async with raw_upstream(talks) as upstream, front(upstream.url) as proxy:
        assert (await proxy.exchange(GET)).body == b"{}"
        answered.set()
        await asyncio.wait_for(upstream.connections[0].gone.wait(), 5)
        assert (await proxy.exchange(GET)).body == b"{}"
