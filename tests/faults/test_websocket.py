"""Fault row 107: websockets through the hop, and through the whole program."""

import asyncio
import hashlib

import aiohttp
import pytest
from aiohttp import WSCloseCode, WSMsgType, web

from tests.proxy.raw_upstream import Connection, front, raw_upstream, says
from tests.raw import request
from tests.stack import until

UPGRADE = (
    b"GET /ws HTTP/1.1\r\nHost: 127.0.0.1\r\nConnection: keep-alive, Upgrade\r\nUpgrade: websocket\r\n"
    b"Sec-WebSocket-Version: 13\r\nSec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==\r\n\r\n"
)
SWITCH = (
    b"HTTP/1.1 101 Switching Protocols\r\nUpgrade: websocket\r\nConnection: Upgrade\r\n"
    b"Sec-WebSocket-Accept: s3pPLMBiTxaQ9kYGzzhZRbK+xOo=\r\n\r\n"
)


async def switched(connection: Connection) -> None:
    _, headers = await connection.head()
    assert headers["upgrade"] == "websocket"
    assert headers["connection"] == "Upgrade"
    assert headers["sec-websocket-key"]
    await connection.send(SWITCH)


async def test_F107_bytes_pass_both_ways_untouched_from_the_first_one_on() -> None:
    async def echoes(connection: Connection) -> None:
        await switched(connection)
        while data := await connection.reader.read(65536):
            await connection.send(data.upper())

    async with raw_upstream(echoes) as upstream, front(upstream.url) as proxy, await proxy.connect() as client:
        await client.send(UPGRADE + b"early \x00\xff\r\n")  # sent before the 101 has come
        head = await client.read_until(b"\r\n\r\n")
        assert head.startswith(b"HTTP/1.1 101 Switching Protocols\r\n")
        for line in (
            b"Upgrade: websocket",
            b"Connection: Upgrade",
            b"Sec-WebSocket-Accept: s3pPLMBiTxaQ9kYGzzhZRbK+xOo=",
        ):
            assert line in head
        assert b"chunked" not in head
        assert await client.read_until(b"\r\n") == b"EARLY \x00\xff\r\n"
        await client.send(b"late\r\n")
        assert await client.read_until(b"\r\n") == b"LATE\r\n"


async def test_F107_the_client_is_switched_only_after_the_upstream() -> None:
    async def hesitates(connection: Connection) -> None:
        await connection.head()
        asked.set()
        await asyncio.wait_for(go_on.wait(), 5)
        await connection.send(SWITCH + b"hello")
        await connection.until_gone()

    asked, go_on = asyncio.Event(), asyncio.Event()
    async with raw_upstream(hesitates) as upstream, front(upstream.url) as proxy, await proxy.connect() as client:
        await client.send(UPGRADE)
        await asyncio.wait_for(asked.wait(), 5)
        assert proxy.delivery.status == 0
        go_on.set()
        assert (await client.read_until(b"hello")).startswith(b"HTTP/1.1 101 ")


async def test_F107_a_refusal_is_passed_on_as_it_is_and_the_connection_lives_on() -> None:
    refusal = b"HTTP/1.1 403 Forbidden\r\nX-Why: because\r\nContent-Length: 2\r\n\r\nno"
    async with raw_upstream(says(refusal)) as upstream, front(upstream.url) as proxy, await proxy.connect() as client:
        await client.send(UPGRADE)
        reply = await client.read_until(b"no")
        assert reply.startswith(b"HTTP/1.1 403 Forbidden\r\n")
        assert b"X-Why: because" in reply
        await client.send(request("GET", "/"))
        assert (await client.read_to_end()).status == 403


