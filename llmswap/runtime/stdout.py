"""Standard output that can never stall or kill serving: closed, blocked or full, it only costs lines.

A thread does the writing, because a tty, a file and a pipe shared with others can all block and only a thread may wait
for them. The caller puts bytes into a bounded buffer and goes on.
"""

import errno
import os
import threading
import time
from collections import deque
from collections.abc import Callable

CAPACITY_BYTES = 1 << 20
_RETRY_S = 0.05
_GONE = frozenset({errno.EPIPE, errno.EBADF, errno.EIO})

Gap = Callable[[int], bytes]
"""Writes the line that says how many bytes are missing."""


def gap(size: int) -> bytes:
    """Say it in words."""
    return f"— {size} bytes dropped —\n".encode()


class StdoutWriter:
    """Writes to a file descriptor from its own thread.

    Args:
        fd: Where to; stays open.

    Attributes:
        dropped_bytes: How much was thrown away so far because the reader was gone or too slow.
        tell_gap: What is written in its place.
    """

    def __init__(self, fd: int = 1, capacity_bytes: int = CAPACITY_BYTES) -> None:
        self.dropped_bytes = 0
        self.tell_gap: Gap = gap
        self._fd = fd
        self._capacity = capacity_bytes
        self._chunks: deque[bytes] = deque()
        self._size = 0
        self._gap = 0
        self._broken = False
        self._closing = False
        self._changed = threading.Condition()
        self._thread = threading.Thread(target=self._run, name="llmswap-stdout", daemon=True)
        self._thread.start()

    def write(self, data: bytes) -> None:
        """Hand in bytes; never blocks. What does not fit is dropped, and a line says how much."""
        with self._changed:
            if self._broken or self._closing or self._size + len(data) > self._capacity:
                self._drop(len(data))
                return
            if self._gap:
                data = self.tell_gap(self._gap) + data
                self._gap = 0
            self._chunks.append(data)
            self._size += len(data)
            self._changed.notify()

    def close(self, timeout_s: float = 1.0) -> None:
        """Write what is left, for at most that long."""
        with self._changed:
            self._closing = True
            self._changed.notify()
        self._thread.join(timeout_s)

    def _drop(self, size: int) -> None:
        self.dropped_bytes += size
        self._gap += size

    def _run(self) -> None:
        while True:
            with self._changed:
                while not self._chunks and not self._closing:
                    self._changed.wait()
                if not self._chunks:
                    return
                data = b"".join(self._chunks)
                self._chunks.clear()
                # The size stays counted until written, so that a blocked reader cannot make us hold twice the capacity.
            written = self._write_all(data)
            with self._changed:
                self._size -= len(data)
                if written < len(data):
                    self._drop(len(data) - written)

    def _write_all(self, data: bytes) -> int:
        view = memoryview(data)
        while view:
            try:
                view = view[os.write(self._fd, view) :]
            except BlockingIOError:  # somebody made the descriptor non-blocking
                if self._closing:
                    break
                time.sleep(_RETRY_S)
            except OSError as error:
                # A full disk may recover; a closed pipe will not.
                self._broken = error.errno in _GONE
                break
        return len(data) - len(view)
