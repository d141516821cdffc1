"""An upstream's answer on its way to the client: its head as an aiohttp response, its body past aiohttp."""

import time
from contextlib import suppress
from typing import Any, cast

from aiohttp import web

from llmswap.proxy.errors import RequestError
from llmswap.proxy.hop.client import ClientGone, ClientWriter
from llmswap.proxy.hop.connection import Exchange
from llmswap.proxy.hop.messages import Addition, Delivery, End, Head, SseError, Tap, UpstreamFault
from llmswap.proxy.hop.tunnel import ClientBytes

_WHOLE_MAX = 32 * 1024
_REFUSAL_MAX = 4 * 1024


class Relay:
    """Brings one answer to one client."""

    def __init__(  # noqa: PLR0913, PLR0917
        self,
        request: web.BaseRequest,
        exchange: Exchange,
        delivery: Delivery,
        tap: Tap | None,
        sse_error: SseError,
        addition: Addition | None = None,
    ) -> None:
        assert exchange.head is not None
        self._request = request
        self._exchange = exchange
        self._head: Head = exchange.head
        self._delivery = delivery
        self._tap = tap
        self._addition = addition
        self._sse_error = sse_error
        delivery.upstream_status = exchange.head.status

    async def answer(self) -> web.StreamResponse:
        """Send the answer; the response is complete but for its end, which aiohttp writes.

        Raises:
            ConnectionResetError: One side broke off.
        """
        head, exchange = self._head, self._exchange
        if self._tap is not None:
            self._tap.head(head)
        if head.status == 101:
            return await self._tunnel()
        if exchange.done and sum(map(len, exchange.early)) <= _WHOLE_MAX and not head.is_sse:
            return self._whole()
        response = web.StreamResponse(status=head.status, reason=head.reason, headers=head.fields)
        if head.is_sse:
            response.headers["X-Accel-Buffering"] = "no"
        if head.length is None and self._request.version < (1, 1):
            response.force_close()
        await response.prepare(self._request)
        await self._body(response)
        return response

    def _whole(self) -> web.StreamResponse:
        """Answer with a body that is already here: aiohttp then sends it with the head, in one write."""
        head, delivery = self._head, self._delivery
        body = b"".join(self._exchange.early)
        if body:
            delivery.first_byte_s = time.monotonic()
            if self._tap is not None:
                self._tap.chunk(body)
        delivery.status = head.status
        delivery.bytes_out = len(body)
        delivery.end = End.COMPLETE
        if not body and self._request.method == "HEAD":
            return web.StreamResponse(status=head.status, reason=head.reason, headers=head.fields)
        return web.Response(status=head.status, reason=head.reason, headers=head.fields, body=body)

    async def _body(self, response: web.StreamResponse) -> None:
        self._delivery.status = response.status
        client = ClientWriter(self._request, response, self._delivery, self._tap, self._addition)
        try:
            await self._flow(client)
        except UpstreamFault as fault:
            if self._head.is_sse and self._head.length is None:
                client.cut_with(self._sse_error(str(fault)))
            else:
                client.cut()
            raise ConnectionResetError(str(fault)) from fault
        except ClientGone:
            client.cut()
            raise

    async def _flow(self, client: ClientWriter) -> None:
        exchange = self._exchange
        exchange.flow_to(client.write)
        while not exchange.done:
            if exchange.stalled:
                await client.catch_up()
                exchange.resume()
            else:
                await exchange.change()
        client.write_rest()
        await client.catch_up()

    async def continue_in(self, stream: web.StreamResponse) -> web.StreamResponse:
        """Continue a prepared event stream with the answer's events.

        Raises:
            RequestError: The answer is something else.
            ConnectionResetError: One side broke off.
        """
        if self._head.status != 200 or not self._head.is_sse:
            said = await self._beginning()
            status = self._head.status if self._head.status >= 400 else 502
            raise RequestError(status, f"the upstream answered {self._head.status}: {said}", "upstream_refused")
        if self._tap is not None:
            self._tap.head(self._head)
        await self._body(stream)
        return stream

    async def _beginning(self) -> str:
        """Give the beginning of the answer's body as text."""
        exchange, said = self._exchange, bytearray()

        def collect(payload: bytes) -> bool:
            said.extend(payload)
            return len(said) < _REFUSAL_MAX

        exchange.flow_to(collect)
        with suppress(UpstreamFault):  # what has come is enough
            while not exchange.done and not exchange.stalled:
                await exchange.change()
        return said[:_REFUSAL_MAX].decode("utf-8", "replace")

    async def _tunnel(self) -> web.StreamResponse:
        """Switch protocols: from here on, raw bytes both ways until one side closes."""
        head = self._head
        response = web.StreamResponse(status=101, reason=head.reason, headers=head.fields)
        response.headers["Connection"] = "Upgrade"
        response.headers["Upgrade"] = "websocket"
        response.force_close()
        await response.prepare(self._request)
        self._request.protocol.set_parser(cast("Any", ClientBytes(self._request, self._exchange)))
        await self._body(response)
        return response
