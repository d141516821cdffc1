"""The bytes that consecutive content events of a stream have in common. Pure."""

import json

import orjson

_LESSONS = 8
_NOTHING = b"\0\0"


class Shape:
    """How an event with content looks around that content.

    Bytes that begin and end as such an event, with no quotation mark between, differ from it in one text only.

    Attributes:
        before: Up to that text, its quotation mark included.
        after: From the quotation mark that closes it.
        start: Where the text begins; `stop`, where it ends, from the end.
        least: Length of an event with an empty text.
    """

    __slots__ = ("_lessons", "_seen", "after", "before", "least", "start", "stop")

    def __init__(self) -> None:
        self.before = self.after = _NOTHING
        self.start = self.stop = self.least = 0
        self._lessons = _LESSONS
        self._seen = 0

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
                self.before, self.after = event[:at], event[at + len(encoded) - 2 :]
                self.start, self.stop = at, -len(self.after)
                self.least = len(self.before) + len(self.after)
                return
