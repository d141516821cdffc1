"""Server-sent events on their way out, and the torture that faults put them to."""

import asyncio
import json
import zlib

from aiohttp import web

from llmswap.fake_upstream.faults import Faults

Event = tuple[str, object]  # event name, empty for none; payload, a str is sent as it is
GIANT_BYTES = 1024 * 1024
WIDE = "é\u2603"


class EventStream:
    """One response body of events."""

    def __init__(self, request: web.Request, faults: Faults) -> None:
        self._request = request
        self.response = web.StreamResponse(headers={"Content-Type": "text/event-stream; charset=utf-8",
                                                    "Cache-Control": "no-cache"})  # fmt: skip
        self._eol = "\r\n" if faults.fires("crlf") else "\n"
        self._split = faults.fires("split_utf8") is not None
        self._broken = faults.fires("bad_json_chunk") is not None
        giant = faults.fires("giant_chunk")
        self._giant = int(giant.number(default=GIANT_BYTES)) if giant else 0
        # Flushed after each event, as a streaming server does it; 31 makes the frame gzip's.
        self._gzip = zlib.compressobj(wbits=31) if faults.fires("gzip") else None

    async def open(self) -> None:
        """Send the response head."""
        if self._gzip:
            self.response.headers["Content-Encoding"] = "gzip"
        await self.response.prepare(self._request)

    def spoil(self, token: str) -> str:
        """Change a token's text as the faults want it."""
        if self._split:
            token += WIDE
        if self._giant:
            token, self._giant = token.ljust(self._giant, "x"), 0
        return token

    async def send(self, event: Event) -> None:
        """Send one event."""
        name, payload = event
        text = payload if isinstance(payload, str) else json.dumps(payload, ensure_ascii=False)
        if self._broken:
            self._broken = False
            await self._write(f'data: {{"choices": [{{"delta"{self._eol}{self._eol}'.encode())
        head = f"event: {name}{self._eol}" if name else ""
        data = f"{head}data: {text}{self._eol}{self._eol}".encode()
        cut = data.find(WIDE.encode()) + 1 if self._split else 0
        if cut:
            await self._write(data[:cut])
            await asyncio.sleep(0.005)  # real time: lets the two halves leave in two segments
        await self._write(data[cut:])

    async def _write(self, data: bytes) -> None:
        if self._gzip:
            data = self._gzip.compress(data) + self._gzip.flush(zlib.Z_SYNC_FLUSH)
        await self.response.write(data)

    async def close(self) -> None:
        """End the body properly."""
        if self._gzip:
            await self.response.write(self._gzip.flush())
        await self.response.write_eof()
