"""What a control API may answer, and what is made of it; with a server that says what it is told to say."""

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager, suppress

import pytest

from llmswap.runtime.control import BODY_BYTES, Answer, Control, NoAnswer
from tests.runtime.rig import free_port


class Server:
    """Answers every request with the next of its answers, then closes. `heard` is what came, `met` how many came."""

    def __init__(self, *answers: bytes) -> None:
        self.answers = list(answers)
        self.heard: list[bytes] = []
        self.met = 0
        self.hang_up_first = False

    async def serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        self.met += 1
        if self.hang_up_first and self.met == 1:
            writer.close()
            return
        try:
            head = await reader.readuntil(b"\r\n\r\n")
            length = next((int(line[15:]) for line in head.split(b"\r\n") if line.startswith(b"Content-Length:")), 0)
            self.heard.append(head + await reader.readexactly(length))
            writer.write(self.answers.pop(0))
            await writer.drain()
        except (asyncio.IncompleteReadError, ConnectionError):
            pass  # nobody came after all, or has heard enough
        finally:
            writer.close()


@asynccontextmanager
async def serving(*answers: bytes, server_class: type[Server] = Server) -> AsyncIterator[tuple[Server, Control]]:
    server = server_class(*answers)
    listening = await asyncio.start_server(server.serve, "127.0.0.1", 0)
    try:
        yield server, Control(f"http://127.0.0.1:{listening.sockets[0].getsockname()[1]}/base/")
    finally:
        listening.close()
        await listening.wait_closed()


@pytest.mark.parametrize(
    ("raw", "answer"),
    [
        (b"HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\nok", Answer(200, b"ok")),
        (b"HTTP/1.1 200 OK\r\ntransfer-encoding: Chunked\r\n\r\n1\r\no\r\n1;x=y\r\nk\r\n0\r\n\r\n", Answer(200, b"ok")),
        (b"HTTP/1.0 200 OK\r\n\r\nok", Answer(200, b"ok")),
        (b"HTTP/1.1 204 No Content\r\n\r\n", Answer(204, b"")),
        (b"HTTP/1.1 100 Continue\r\n\r\nHTTP/1.1 202 X\r\nContent-Length: 0\r\n\r\n", Answer(202, b"")),
        (b"HTTP/1.1 302 Found\r\nLocation: /other\r\nContent-Length: 0\r\n\r\n", Answer(302, b"")),
        (b"HTTP/1.1 200\r\nContent-Length: 9999999\r\n\r\n" + b"x" * 2 * BODY_BYTES, Answer(200, b"x" * BODY_BYTES)),
        (
            b"HTTP/1.1 200\r\nTransfer-Encoding: chunked\r\n\r\n20000\r\n" + b"x" * 0x20000,
            Answer(200, b"x" * BODY_BYTES),
        ),
        (b"HTTP/1.1 200\r\n\r\n" + b"x" * 2 * BODY_BYTES, Answer(200, b"x" * BODY_BYTES)),
    ],
    ids=["length", "chunked", "to the end", "204", "interim", "redirect", "long", "long chunk", "long to the end"],
)
async def test_answers_are_read_as_far_as_anybody_needs_them(raw: bytes, answer: Answer):
    async with serving(raw) as (_, control):
        assert await control.ask("POST", "/sleep", timeout_s=5) == answer


