"""Log rings and the book: nothing a reader does reaches the writer."""

import asyncio
import logging

import pytest

from llmswap.config.settings import LogSettings
from llmswap.core.fleet import ModelId
from llmswap.runtime.logbook import SUBSCRIBER_BYTES, LogBook, LogRing, ProxyLogHandler

A = ModelId("a")


async def read_until(subscription, wanted: bytes) -> bytes:
    got = b""
    async with asyncio.timeout(5):
        async for data in subscription:
            got += data
            if wanted in got:
                return got
    return got


def test_ring_keeps_exactly_the_last_bytes():
    ring = LogRing(10)
    for piece in (b"abc", b"defgh", b"ijklm"):
        ring.write(piece)
    assert ring.history() == b"defghijklm"
    ring.write(b"x" * 25 + b"end")
    assert ring.history() == b"xxxxxxxend"


async def test_subscriber_gets_history_and_then_what_comes():
    ring = LogRing()
    ring.write(b"old\n")
    with ring.subscribe(history=True) as sub:
        ring.write(b"new\n")
        assert await read_until(sub, b"new\n") == b"old\nnew\n"


async def test_subscriber_without_history_sees_only_new_lines():
    ring = LogRing()
    ring.write(b"old\n")
    with ring.subscribe(history=False) as sub:
        asyncio.get_running_loop().call_soon(ring.write, b"new\n")
        assert await read_until(sub, b"new\n") == b"new\n"


async def test_slow_subscriber_loses_bytes_and_is_told_how_many():
    book = LogBook()
    ring = book.model(ModelId("m"))
    with ring.subscribe(history=False) as sub:
        ring.write(b"k" * SUBSCRIBER_BYTES)
        ring.write(b"lost" * 10)
        ring.write(b"x")  # fits by now or not: once bytes are missing, the gap goes on until the reader comes
        got = await anext(aiter(sub))
        assert got == b"k" * SUBSCRIBER_BYTES + "\n— 41 bytes dropped —\n".encode()
        ring.write(b"after")
        assert await anext(aiter(sub)) == b"after"
    assert (ring.dropped_bytes, book.dropped_bytes) == (41, 41)


async def test_writer_in_another_thread_wakes_the_reader():
    ring = LogRing()
    with ring.subscribe(history=False) as sub:
        reader = asyncio.create_task(read_until(sub, b"!"))
        await asyncio.to_thread(ring.write, b"hi!")
        assert await reader == b"hi!"


async def test_left_subscription_is_no_longer_fed():
    ring = LogRing()
    with ring.subscribe(history=False) as sub:
        pass
    ring.write(b"x")
    assert not ring._subscribers
    assert sub._take() == b""


async def test_end_finishes_readers_after_what_is_pending():
    book = LogBook()
    with book.model(A).subscribe(history=False) as sub:
        book.write_upstream(A, b"last words")
        book.end()
        async with asyncio.timeout(5):
            assert [data async for data in sub] == [b"last words"]


class Lines:
    """A stand-in for stdout."""

    def __init__(self) -> None:
        self.text = b""

    def write(self, data: bytes) -> None:
        self.text += data


@pytest.mark.parametrize(
    ("to_stdout", "expected"), [("proxy", b"p"), ("upstream", b"u"), ("both", b"pu"), ("none", b"")]
)
def test_to_stdout_selects_stdout_and_the_combined_log(to_stdout, expected):
    out = Lines()
    book = LogBook(LogSettings(to_stdout=to_stdout), stdout=out)
    book.write_proxy(b"p")
    book.write_upstream(A, b"u")
    assert book.combined.history() == expected
    assert out.text == expected
    assert (book.proxy.history(), book.upstream.history(), book.model(A).history()) == (b"p", b"u", b"u")


def test_tail_lines_are_the_last_non_empty_ones_without_secrets():
    book = LogBook(secrets=("hunter2hunter2",))
    book.write_upstream(A, b"first\n\nstarted with --api-key abcdef\nkey is hunter2hunter2\n")
    assert book.tail_lines(A, 2) == ["started with --api-key ***", "key is ***"]


def test_tail_hides_the_models_own_secrets_and_only_there():
    book = LogBook()
    book.conceal(A, ["hf-secret-value"])
    book.write_upstream(A, b"using hf-secret-value\n")
    assert book.tail_lines(A, 1) == ["using ***"]
    assert book.hide("hf-secret-value") == "hf-secret-value"
    assert book.model(A).history() == b"using hf-secret-value\n", "what an upstream prints is kept as it is"


def record(level: int, text: str) -> logging.LogRecord:
    return logging.LogRecord("llmswap", level, __file__, 1, text, None, None)


def test_handler_writes_llama_swap_lines():
    book = LogBook(secrets=("topsecretkey",))
    handler = ProxyLogHandler(book)
    handler.handle(record(logging.INFO, "hello topsecretkey"))
    handler.handle(record(logging.WARNING, "careful"))
    handler.handle(record(logging.CRITICAL, "over"))
    assert book.proxy.history() == b"[INFO] hello ***\n[WARN] careful\n[ERROR] over\n"


def test_handler_puts_the_time_in_front():
    book = LogBook()
    handler = ProxyLogHandler(book, "RFC3339")
    handler.handle(record(logging.INFO, "hello"))
    stamp, rest = book.proxy.history().decode().split(" ", 1)
    assert rest == "[INFO] hello\n"
    assert stamp[4] == "-"
    assert "T" in stamp
