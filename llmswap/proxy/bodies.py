"""Reading a request's body: bounded in size, in idle time and in total time. Knows nothing of what is inside."""

import asyncio
import tempfile
from collections.abc import AsyncIterator, Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from typing import IO, TypeVar

from aiohttp import web
from aiohttp.http_exceptions import HttpProcessingError

from llmswap.proxy.errors import RequestError

_BATCH = 256 * 1024  # one disk write or read, in a thread so that a slow disk stalls nobody else
_IN_MEMORY = 1024 * 1024
SMALL_BODY = 16 * 1024
_Given = TypeVar("_Given")
_Got = TypeVar("_Got")
_CLOSE = {"Connection": "close"}

# What lies between two offsets of a spool, or bytes to put there instead.
Piece = tuple[int, int] | bytes


@dataclass(frozen=True, slots=True)
class BodyLimits:
    """How much body, and how slowly, a client may send. Sizes in bytes."""

    json_max: int = 32 * 1024 * 1024
    upload_max: int = 256 * 1024 * 1024
    idle_s: float = 30.0
    total_s: float = 300.0


class HeldBodies:
    """Sees to it that bodies kept in memory while their requests wait never add up to more than a budget.

    Args:
        budget: In bytes. Bodies below SMALL_BODY are not counted: the queue's own limit bounds those.
    """

    def __init__(self, budget: int = 256 * 1024 * 1024) -> None:
        self._budget = budget
        self.size = 0

    @contextmanager
    def hold(self, size: int) -> Iterator[None]:
        """Count a body for as long as the block lasts.

        Raises:
            RequestError: 503, there is no room for it now.
        """
        counted = size if size >= SMALL_BODY else 0
        if counted and self.size + counted > self._budget:
            message = f"no room for a body of {size} bytes: too many large requests are waiting or being served"
            raise RequestError(503, message, "too_many_large_bodies", {"Retry-After": "1", **_CLOSE})
        self.size += counted
        try:
            yield
        finally:
            self.size -= counted


async def chunks(request: web.BaseRequest, size_max: int, limits: BodyLimits) -> AsyncIterator[bytes]:
    """Give the body piece by piece as it arrives.

    Raises:
        RequestError: 413 before reading anything if the declared length is too much, or as soon as it is; 408 if the
            client stalls or dawdles; 400 for broken framing. The connection is closed after each of them.
    """
    _refuse_declared(request, size_max)
    content = request.content
    clock = asyncio.get_running_loop().time
    end_s = clock() + limits.total_s
    size = 0
    try:
        while not content.at_eof():
            async with asyncio.timeout_at(min(clock() + limits.idle_s, end_s)):
                data = await content.readany()
            size += len(data)
            if size > size_max:
                raise _too_large(size_max)
            if data:
                yield data
    except TimeoutError:
        raise RequestError(408, "the request body did not arrive in time", "request_timeout", _CLOSE) from None
    except (HttpProcessingError, web.RequestPayloadError):
        raise RequestError(400, "the request body is framed wrongly", "bad_framing", _CLOSE) from None


async def read(request: web.BaseRequest, limits: BodyLimits) -> bytes:
    """Read the whole body into memory.

    Raises:
        RequestError: As `chunks`.
    """
    _refuse_declared(request, limits.json_max)
    content = request.content
    if content.is_eof() and content.exception() is None and content.total_bytes <= limits.json_max:
        return content.read_nowait()  # it came with the head, as nearly all do
    return b"".join([data async for data in chunks(request, limits.json_max, limits)])


def refuse_encoded(request: web.BaseRequest) -> None:
    """Refuse a compressed body: it would have to be inflated to be routed, and small bombs inflate to gigabytes.

    Raises:
        RequestError: 415.
    """
    encoding = request.headers.get("Content-Encoding", "identity").strip().lower()
    if encoding not in {"", "identity"}:
        raise RequestError(415, "send the body uncompressed (no Content-Encoding)", headers=_CLOSE)


def _refuse_declared(request: web.BaseRequest, size_max: int) -> None:
    if (request.content_length or 0) > size_max:
        raise _too_large(size_max)


def _too_large(size_max: int) -> RequestError:
    return RequestError(413, f"the request body is larger than {size_max} bytes", "request_too_large", _CLOSE)


class Spool:
    """A body too large to hold: the first MiB in memory, more of it on disk. Close it, or its file stays open."""

    def __init__(self) -> None:
        self._file: IO[bytes] = tempfile.SpooledTemporaryFile(_IN_MEMORY)  # noqa: SIM115  closed by close()
        self._batch = bytearray()
        self.size = 0

    async def append(self, data: bytes) -> None:
        """Add to the end.

        Raises:
            RequestError: 503, the disk does not take it.
        """
        self._batch += data
        self.size += len(data)
        if len(self._batch) >= _BATCH:
            await self._flush()

    async def _flush(self) -> None:
        batch, self._batch = bytes(self._batch), bytearray()
        try:
            await _in_thread(self._file.write, batch)
        except OSError as error:
            raise RequestError(503, f"no room to spool the upload: {error.strerror}", headers=_CLOSE) from error

    async def stream(self, pieces: tuple[Piece, ...]) -> AsyncIterator[bytes]:
        """Give the pieces one after the other."""
        if self._batch:
            await self._flush()
        for piece in pieces:
            if isinstance(piece, bytes):
                yield piece
                continue
            start, end = piece
            self._file.seek(start)
            while start < end:
                data = await _in_thread(self._file.read, min(_BATCH, end - start))
                assert data, "a piece lies beyond the spool's end"
                start += len(data)
                yield data

    def close(self) -> None:
        """Delete the file."""
        self._file.close()


async def _in_thread(function: Callable[[_Given], _Got], given: _Given) -> _Got:
    """Run in a thread; a caller that is cancelled stays until the thread is done with the file it will close."""
    work = asyncio.get_running_loop().create_task(asyncio.to_thread(function, given))
    try:
        return await asyncio.shield(work)
    except asyncio.CancelledError:
        await asyncio.gather(work, return_exceptions=True)
        raise
