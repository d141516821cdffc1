"""What a child prints, drained always: nothing downstream may ever make the child wait."""

import asyncio
import os
import re
from collections.abc import Callable

LINE_BYTES = 64 * 1024
_TRUNCATED = b" [truncated]"
_LINE_END = re.compile(rb"[\r\n]")
_FINAL_BYTES = 1 << 20


class LineCap:
    """Cuts endless lines: after LINE_BYTES the rest of a line is dropped and the cut is flagged."""

    def __init__(self) -> None:
        self._length = 0

    def feed(self, data: bytes) -> bytes:
        """Take at most LINE_BYTES, give what may be kept.

        Only the line that began before `data` can get too long here, so one search is enough. A carriage return
        ends a line, too: progress bars live on them.
        """
        match = _LINE_END.search(data)
        end = match.end() if match else len(data)
        head, rest = data[:end], data[end:]
        kept = head
        if self._length + len(head) > LINE_BYTES:
            kept = head[: max(0, LINE_BYTES - self._length)]
            if self._length <= LINE_BYTES:
                kept += _TRUNCATED
            if match:
                kept += match[0]
        if match:
            self._length = len(rest) - 1 - max(rest.rfind(b"\n"), rest.rfind(b"\r"))
        else:
            self._length = min(self._length + len(head), LINE_BYTES + 1)
        return kept + rest


class Output:
    """The reading end of a child's pipe.

    Args:
        fd: Non-blocking; owned and closed here.
        sink: Gets the bytes; must not block.
    """

    def __init__(self, fd: int, sink: Callable[[bytes], None]) -> None:
        self._fd = fd
        self._sink = sink
        self._cap = LineCap()
        self._open = True
        asyncio.get_running_loop().add_reader(fd, self._read)

    def close(self) -> None:
        """Take what is still in the pipe, then close it, whoever else may still hold it."""
        self.drain()
        self._shut()

    def drain(self) -> None:
        """Take what is in the pipe right now (a flood: a share of it)."""
        taken = 0
        while self._open and taken < _FINAL_BYTES and (size := self._read()):
            taken += size

    def _read(self) -> int:
        try:
            data = os.read(self._fd, LINE_BYTES)
        except BlockingIOError:
            return 0
        if not data:
            self._shut()
            return 0
        self._sink(self._cap.feed(data))
        return len(data)

    def _shut(self) -> None:
        if self._open:
            self._open = False
            asyncio.get_running_loop().remove_reader(self._fd)
            os.close(self._fd)
