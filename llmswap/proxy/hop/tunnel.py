"""The client's half of a websocket: its raw bytes on their way to the upstream. Frames are nobody's business here."""

from aiohttp import web

from llmswap.proxy.hop.connection import Exchange


class ClientBytes:
    """Takes the client's bytes from aiohttp's protocol, as a parser set on it with `set_parser`."""

    def __init__(self, request: web.BaseRequest, exchange: Exchange) -> None:
        self._client = request.protocol
        self._upstream = exchange.connection
        self._upstream.on_writable = self._go_on

    def feed_data(self, data: bytes) -> tuple[bool, bytes]:
        """Pass bytes on; a slow upstream stops the reading."""
        if self._upstream.is_open:
            self._upstream.transport.write(data)
            if self._upstream.writing_paused:
                self._client.pause_reading()
        return False, b""

    def _go_on(self) -> None:
        self._client.resume_reading(resume_parser=False)

    def feed_eof(self) -> None:
        """Do nothing: the handler is cancelled, and that closes the upstream's side."""
