"""Fault rows of the hop: an upstream that breaks its word, a client that leaves or dawdles. Real sockets throughout."""

import asyncio
import os
import random
import signal
import time

import aiohttp
import psutil
import pytest

from llmswap.proxy.hop import client as client_side
from llmswap.proxy.upstream import End
from tests.dialogue import ask, listening
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
from tests.raw import RawClient, Reply, exchange, request
from tests.stack import Program, fake, until

GET = request("GET", "/v1/x")
CHAT = request("POST", "/v1/chat/completions", b'{"model": "m"}', headers="Content-Type: application/json\r\n")
PLAIN = b"HTTP/1.1 200 OK\r\nContent-Type: text/plain\r\nTransfer-Encoding: chunked\r\n\r\n"


def behind(upstream_url: str) -> dict:
    """Configure model `m` to be served by something that runs already."""
    place = {"cmd": "sleep 1000", "proxy": upstream_url, "checkEndpoint": "none", "trustProxy": True}
    return {"models": {"m": place}}


def looks_complete(reply: Reply) -> bool:
    return reply.body.endswith(LAST)


@pytest.mark.parametrize("death", ["reset", "close"])
@pytest.mark.parametrize("kind", ["events", "text", "counted", "open"])
async def test_F017_upstream_that_dies_anywhere_in_its_answer_never_looks_done(death: str, kind: str) -> None:
    chance = random.Random(f"{death}{kind}")
    event = b"data: " + b"x" * 40 + b"\n\n"
    heads = {
        "events": SSE,
        "text": PLAIN,
        "counted": b"HTTP/1.1 200 OK\r\nContent-Length: 5000\r\n\r\n",
        "open": b"HTTP/1.1 200 OK\r\n\r\n",
    }

    async def dies(connection: Connection) -> None:
        await connection.request()
        framed = kind in ("events", "text")
        wire = heads[kind] + b"".join(chunk(event) if framed else event for _ in range(20))
        stop = chance.randrange(len(heads[kind]), len(wire))
        await connection.send(wire[:stop])
        if death == "reset":
            connection.reset()

    async with raw_upstream(dies) as upstream, front(upstream.url) as proxy:
        for _ in range(25):
            replies = await asyncio.gather(*(proxy.exchange(GET) for _ in range(5)))
            for reply in replies:
                if kind == "open" and death == "close":
                    assert reply.body.endswith(LAST)  # closing is how such an answer ends
                    continue
                assert reply.status in (200, 502)
                assert reply.status == 502 or not looks_complete(reply)
                if kind == "events":
                    last_event = reply.body.rsplit(b"data: ", 1)[1]
                    assert last_event.startswith(b'{"error":')
                if kind == "counted" and reply.status == 200:
                    assert len(reply.body) < 5000
        if kind != "open":
            assert {delivery.end for delivery in proxy.deliveries} == {End.UPSTREAM_DIED}


async def test_F017_an_http_1_0_client_sees_a_reset_where_the_end_would_look_like_the_end() -> None:
    async with raw_upstream(says_and_closes(PLAIN, chunk(b"half"))) as upstream, front(upstream.url) as proxy:
        reply = await proxy.exchange(b"GET / HTTP/1.0\r\n\r\n")
        assert reply.closed == "reset"


async def test_F017_killed_upstream_cuts_its_stream_and_is_restarted_for_the_next_request(stack, http):
    program = stack.start({"models": {"a": {"cmd": fake("a", itl=2, output_tokens="exact:5000")}}})
    chance = random.Random(17)
    for _ in range(3):
        async with listening(http, program, "a") as client:
            await client.hear(chance.randrange(1, 60))
            os.kill(program.upstream_pid("a"), signal.SIGKILL)
            with pytest.raises(aiohttp.ClientPayloadError):
                await client.hear_out()
        assert not client.complete
        last_event = [line for line in client.lines if line.startswith("data: ")][-1]
        assert '"error":{"message":"the upstream broke off' in last_event

        async def stopped() -> bool:
            return "a" not in await program.running()

        await until(stopped, "the death is noticed")
    status, _ = await ask(http, program, "a", max_tokens=1)
    assert status == 200


