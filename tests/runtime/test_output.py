"""Draining a child's pipe."""

import asyncio
import os

from llmswap.runtime.output import LINE_BYTES, LineCap, Output
from tests.runtime.rig import until


def fed(*pieces: bytes) -> bytes:
    cap = LineCap()
    return b"".join(cap.feed(piece) for piece in pieces)


def test_ordinary_lines_pass_untouched_however_they_are_cut():
    assert fed(b"a\nb", b"c\n", b"", b"\r\nd\r", b"e") == b"a\nbc\n\r\nd\re"


def test_endless_line_is_cut_once_and_the_next_line_is_whole():
    piece = b"x" * (LINE_BYTES - 10)
    got = fed(piece, piece, piece, b"tail\nnext\n")
    assert got == b"x" * LINE_BYTES + b" [truncated]\nnext\n"


def test_cut_falls_within_a_piece_that_also_ends_the_line():
    got = fed(b"x" * LINE_BYTES, b"yyy\nnext")
    assert got == b"x" * LINE_BYTES + b" [truncated]\nnext"


def test_line_of_exactly_the_limit_is_whole():
    assert fed(b"x" * (LINE_BYTES - 1) + b"\n", b"next\n") == b"x" * (LINE_BYTES - 1) + b"\nnext\n"


def test_progress_bar_is_not_an_endless_line():
    pieces = [b"\rstep %6d" % step for step in range(20_000)]
    assert fed(*pieces) == b"".join(pieces)


async def test_end_of_the_pipe_is_noticed_and_its_descriptor_closed():
    reading, writing = os.pipe2(os.O_NONBLOCK)
    heard: list[bytes] = []
    output = Output(reading, heard.append)
    os.write(writing, b"last words")
    os.close(writing)
    await until(lambda: not output._open, "the end")
    assert heard == [b"last words"]
    output.close()


async def test_close_takes_what_is_left_though_somebody_holds_the_pipe():
    reading, writing = os.pipe2(os.O_NONBLOCK)
    heard: list[bytes] = []
    output = Output(reading, heard.append)
    os.write(writing, b"still there")
    output.close()
    assert heard == [b"still there"]
    os.close(writing)


async def test_flood_leaves_the_loop_responsive():
    reading, writing = os.pipe2(os.O_NONBLOCK)
    heard = 0

    def hear(data: bytes) -> None:
        nonlocal heard
        heard += len(data)

    output = Output(reading, hear)
    os.set_blocking(writing, True)
    block = b"y\n" * 32768

    def flood() -> None:
        for _ in range(1000):
            os.write(writing, block)

    loop, worst_s = asyncio.get_running_loop(), 0.0
    flooding = asyncio.create_task(asyncio.to_thread(flood))
    while not flooding.done():
        before_s = loop.time()
        await asyncio.sleep(0)
        worst_s = max(worst_s, loop.time() - before_s)
    os.close(writing)
    await until(lambda: heard == len(block) * 1000, "everything")
    assert worst_s < 0.25
    output.close()
