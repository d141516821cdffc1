"""Fault rows 72 and 107: websockets through the whole program."""

import asyncio
import shlex
import sys
from pathlib import Path

import aiohttp
import pytest

from tests.dialogue import ask
from tests.raw import RawClient
from tests.stack import fake, until

UPSTREAM = (
    f"{shlex.quote(sys.executable)} {shlex.quote(str(Path(__file__).with_name('sockets_upstream.py')))} ${{PORT}}"
)
BIG = 64 << 20
UPGRADE = (
    "Upgrade: websocket\r\nConnection: Upgrade\r\nSec-WebSocket-Version: 13\r\n"
    "Sec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==\r\n"
)


@pytest.fixture
def program(stack):
    return stack.start({"models": {"s": {"cmd": UPSTREAM}, "other": {"cmd": fake("other")}}})


def handshake(path: str, headers: str = UPGRADE) -> bytes:
    return f"GET {path} HTTP/1.1\r\nHost: 127.0.0.1\r\n{headers}\r\n".encode()


async def test_F107_bytes_pass_both_ways_and_close_codes_are_kept(program, http):
    url = f"{program.url}/upstream/s/echo"
    async with http.ws_connect(url, protocols=("chat",), max_msg_size=2 * BIG) as socket:
        assert socket.protocol == "chat"
        for text in ("one", "", "zwei \u2603"):
            await socket.send_str(text)
            assert await socket.receive_str(timeout=5) == text
        await socket.send_bytes(bytes(range(256)))
        assert await socket.receive_bytes(timeout=5) == bytes(range(256))
        await socket.send_str("close 4321 enough")
        closing = await socket.receive(timeout=5)
        assert (closing.type, closing.data, closing.extra) == (aiohttp.WSMsgType.CLOSE, 4321, "enough")
    assert await program.metric("llmswap_requests_in_flight", model="s") == 0


async def test_F107_a_frame_of_64_mib_passes_without_being_held(program, http):
    async with http.ws_connect(f"{program.url}/upstream/s/echo", max_msg_size=2 * BIG, compress=0) as socket:
        before = memory_mb(program.pid)
        await socket.send_bytes(bytes(BIG))
        echoed = await socket.receive_bytes(timeout=20)
        assert len(echoed) == BIG
        assert memory_mb(program.pid) - before < 16


def memory_mb(pid: int) -> float:
    """Give the highest memory a process has had."""
    status = Path(f"/proc/{pid}/status").read_text()
    return next(int(line.split()[1]) for line in status.splitlines() if line.startswith("VmHWM:")) / 1000


async def test_F107_an_upstream_that_refuses_is_heard(program, http):
    with pytest.raises(aiohttp.WSServerHandshakeError) as caught:
        await http.ws_connect(f"{program.url}/upstream/s/refuse")
    assert caught.value.status == 418
    async with await RawClient.connect(program.host, program.port) as client:
        await client.send(handshake("/upstream/s/refuse"))
        head = await client.read_until(b"\r\n\r\n")
    assert head.startswith(b"HTTP/1.1 418 ")
    assert b"X-Why: teapot" in head


@pytest.mark.parametrize(
    "headers",
    [
        "Upgrade: websocket\r\n",
        "Connection: Upgrade\r\nUpgrade: h2c\r\n",
        UPGRADE.replace("13", "3"),
        UPGRADE.replace("dGhlIHNhbXBsZSBub25jZQ==", "short"),
    ],
    ids=["no Connection", "another protocol", "old version", "bad key"],
)
async def test_F107_a_bad_upgrade_is_no_websocket(program, headers):
    async with await RawClient.connect(program.host, program.port) as client:
        await client.send(handshake("/upstream/s/echo", headers))
        head = await client.read_until(b"\r\n\r\n")
    status = int(head.split(b" ")[1])
    assert 400 <= status < 500, head