async def program_exchange(program: Program, data: bytes) -> Reply:
    return await exchange(program.host, program.port, data)


@pytest.mark.parametrize("death", ["reset", "close"])
async def test_F020_a_stale_connection_costs_one_retry_and_the_client_nothing(death: str) -> None:
    async def serves_one(connection: Connection) -> None:
        await connection.request()
        await connection.send(OK)
        await connection.request()  # the second finds the connection dying
        if death == "reset":
            connection.reset()

    async with raw_upstream(serves_one) as upstream, front(upstream.url) as proxy:
        for _ in range(2):
            assert (await proxy.exchange(request("POST", "/", b"again"))).status == 200
        assert [seen.body for seen in upstream.seen] == [b"again"] * 3
        assert len(upstream.connections) == 2


async def test_F020_what_failed_on_a_fresh_connection_or_after_a_first_byte_is_not_sent_again() -> None:
    async def hangs_up(connection: Connection) -> None:
        await connection.request()

    async def begins(connection: Connection) -> None:
        await connection.request()
        await connection.send(OK)
        await connection.request()
        await connection.send(b"HTTP/1.1 2")

    for script, rounds in ((hangs_up, 1), (begins, 2)):
        async with raw_upstream(script) as upstream, front(upstream.url) as proxy:
            for _ in range(rounds):
                reply = await proxy.exchange(request("POST", "/", b"once"))
            assert reply.status == 502
            assert len(upstream.seen) == rounds
            assert len(upstream.connections) == 1


async def test_F020_a_streamed_body_is_never_sent_twice() -> None:
    async with raw_upstream(says(OK)) as upstream, front(upstream.url, streamed=True) as proxy:
        for _ in range(2):
            assert (await proxy.exchange(request("POST", "/", b"body"))).status == 200
        assert len(upstream.connections) == 2  # no pooled connection that might be stale


async def test_F021_the_upstreams_errors_are_passed_on_as_they_are(stack):
    async def fails(connection: Connection) -> None:
        for status in statuses:
            await connection.request()
            head = f"HTTP/1.1 {status}\r\nContent-Type: application/json\r\nRetry-After: 7\r\n"
            await connection.send(f"{head}Content-Length: {len(body)}\r\n\r\n{body}".encode())

    statuses = ("500 Internal Server Error", "502 Bad Gateway", "503 No", "429 Slow Down")
    body = '{"error": {"message": "mine"}}'
    async with raw_upstream(fails) as upstream:
        program = stack.start(behind(upstream.url))
        for number, status in enumerate(statuses, 1):
            reply = await program_exchange(program, CHAT)
            assert reply.data.startswith(f"HTTP/1.1 {status}\r\n".encode())
            assert reply.body == body.encode()
            assert reply.headers["retry-after"] == "7"
            assert len(upstream.seen) == number


MALFORMED = {
    "no http": b"hello\r\n\r\n",
    "bare lines": b"HTTP/1.1 200 OK\nContent-Length: 2\n\n{}",
    "no status": b"HTTP/1.1 OK\r\n\r\n",
    "bad header": b"HTTP/1.1 200 OK\r\nno colon\r\n\r\n",
    "split value": b"HTTP/1.1 200 OK\r\nX: a\rb\r\n\r\n",
    "two lengths": b"HTTP/1.1 200 OK\r\nContent-Length: 2\r\nContent-Length: 3\r\n\r\n{}",
    "length and chunks": b"HTTP/1.1 200 OK\r\nContent-Length: 2\r\nTransfer-Encoding: chunked\r\n\r\n0\r\n\r\n",
    "huge head": b"HTTP/1.1 200 OK\r\n" + b"X: y\r\n" * 7000,
    "endless line": b"HTTP/1.1 200 OK\r\nX: " + b"y" * 40_000,
    "bad first chunk": b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\nzz\r\n",
}


