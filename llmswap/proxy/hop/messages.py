"""What goes over the hop and what is told about it. Values only."""

from collections.abc import AsyncIterator, Callable
from dataclasses import dataclass, field
from enum import StrEnum
from typing import Protocol

import orjson
from multidict import CIMultiDict

from llmswap.proxy.errors import RequestError

SseError = Callable[[str], bytes]
"""Renders an error message as a server-sent event in the client's dialect."""


@dataclass(frozen=True, slots=True)
class Outgoing:
    """What goes to the upstream.

    Attributes:
        target: Path and query as they go on the wire, percent-encoding untouched; the hop prefixes the base path.
        headers: End-to-end headers, already cleaned (no client credentials). Framing, Connection and Upgrade are
            the hop's own: it drops them here and decides them itself.
        body: Whole bytes, or an iterator for a body too large to hold; None for no body.
        body_size: Length in bytes if `body` is an iterator and it is known.
    """

    method: str
    target: str
    headers: CIMultiDict[str]
    body: bytes | AsyncIterator[bytes] | None = None
    body_size: int | None = None


@dataclass(slots=True)
class Head:
    """A response's head, as far as it concerns the client.

    Attributes:
        fields: End-to-end headers, in order; Content-Length among them, no framing or hop-by-hop header.
        keep_alive: Whether the upstream leaves the connection open after the body.
        length: Content-Length, if there is one.
        chunked: Transfer-Encoding: chunked.
        content_type: As it was sent; empty if it was not. `content_encoding` likewise.
    """

    status: int
    reason: str
    fields: list[tuple[str, str]]
    keep_alive: bool = True
    length: int | None = None
    chunked: bool = False
    content_type: str = ""
    content_encoding: str = ""

    @property
    def is_sse(self) -> bool:
        """Whether the body is a stream of server-sent events."""
        return self.content_type.lower().startswith("text/event-stream")

    @property
    def encoded(self) -> bool:
        """Whether the body is compressed."""
        return self.content_encoding.lower() not in {"", "identity"}


class End(StrEnum):
    """How a delivery ended."""

    COMPLETE = "complete"
    CLIENT_GONE = "client_gone"
    UPSTREAM_DIED = "upstream_died"
    FAILED = "failed"  # neither: a fault of ours, or the answer cannot be used


@dataclass(slots=True)
class Delivery:
    """What became of a request once it had its upstream; filled in as bytes move.

    Attributes:
        status: Status the client got; 0 if it got none.
        upstream_status: Status that the upstream gave; None if it gave none.
        bytes_in: Request body bytes sent to the upstream.
        bytes_out: Response body bytes sent to the client, without framing.
        first_byte_s: Monotonic time of the first body byte from the upstream.
        end: None while bytes move.
        error: What went wrong, for logs: may name the upstream's address, never holds payload.
    """

    status: int = 0
    upstream_status: int | None = None
    bytes_in: int = 0
    bytes_out: int = 0
    first_byte_s: float | None = None
    end: End | None = None
    error: str | None = field(default=None)


class Tap(Protocol):
    """Sees the upstream's response bytes as they pass (token metering). Cannot change or delay them.

    Each piece of a body is shown to `plain`, and if that does not know it to `chunk`, once it is sent on. What an
    Addition may be in is shown to `plain` before that.
    """

    def head(self, head: Head) -> None:
        """See the response head."""

    def plain(self, data: bytes) -> bool:
        """See some body bytes, if they are events with a text and nothing else; tell whether. Must be quick."""

    def chunk(self, data: bytes) -> None:
        """See some body bytes."""


class Addition(Protocol):
    """Something that was added to a request, and what came of it in the answer: the client knows of neither.

    It is not shown what is plain to a Tap, because that holds nothing of it.

    Attributes:
        plain: The request without it.
    """

    plain: Outgoing

    def stands(self, head: Head) -> bool:
        """See the head of the answer. False: that is not to be used, and the plain request is to be sent instead."""

    def sift(self, data: bytes) -> bytes:
        """Give what of these body bytes, and of those held back before, goes to the client now."""

    def rest(self) -> bytes:
        """Give what is still held back, once no more bytes come."""


UNREACHABLE = "upstream_unreachable"  # not a byte of an answer came: it died, or is not up yet


class UpstreamFault(Exception):
    """The upstream could not be reached, broke off, or does not speak HTTP.

    Attributes:
        status: What the client is told if it has been told nothing yet: 502 or 504.
        reached: Whether any byte of an answer had come.
    """

    def __init__(self, message: str, *, status: int = 502, reached: bool = False) -> None:
        super().__init__(message)
        self.status = status
        self.reached = reached

    def as_request_error(self) -> RequestError:
        """Give the error a client sees in place of an answer."""
        code = "upstream_timeout" if self.status == 504 else "upstream_failed" if self.reached else UNREACHABLE
        return RequestError(self.status, str(self), code)


def openai_sse_error(message: str) -> bytes:
    """Render an error as a server-sent event in OpenAI's shape."""
    body = {"error": {"message": message, "type": "server_error", "param": None, "code": "upstream_failed"}}
    return b"data: " + orjson.dumps(body) + b"\n\n"
