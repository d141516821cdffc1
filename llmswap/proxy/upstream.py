"""The hop to the upstream: bytes through, both ways, with backpressure. Knows no scheduler and no dialect.

This is the narrow seam of the data plane: a lease's address comes in, bytes go through, one Delivery comes out.
"""

from collections.abc import AsyncIterator
from dataclasses import dataclass, field
from enum import StrEnum
from typing import Protocol

from aiohttp import web
from multidict import CIMultiDict

from llmswap.config.settings import Timeouts


@dataclass(frozen=True, slots=True)
class Outgoing:
    """What goes to the upstream.

    Attributes:
        target: Path and query as they go on the wire, percent-encoding untouched; the hop prefixes the base path.
        headers: End-to-end headers, already cleaned (no hop-by-hop, no client credentials).
        body: Whole bytes, or an iterator for a body too large to hold; None for no body.
        body_size: Length in bytes if `body` is an iterator and it is known.
    """

    method: str
    target: str
    headers: CIMultiDict[str]
    body: bytes | AsyncIterator[bytes] | None = None
    body_size: int | None = None


class End(StrEnum):
    """How a delivery ended."""

    COMPLETE = "complete"
    CLIENT_GONE = "client_gone"
    UPSTREAM_DIED = "upstream_died"


@dataclass(slots=True)
class Delivery:
    """What became of a request once it had its upstream; filled in as bytes move.

    Attributes:
        status: Status the client got; 0 if it got none.
        first_byte_s: Monotonic time of the first body byte from the upstream.
    """

    status: int = 0
    bytes_in: int = 0
    bytes_out: int = 0
    first_byte_s: float | None = None
    end: End | None = None
    error: str | None = field(default=None)


class Tap(Protocol):
    """Sees the upstream's response bytes as they pass (token metering). Cannot change or delay them."""

    def head(self, status: int, headers: CIMultiDict[str]) -> None:
        """See the response head."""

    def chunk(self, data: bytes) -> None:
        """See some body bytes."""


class UpstreamClient:
    """Connections to upstreams, pooled by address."""

    async def forward(  # noqa: PLR0913
        self,
        request: web.Request,
        outgoing: Outgoing,
        base_url: str,
        timeouts: Timeouts,
        delivery: Delivery,
        *,
        into: web.StreamResponse | None = None,
        tap: Tap | None = None,
    ) -> web.StreamResponse:
        """Send the request, stream the response to the client.

        Args:
            into: A prepared event stream (the loading stream) that the upstream's body continues; its status and
                headers are gone, so an upstream error becomes an SSE error in it.
            delivery: Filled in as things happen, so that the caller knows them whatever is raised.

        Raises:
            RequestError: 502 or 504, before anything was sent to the client.
            ConnectionResetError: After that: the client's connection is to be aborted, never cleanly ended.
        """
        raise NotImplementedError

    async def close(self) -> None:
        """Close every pooled connection."""
        raise NotImplementedError
