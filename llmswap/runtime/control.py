"""One request to an upstream's control API: a deadline, a bounded answer, no redirects. What it means: sleeping.py."""

import asyncio
import contextlib
import re
import ssl
from collections.abc import AsyncIterator, Mapping
from dataclasses import dataclass
from urllib.parse import urlsplit

# Nobody needs more of an answer; the rest is not read.
BODY_BYTES = 64 << 10
_HEADERS_MAX = 100
_Stream = tuple[asyncio.StreamReader, asyncio.StreamWriter]
_STATUS = re.compile(rb"HTTP/1\.([01]) (\d{3})(?:\s|$)")


@dataclass(frozen=True, slots=True)
class Answer:
    """What an upstream said.

    Attributes:
        body: At most BODY_BYTES of it.
    """

    status: int
    body: bytes

    @property
    def good(self) -> bool:
        """Whether the status says success."""
        return 200 <= self.status < 300


class NoAnswer(Exception):
    """There was none; the message says why in words that follow "it".

    Attributes:
        lost: The connection was refused or broke off: perhaps the process is about to be found dead.
    """

    def __init__(self, message: str, *, lost: bool = False) -> None:
        super().__init__(message)
        self.lost = lost


class Control:
    """Asks one upstream.

    Args:
        base_url: With the address pinned, so that no other can be meant.
        host_header: Sent as `Host`; None for what the URL says.
    """

    def __init__(self, base_url: str, host_header: str | None = None) -> None:
        parts = urlsplit(base_url)
        self._tls = ssl.create_default_context() if parts.scheme == "https" else None
        self._host = parts.hostname or "localhost"
        self._port = parts.port or (443 if self._tls else 80)
        self._prefix = parts.path.rstrip("/")
        self._host_header = host_header or parts.netloc.rpartition("@")[2]
        self._keeps = False
        self._kept: _Stream | None = None
        self._opening: asyncio.Task[_Stream] | None = None

    @contextlib.asynccontextmanager
    async def conversation(self) -> AsyncIterator[None]:
        """While inside, connect ahead of the first request, and ask on a connection again that the server keeps."""
        self._keeps = True
        self._opening = asyncio.get_running_loop().create_task(self._open())
        try:
            yield
        finally:
            self._keeps = False
            await self._hang_up()

    async def ask(self, method: str, endpoint: str, body: str = "", *, timeout_s: float) -> Answer:
        """Send one request and read the answer. In a conversation a GET may be sent twice.

        Raises:
            NoAnswer: None came in time, or none that is HTTP.
        """
        try:
            async with asyncio.timeout(timeout_s):
                return await self._exchange(method, endpoint, body.encode())
        except TimeoutError:
            raise NoAnswer(f"did not answer within {timeout_s:g} s") from None
        except ConnectionRefusedError as error:
            raise NoAnswer("refuses connections", lost=True) from error
        except (OSError, EOFError) as error:
            raise NoAnswer("closed the connection without an answer", lost=True) from error
        except ValueError as error:
            raise NoAnswer("answered something that is not HTTP") from error

    async def _exchange(self, method: str, endpoint: str, body: bytes) -> Answer:
        request = self._head(method, endpoint, body) + body
        kept, self._kept = self._kept, None
        if kept is not None and method != "GET":  # what changes something must not be repeated, as this might have to
            await _close(kept)
        elif kept is not None:
            with contextlib.suppress(OSError, EOFError):  # the server was tired of waiting
                return await self._talk(kept, request)
        return await self._talk(await self._connection(), request)

    async def _talk(self, stream: _Stream, request: bytes) -> Answer:
        reader, writer = stream
        try:
            writer.write(request)
            status = 100
            while 100 <= status < 200:
                status, keeps, headers = await _read_head(reader)
            body, whole = (b"", True) if status in {204, 304} else await _read_body(reader, headers)
            if self._keeps and keeps and whole:
                self._kept = stream
            return Answer(status, body)
        finally:
            if self._kept is not stream:
                await _close(stream)

    async def _connection(self) -> _Stream:
        opening, self._opening = self._opening, None
        if opening is not None:
            with contextlib.suppress(OSError):
                stream = reader, _ = await opening
                if not reader.at_eof():
                    return stream
                await _close(stream)  # as above
        return await self._open()

    async def _open(self) -> _Stream:
        host = self._host if self._tls else None
        return await asyncio.open_connection(
            self._host, self._port, ssl=self._tls, server_hostname=host, limit=BODY_BYTES
        )

    async def _hang_up(self) -> None:
        kept, self._kept = self._kept, None
        opening, self._opening = self._opening, None
        if opening is not None:
            opening.cancel()
            with contextlib.suppress(OSError, asyncio.CancelledError):
                await _close(await opening)
        if kept is not None:
            await _close(kept)

    def _head(self, method: str, endpoint: str, body: bytes) -> bytes:
        lines = [
            f"{method} {self._prefix}/{endpoint.lstrip('/')} HTTP/1.1",
            f"Host: {self._host_header}",
            "User-Agent: llmswap",
            "Accept: */*",
            f"Connection: {'keep-alive' if self._keeps else 'close'}",
        ]
        if body:
            lines.append("Content-Type: application/json")
        if body or method not in {"GET", "HEAD"}:
            lines.append(f"Content-Length: {len(body)}")
        return "\r\n".join([*lines, "", ""]).encode()


async def _close(stream: _Stream) -> None:
    _, writer = stream
    writer.transport.abort()
    with contextlib.suppress(OSError):
        await writer.wait_closed()


async def _read_head(reader: asyncio.StreamReader) -> tuple[int, bool, Mapping[str, str]]:
    """Give the status, whether the server keeps the connection, and the headers."""
    line = await reader.readline()
    if not line:
        raise EOFError
    match = _STATUS.match(line)
    if match is None:
        raise ValueError(line)
    headers: dict[str, str] = {}
    for _ in range(_HEADERS_MAX):
        line = await reader.readline()
        if not line.strip():
            keeps = match[1] == b"1" and headers.get("connection", "").lower() != "close"
            return int(match[2]), keeps, headers
        name, _, value = line.decode("latin-1").partition(":")
        headers[name.strip().lower()] = value.strip()
    raise ValueError("too many headers")


async def _read_body(reader: asyncio.StreamReader, headers: Mapping[str, str]) -> tuple[bytes, bool]:
    """Give what is needed of it, and whether that ended with the body."""
    if "chunked" in headers.get("transfer-encoding", "").lower():
        return await _read_chunks(reader)
    if "content-length" in headers:
        length = int(headers["content-length"])
        return await reader.readexactly(min(length, BODY_BYTES)), length <= BODY_BYTES
    body = b""
    while len(body) < BODY_BYTES and (block := await reader.read(BODY_BYTES - len(body))):
        body += block
    return body, False


async def _read_chunks(reader: asyncio.StreamReader) -> tuple[bytes, bool]:
    body = b""
    while size := int((await reader.readline()).partition(b";")[0], 16):
        body += await reader.readexactly(min(size, BODY_BYTES - len(body)))
        if len(body) == BODY_BYTES:
            return body, False
        await reader.readline()
    return body, not (await reader.readline()).strip()