@pytest.mark.parametrize("kind", MALFORMED)
async def test_F022_what_is_not_http_is_502_and_its_connection_dropped(kind: str) -> None:
    async def babbles(connection: Connection) -> None:
        await connection.request()
        await connection.send(MALFORMED[kind])
        await connection.until_gone()

    async with raw_upstream(babbles) as upstream, front(upstream.url) as proxy:
        for number in range(2):
            reply = await proxy.exchange(GET)
            assert reply.status == 502
            assert b"upstream_failed" in reply.body
            await asyncio.wait_for(upstream.connections[number].gone.wait(), 5)
        assert len(upstream.connections) == 2


async def test_F022_a_bad_chunk_in_the_middle_cuts_the_answer() -> None:
    async def babbles(connection: Connection) -> None:
        await connection.request()
        await connection.send(PLAIN + chunk(b"good"))
        await heard.wait()
        await connection.send(b"what?\r\n")
        await connection.until_gone()

    heard = asyncio.Event()
    async with raw_upstream(babbles) as upstream, front(upstream.url) as proxy, await proxy.connect() as client:
        await client.send(GET)
        await client.read_until(chunk(b"good"))
        heard.set()
        assert (await client.read_to_end()).data == b""
        await asyncio.wait_for(upstream.connections[0].gone.wait(), 5)
        assert proxy.delivery.end == End.UPSTREAM_DIED


@pytest.mark.parametrize("body", [b"short", b"much too long"])
async def test_F023_an_answer_that_is_not_as_long_as_it_said_is_no_answer(body: bytes) -> None:
    wire = b"HTTP/1.1 200 OK\r\nContent-Length: 10\r\n\r\n" + body
    async with raw_upstream(says_and_closes(wire)) as upstream, front(upstream.url) as proxy:
        for _ in range(2):
            reply = await proxy.exchange(GET)
            assert reply.status == 502 or len(reply.body) < 10
            assert proxy.delivery.end == End.UPSTREAM_DIED
        assert len(upstream.connections) == 2


async def test_F024_interim_answers_are_dropped_and_the_final_one_used(stack):
    async with raw_upstream(says(b"HTTP/1.1 103 Early Hints\r\nLink: </a>\r\n\r\n", OK)) as upstream:
        program = stack.start(behind(upstream.url))
        reply = await program_exchange(program, CHAT)
        assert reply.status == 200
        assert b" 103 " not in reply.data


