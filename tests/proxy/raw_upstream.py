"""An upstream that does with each connection exactly what a script says, byte by byte; and a bare front before it."""

import asyncio
import socket
import struct
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from typing import Any

from aiohttp import web
from multidict import CIMultiDict

from llmswap.config.settings import Timeouts
from llmswap.proxy.errors import RequestError
from llmswap.proxy.upstream import Delivery, Outgoing, Tap, UpstreamClient
from tests.raw import RawClient, Reply

OK = b"HTTP/1.1 200 OK\r\nContent-Type: application/json\r\nContent-Length: 2\r\n\r\n{}"
SSE = b"HTTP/1.1 200 OK\r\nContent-Type: text/event-stream\r\nTransfer-Encoding: chunked\r\n\r\n"
LAST = b"0\r\n\r\n"


def chunk(data: bytes) -> bytes:
    """Frame data as one chunk."""
    return b"%x\r\n%b\r\n" % (len(data), data)


@dataclass(frozen=True)
class Seen:
    """A request, as it came."""

    line: str
    headers: dict[str, str]
    body: bytes


@dataclass
class Connection:
    """One connection of the proxy's, in the hands of the script."""

    reader: asyncio.StreamReader
    writer: asyncio.StreamWriter
    seen: list[Seen]
    gone: asyncio.Event = field(default_factory=asyncio.Event)

    async def head(self) -> tuple[str, dict[str, str]]:
        """Read a request's head."""
        block = (await self.reader.readuntil(b"\r\n\r\n")).decode("latin-1")
        line, *fields = block[:-4].split("\r\n")
        pairs = (one.partition(":") for one in fields)
        return line, {name.lower(): value.strip() for name, _, value in pairs}

    async def request(self) -> Seen:
        """Read a whole request and note it."""
        line, headers = await self.head()
        if headers.get("transfer-encoding") == "chunked":
            body = b""
            while size := int(await self.reader.readline(), 16):
                body += (await self.reader.readexactly(size + 2))[:-2]
            await self.reader.readline()
        else:
            body = await self.reader.readexactly(int(headers.get("content-length", 0)))
        self.seen.append(Seen(line, headers, body))
        return self.seen[-1]

    async def send(self, data: bytes) -> None:
        self.writer.write(data)
        await self.writer.drain()

    async def until_gone(self) -> None:
        """Wait until the proxy has closed the connection."""
        try:
            while await self.reader.read(65536):
                pass
        except ConnectionError:
            pass
        self.gone.set()

    def reset(self) -> None:
        """Vanish with an RST, as a killed process with unread input does."""
        sock = self.writer.get_extra_info("socket")
        sock.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
        self.writer.transport.abort()


Script = Callable[[Connection], Awaitable[None]]


@dataclass
class Upstream:
    """The scripted upstream's address and what it saw."""

    port: int = 0
    connections: list[Connection] = field(default_factory=list)
    seen: list[Seen] = field(default_factory=list)

    @property
    def url(self) -> str:
        return f"http://127.0.0.1:{self.port}"


@asynccontextmanager
async def raw_upstream(script: Script, **options: Any) -> AsyncIterator[Upstream]:
    """Run the script for each connection; the connection is closed when the script returns."""
    upstream = Upstream()
    tasks: set[asyncio.Task[None]] = set()

    async def accept(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        tasks.add(asyncio.current_task())
        connection = Connection(reader, writer, upstream.seen)
        upstream.connections.append(connection)
        try:
            await script(connection)
        except (ConnectionError, asyncio.IncompleteReadError, asyncio.CancelledError):
            pass  # the proxy hung up, or the test is over
        finally:
            writer.close()

    server = await asyncio.start_server(accept, "127.0.0.1", 0, **options)
    upstream.port = server.sockets[0].getsockname()[1]
    try:
        yield upstream
    finally:
        server.close()
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)


def says(*parts: bytes) -> Script:
    """Script: answer every request on the connection with these bytes."""

    async def script(connection: Connection) -> None:
        while True:
            await connection.request()
            for part in parts:
                await connection.send(part)

    return script


def says_and_closes(*parts: bytes) -> Script:
    """Script: answer one request with these bytes, then close."""

    async def script(connection: Connection) -> None:
        await connection.request()
        for part in parts:
            await connection.send(part)

    return script


@dataclass
class Front:
    """A server that forwards every request and does nothing else."""

    client: UpstreamClient
    port: int = 0
    deliveries: list[Delivery] = field(default_factory=list)
    errors: list[RequestError] = field(default_factory=list)
    transports: list[asyncio.Transport] = field(default_factory=list)

    @property
    def delivery(self) -> Delivery:
        return self.deliveries[-1]

    @property
    def buffered(self) -> int:
        """How many bytes wait in this process for clients to read them."""
        return sum(transport.get_write_buffer_size() for transport in self.transports)

    async def connect(self, **options: Any) -> RawClient:
        return await RawClient.connect("127.0.0.1", self.port, **options)

    async def exchange(self, data: bytes, within_s: float = 10.0) -> Reply:
        """Send bytes on a connection of their own and read to its end."""
        async with await self.connect() as client:
            await client.send(data)
            return await client.read_to_end(within_s)


Prepare = Callable[[web.BaseRequest], Awaitable[web.StreamResponse]]


@dataclass
class Plan:
    """How a front forwards.

    Attributes:
        streamed: Pass request bodies on as they come, not whole.
        announced: What to say about a streamed body's length in place of the truth.
        headers: Sent to the upstream in place of the client's.
        into: Prepares the response that the upstream's body is to continue.
    """

    streamed: bool = False
    announced: int | None = None
    headers: dict[str, str] | None = None
    into: Prepare | None = None

    async def outgoing(self, request: web.BaseRequest) -> Outgoing:
        headers = CIMultiDict(self.headers if self.headers is not None else request.headers)
        if self.streamed:
            body, size = request.content.iter_any(), self.announced or request.content_length
            return Outgoing(request.method, request.raw_path, headers, body, size)
        return Outgoing(request.method, request.raw_path, headers, await request.read() or None)


@asynccontextmanager
async def front(
    base_url: str,
    timeouts: Timeouts | None = None,
    *,
    tap: Tap | None = None,
    **plan: Any,
) -> AsyncIterator[Front]:
    """Serve a front before an upstream; keywords make its Plan."""
    made, planned = Front(UpstreamClient()), Plan(**plan)

    async def forward(request: web.BaseRequest) -> web.StreamResponse:
        made.deliveries.append(Delivery())
        made.transports.append(request.transport)
        outgoing = await planned.outgoing(request)
        stream = await planned.into(request) if planned.into is not None else None
        limits = timeouts or Timeouts()
        try:
            return await made.client.forward(request, outgoing, base_url, limits, made.delivery, into=stream, tap=tap)
        except RequestError as error:
            made.errors.append(error)
            if stream is not None:
                await stream.write(f"error: {error}\n\n".encode())
                return stream
            return web.json_response({"error": {"message": str(error), "code": error.code}}, status=error.status)

    server = web.Server(forward, handler_cancellation=True, access_log=None, lingering_time=1, auto_decompress=False)
    runner = web.ServerRunner(server)
    await runner.setup()
    site = web.TCPSite(runner, "127.0.0.1", 0)
    await site.start()
    made.port = runner.addresses[0][1]
    try:
        yield made
    finally:
        await made.client.close()
        await runner.cleanup()
