"""Golden rows of llama-swap's behaviour that the hop decides, through the whole program."""

import asyncio

import aiohttp
import pytest
from aiohttp import web

from tests.dialogue import CHAT, ask
from tests.proxy.raw_upstream import LAST, OK, SSE, Connection, chunk, raw_upstream, says, says_and_closes
from tests.raw import RawClient, exchange, request

ASKED = request("POST", CHAT, b'{"model": "m", "stream": true}', headers="Content-Type: application/json\r\n")


def behind(upstream_url: str) -> dict:
    """Configure model `m` to be served by something that runs already."""
    place = {"cmd": "sleep 1000", "proxy": upstream_url, "checkEndpoint": "none", "trustProxy": True}
    return {"models": {"m": place}}


async def test_g064_a_websocket_passes_end_to_end(stack, http: aiohttp.ClientSession):
    async def echo(asked: web.BaseRequest) -> web.StreamResponse:
        socket = web.WebSocketResponse()
        await socket.prepare(asked)
        async for message in socket:
            await socket.send_str(message.data)
        return socket

    runner = web.ServerRunner(web.Server(echo), access_log=None)
    await runner.setup()
    await web.TCPSite(runner, "127.0.0.1", 0).start()
    program = stack.start(behind(f"http://127.0.0.1:{runner.addresses[0][1]}"))
    try:
        async with http.ws_connect(f"{program.url}/upstream/m/anything") as socket:
            await socket.send_str("hello")
            assert await socket.receive_str(timeout=5) == "hello"
            assert await program.metric("llmswap_requests_in_flight", model="m") == 1
    finally:
        await runner.cleanup()


async def test_g075_an_upstream_that_closes_mid_stream_crashes_nothing_and_ours_says_so(stack, http):
    async with raw_upstream(says_and_closes(SSE, chunk(b"data: 1\n\n"))) as upstream:
        program = stack.start(behind(upstream.url))
        for _ in range(2):
            reply = await exchange(program.host, program.port, ASKED)
            assert reply.status == 200
            assert chunk(b"data: 1\n\n") in reply.body
            assert b'"error"' in reply.body  # llama-swap: a clean end
            assert not reply.body.endswith(LAST)


async def test_g076_a_ready_upstream_that_refuses_connections_is_502_with_our_envelope(stack, http):
    async with raw_upstream(says(OK)) as upstream:
        url = upstream.url
    program = stack.start(behind(url))
    status, body = await ask(http, program, "m")
    assert status == 502
    assert body["error"]["type"] == "server_error"
    assert "upstream" in body["error"]["message"]


@pytest.mark.parametrize("loading", [False, True])
async def test_g077_the_first_token_comes_before_the_upstream_has_finished(stack, loading: bool):
    async def streams(connection: Connection) -> None:
        await connection.request()
        await connection.send(SSE + chunk(b"data: first\n\n"))
        await asyncio.wait_for(heard.wait(), 10)
        await connection.send(chunk(b"data: last\n\n") + LAST)

    heard = asyncio.Event()
    async with raw_upstream(streams) as upstream:
        config = behind(upstream.url)
        config["models"]["m"]["sendLoadingState"] = loading
        program = stack.start(config)
        async with await RawClient.connect(program.host, program.port) as client:
            await client.send(ASKED)
            head = await client.read_until(b"data: first\n\n")
            assert b"X-Accel-Buffering: no" in head
            heard.set()
            rest = await client.read_to_end()
            assert b"data: last\n\n" in rest.data
            assert rest.data.endswith(LAST)
