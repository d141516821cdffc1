"""Answers that come faster than their client reads, and what is left of the upstream's connection after them."""

import asyncio
from unittest.mock import Mock

import pytest

from llmswap.proxy.hop import connection as hop_connection
from llmswap.proxy.hop.connection import Connection as HopConnection
from llmswap.proxy.hop.connection import Exchange
from tests.proxy.raw_upstream import LAST, OK, Connection, chunk, front, raw_upstream
from tests.raw import request
from tests.stack import until


async def test_a_connection_whose_answer_ended_in_a_stall_carries_the_next_one() -> None:
    async def ends_in_a_stall(connection: Connection) -> None:
        await connection.request()
        await connection.send(b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n")
        while proxy.buffered < 10_000:
            await connection.send(chunk(bytes(16_000)))
            await asyncio.sleep(0.001)  # lets the proxy read: the kernel's buffers are of unknown size
        await connection.send(chunk(bytes(60_000)) + LAST)
        await connection.request()
        await connection.send(OK)

    async with raw_upstream(ends_in_a_stall) as upstream, front(upstream.url) as proxy:
        async with await proxy.connect(receive_buffer=4096) as slow:
            await slow.send(request("GET", "/big"))
            await until(lambda: proxy.buffered > 64_000, "the client is behind")
            assert (await slow.read_to_end()).body.endswith(LAST)
        assert (await proxy.exchange(request("GET", "/small"), 3)).status == 200
        assert len(upstream.connections) == 1


async def test_a_connection_that_has_been_handed_on_is_not_paused_by_its_last_answer() -> None:
    connection, released = HopConnection(), []
    connection.connection_made(Mock(spec=asyncio.Transport))
    done = Exchange(connection, "GET", released.append, None, upgrade=False)
    done.sent()
    done.received(b"HTTP/1.1 200 OK\r\nContent-Length: 40000\r\n\r\n" + bytes(40_000))
    assert done.done
    assert released == [connection]
    following = Exchange(connection, "GET", released.append, None, upgrade=False)
    done.flow_to(lambda payload: False)  # a client that is behind
    assert connection.exchange is following
    connection.transport.pause_reading.assert_not_called()


async def test_an_upstream_that_takes_nothing_of_a_body_is_504(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(hop_connection, "TAKE_TIMEOUT_S", 0.2)

    async def reads_nothing(connection: Connection) -> None:
        connection.writer.transport.pause_reading()
        await asyncio.Event().wait()

    async with raw_upstream(reads_nothing, limit=1024) as upstream, front(upstream.url, streamed=True) as proxy:
        async with await proxy.connect() as client:
            head = b"POST / HTTP/1.1\r\nHost: h\r\nConnection: close\r\nContent-Length: 50000000\r\n\r\n"
            pouring = asyncio.create_task(client.send(head + bytes(50_000_000)))
            reply = await client.read_to_end()
            pouring.cancel()
        assert reply.status == 504
        assert "took nothing" in str(proxy.errors)
