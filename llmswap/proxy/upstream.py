"""The hop to the upstream: bytes through, both ways, with backpressure. Knows no scheduler and no dialect.

This is the narrow seam of the data plane: a lease's address comes in, bytes go through, one Delivery comes out.
"""

import asyncio
from functools import partial

from aiohttp import web

from llmswap.config.settings import Timeouts
from llmswap.proxy.hop.client import ClientGone
from llmswap.proxy.hop.connection import Connection, Exchange
from llmswap.proxy.hop.head import request_head, wants_upgrade
from llmswap.proxy.hop.messages import (
    UNREACHABLE,
    Addition,
    Delivery,
    End,
    Outgoing,
    SseError,
    Tap,
    UpstreamFault,
    openai_sse_error,
)
from llmswap.proxy.hop.pool import Address, Pool, connect, parse_address
from llmswap.proxy.hop.relay import Relay
from llmswap.proxy.hop.upload import AT_ONCE_MAX, upload

__all__ = ["UNREACHABLE", "Delivery", "End", "Outgoing", "SseError", "Tap", "UpstreamClient", "openai_sse_error"]


class UpstreamClient:
    """Connections to upstreams, pooled by address."""

    def __init__(self) -> None:
        self._pool = Pool()

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
        addition: Addition | None = None,
        sse_error: SseError = openai_sse_error,
    ) -> web.StreamResponse:
        """Send the request, stream the response to the client.

        Args:
            request: The client's request. Its body is not touched; its Upgrade header is obeyed.
            outgoing: What to send.
            base_url: The lease's address.
            timeouts: Limits of this hop.
            delivery: Filled in as things happen, so that the caller knows them whatever is raised.
            into: A prepared event stream (the loading stream) that the upstream's events continue.
            tap: Sees the response's body bytes.
            addition: What `outgoing` holds beyond the client's own words. If the upstream does not take it, the plain
                request is sent, once, before the client hears anything.
            sse_error: Renders an error message as a server-sent event in the client's dialect.

        Returns:
            The response, complete but for its end, which aiohttp writes once the handler returns it.

        Raises:
            RequestError: 502 or 504, before anything was sent to the client, or anything of the upstream's into
                `into`; with `into` also the upstream's own status, if it did not answer with events.
            ConnectionResetError: After that: the client's connection has been broken off, it must not be ended.
        """
        hop = _Hop(request, outgoing, parse_address(base_url), timeouts, delivery, self._pool)
        try:
            exchange, addition = await hop.ask_with(addition)
            relay = Relay(request, exchange, delivery, tap, sse_error, addition)
            response = await (relay.answer() if into is None else relay.continue_in(into))
        except UpstreamFault as fault:
            delivery.end, delivery.error = End.UPSTREAM_DIED, str(fault)
            raise fault.as_request_error() from fault
        except BaseException as error:  # cut off: by the upstream, or because the client left
            delivery.end, delivery.error = _end_of(error), str(error) or type(error).__name__
            raise
        finally:
            await hop.leave()
        delivery.end = End.COMPLETE
        return response

    async def close(self) -> None:
        """Close every pooled connection."""
        self._pool.close()


def _end_of(error: BaseException) -> End:
    if isinstance(error.__cause__, UpstreamFault):
        return End.UPSTREAM_DIED
    return End.CLIENT_GONE if isinstance(error, ClientGone | asyncio.CancelledError) else End.FAILED


class _Hop:
    """One request's way to the upstream, up to the head of its answer."""

    def __init__(  # noqa: PLR0913, PLR0917
        self,
        request: web.Request,
        outgoing: Outgoing,
        address: Address,
        timeouts: Timeouts,
        delivery: Delivery,
        pool: Pool,
    ) -> None:
        self._outgoing = outgoing
        self._address = address
        self._timeouts = timeouts
        self._delivery = delivery
        self._pool = pool
        self._upgrade = wants_upgrade(request)
        self._exchange: Exchange | None = None
        self._upload: asyncio.Task[None] | None = None

    async def ask_with(self, addition: Addition | None) -> tuple[Exchange, Addition | None]:
        """Send the request; if the upstream does not take what was added to it, send it without, which then is gone."""
        exchange = await self.ask()
        assert exchange.head is not None
        if addition is None or addition.stands(exchange.head):
            return exchange, addition
        await self.leave()
        self._outgoing = addition.plain
        return await self.ask(), None

    async def ask(self) -> Exchange:
        """Send the request and wait for the answer's head.

        A pooled connection may have been closed by the upstream just now. If it breaks before any byte of an answer,
        and the body can be sent again, a new connection is tried, once.
        """
        body = self._outgoing.body
        head = request_head(self._outgoing, self._address.prefix + self._outgoing.target, upgrade=self._upgrade)
        if body is None or isinstance(body, bytes):
            pooled = self._pool.take(self._address)
            if pooled is not None:
                try:
                    return await self._ask_on(pooled, head)
                except UpstreamFault as fault:
                    if fault.reached or fault.status == 504:
                        raise
                    await self.leave()
        return await self._ask_on(await connect(self._address, self._timeouts), head)

    async def _ask_on(self, connection: Connection, head: bytes) -> Exchange:
        outgoing, body = self._outgoing, self._outgoing.body
        release = partial(self._pool.give, self._address, idle_s=self._timeouts.idle_conn_s)
        exchange = self._exchange = Exchange(
            connection, outgoing.method, release, self._timeouts.response_header_s, upgrade=self._upgrade
        )
        if body is None or (isinstance(body, bytes) and len(body) <= AT_ONCE_MAX):
            connection.transport.write(head + body if body else head)
            self._delivery.bytes_in = len(body) if body else 0
            exchange.sent()
        else:
            connection.transport.write(head)
            self._delivery.bytes_in = 0
            self._upload = asyncio.get_running_loop().create_task(self._send_body(exchange))
        while exchange.head is None:
            await exchange.change()
        return exchange

    async def _send_body(self, exchange: Exchange) -> None:
        try:
            if await upload(exchange.connection, self._outgoing, self._delivery):
                exchange.sent()
        except Exception as error:  # noqa: BLE001  whatever stops the body stops the exchange, and is raised there
            exchange.fail(error if exchange.head is None else ClientGone(f"the request body broke off: {error}"))

    async def leave(self) -> None:
        """End what is not over: a connection with an unfinished answer cannot be used again."""
        if self._upload is not None:
            self._upload.cancel()
            await asyncio.gather(self._upload, return_exceptions=True)
            self._upload = None
        if self._exchange is not None:
            self._exchange.drop()
