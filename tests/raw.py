"""A client that sends exactly the bytes it is told to, for what no HTTP library would send."""

import asyncio
import socket
import struct
from dataclasses import dataclass
from types import TracebackType
from typing import Self


@dataclass(frozen=True, slots=True)
class Reply:
    """What came back, as bytes and loosely parsed.

    Attributes:
        closed: How the server ended: "eof", "reset", or "open" if the deadline came first.
    """

    data: bytes
    closed: str

    @property
    def status(self) -> int:
        """Status of the first response; 0 if there was none."""
        line = self.data.split(b"\r\n", 1)[0].split(b" ")
        return int(line[1]) if len(line) > 1 and line[0].startswith(b"HTTP/") else 0

    @property
    def headers(self) -> dict[str, str]:
        """Headers of the first response, names in lower case."""
        head = self.data.split(b"\r\n\r\n", 1)[0].decode("latin-1").split("\r\n")[1:]
        pairs = (line.partition(":") for line in head)
        return {name.lower(): value.strip() for name, _, value in pairs}

    @property
    def body(self) -> bytes:
        """Everything after the first response's head, framing included."""
        return self.data.partition(b"\r\n\r\n")[2]


class RawClient:
    """One TCP connection. `async with RawClient.to(url) as client`."""

    def __init__(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        self.reader = reader
        self.writer = writer

    @classmethod
    async def connect(cls, host: str, port: int, *, receive_buffer: int | None = None) -> Self:
        """Connect; `receive_buffer` bytes makes a slow reader that the sender soon notices."""
        sock = socket.socket(socket.AF_INET, socket.SOCK_STREAM)
        if receive_buffer is not None:
            sock.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, receive_buffer)
        sock.setblocking(False)
        await asyncio.get_running_loop().sock_connect(sock, (host, port))
        limit = 65536 if receive_buffer is None else receive_buffer
        return cls(*await asyncio.open_connection(sock=sock, limit=limit))

    async def __aenter__(self) -> Self:
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        await self.close()

    async def send(self, data: bytes) -> None:
        """Send; does not mind a server that has already hung up (its answer is still to be read)."""
        try:
            self.writer.write(data)
            await self.writer.drain()
        except ConnectionError:
            return

    async def read_until(self, marker: bytes, within_s: float = 10.0) -> bytes:
        """Read up to and including the marker.

        Raises:
            asyncio.IncompleteReadError: The server closed first.
        """
        async with asyncio.timeout(within_s):
            return await self.reader.readuntil(marker)

    async def read_to_end(self, within_s: float = 10.0) -> Reply:
        """Read until the server closes or the deadline comes."""
        parts: list[bytes] = []
        try:
            async with asyncio.timeout(within_s):
                while data := await self.reader.read(65536):
                    parts.append(data)
        except TimeoutError:
            return Reply(b"".join(parts), "open")
        except ConnectionError:
            return Reply(b"".join(parts), "reset")
        return Reply(b"".join(parts), "eof")

    async def half_close(self) -> None:
        """Say that no more will be sent, and stay to read."""
        self.writer.write_eof()

    def reset(self) -> None:
        """Vanish with an RST, as a crashed client does."""
        sock = self.writer.get_extra_info("socket")
        sock.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
        self.writer.transport.abort()

    async def close(self) -> None:
        """Close the connection."""
        self.writer.close()
        try:
            await self.writer.wait_closed()
        except ConnectionError:
            return


async def exchange(host: str, port: int, data: bytes, within_s: float = 10.0) -> Reply:
    """Send the bytes on a fresh connection and read until the server closes."""
    async with await RawClient.connect(host, port) as client:
        await client.send(data)
        return await client.read_to_end(within_s)


def request(method: str, target: str, body: bytes = b"", *, host: str = "127.0.0.1", headers: str = "") -> bytes:
    """Write an HTTP/1.1 request that asks for the connection to be closed; `headers` are lines ending in CRLF."""
    length = f"Content-Length: {len(body)}\r\n" if body else ""
    head = f"{method} {target} HTTP/1.1\r\nHost: {host}\r\nConnection: close\r\n{length}{headers}\r\n"
    return head.encode() + body