@pytest.mark.parametrize(
    ("raw", "reason", "lost"),
    [
        (b"", "closed the connection without an answer", True),
        (b"HTTP/1.1 200 OK\r\nContent-Length: 9\r\n\r\nok", "closed the connection without an answer", True),
        (b"SSH-2.0-x\r\n", "answered something that is not HTTP", False),
        (b"HTTP/1.1 200 OK\r\n" + b"a: b\r\n" * 200 + b"\r\n", "answered something that is not HTTP", False),
        (b"HTTP/1.1 200 OK\r\na: " + b"b" * 2 * BODY_BYTES, "answered something that is not HTTP", False),
        (b"HTTP/1.1 200 OK\r\nContent-Length: -5\r\n\r\n", "answered something that is not HTTP", False),
        (b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\nzz\r\n", "answered something that is not HTTP", False),
    ],
)
async def test_what_is_no_answer(raw: bytes, reason: str, lost: bool):
    async with serving(raw) as (_, control):
        with pytest.raises(NoAnswer, match=reason) as caught:
            await control.ask("POST", "/sleep", timeout_s=5)
    assert caught.value.lost is lost


async def test_a_port_where_nobody_listens_is_no_answer():
    with pytest.raises(NoAnswer, match="refuses connections") as caught:
        await Control(f"http://127.0.0.1:{free_port()}").ask("GET", "/", timeout_s=5)
    assert caught.value.lost


async def test_a_request_goes_below_the_base_url_with_its_body_as_json():
    ok = b"HTTP/1.1 200 OK\r\nContent-Length: 0\r\n\r\n"
    async with serving(ok, ok) as (server, control):
        await control.ask("POST", "/sleep?level=1", '{"tags":["ü"]}', timeout_s=5)
        await control.ask("GET", "is_sleeping", timeout_s=5)
    post, get = server.heard
    assert post.startswith(b"POST /base/sleep?level=1 HTTP/1.1\r\nHost: 127.0.0.1:")
    assert b"\r\nContent-Type: application/json\r\nContent-Length: 15\r\n\r\n" in post
    assert post.endswith('{"tags":["ü"]}'.encode())
    assert get.startswith(b"GET /base/is_sleeping HTTP/1.1\r\n")
    assert b"Content-" not in get


OK = b"HTTP/1.1 200 OK\r\nContent-Length: 0\r\n\r\n"


class Keeper(Server):
    """Keeps a connection for `keeps` requests, however many it was asked for."""

    keeps = 2

    async def serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        self.met += 1
        with suppress(asyncio.IncompleteReadError, ConnectionError):
            for _ in range(self.keeps):
                self.heard.append(await reader.readuntil(b"\r\n\r\n"))
                writer.write(self.answers.pop(0))
        writer.close()


async def test_a_connection_made_ahead_that_the_server_has_closed_is_replaced():
    async with serving(OK) as (server, control):
        server.hang_up_first = True
        async with control.conversation():
            opening = control._opening
            assert opening is not None
            reader, _ = await opening
            assert await reader.read() == b""
            assert (await control.ask("POST", "/sleep", timeout_s=5)).good
    assert len(server.heard) == 1


@pytest.mark.parametrize(
    ("first", "met"),
    [
        (OK, 1),
        (b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n1\r\no\r\n0\r\n\r\n", 1),
        (b"HTTP/1.1 204 No Content\r\n\r\n", 1),
        (b"HTTP/1.1 200 OK\r\nContent-Length: 0\r\nConnection: Close\r\n\r\n", 2),
        (b"HTTP/1.0 200 OK\r\nContent-Length: 0\r\n\r\n", 2),
    ],
    ids=["length", "chunked", "204", "told to close", "HTTP/1.0"],
)
async def test_a_conversation_asks_on_one_connection_if_the_server_keeps_it(first, met):
    async with serving(first, OK, server_class=Keeper) as (server, control), control.conversation():
        assert (await control.ask("POST", "/sleep", timeout_s=5)).good
        assert (await control.ask("GET", "/is_sleeping", timeout_s=5)).good
    assert server.met == met
    assert b"Connection: keep-alive" in server.heard[0]


async def test_a_question_on_a_connection_that_was_closed_unannounced_is_asked_anew():
    async with serving(OK, OK) as (server, control), control.conversation():  # says nothing of closing, and closes
        assert (await control.ask("POST", "/sleep", timeout_s=5)).good
        assert (await control.ask("GET", "/is_sleeping", timeout_s=5)).good
    assert [head.split()[0] for head in server.heard] == [b"POST", b"GET"]


async def test_what_changes_something_never_goes_on_a_connection_that_may_be_closed():
    async with serving(OK, OK, server_class=Keeper) as (server, control), control.conversation():
        assert (await control.ask("POST", "/wake_up?tags=weights", timeout_s=5)).good
        assert (await control.ask("POST", "/wake_up?tags=kv_cache", timeout_s=5)).good
    assert server.met == 2


async def test_nobody_listening_ahead_of_time_is_only_noticed_when_it_matters():
    control = Control(f"http://127.0.0.1:{free_port()}")
    async with control.conversation():
        with pytest.raises(NoAnswer, match="refuses connections"):
            await control.ask("POST", "/sleep", timeout_s=5)
