"""The client's side of the hop: payload to its transport, in its framing, no faster than it reads."""

import asyncio
import socket
import struct
import time

from aiohttp import web

from llmswap.proxy.hop.messages import Addition, Delivery, Tap

WRITE_TIMEOUT_S = 300.0
"""A client that does not take 48 KiB in this time is stuck."""
_FAREWELL_S = 10.0


class ClientGone(ConnectionResetError):
    """The client left, or does not read any more."""


class ClientWriter:
    """Writes body bytes of a prepared response straight to the client's transport.

    `StreamResponse.write` costs a task switch and an await per chunk; this is called from the upstream socket's
    callback. The response object stays consistent: aiohttp wrote the head and will write the end.

    Args:
        response: Prepared. Its headers say how its body is framed.
    """

    __slots__ = (
        "_addition", "_chunked", "_delivery", "_framed", "_last", "_protocol", "_request", "_tap", "_transport",
    )  # fmt: skip

    def __init__(
        self,
        request: web.BaseRequest,
        response: web.StreamResponse,
        delivery: Delivery,
        tap: Tap | None,
        addition: Addition | None,
    ) -> None:
        transport = request.transport
        if transport is None:
            raise ClientGone("the client is gone")
        self._request = request
        self._transport = transport
        self._protocol = request.protocol
        self._chunked = "Transfer-Encoding" in response.headers
        self._framed = self._chunked or "Content-Length" in response.headers
        self._delivery = delivery
        self._tap = tap
        self._addition = addition
        self._last = b""

    def write(self, payload: bytes) -> bool:
        """Send payload on; a Sink."""
        transport = self._transport
        if transport.is_closing():
            return False
        delivery = self._delivery
        if delivery.first_byte_s is None:
            delivery.first_byte_s = time.monotonic()
        addition, tap = self._addition, self._tap
        if addition is None:
            if payload:
                self._send(payload)
            if tap is not None and not tap.plain(payload):
                tap.chunk(payload)
        elif tap is not None and tap.plain(payload):
            self._send(payload)
        else:
            if sifted := addition.sift(payload):
                self._send(sifted)
            if tap is not None:
                tap.chunk(payload)
        return not self._protocol.writing_paused

    def _send(self, payload: bytes) -> None:
        self._delivery.bytes_out += len(payload)
        self._transport.write(b"%x\r\n%b\r\n" % (len(payload), payload) if self._chunked else payload)
        self._last = payload

    def write_rest(self) -> None:
        """Send what was held back, now that nothing more comes."""
        addition, self._addition = self._addition, None
        if addition is not None and (rest := addition.rest()) and not self._transport.is_closing():
            self._send(rest)

    async def catch_up(self) -> None:
        """Wait until the client has read most of what was written.

        Raises:
            ClientGone: It left, or did not read for WRITE_TIMEOUT_S.
        """
        if self._transport.is_closing():
            raise ClientGone("the client is gone")
        if not self._protocol.writing_paused:
            return
        try:
            async with asyncio.timeout(WRITE_TIMEOUT_S):
                await self._request.writer.drain()
        except TimeoutError as error:
            raise ClientGone(f"the client did not read for {WRITE_TIMEOUT_S:g} s") from error

    def cut(self) -> None:
        """Break the connection off, so that what the client has cannot look complete."""
        if not self._framed and (sock := self._transport.get_extra_info("socket")) is not None:
            # where the connection's end is the body's end, only a reset tells the two apart
            sock.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
        self._transport.abort()

    def cut_with(self, event: bytes) -> None:
        """Send a last server-sent event, then break off without the terminating chunk."""
        self.write_rest()
        if self._last and not self._last.endswith((b"\n\n", b"\r\n\r\n")):
            event = b"\n\n" + event
        self._tap = None
        self.write(event)
        self._transport.close()
        asyncio.get_running_loop().call_later(_FAREWELL_S, self._transport.abort)
