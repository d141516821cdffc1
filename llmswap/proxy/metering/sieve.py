"""Takes one event out of a stream: the usage that came only because we asked for it. All other bytes pass as they are.

An event passes piece by piece, as it comes. Only a piece that may yet turn out to be ours waits for the rest of it:
after a choice has been finished, and until its own bytes show that it is something else.
"""

import logging
import re
from collections.abc import Callable

import orjson

from llmswap.proxy.metering.events import END_MAX, ends, payload_of
from llmswap.proxy.metering.words import an_object

log = logging.getLogger(__name__)

HELD_MAX = 8 * 1024
"""Bytes of an unfinished event that are held at most; ours is far smaller."""

_WHOLE = (b"\n\n", b"\r\n\r\n")
_DATA = b"data:"
_FINISHED = re.compile(rb'"finish_reason"\s*:\s*"')
_RIDES = re.compile(rb'"usage"\s*:\s*\{')
_SEAM = 64  # longer than what these two look for
_OTHER = re.compile(rb'"choices"\s*:\s*\[\s*[^\]\s]|"(?:error|prompt_filter_results|prompt_progress)"\s*:')
_NOT_OURS = ("error", "prompt_filter_results", "prompt_progress")


class Sieve:
    """Passes a stream on without that event.

    Args:
        finished: Tells whether a choice has been finished in what has passed before.

    Attributes:
        taken: It has been taken out.
    """

    __slots__ = ("_before", "_finished", "_finished_before", "_held", "_inside", "_open", "taken")

    def __init__(self, finished: Callable[[], bool]) -> None:
        self.taken = False
        self._finished_before = finished
        self._held = b""  # an unfinished event that may be ours, from its beginning
        self._inside = False  # an event has begun, and passed on
        self._before = b""  # the last bytes of that
        self._finished = False  # a choice has been, in what the meter may not have seen yet
        self._open = True  # ours may still come

    def sift(self, data: bytes) -> bytes:
        """Give what of these bytes, and of earlier ones, is to go to the client now."""
        if not self._open:
            return data
        if not self._inside and not self._held and data.endswith(_WHOLE) and b'"usage"' not in data:
            return data
        held = self._held
        try:
            self._finished = self._finished or self._finished_before()
            return self._sift(data)
        except Exception:
            log.exception("an answer is not sifted any further")
            self._open, self._held = False, b""
            return held + data

    def rest(self) -> bytes:
        """Give what is still held, when nothing more is to come: an event that nothing has ended."""
        held, self._held = self._held, b""
        self.taken = self.taken or bool(self._open and held and self._is_ours(held))
        return b"" if self.taken else held

    def _sift(self, data: bytes) -> bytes:
        passed, start = [], 0
        if self._inside:
            start = self._rest_of_event(data)
            passed.append(data[:start])
        elif self._held:
            data, self._held = self._held + data, b""
        for end in ends(data, start):
            event = data[start:end]
            passed.append(self._whole(event) if self._open else event)
            start = end
        passed.append(self._piece(data[start:]))
        return b"".join(passed)

    def _rest_of_event(self, data: bytes) -> int:
        """Look for the end of an event that is passing; gives where it is, or the end of the data."""
        before = self._before
        seen = before + data
        end = next(ends(seen, max(0, len(before) - END_MAX + 1)), None)
        self._look(seen[:end])
        self._inside = end is None
        self._before = seen[-_SEAM:] if end is None else b""
        return len(data) if end is None else max(0, end - len(before))

    def _whole(self, event: bytes) -> bytes:
        """Give what passes of an event: all, or, if it is ours, comments that stand in it."""
        self._finished = self._finished or _FINISHED.search(event) is not None
        if b'"usage"' not in event or not self._is_ours(event):
            return event
        self.taken, self._open = True, False
        blank = len(event) - len(event.lstrip(b"\r\n"))
        lines = event[blank:].splitlines(keepends=True)
        comments = b"".join(line for line in lines if line.startswith(b":"))
        return event[:blank] + (comments + lines[-1] if comments else b"")

    def _piece(self, piece: bytes) -> bytes:
        """Give what passes of an event that has only begun: all of it, or nothing yet."""
        if not piece or not self._open:
            return piece
        text = piece.lstrip(b"\r\n")
        if self._finished and len(piece) <= HELD_MAX and _may_be_ours(text):
            self._held = piece
            return b""
        self._inside, self._before = True, piece[-_SEAM:]
        self._look(piece)
        return piece

    def _look(self, passing: bytes) -> None:
        """Look at an event that passes in pieces: it may finish a choice, or hold usage that nobody asked for."""
        self._finished = self._finished or _FINISHED.search(passing) is not None
        self._open = self._open and _RIDES.search(passing) is None

    def _is_ours(self, event: bytes) -> bool:
        try:
            said = an_object(orjson.loads(payload_of(event.lstrip(b"\r\n"))))
        except orjson.JSONDecodeError:
            return False
        choices, usage = said.get("choices"), said.get("usage")
        if choices and usage:
            self._open = False  # it comes with content: this engine sends it whether or not it is asked to
        if choices != [] or "usage" not in said or any(name in said for name in _NOT_OURS):
            return False
        return isinstance(usage, dict) or (usage is None and self._finished)


def _may_be_ours(text: bytes) -> bool:
    data = text[len(_DATA) :].lstrip(b" ")
    return _DATA.startswith(text[: len(_DATA)]) and data[:1] in b"{" and _OTHER.search(text) is None
