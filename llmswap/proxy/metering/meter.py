"""The meter of one answer: a Tap that counts what passes. The bytes it sees are on their way; it changes none."""

import logging
import time
from collections.abc import Mapping

import orjson

from llmswap.proxy.metering import outlines
from llmswap.proxy.metering.events import Events, payload_of
from llmswap.proxy.metering.shapes import Shape
from llmswap.proxy.metering.tally import Tally
from llmswap.runtime.observing import Usage

log = logging.getLogger(__name__)

_DONE = b"[DONE]"
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
        "_chunks", "_content", "_divided", "_ended_path", "_first_s", "_gap_s", "_held", "_json", "_last_s", "_lines",
        "_shape", "_talk_s", "deaf", "events", "tally",
    )  # fmt: skip

    def __init__(self, path: str) -> None:
        self.tally = Tally()
        self.events = False
        self.deaf = False
        self._ended_path = path.endswith(_ENDED_PATHS)
        self._json = self._lines = False
        self._divided = Events()
        self._held = self._divided.held
        self._shape = Shape()
        self._chunks = self._content = 0
        self._first_s: float | None = None
        self._last_s = self._talk_s = 0.0
        self._gap_s = -1.0

    def head(self, status: int, headers: Mapping[str, str]) -> None:
        """See the response head; see Tap. Bodies of other types and encodings, and errors, are not looked into."""
        kind = headers.get("Content-Type", "").partition(";")[0].strip().lower()
        plain = headers.get("Content-Encoding", "identity").strip().lower() in {"identity", ""}
        if not (plain and 200 <= status < 300):
            return
        self.events = kind == "text/event-stream"
        self._lines = kind.endswith("ndjson")
        self._json = kind.endswith("json")
        if self.events and self._ended_path:
            self.tally.done = False

    def chunk(self, data: bytes) -> None:
        """See some body bytes; see Tap.

        Most are one event that differs from another only in a text: that is told without parsing it.
        """
        shape = self._shape
        if (
            data.startswith(shape.before)
            and data.endswith(shape.after)
            and len(data) > shape.least
            and data.find(b'"', shape.start, shape.stop) < 0
            and not self._held.part
        ):
            now_s = time.monotonic()
            gap_s = now_s - self._last_s
            if gap_s > self._gap_s:  # noqa: PLR1730 - a call of max would take as long as all the rest
                self._gap_s = gap_s
            self._last_s = self._talk_s = now_s
            self._content += 1
            self._chunks += 1
        elif not self.deaf:
            try:
                if self.events:
                    self._feed(data)
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
        self._held.take()
        log.error("an answer is not metered any further", exc_info=error)

    def _feed(self, data: bytes) -> None:
        now_s = time.monotonic()
        whole = not self._held
        for event, head in self._divided.feed(data):
            content = self._event(event, head, now_s)
            if whole and isinstance(content, str) and len(event) == len(data):
                self._shape.learn(event, content, self._content)

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
                self._body(rest.rstrip(), head)
            elif payload_of(rest) == _DONE or (head is None and orjson.loads(payload_of(rest))):
                self._event(rest, head, time.monotonic() if self._first_s is None else self._last_s)
        except orjson.JSONDecodeError:
            return  # it was broken off

    def _body(self, rest: bytes, head: bytes | None) -> None:
        if self._lines:
            self.tally.body(orjson.loads(rest.splitlines()[-1]))
        elif head is None:
            self.tally.body(orjson.loads(rest))
        else:
            self.tally.body(outlines.ending(rest) or outlines.beginning(head))
