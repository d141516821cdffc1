"""The meter of one answer: a Tap that counts what passes. The bytes it sees are on their way; it changes none."""

import logging
import time

import orjson

from llmswap.proxy.hop.messages import Head
from llmswap.proxy.metering import outlines
from llmswap.proxy.metering.events import Held, divide, payload_of
from llmswap.proxy.metering.shapes import Shape
from llmswap.proxy.metering.tally import Tally
from llmswap.runtime.observing import Usage

log = logging.getLogger(__name__)

_DONE = b"[DONE]"
LOOKS = 8
"""How often a run of plain events is looked for in vain among bytes that came at once: each look goes through them."""
_ENDED_PATHS = ("/chat/completions", "/completions", "/responses", "/messages", "/completion", "/infill")


class Meter:
    """Sees one answer.

    Args:
        path: What was asked for, without the query: some APIs promise how their streams end.

    Attributes:
        tally: What has been learnt so far.
        events: Whether the answer is a stream of events that can be read.
        deaf: It has stopped after an error of its own.
    """

    __slots__ = (
        "_chunks", "_content", "_first_s", "_gap_s", "_held", "_json", "_last_s", "_lines", "_path", "_shape",
        "_talk_s", "deaf", "events", "tally",
    )  # fmt: skip

    def __init__(self, path: str) -> None:
        self.tally = Tally()
        self.events = self.deaf = False
        self._path = path
        self._json = self._lines = False
        self._held = Held()
        self._shape: Shape | None = None  # of the events of a stream that is read
        self._chunks = self._content = 0
        self._first_s: float | None = None
        self._last_s = self._talk_s = 0.0
        self._gap_s = -1.0

    def head(self, head: Head) -> None:
        """See the response head; see Tap. Bodies of other types and encodings, and errors, are not looked into."""
        if head.encoded or not 200 <= head.status < 300:
            return
        self.events = head.is_sse
        if self.events:
            self._shape = Shape()
            if self._path.endswith(_ENDED_PATHS):
                self.tally.done = False
            return
        kind = head.content_type.partition(";")[0].strip().lower()
        self._lines = kind.endswith("ndjson")
        self._json = kind.endswith("json")

    def plain(self, data: bytes) -> bool:
        """Count some body bytes, if they are events that differ from another in a text only; see Tap.

        Most are, and that is told without parsing them.
        """
        if self._shape is None or self._held.part:
            return False
        count = self._shape.count(data)
        if count:
            self._had(count, time.monotonic())
        return count > 0

    def _had(self, count: int, now_s: float) -> None:
        """Count plain events that came at once."""
        gap_s = now_s - self._last_s
        if gap_s > self._gap_s:  # noqa: PLR1730 - a call of max would take as long as all the rest
            self._gap_s = gap_s
        self._last_s = self._talk_s = now_s
        self._content += count
        self._chunks += count

    def chunk(self, data: bytes) -> None:
        """See some other body bytes; see Tap."""
        if self.deaf:
            return
        try:
            if self._shape is not None:
                self._feed(data, self._shape)
            elif self._json:
                self._held.add(data)
        except Exception as error:  # noqa: BLE001 - whatever it is, it is not the client's trouble
            self._give_up(error)

    def usage(self) -> Usage:
        """Give what the answer took, once it is over. After an error of the meter's nothing is known."""
        try:
            if self._held and not self.deaf:
                self._rest()
        except Exception as error:  # noqa: BLE001 - as above
            self._give_up(error)
        if self.deaf:
            return Usage()
        if self._content:
            self.tally.had_content()
        usage = self.tally.usage()
        if self._content and usage.output_tokens is None:
            usage.output_tokens, usage.estimated = self._content, True
        usage.chunks = self._chunks
        if self._first_s is not None:
            usage.first_token_s, usage.last_token_s = self._first_s, self._talk_s
            usage.max_gap_s = None if self._gap_s < 0 else self._gap_s
        return usage

    def _give_up(self, error: Exception) -> None:
        self.deaf = True
        self._shape = None
        self._held.take()
        log.error("an answer is not metered any further", exc_info=error)

    def _feed(self, data: bytes, shape: Shape) -> None:
        now_s, looks = time.monotonic(), LOOKS

        def skip(data: bytes, start: int) -> int:
            nonlocal looks
            if not looks or not shape.begins(data, start):
                return start
            count, end = shape.run(data, start)
            if count:
                self._had(count, now_s)
            else:
                looks -= 1
            return end

        for event, head in divide(data, self._held, skip):
            content = self._event(event, head, now_s)
            if head is None and isinstance(content, str):
                shape.learn(event, content, self._content)

    def _event(self, event: bytes, head: bytes | None, now_s: float) -> object:
        """Count an event; gives its content."""
        payload = b"" if head is not None else payload_of(event)
        if payload == _DONE:
            self.tally.end()
            return None
        if head is None and not payload:
            return None  # a comment, or nothing at all
        self._chunks += 1
        content = self._outline(event, head) if head is not None else self._parsed(payload)
        if content:
            self._content += 1
            self._talk_s = now_s
        if self._first_s is not None:
            self._gap_s = max(self._gap_s, now_s - self._last_s)
            self._last_s = now_s
        elif content:
            self._first_s = self._last_s = now_s
        return content

    def _parsed(self, payload: bytes) -> object:
        try:
            data = orjson.loads(payload)
        except orjson.JSONDecodeError:
            return None
        return self.tally.event(data) if isinstance(data, dict) else None

    def _outline(self, tail: bytes, head: bytes) -> object:
        """Take an event of which only the ends were held."""
        kind = outlines.kind(head)
        known = (
            {"type": kind, "response": {"status": kind.removeprefix("response.")}} if "." in kind else {"choices": []}
        )
        self.tally.event(known)
        self.tally.totals(outlines.ending(tail.rstrip()))
        return outlines.has_content(head)

    def _rest(self) -> None:
        """Take what is left at the end: a whole body, or an event that nothing has ended."""
        rest, head = self._held.take()
        try:
            if not self.events:
                self._body(rest, head)
            elif payload_of(rest) == _DONE or (head is None and orjson.loads(payload_of(rest))):
                self._event(rest, head, time.monotonic() if self._first_s is None else self._last_s)
        except orjson.JSONDecodeError:
            return  # it was broken off

    def _body(self, rest: bytes, head: bytes | None) -> None:
        if self._lines:
            self.tally.body(orjson.loads(rest.rstrip().splitlines()[-1]))
        elif head is None:
            self.tally.body(orjson.loads(rest))
        else:
            self.tally.body(outlines.ending(rest.rstrip()) or outlines.beginning(head))
