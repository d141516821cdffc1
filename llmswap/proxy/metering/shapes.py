"""The bytes that consecutive content events of a stream have in common. Pure."""

import json
import sys

import orjson

_LESSONS = 8
_NOWHERE = sys.maxsize


class Shape:
    """How an event with content looks around that content."""

    __slots__ = ("_after", "_before", "_empty", "_lessons", "_quotes", "_seam", "_seen", "_start", "_stop")

    def __init__(self) -> None:
        self._before = self._after = self._seam = self._empty = b""
        self._start, self._stop, self._quotes = _NOWHERE, 0, 0
        self._lessons = _LESSONS
        self._seen = 0

    def count(self, data: bytes) -> int:
        """Give how many such events these bytes are, if they are nothing else and each has some text; else 0.

        Between the beginning of the first and the end of the last all quotation marks are those of the seams: then
        the events differ in one text each, and in nothing else.
        """
        if not (data.startswith(self._before) and data.endswith(self._after)):
            return 0
        start, stop = self._start, self._stop
        if data.find(b'"', start, stop) < 0:
            return 1 if len(data) > start - stop else 0
        seams = data.count(self._seam, start, stop)
        if data.count(b'"', start, stop) != seams * self._quotes or self._empty in data:
            return 0
        return seams + 1

    def begins(self, data: bytes, start: int) -> bool:
        """Tell whether what stands there begins like such an event."""
        return self._start != _NOWHERE and data.startswith(self._before, start)

    def run(self, data: bytes, start: int) -> tuple[int, int]:
        """Give how many such events stand there in a row, if it goes on to the last that ends so, and where that is."""
        end = data.rfind(self._after, start) + len(self._after)
        count = self.count(data[start:end])
        return count, end if count else start

    def learn(self, event: bytes, text: str, seen: int) -> None:
        """Learn from a whole event and its content, if that stands in it once. Soon gives up where nothing recurs.

        Args:
            event: All of it, its end included.
            text: Its content, decoded.
            seen: How many events with content there have been, this one included.
        """
        if seen - self._seen > 2:  # the last lesson has been of use
            self._lessons = _LESSONS
        self._seen = seen
        if self._lessons <= 0:
            return
        self._lessons -= 1
        for encoded in (orjson.dumps(text), json.dumps(text).encode()):
            if event.count(encoded) == 1:
                at = event.find(encoded) + 1
                self._before, self._after = event[:at], event[at + len(encoded) - 2 :]
                self._start, self._stop = at, -len(self._after)
                self._seam, self._empty = self._after + self._before, self._before + self._after
                self._quotes = self._seam.count(b'"')
                return
