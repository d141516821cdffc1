"""Fault rows of HTTP itself: heads that dawdle, bodies that are far too large, versions nobody speaks."""

import asyncio
import time

import psutil
import pytest

from llmswap.proxy import connection, server
from tests.proxy.front import front
from tests.raw import RawClient
from tests.stack import Stack, fake

MIB = 1024 * 1024


async def test_F091_a_head_sent_byte_by_byte_is_cut_off(monkeypatch: pytest.MonkeyPatch) -> None:
    assert connection.HEAD_TIMEOUT_S == 10.0
    monkeypatch.setattr(connection, "HEAD_TIMEOUT_S", 0.5)
    async with front() as served, await served.connect() as slow:
        began_s = time.monotonic()
        reading = asyncio.create_task(slow.read_to_end(within_s=5))
        for byte in b"GET /health HTTP/1.1\r\nHost: localhost\r\nX-Slow: 1":
            await slow.send(bytes([byte]))
            if (await asyncio.wait({reading}, timeout=0.02))[0]:
                break
        reply = await reading
        assert (reply.status, reply.closed) == (408, "eof")
        assert 0.45 < time.monotonic() - began_s < 4


async def test_F091_a_slow_head_holds_up_nobody_else(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(connection, "HEAD_TIMEOUT_S", 0.3)
    async with front() as served:
        slow = [await served.connect() for _ in range(50)]
        for client in slow:
            await client.send(b"GET /heal")
        quick = await served.raw(b"GET /health HTTP/1.1\r\nHost: localhost\r\nConnection: close\r\n\r\n")
        assert quick.status == 200
        for client in slow:
            assert (await client.read_to_end()).status == 408
            await client.close()


async def test_F094_a_body_of_512_mib_is_refused_before_it_is_read(stack: Stack) -> None:
    program = stack.start({"models": {"m1": {"cmd": fake("m1")}}})
    process = psutil.Process(program.pid)
    before = process.memory_info().rss
    for path in ("/v1/chat/completions", "/upstream/m1/x"):
        head = (
            f"POST {path} HTTP/1.1\r\nHost: localhost\r\nContent-Type: application/json\r\n"
            f"Content-Length: {512 * MIB}\r\n\r\n"
        ).encode()
        async with await RawClient.connect(program.host, program.port) as client:
            await client.send(head)
            head_of_reply = await client.read_until(b"\r\n\r\n", within_s=1)
            assert b" 413 " in head_of_reply.split(b"\r\n")[0]
            reading = asyncio.create_task(client.read_to_end(within_s=5))
            highest = before
            for _ in range(64):  # a client that goes on sending all the same
                if reading.done():
                    break
                await client.send(bytes(MIB))
                highest = max(highest, process.memory_info().rss)
            reply = await reading
            assert reply.closed in {"eof", "reset"}
            assert highest - before < 8 * MIB
    assert await program.running() == {}


@pytest.mark.parametrize(
    ("data", "statuses"),
    [
        (b"GET /health HTTP/1.0\r\n\r\n", {200}),
        (b"GET /health HTTP/1.0\r\nHost: localhost\r\n\r\n", {200}),
        (b"GET /health HTTP/1.1\r\n\r\n", {400}),
        (b"GET /health HTTP/9.9\r\nHost: localhost\r\n\r\n", {400}),
        (b"GET /health\r\n\r\n", {0, 400}),  # HTTP/0.9
        (b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n", {0, 400}),
    ],
)
async def test_F105_odd_versions_are_served_or_refused_and_closed(data: bytes, statuses: set[int]) -> None:
    async with front() as served:
        reply = await served.raw(data)
        assert reply.status in statuses
        assert reply.closed == "eof"


async def test_F105_http_1_0_may_keep_its_connection_alive() -> None:
    async with front() as served, await served.connect() as client:
        for _ in range(2):
            await client.send(b"GET /health HTTP/1.0\r\nConnection: keep-alive\r\n\r\n")
            head = await client.read_until(b"\r\n\r\nOK")
            assert head.startswith(b"HTTP/1.0 200")
            assert b"keep-alive" in head.lower()


async def test_F105_a_response_of_unknown_length_is_never_chunked_for_http_1_0() -> None:
    async with front() as served:
        served.context.logs.write_proxy(b"a line\n")
        async with await served.connect() as client:
            await client.send(b"GET /logs/stream HTTP/1.0\r\n\r\n")
            head = await client.read_until(b"a line\n")
            assert b"chunked" not in head


async def test_F106_methods_that_are_never_served(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(server, "LINGERING_S", 0.05)
    async with front() as served:
        starts = (b"TRACE / ", b"CONNECT / ", b"CONNECT evil.example:443 ", b"TRACE /v1/models ", b"PATCH /v1/models ")
        for start in starts:
            reply = await served.raw(start + b"HTTP/1.1\r\nHost: localhost\r\nConnection: close\r\n\r\n")
            assert reply.status == 405, start
            assert reply.headers["allow"]
