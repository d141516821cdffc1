r"""Server-sent events out of a stream's bytes, however these are cut. Pure.

An event ends with an empty line; lines end in LF, CR LF or CR. Of what has no end yet a bounded part is held.
"""

import re
from collections.abc import Callable, Iterator

EVENT_MAX = 256 * 1024
"""Bytes of an event or a body that are held and parsed whole."""
ENDS_MAX = 16 * 1024
"""Bytes that are kept of the beginning of a longer one, and of its end."""

END_MAX = 4
"""Bytes of an event's end: its last line's, and an empty line."""

_LINE_END = rb"(?:\r\n|\n|\r(?=[^\n]))"
_END = re.compile(rb"\r\n%b|\n%b|\r(?=[^\n])%b" % (_LINE_END, _LINE_END, _LINE_END))  # found faster than {2} of them

_BOM = b"\xef\xbb\xbf"
_DATA = b"data:"
_PLAIN = b"data: "


def ends(data: bytes, start: int = 0) -> Iterator[int]:
    """Give where each event that ends in these bytes ends."""
    with_returns = b"\r" in data
    while (start := _end(data, start, with_returns=with_returns)) >= 0:
        yield start


def _end(data: bytes, start: int, *, with_returns: bool) -> int:
    """Give where the first event ends that does; -1 if none does."""
    if with_returns:
        match = _END.search(data, start)
        return -1 if match is None else match.end()
    found = data.find(b"\n\n", start)
    return -1 if found < 0 else found + 2


class Held:
    """Bytes that may become too many: beyond EVENT_MAX only the two ends of them are kept.

    Attributes:
        part: All of them; or their end, once the middle has been dropped.
        head: Their beginning in that case, else None.
    """

    __slots__ = ("head", "part")

    def __init__(self) -> None:
        self.part = bytearray()
        self.head: bytes | None = None

    def __bool__(self) -> bool:
        return bool(self.part)

    def __len__(self) -> int:
        return len(self.part) + len(self.head or b"")

    def add(self, data: bytes) -> None:
        """Hold some more."""
        held = self.part
        held += data
        if self.head is not None:
            if len(held) > 2 * ENDS_MAX:
                del held[:-ENDS_MAX]
        elif len(held) > EVENT_MAX:
            self.head = bytes(held[:ENDS_MAX])
            del held[:-ENDS_MAX]

    def last(self, count: int) -> bytes:
        """Give the last bytes, at most so many."""
        return bytes(self.part[-count:])

    def take(self) -> tuple[bytes, bytes | None]:
        """Give all of it and hold nothing any more: all bytes and None, or the end and the beginning."""
        taken = bytes(self.part), self.head
        self.part, self.head = bytearray(), None
        return taken


def divide(data: bytes, held: Held, skip: Callable[[bytes, int], int]) -> Iterator[tuple[bytes, bytes | None]]:
    """Give the events of a stream that end in these bytes, each as `Held.take` gives it.

    Args:
        data: Some of the stream.
        held: Where the beginning of an event waits for its end.
        skip: Given these bytes and where an event begins in them, says where to go on: there, or after some whole
            events that need not be divided.
    """
    start = 0
    if held:
        seam = held.last(END_MAX - 1)
        end = next(ends(seam + data), None)
        if end is None:
            held.add(data)
            return
        start = max(0, end - len(seam))
        held.add(data[:start])
        yield held.take()
    with_returns = b"\r" in data
    start = skip(data, start)
    while (end := _end(data, start, with_returns=with_returns)) >= 0:
        yield data[start:end], None
        start = skip(data, end)
    if start < len(data):
        held.add(data[start:])


def payload_of(event: bytes) -> bytes:
    """Give an event's data, its lines joined by LF; empty if it has none."""
    if event.startswith(_PLAIN) and event.find(b"\n") >= len(event) - 2 and b"\r" not in event:
        return event[len(_PLAIN) :].rstrip(b"\n")
    lines = event.removeprefix(_BOM).splitlines()
    return b"\n".join(line[len(_DATA) :].removeprefix(b" ") for line in lines if line.startswith(_DATA))
