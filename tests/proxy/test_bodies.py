"""Reading bodies: how much, how slowly, and in what shape a client may send."""

import asyncio
import threading
import time

import pytest

from llmswap.proxy import server
from llmswap.proxy.bodies import BodyLimits, HeldBodies, Spool
from llmswap.proxy.errors import RequestError
from tests.proxy.rig import model, rig_of
from tests.raw import request
from tests.stack import until

CHAT = "/v1/chat/completions"
JSON = "Content-Type: application/json\r\n"


@pytest.fixture(autouse=True)
def short_lingering(monkeypatch: pytest.MonkeyPatch) -> None:
    """Wait less than a second for the rest of a refused body: it never comes."""
    monkeypatch.setattr(server, "LINGERING_S", 0.05)


def head(extra: str) -> bytes:
    return f"POST {CHAT} HTTP/1.1\r\nHost: localhost\r\n{JSON}{extra}\r\n".encode()


async def test_a_body_too_large_by_its_own_word_is_refused_unread() -> None:
    async with rig_of(model("m"), limits=BodyLimits(json_max=1000)) as rig, await rig.connect() as client:
        await client.send(head("Content-Length: 100000000\r\n"))
        reply = await client.read_to_end(5)
        assert (reply.status, reply.headers["connection"], reply.closed) == (413, "close", "eof")
        assert not rig.starts


async def test_a_chunked_body_is_refused_as_soon_as_it_is_too_large() -> None:
    async with rig_of(model("m"), limits=BodyLimits(json_max=1000)) as rig, await rig.connect() as client:
        await client.send(head("Transfer-Encoding: chunked\r\n") + (b"1F4\r\n" + b" " * 500 + b"\r\n") * 3)
        reply = await client.read_to_end(5)
        assert (reply.status, reply.closed) == (413, "eof")


async def test_a_body_of_just_the_limit_is_served() -> None:
    body = b'{"model":"m"}'
    async with rig_of(model("m"), limits=BodyLimits(json_max=len(body))) as rig:
        assert (await rig.raw(request("POST", CHAT, body, headers=JSON))).status == 200
        assert (await rig.raw(request("POST", CHAT, body + b" ", headers=JSON))).status == 413


@pytest.mark.parametrize("framing", ["Content-Length: 100\r\n", "Transfer-Encoding: chunked\r\n"])
@pytest.mark.parametrize("start", [b"", b"5\r\n"])
async def test_a_body_that_does_not_come_is_408_and_the_connection_ends(framing: str, start: bytes) -> None:
    async with rig_of(model("m"), limits=BodyLimits(idle_s=0.1, total_s=60)) as rig, await rig.connect() as client:
        began_s = time.monotonic()
        await client.send(head(framing) + start)
        reply = await client.read_to_end(5)
        assert (reply.status, reply.closed) == (408, "eof")
        assert time.monotonic() - began_s < 3


async def test_a_body_that_trickles_is_408_when_the_total_is_used_up() -> None:
    async with rig_of(model("m"), limits=BodyLimits(idle_s=60, total_s=0.2)) as rig, await rig.connect() as client:
        await client.send(head("Content-Length: 100\r\n"))
        ended = asyncio.create_task(client.read_to_end(5))
        for _ in range(200):
            if ended.done():
                break
            await client.send(b" ")
            await asyncio.sleep(0.02)  # the trickle itself
        assert (await ended).status == 408


async def test_a_slow_but_steady_body_is_read() -> None:
    body = b'{"model":"m"}'
    async with rig_of(model("m"), limits=BodyLimits(idle_s=5)) as rig, await rig.connect() as client:
        await client.send(head(f"Connection: close\r\nContent-Length: {len(body)}\r\n"))
        for byte in body:
            await client.send(bytes([byte]))
            await asyncio.sleep(0)
        assert (await client.read_to_end(5)).status == 200
        assert rig.upstream.last.body == body


async def test_a_body_framed_wrongly_is_400_and_the_connection_ends() -> None:
    async with rig_of(model("m")) as rig, await rig.connect() as client:
        await client.send(head("Transfer-Encoding: chunked\r\n"))
        await client.send(b"5\r\n     \r\nnot a size\r\n")
        reply = await client.read_to_end(5)
        assert (reply.status, reply.closed) == (400, "eof")
        assert not rig.starts


