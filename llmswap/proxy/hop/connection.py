"""One connection to an upstream, and the exchange on it: request out, head in, body straight to a sink.

No task wakes up for a body chunk: bytes go from the socket's callback through the decoder to the sink.
"""

import asyncio
from collections.abc import Callable
from functools import partial
from typing import cast

from llmswap.proxy.hop.body import Body, Malformed, OpenBody
from llmswap.proxy.hop.head import HEAD_MAX, body_after, parse_head
from llmswap.proxy.hop.messages import Head, UpstreamFault

READ_MAX = 64 * 1024
TAKE_TIMEOUT_S = 300.0
"""An upstream that takes nothing of a request's body for so long is stuck."""
_INTERIM_MAX = 16
_PENDING_MAX = 128 * 1024
_VERSION = b"HTTP/1."

# One buffer for all connections: each read is copied out of it before the event loop does anything else.
_READ_BUFFER = memoryview(bytearray(READ_MAX))

Sink = Callable[[bytes], bool]
"""Takes payload; answers whether it can take more at once."""


class Connection(asyncio.BufferedProtocol):
    """A socket to an upstream, used for one exchange at a time."""

    def __init__(self) -> None:
        self.transport: asyncio.Transport  # from connection_made on
        self.exchange: Exchange | None = None
        self.writing_paused = False
        self.on_writable: Callable[[], object] | None = None

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        """See asyncio."""
        self.transport = cast("asyncio.Transport", transport)

    def get_buffer(self, sizehint: int) -> memoryview:  # noqa: ARG002
        """See asyncio."""
        return _READ_BUFFER

    def buffer_updated(self, nbytes: int) -> None:
        """See asyncio."""
        if self.exchange is None:  # nobody asked: what an idle upstream says cannot be told from a later answer
            self.transport.abort()
        else:
            self.exchange.received(bytes(_READ_BUFFER[:nbytes]))

    def connection_lost(self, exc: Exception | None) -> None:
        """See asyncio."""
        self.resume_writing()
        if self.exchange is not None:
            self.exchange.lost(exc)

    def pause_writing(self) -> None:
        """See asyncio."""
        self.writing_paused = True

    def resume_writing(self) -> None:
        """See asyncio."""
        self.writing_paused = False
        if self.on_writable is not None:
            self.on_writable()

    @property
    def is_open(self) -> bool:
        """Whether it can carry another exchange."""
        return not self.transport.is_closing()

    async def drain(self) -> None:
        """Wait until the upstream has taken most of what was written, or is gone.

        Raises:
            UpstreamFault: 504, it has taken nothing for TAKE_TIMEOUT_S.
        """
        if not self.writing_paused:
            return
        writable: asyncio.Future[None] = asyncio.get_running_loop().create_future()
        self.on_writable = partial(_resolve, writable)
        try:
            async with asyncio.timeout(TAKE_TIMEOUT_S):
                await writable
        except TimeoutError as error:
            message = f"the upstream took nothing of the request's body for {TAKE_TIMEOUT_S:g} s"
            raise UpstreamFault(message, status=504) from error
        finally:
            self.on_writable = None