@pytest.mark.parametrize("closes", ["client", "upstream"])
async def test_F107_when_one_side_closes_so_does_the_other(closes: str) -> None:
    async def waits(connection: Connection) -> None:
        await switched(connection)
        if closes == "client":
            await connection.until_gone()
        else:
            await connection.send(b"bye")

    async with raw_upstream(waits) as upstream, front(upstream.url) as proxy, await proxy.connect() as client:
        await client.send(UPGRADE)
        await client.read_until(b"\r\n\r\n")
        if closes == "client":
            client.writer.close()
            await asyncio.wait_for(upstream.connections[0].gone.wait(), 5)
        else:
            reply = await client.read_to_end()
            assert (reply.data, reply.closed) == (b"bye", "eof")
        await until(lambda: proxy.delivery.end is not None, "the hop is over")


async def test_F107_a_large_frame_waits_for_a_slow_upstream_and_arrives_whole() -> None:
    size = 64 * 1024 * 1024

    async def reads_late(connection: Connection) -> None:
        await switched(connection)
        await asyncio.wait_for(go_on.wait(), 10)
        digest, left = hashlib.sha256(), size
        while left:
            data = await connection.reader.read(1 << 20)
            digest.update(data)
            left -= len(data)
        await connection.send(digest.digest())

    go_on = asyncio.Event()
    async with raw_upstream(reads_late) as upstream, front(upstream.url) as proxy, await proxy.connect() as client:
        await client.send(UPGRADE)
        await client.read_until(b"\r\n\r\n")
        frame = bytes(range(256)) * (size // 256)
        sending = asyncio.create_task(client.send(frame))
        done, _ = await asyncio.wait({sending}, timeout=0.3)
        assert not done  # held back on the way, not piled up here
        go_on.set()
        await asyncio.wait_for(sending, 20)
        answer = await asyncio.wait_for(client.reader.readexactly(32), 20)
        assert answer == hashlib.sha256(frame).digest()


async def test_F107_close_codes_and_refusals_through_the_whole_program(stack, http: aiohttp.ClientSession) -> None:
    async def serve(asked: web.BaseRequest) -> web.StreamResponse:
        if asked.path.endswith("refused"):
            return web.Response(status=418, text="teapot")
        socket = web.WebSocketResponse(max_msg_size=0)
        await socket.prepare(asked)
        async for message in socket:
            if message.data == "close":
                await socket.close(code=4321, message=b"as you wish")
            elif message.type is WSMsgType.TEXT:
                await socket.send_str(message.data[::-1])
            else:
                await socket.send_bytes(message.data)
        codes.append(socket.close_code)
        return socket

    codes: list[int | None] = []
    runner = web.ServerRunner(web.Server(serve), access_log=None)
    await runner.setup()
    await web.TCPSite(runner, "127.0.0.1", 0).start()
    url = f"http://127.0.0.1:{runner.addresses[0][1]}"
    place = {"cmd": "sleep 1000", "proxy": url, "checkEndpoint": "none", "trustProxy": True}
    program = stack.start({"models": {"m": place}})
    try:
        async with http.ws_connect(f"{program.url}/upstream/m/socket", max_msg_size=0) as socket:
            await socket.send_str("abc")
            assert await socket.receive_str() == "cba"
            large = bytes(3_000_000)
            await socket.send_bytes(large)
            assert await socket.receive_bytes() == large
            await socket.send_str("close")
            closing = await socket.receive()
            assert (closing.type, closing.data, closing.extra) == (WSMsgType.CLOSE, 4321, "as you wish")
        async with http.ws_connect(f"{program.url}/upstream/m/socket") as socket:
            await socket.close(code=WSCloseCode.GOING_AWAY)
        await until(lambda: codes[1:] == [WSCloseCode.GOING_AWAY], "the upstream hears the code")
        with pytest.raises(aiohttp.WSServerHandshakeError) as refused:
            await http.ws_connect(f"{program.url}/upstream/m/refused")
        assert refused.value.status == 418

        async def idle() -> bool:
            return await program.metric("llmswap_requests_in_flight", model="m") == 0

        await until(idle, "no place is held")
    finally:
        await runner.cleanup()