@pytest.mark.parametrize("encoding", ["gzip", "GZIP", "deflate", "br", "identity, gzip", "nonsense"])
async def test_a_compressed_body_is_415_unread(encoding: str) -> None:
    async with rig_of(model("m")) as rig:
        reply = await rig.raw(request("POST", CHAT, b"\x1f\x8b", headers=f"{JSON}Content-Encoding: {encoding}\r\n"))
        assert reply.status == 415
        assert not rig.starts


async def test_identity_is_no_compression() -> None:
    async with rig_of(model("m")) as rig:
        headers = f"{JSON}Content-Encoding: Identity\r\n"
        assert (await rig.raw(request("POST", CHAT, b'{"model":"m"}', headers=headers))).status == 200


async def test_a_client_that_leaves_while_sending_its_body_is_forgotten() -> None:
    async with rig_of(model("m")) as rig, await rig.connect() as client:
        await client.send(head("Content-Length: 100\r\n") + b"{")
        client.reset()
        await until(lambda: rig.idle, "nobody is inside")
        assert not rig.starts


async def test_a_spool_gives_back_pieces_and_replacements() -> None:
    spool = Spool()
    data = bytes(range(256)) * 8192  # 2 MiB: on disk
    for start in range(0, len(data), 100_000):
        await spool.append(data[start : start + 100_000])
    assert spool.size == len(data)
    pieces = ((0, 300_000), b"new", (300_010, len(data)))
    given = [part async for part in spool.stream(pieces)]
    assert b"".join(given) == data[:300_000] + b"new" + data[300_010:]
    assert max(map(len, given)) <= 256 * 1024
    spool.close()


async def test_a_full_disk_refuses_the_upload_and_says_so(monkeypatch: pytest.MonkeyPatch) -> None:
    spool = Spool()

    def full(_: bytes) -> int:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(spool._file, "write", full)
    with pytest.raises(RequestError) as caught:
        await spool.append(b"x" * 300_000)
    assert caught.value.status == 503
    assert "No space left" in caught.value.message
    spool.close()


async def test_a_cancelled_upload_waits_for_the_disk_before_its_file_is_closed(monkeypatch: pytest.MonkeyPatch) -> None:
    spool = Spool()
    began, go_on, wrote = threading.Event(), threading.Event(), threading.Event()

    def slow(_: bytes) -> int:
        began.set()
        go_on.wait(5)
        wrote.set()
        return 0

    monkeypatch.setattr(spool._file, "write", slow)
    append = asyncio.create_task(spool.append(b"x" * 300_000))
    await until(began.is_set, "the thread writes")
    append.cancel()
    await asyncio.sleep(0)
    assert not append.done()
    go_on.set()
    with pytest.raises(asyncio.CancelledError):
        await append
    assert wrote.is_set()
    spool.close()


@pytest.mark.parametrize("framing", ["declared", "chunked"])
async def test_large_bodies_that_wait_never_take_more_memory_than_their_budget(framing: str) -> None:
    body = b'{"model":"m","x":"' + b"y" * 50_000 + b'"}'
    sent = request("POST", CHAT, body, headers=JSON)
    if framing == "chunked":
        sent = head("Connection: close\r\nTransfer-Encoding: chunked\r\n")
        sent += b"%X\r\n%s\r\n0\r\n\r\n" % (len(body), body)
    async with rig_of(model("m")) as rig:
        rig.context.held_bodies = HeldBodies(budget=120_000)
        rig.auto = False
        waiting = [asyncio.create_task(rig.raw(sent)) for _ in range(2)]
        await until(lambda: rig.context.held_bodies.size == 2 * len(body), "two are held")
        refused = await rig.raw(sent)
        assert (refused.status, refused.headers["retry-after"]) == (503, "1")
        small = asyncio.create_task(rig.raw(request("POST", CHAT, b'{"model":"m"}', headers=JSON)))
        await until(lambda: rig.context.gate.occupants == 3, "a small one still finds room")
        rig.ready()
        assert [reply.status for reply in await asyncio.gather(*waiting, small)] == [200] * 3
        assert rig.context.held_bodies.size == 0
        assert (await rig.raw(sent)).status == 200
