"""Standard output that is closed, blocked or full costs lines, never time."""

import contextlib
import fcntl
import os
import time

import pytest

from llmswap.runtime.stdout import StdoutWriter
from tests.runtime.rig import until


@pytest.fixture
def pipe():
    reading, writing = os.pipe()
    fds = {reading, writing}
    yield reading, writing, fds
    for fd in fds:
        os.close(fd)


def test_writes_arrive_in_order(pipe):
    reading, writing, _ = pipe
    out = StdoutWriter(writing)
    out.write(b"one\n")
    out.write(b"two\n")
    out.close()
    assert os.read(reading, 100) == b"one\ntwo\n"
    assert out.dropped_bytes == 0


def drained(fd: int) -> bytes:
    """Read what is there right now."""
    got = b""
    with contextlib.suppress(BlockingIOError):
        while data := os.read(fd, 65536):
            got += data
    return got


async def test_F089_blocked_reader_never_blocks_the_writer_and_is_told_what_it_missed(pipe):
    reading, writing, _ = pipe
    size = fcntl.fcntl(writing, fcntl.F_SETPIPE_SZ, 4096)
    out = StdoutWriter(writing, capacity_bytes=10_000)
    began_s = time.monotonic()
    for _ in range(1000):
        out.write(b"x" * 1000)
    assert time.monotonic() - began_s < 0.5
    assert out.dropped_bytes >= 1_000_000 - 10_000 - size - 1000
    os.set_blocking(reading, False)
    await until(lambda: drained(reading) is not None and out._size == 0, "room again")
    out.write(b"y")
    out.close()
    assert drained(reading).endswith(f"— {out.dropped_bytes} bytes dropped —\ny".encode())


async def test_F089_closed_reader_only_costs_lines(pipe):
    reading, writing, fds = pipe
    os.close(reading)
    fds.discard(reading)
    out = StdoutWriter(writing)
    out.write(b"nobody hears this")
    await until(lambda: out.dropped_bytes == 17, "drop")
    out.write(b"nor this")
    assert out.dropped_bytes == 25
    out.close()


async def test_full_disk_only_costs_lines_and_may_recover():
    fd = os.open("/dev/full", os.O_WRONLY)
    out = StdoutWriter(fd)
    out.write(b"full")
    await until(lambda: out.dropped_bytes == 4, "drop")
    reading, writing = os.pipe()
    os.dup2(writing, fd)
    out.write(b"room again")
    out.close()
    assert os.read(reading, 100) == "— 4 bytes dropped —\nroom again".encode()
    for open_fd in (fd, reading, writing):
        os.close(open_fd)


async def test_close_does_not_wait_for_a_blocked_reader(pipe):
    reading, writing, _ = pipe
    fcntl.fcntl(writing, fcntl.F_SETPIPE_SZ, 4096)
    out = StdoutWriter(writing)
    out.write(b"x" * 100_000)
    began_s = time.monotonic()
    out.close(timeout_s=0.1)
    assert time.monotonic() - began_s < 1
    os.set_blocking(reading, False)  # let the thread end: the pipe's descriptors are about to be closed
    await until(lambda: drained(reading) is not None and not out._thread.is_alive(), "its end")
