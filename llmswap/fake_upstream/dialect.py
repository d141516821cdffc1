"""What a text-generating API adds to bare tokens: the prompt in its request, the shape of its answers."""

import json
import time
from collections.abc import Iterable
from typing import Any, ClassVar, Protocol

from llmswap.fake_upstream.engine import Refused
from llmswap.fake_upstream.generation import Run
from llmswap.fake_upstream.sse import Event
from llmswap.fake_upstream.usage import UsageStyle


class Dialect(Protocol):
    """One API, for one request. Constructed as `Dialect(body, run, style, persona)` once the run is planned."""

    limits: ClassVar[tuple[str, ...]]

    def __init__(self, body: dict[str, Any], run: Run, style: UsageStyle, persona: str) -> None: ...

    @staticmethod
    def prompt(body: dict[str, Any]) -> str:
        """Give the text to be answered."""

    def opening(self) -> Iterable[Event]:
        """Events before the first token."""

    def token(self, text: str, *, thought: bool) -> Iterable[Event]:
        """Events of one token."""

    def closing(self) -> Iterable[Event]:
        """Events after the last token."""

    def failure(self, message: str) -> Iterable[Event]:
        """Events of an error under status 200."""

    def whole(self, thoughts: str, text: str) -> dict[str, Any]:
        """Give the body of a response that is not streamed."""


def text_of(content: object) -> str:
    """Flatten message content: text, parts with text in them, or anything else as JSON."""
    if isinstance(content, str):
        return content
    if isinstance(content, list):
        return "\n".join(text_of(part) for part in content)
    if isinstance(content, dict):
        return text_of(content["text"] if "text" in content else content.get("content", ""))
    return "" if content is None else json.dumps(content)


def conversation(messages: object, system: object = None) -> str:
    """Flatten a list of messages.

    Raises:
        Refused: It is no non-empty list of objects.
    """
    if not isinstance(messages, list) or not messages or not all(isinstance(m, dict) for m in messages):
        raise Refused(400, "'messages' must be a non-empty list of objects")
    turns = [f"{m.get('role', 'user')}: {text_of(m.get('content'))}" for m in messages]
    return "\n".join(([f"system: {text_of(system)}"] if system else []) + turns)


def limit_of(body: dict[str, Any], keys: tuple[str, ...]) -> int | None:
    """Find the request's limit on output tokens; None without one.

    Raises:
        Refused: It is not a positive integer.
    """
    for key in keys:
        limit = body.get(key)
        if limit is None or limit == -1:
            continue
        if not isinstance(limit, int) or isinstance(limit, bool) or limit < 1:
            raise Refused(400, f"{key} must be at least 1, got {limit!r}")
        return limit
    return None


def now() -> int:
    """Give the wall time that goes into `created`."""
    return int(time.time())
