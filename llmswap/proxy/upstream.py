"""The hop to the upstream: bytes through, both ways, with backpressure. Knows no scheduler and no dialect.

This is the narrow seam of the data plane: a lease's address comes in, bytes go through, one Delivery comes out.
"""

import time
from collections.abc import AsyncIterator, Callable
from dataclasses import dataclass, field
from enum import StrEnum
from typing import Protocol

import aiohttp
import orjson
from aiohttp import web
from multidict import CIMultiDict
from yarl import URL

from llmswap.config.settings import Timeouts
from llmswap.proxy.errors import RequestError

SseError = Callable[[str], bytes]

_DROPPED = frozenset(
    ("connection", "keep-alive", "te", "trailer", "upgrade", "transfer-encoding", "server", "content-length")
)
_SKIP_AUTO = frozenset(("User-Agent", "Accept", "Accept-Encoding", "Content-Type"))
_SSE = "text/event-stream"


def openai_sse_error(message: str) -> bytes:
    """Render an error as a server-sent event in OpenAI's shape."""
    body = {"error": {"message": message, "type": "server_error", "param": None, "code": "upstream_failed"}}
    return b"data: " + orjson.dumps(body) + b"\n\n"


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

    def __init__(self) -> None:
        self._session: aiohttp.ClientSession | None = None

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
        sse_error: SseError = openai_sse_error,
    ) -> web.StreamResponse:
        """Send the request, stream the response to the client.

        Args:
            request: The client's request; its body is not touched.
            outgoing: What to send.
            base_url: The lease's address, without a trailing slash.
            timeouts: Limits of this hop.
            tap: Sees the response's body bytes.
            into: A prepared event stream (the loading stream) that the upstream's body continues; its status and
                headers are gone, so an upstream error becomes an SSE error in it.
            delivery: Filled in as things happen, so that the caller knows them whatever is raised.
            sse_error: Renders an error message as a server-sent event in the client's dialect.

        Raises:
            RequestError: 502 or 504, before anything was sent to the client.
            ConnectionResetError: After that: the client's connection is to be aborted, never cleanly ended.
        """
        upstream = await self._send(outgoing, base_url, timeouts, delivery)
        try:
            if tap is not None:
                tap.head(upstream.status, CIMultiDict(upstream.headers))
            return await self._relay(request, upstream, delivery, into, tap, sse_error)
        finally:
            upstream.close()

    async def _send(
        self, outgoing: Outgoing, base_url: str, timeouts: Timeouts, delivery: Delivery
    ) -> aiohttp.ClientResponse:
        if self._session is None:
            connector = aiohttp.TCPConnector(limit=0, keepalive_timeout=timeouts.idle_conn_s or 90.0)
            self._session = aiohttp.ClientSession(
                connector=connector,
                auto_decompress=False,
                cookie_jar=aiohttp.DummyCookieJar(),
                skip_auto_headers=_SKIP_AUTO,
                timeout=aiohttp.ClientTimeout(total=None),
            )
        if isinstance(outgoing.body, bytes):
            delivery.bytes_in = len(outgoing.body)
        try:
            return await self._session.request(
                outgoing.method,
                URL(base_url + outgoing.target, encoded=True),
                headers=outgoing.headers,
                data=outgoing.body,
                allow_redirects=False,
            )
        except (aiohttp.ClientError, OSError) as error:
            delivery.end, delivery.error = End.UPSTREAM_DIED, str(error)
            raise RequestError(502, f"the upstream did not answer: {error}", "upstream_failed") from error

    async def _relay(  # noqa: PLR0913, PLR0917
        self,
        request: web.Request,
        upstream: aiohttp.ClientResponse,
        delivery: Delivery,
        into: web.StreamResponse | None,
        tap: Tap | None,
        sse_error: SseError,
    ) -> web.StreamResponse:
        response = into if into is not None else _head(upstream)
        is_sse = upstream.headers.get("Content-Type", "").startswith(_SSE)
        if into is not None and (upstream.status != 200 or not is_sse):
            await response.write(sse_error(f"the upstream answered with status {upstream.status}"))
            return response
        delivery.status = response.status
        await response.prepare(request)
        try:
            async for data in upstream.content.iter_any():
                delivery.first_byte_s = delivery.first_byte_s or time.monotonic()
                delivery.bytes_out += len(data)
                if tap is not None:
                    tap.chunk(data)
                await response.write(data)
        except aiohttp.ClientError as error:
            delivery.end, delivery.error = End.UPSTREAM_DIED, str(error)
            if is_sse:
                await response.write(sse_error("the upstream died in the middle of its answer"))
            raise ConnectionResetError("the upstream died") from error
        await response.write_eof()
        delivery.end = End.COMPLETE
        return response

    async def close(self) -> None:
        """Close every pooled connection."""
        if self._session is not None:
            await self._session.close()
            self._session = None


def _head(upstream: aiohttp.ClientResponse) -> web.StreamResponse:
    response = web.StreamResponse(status=upstream.status, reason=upstream.reason)
    for name, value in upstream.headers.items():
        if name.lower() not in _DROPPED:
            response.headers.add(name, value)
    if upstream.content_length is not None:
        response.content_length = upstream.content_length
    if upstream.headers.get("Content-Type", "").startswith(_SSE):
        response.headers["X-Accel-Buffering"] = "no"
    return response
