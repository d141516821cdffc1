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
_STATUS = re.compile(rb"HTTP/1\.[01] (\d{3})(?:\s|$)")


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
        self._ahead = False
        self._spare: asyncio.Task[_Stream] | None = None

    @contextlib.asynccontextmanager
    async def ahead(self) -> AsyncIterator[None]:
        """While inside, open the next connection before it is needed: connecting costs more than asking."""
        self._ahead = True
        self._prepare()
        try:
            yield
        finally:
            self._ahead = False
            await self._drop_spare()

    async def ask(self, method: str, endpoint: str, body: str = "", *, timeout_s: float) -> Answer:
        """Send one request on a connection of its own and read the answer.

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
        reader, writer = await self._connection()
        try:
            writer.write(self._head(method, endpoint, body) + body)
            self._prepare()
            status = 100
            while 100 <= status < 200:
                status, headers = await _read_head(reader)
            return Answer(status, b"" if status in {204, 304} else await _read_body(reader, headers))
        finally:
            writer.transport.abort()
            with contextlib.suppress(OSError):
                await writer.wait_closed()

    async def _connection(self) -> _Stream:
        spare, self._spare = self._spare, None
        if spare is not None:
            with contextlib.suppress(OSError):
                reader, writer = await spare
                if not reader.at_eof():
                    return reader, writer
                writer.close()  # the server was tired of waiting
        return await self._open()

    async def _open(self) -> _Stream:
        host = self._host if self._tls else None
        return await asyncio.open_connection(
            self._host, self._port, ssl=self._tls, server_hostname=host, limit=BODY_BYTES
        )

    def _prepare(self) -> None:
        if self._ahead and self._spare is None:
            self._spare = asyncio.get_running_loop().create_task(self._open())

    async def _drop_spare(self) -> None:
        spare, self._spare = self._spare, None
        if spare is not None:
            spare.cancel()
            with contextlib.suppress(OSError, asyncio.CancelledError):
                _, writer = await spare
                writer.close()

    def _head(self, method: str, endpoint: str, body: bytes) -> bytes:
        lines = [
            f"{method} {self._prefix}/{endpoint.lstrip('/')} HTTP/1.1",
            f"Host: {self._host_header}",
            "User-Agent: llmswap",
            "Accept: */*",
            "Connection: close",
        ]
        if body:
            lines.append("Content-Type: application/json")
        if body or method not in {"GET", "HEAD"}:
            lines.append(f"Content-Length: {len(body)}")
        return "\r\n".join([*lines, "", ""]).encode()


async def _read_head(reader: asyncio.StreamReader) -> tuple[int, Mapping[str, str]]:
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
            return int(match[1]), headers
        name, _, value = line.decode("latin-1").partition(":")
        headers[name.strip().lower()] = value.strip()
    raise ValueError("too many headers")


async def _read_body(reader: asyncio.StreamReader, headers: Mapping[str, str]) -> bytes:
    if "chunked" in headers.get("transfer-encoding", "").lower():
        return await _read_chunks(reader)
    if "content-length" in headers:
        return await reader.readexactly(min(int(headers["content-length"]), BODY_BYTES))
    body = b""
    while len(body) < BODY_BYTES and (block := await reader.read(BODY_BYTES - len(body))):
        body += block
    return body


async def _read_chunks(reader: asyncio.StreamReader) -> bytes:
    body = b""
    while size := int((await reader.readline()).partition(b";")[0], 16):
        body += await reader.readexactly(min(size, BODY_BYTES - len(body)))
        if len(body) == BODY_BYTES:
            break
        await reader.readline()
    return body