async def test_F025_a_large_answer_costs_no_memory(stack):
    size, piece = 256 * 1024 * 1024, b"x" * 1024 * 1024

    async def pours(connection: Connection) -> None:
        await connection.request()
        await connection.send(b"HTTP/1.1 200 OK\r\nContent-Length: %d\r\n\r\n" % size)
        for _ in range(size // len(piece)):
            await connection.send(piece)

    async with raw_upstream(pours) as upstream:
        program = stack.start(behind(upstream.url))
        await program_exchange(program, request("GET", "/health"))
        process = psutil.Process(program.pid)
        before = process.memory_info().rss
        highest = taken = reads = 0
        reader, writer = await asyncio.open_connection(program.host, program.port, limit=1024 * 1024)
        writer.write(CHAT)
        while data := await reader.read(1024 * 1024):
            taken, reads = taken + len(data), reads + 1
            if reads % 32 == 0:
                highest = max(highest, process.memory_info().rss)
        writer.close()
        assert taken > size
        assert 0 < highest <= before + 8 * 1024 * 1024


async def test_F026_an_endless_head_is_refused_at_32_KiB() -> None:
    async def endless(connection: Connection) -> None:
        await connection.request()
        while True:
            await connection.send(b"HTTP/1.1 200 OK\r\n" + b"X: y\r\n" * 1000)

    async with raw_upstream(endless) as upstream, front(upstream.url) as proxy:
        assert (await proxy.exchange(GET)).status == 502


async def test_F029_redirects_are_returned_and_never_followed(stack):
    target = "http://169.254.169.254/latest/meta-data"
    wire = f"HTTP/1.1 302 Found\r\nLocation: {target}\r\nContent-Length: 0\r\n\r\n".encode()
    async with raw_upstream(says(wire)) as upstream:
        program = stack.start(behind(upstream.url))
        reply = await program_exchange(program, CHAT)
        assert reply.status == 302
        assert reply.headers["location"] == target
        assert len(upstream.seen) == 1
        peers = {one.raddr.ip for one in psutil.Process(program.pid).net_connections() if one.raddr}
        assert peers <= {"127.0.0.1"}


@pytest.mark.parametrize("leaves", ["reset", "close"])
async def test_F059_a_client_that_leaves_mid_stream_ends_the_upstreams_work_within_100_ms(stack, leaves: str):
    async def streams(connection: Connection) -> None:
        await connection.request()
        await connection.send(SSE + chunk(b"data: 1\n\n"))
        await connection.until_gone()
        gone_s.append(time.monotonic())

    gone_s: list[float] = []
    async with raw_upstream(streams) as upstream:
        program = stack.start(behind(upstream.url))
        waits = []
        for number in range(5):
            client = await RawClient.connect(program.host, program.port)
            await client.send(CHAT)
            await client.read_until(b"data: 1\n\n")
            left_s = time.monotonic()
            client.reset() if leaves == "reset" else client.writer.close()
            await until(lambda wanted=number + 1: len(gone_s) == wanted, "the upstream is told")
            waits.append(gone_s[-1] - left_s)
        assert sorted(waits)[2] <= 0.1

        async def idle() -> bool:
            return await program.metric("llmswap_requests_in_flight", model="m") == 0

        await until(idle, "its place is free")


async def test_F093_a_slow_reader_holds_the_upstream_back_and_little_memory() -> None:
    sent = 0

    async def pours(connection: Connection) -> None:
        nonlocal sent
        await connection.request()
        await connection.send(SSE)
        while True:
            await connection.send(chunk(b"data: " + b"x" * 10_000 + b"\n\n"))
            sent += 10_000

    async with (
        raw_upstream(pours) as upstream,
        front(upstream.url) as proxy,
        await proxy.connect(receive_buffer=4096) as client,
    ):
        await client.send(GET)
        await client.read_until(b"\r\n\r\n")

        async def stands_still() -> bool:
            before = sent
            await asyncio.sleep(0.1)
            return sent == before > 0

        await until(stands_still, "the upstream is held back")
        assert 0 < proxy.buffered <= 256 * 1024
        beyond_what_was_sent = proxy.delivery.bytes_out + 1_000_000
        await asyncio.wait_for(client.reader.readexactly(beyond_what_was_sent), 20)


async def test_F093_a_client_that_reads_nothing_is_cut_at_the_write_timeout(monkeypatch: pytest.MonkeyPatch) -> None:
    async def pours(connection: Connection) -> None:
        await connection.request()
        await connection.send(SSE)
        try:
            while True:
                await connection.send(chunk(b"x" * 10_000))
        finally:
            ended.set()

    ended = asyncio.Event()
    monkeypatch.setattr(client_side, "WRITE_TIMEOUT_S", 0.2)
    async with (
        raw_upstream(pours) as upstream,
        front(upstream.url) as proxy,
        await proxy.connect(receive_buffer=4096) as client,
    ):
        await client.send(GET)
        await asyncio.wait_for(ended.wait(), 10)
        assert proxy.delivery.end == End.CLIENT_GONE
        assert "did not read" in str(proxy.delivery.error)
        assert not looks_complete(await client.read_to_end())


async def test_F104_an_expectation_is_met_here_and_never_forwarded(stack):
    async with raw_upstream(says(OK)) as upstream:
        program = stack.start(behind(upstream.url))
        head, _, body = CHAT.partition(b"\r\n\r\n")
        reply = await program_exchange(program, head + b"\r\nExpect: 100-continue\r\n\r\n" + body)
        assert b"HTTP/1.1 200 OK" in reply.data
        assert "expect" not in upstream.seen[0].headers