class Exchange:
    """One request's answer, as it arrives.

    Attributes:
        head: The final head, once it is there.
        done: The whole body has been given to the sink (or lies in `early`).
        stalled: The sink could not take more; reading is paused until `resume`.
        error: Why there will be no more.
        connection: Where it takes place.
        early: Payload that came before there was a sink.
    """

    __slots__ = (
        "_body", "_early_size", "_head_timeout_s", "_head_timer", "_interims", "_method", "_raw",
        "_release", "_sent", "_sink", "_upgrade", "_waiter", "connection", "done", "early", "error", "head", "stalled",
    )  # fmt: skip

    def __init__(
        self,
        connection: Connection,
        method: str,
        release: Callable[[Connection], None],
        head_timeout_s: float | None,
        *,
        upgrade: bool,
    ) -> None:
        self.connection = connection
        self._method = method
        self._release = release
        self._head_timeout_s = head_timeout_s
        self._upgrade = upgrade
        self._head_timer: asyncio.TimerHandle | None = None
        self._raw = b""
        self._interims = 0
        self._sent = False
        self._body: Body | None = None
        self._sink: Sink | None = None
        self._waiter: asyncio.Future[None] | None = None
        self._early_size = 0
        self.head: Head | None = None
        self.done = False
        self.stalled = False
        self.error: BaseException | None = None
        self.early: list[bytes] = []
        connection.exchange = self

    def sent(self) -> None:
        """Note that the whole request is out: from now on the upstream's answer is due."""
        self._sent = True
        if self._head_timeout_s is not None and self.head is None:
            late = UpstreamFault(f"the upstream did not answer within {self._head_timeout_s:g} s", status=504)
            self._head_timer = asyncio.get_running_loop().call_later(self._head_timeout_s, self.fail, late)

    async def change(self) -> None:
        """Wait for the head, the end or a stall.

        Raises:
            UpstreamFault: The upstream broke off; or whatever else `fail` was given.
        """
        if self.error is not None:
            raise self.error
        self._waiter = asyncio.get_running_loop().create_future()
        await self._waiter
        if self.error is not None:
            raise self.error

    def flow_to(self, sink: Sink) -> None:
        """Give the payload so far, and from now on, to the sink."""
        early, self.early, self._sink = self.early, [], sink
        for payload in early:
            self._give(payload)

    def resume(self) -> None:
        """Go on after a stall."""
        self.stalled = False
        self.connection.transport.resume_reading()

    def received(self, data: bytes) -> None:
        """Take bytes off the wire."""
        try:
            if self._body is None:
                self._head_bytes(self._raw + data)
            else:
                self._body_bytes(data)
        except Malformed as error:
            self.fail(UpstreamFault(f"the upstream's answer is malformed: {error}", reached=True))

    def _head_bytes(self, raw: bytes) -> None:
        while True:
            end = raw.find(b"\r\n\r\n", 0, HEAD_MAX)
            if end < 0:
                _check_beginning(raw)
                self._raw = raw
                return
            head = parse_head(raw[:end])
            raw = raw[end + 4 :]
            if head.status >= 200 or (head.status == 101 and self._upgrade):
                break
            self._interims += 1
            if head.status == 101 or self._interims > _INTERIM_MAX:
                raise Malformed("it sent an interim answer that nobody asked for")
        self.head = head
        self._body = OpenBody() if head.status == 101 else body_after(head, self._method)
        self._cancel_timer()
        self._body_bytes(raw)
        self._wake()

    def _body_bytes(self, data: bytes) -> None:
        assert self._body is not None
        if data:
            payload = self._body.feed(data)
            if payload:
                self._give(payload)
        if self._body.done:
            self._finish()

    def _give(self, payload: bytes) -> None:
        if self._sink is not None:
            if self._sink(payload) or self.stalled:
                return
        else:
            self.early.append(payload)
            self._early_size += len(payload)
            if self._early_size < _PENDING_MAX or self.stalled:
                return
        if self.done:  # nothing more is to come, and the connection may already be somebody else's
            return
        self.stalled = True
        self.connection.transport.pause_reading()
        self._wake()

    def _finish(self) -> None:
        self.done = True
        connection, head = self.connection, self.head
        assert head is not None
        if self.stalled:  # a connection that stays paused would never hear the answer to its next request
            self.resume()
        connection.exchange = None
        if head.status == 101:
            connection.transport.close()
        elif head.keep_alive and self._sent:
            self._release(connection)
        else:
            connection.transport.abort()
        self._wake()

    def lost(self, exc: Exception | None) -> None:
        """Note that the connection is gone."""
        if self._body is not None and exc is None and self._body.ends_at_eof():
            self._finish()
        elif self.head is None:
            self.fail(UpstreamFault("the upstream closed the connection without an answer", reached=bool(self._raw)))
        else:
            self.fail(UpstreamFault("the upstream broke off in the middle of its answer", reached=True))

    def fail(self, error: BaseException) -> None:
        """End the exchange with an error, unless it is over already."""
        if self.done or self.error is not None:
            return
        self.error = error
        self.drop()
        self._wake()

    def drop(self) -> None:
        """Leave: if the answer is not complete, the connection cannot be used again and is closed at once."""
        self._cancel_timer()
        if self.connection.exchange is not self:
            return
        self.connection.exchange = None
        if self.head is not None and self.head.status == 101:
            self.connection.transport.close()  # a tunnel's last bytes (its close frame) still go out
        else:
            self.connection.transport.abort()

    def _cancel_timer(self) -> None:
        if self._head_timer is not None:
            self._head_timer.cancel()
            self._head_timer = None

    def _wake(self) -> None:
        if self._waiter is not None:
            _resolve(self._waiter)


def _resolve(future: asyncio.Future[None]) -> None:
    if not future.done():
        future.set_result(None)


def _check_beginning(raw: bytes) -> None:
    """Refuse an unfinished head that cannot become one, instead of waiting for more of it."""
    if len(raw) >= HEAD_MAX:
        raise Malformed(f"its head is larger than {HEAD_MAX} bytes")
    if not raw.startswith(_VERSION[: len(raw)]) or (b"\n" in raw and b"\r\n" not in raw):
        raise Malformed("it does not begin like HTTP/1.x")