async def test_F107_101_comes_only_after_the_upstream_has_agreed(stack, http):
    program = stack.start({"models": {"slow": {"cmd": f"sh -c 'sleep 0.5; exec {UPSTREAM}'"}}})
    async with await RawClient.connect(program.host, program.port) as client:
        await client.send(handshake("/upstream/slow/echo"))
        await program.until_state("slow", "starting")
        with pytest.raises(TimeoutError):
            await client.read_until(b"\r\n", within_s=0.1)
        assert (await client.read_until(b"\r\n\r\n")).startswith(b"HTTP/1.1 101 ")


async def test_F107_an_open_socket_is_in_flight_and_either_end_may_vanish(program, http):
    async def in_flight() -> float:
        return await program.metric("llmswap_requests_in_flight", model="s")

    async def none_in_flight() -> bool:
        return await in_flight() == 0

    client = await RawClient.connect(program.host, program.port)
    await client.send(handshake("/upstream/s/echo"))
    assert (await client.read_until(b"\r\n\r\n")).startswith(b"HTTP/1.1 101 ")
    assert await in_flight() == 1
    swap = asyncio.create_task(ask(http, program, "other"))

    async def waits() -> bool:
        return await program.metric("llmswap_queue_depth", model="other") == 1

    await until(waits, "a swap waits for the socket")
    client.reset()
    await until(none_in_flight, "the socket is gone", 2)
    assert (await swap)[0] == 200

    async with http.ws_connect(f"{program.url}/upstream/s/echo") as socket:
        leader = [process for process in program.family() if "sockets_upstream.py" in " ".join(process.cmdline())]
        leader[0].kill()
        ending = await socket.receive(timeout=5)
        assert ending.type in {aiohttp.WSMsgType.CLOSED, aiohttp.WSMsgType.ERROR, aiohttp.WSMsgType.CLOSE}
        assert socket.close_code != aiohttp.WSCloseCode.OK
    await until(none_in_flight, "the socket is gone", 2)


async def test_F072_a_websocket_is_in_flight_and_who_wants_its_place_waits_no_longer_than_its_queue_timeout(
    stack, http
):
    models = {"a": {"cmd": fake("a")}, "b": {"cmd": fake("b"), "queueTimeout": 1}, "c": {"cmd": fake("c")}}
    program = stack.start({"models": models})
    async with http.ws_connect(f"{program.url}/upstream/a/ws") as socket:
        assert await program.metric("llmswap_requests_in_flight", model="a") == 1
        status, answer = await ask(http, program, "b")
        assert status == 503
        assert "1 s" in answer["error"]["message"]
        await socket.send_str("still here")
        assert await socket.receive_str(timeout=5) == "still here"
        assert await program.running() == {"a": "ready"}
        assert await program.metric("llmswap_rejections_total", model="b", reason="queue_timeout") == 1
        patient = asyncio.create_task(ask(http, program, "c"))
        (wait,) = await until(lambda: waits(http, program), "c is waited for")
        assert (wait["model"], wait["why"], wait["whom"]) == ("c", "busy", ["a"])
    assert (await patient)[0] == 200, "the socket was all that was in its way"
    assert await program.running() == {"c": "ready"}


async def test_F072_an_ignored_websocket_is_in_nobodys_way_and_ends_with_its_upstream(stack, http):
    ignoring = {"cmd": fake("a"), "compat": {"ignoreWebsockets": True}}
    program = stack.start({"models": {"a": ignoring, "b": {"cmd": fake("b")}}})
    assert (await ask(http, program, "a"))[0] == 200
    async with http.ws_connect(f"{program.url}/upstream/a/ws") as socket:
        await socket.send_str("x")
        assert await socket.receive_str(timeout=5) == "x"
        assert await program.metric("llmswap_requests_in_flight", model="a") == 0
        assert (await ask(http, program, "b"))[0] == 200
        assert (await socket.receive(timeout=5)).type in {aiohttp.WSMsgType.CLOSE, aiohttp.WSMsgType.CLOSED}
    assert await program.running() == {"b": "ready"}


async def waits(http, program):
    async with http.get(program.url + "/api/queue") as answer:
        return (await answer.json())["waiting"]
