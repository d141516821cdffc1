"""Response bodies as they come off the wire: three framings, each an incremental decoder. Pure."""

import re
from typing import Protocol

_SIZE_LINE = re.compile(rb"([0-9A-Fa-f]{1,15})(?:[ \t]*;[^\r\n\x00]*)?\r\n")
_SIZE_LINE_MAX = 256
_TRAILERS_MAX = 8 * 1024


class Malformed(ValueError):
    """The bytes are not the HTTP we accept."""


class Body(Protocol):
    """Takes wire bytes, gives payload.

    Attributes:
        done: The last payload byte has been given.
    """

    done: bool

    def feed(self, data: bytes) -> bytes:
        """Decode some wire bytes.

        Raises:
            Malformed: The framing is broken, or bytes follow the end.
        """

    def ends_at_eof(self) -> bool:
        """Say whether the connection's end, now, is the body's proper end."""


class CountedBody:
    """A body with a Content-Length; zero for none at all."""

    __slots__ = ("_left", "done")

    def __init__(self, length: int) -> None:
        self._left = length
        self.done = length == 0

    def feed(self, data: bytes) -> bytes:
        """See Body."""
        left = self._left - len(data)
        if left < 0:
            raise Malformed("it sent more bytes than its Content-Length")
        self._left = left
        self.done = left == 0
        return data

    def ends_at_eof(self) -> bool:
        """See Body."""
        return self.done


class OpenBody:
    """A body that ends when the connection is closed."""

    __slots__ = ("done",)

    def __init__(self) -> None:
        self.done = False

    def feed(self, data: bytes) -> bytes:
        """See Body."""
        return data

    def ends_at_eof(self) -> bool:
        """See Body."""
        return True


class ChunkedBody:
    """A chunked body. Chunk extensions and trailers are read and dropped."""

    __slots__ = ("_held", "_in_trailers", "_left", "done")

    def __init__(self) -> None:
        self._left = 0  # bytes of the chunk at hand still to come, its CRLF included
        self._held = b""  # the incomplete line at the end of the last feed
        self._in_trailers = False
        self.done = False

    def feed(self, data: bytes) -> bytes:
        """See Body."""
        if self._left == 0 and not self._held and not self._in_trailers and (line := _SIZE_LINE.match(data)):
            start = line.end()
            if int(line[1], 16) == len(data) - start - 2 > 0 and data.endswith(b"\r\n"):
                return data[start:-2]  # one whole chunk: what a token mostly is
        return self._decode(data)

    def _decode(self, data: bytes) -> bytes:
        if self.done:
            raise Malformed("it sent bytes after the last chunk")
        if self._held:
            data = self._held + data
            self._held = b""
        pos, size = 0, len(data)
        pieces = []
        while pos < size and not self._in_trailers:
            if self._left == 0:
                pos = self._size_line(data, pos)
                continue
            stop = min(pos + self._left, size)
            self._left -= stop - pos
            pieces.append(self._chunk_part(data, pos, stop))
            pos = stop
        if self._in_trailers:
            self._trailers(data, pos)
        return pieces[0] if len(pieces) == 1 else b"".join(pieces)

    def _size_line(self, data: bytes, pos: int) -> int:
        line = _SIZE_LINE.match(data, pos)
        if line is None:
            if b"\n" in data[pos:] or len(data) - pos > _SIZE_LINE_MAX:
                raise Malformed("it sent a bad chunk size")
            self._held = data[pos:]
            return len(data)
        length = int(line[1], 16)
        if length == 0:
            self._in_trailers = True
        else:
            self._left = length + 2
        return line.end()

    def _chunk_part(self, data: bytes, pos: int, stop: int) -> bytes:
        """Cut the payload out of a part of a chunk, and check its share of the closing CRLF."""
        left = self._left
        if left >= 2:
            return data[pos:stop]
        closing = b"\r\n"[: 2 - left]
        payload_end = max(stop - len(closing), pos)
        if not closing.endswith(data[payload_end:stop]):
            raise Malformed("it sent a chunk that is longer than its size")
        return data[pos:payload_end]

    def _trailers(self, data: bytes, pos: int) -> None:
        rest = data[pos:]
        if rest != b"\r\n":
            blank_line = rest.find(b"\r\n\r\n")
            too_much = len(rest) > _TRAILERS_MAX if blank_line < 0 else blank_line + 4 < len(rest)
            if too_much or rest.startswith(b"\r\n"):
                raise Malformed("it sent bytes after the last chunk")
            if blank_line < 0:
                self._held = rest
                return
        self.done = True

    def ends_at_eof(self) -> bool:
        """See Body."""
        return self.done
