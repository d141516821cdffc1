"""Multipart forms: the model's name found while the upload streams to a spool, and replaced without touching the rest.

Nothing is decoded and put together again: order, part headers and file bytes of the form stay what the client sent.
"""

import re

from aiohttp import web

from llmswap.proxy.bodies import BodyLimits, Piece, Spool, chunks
from llmswap.proxy.dialects import Ask
from llmswap.proxy.errors import RequestError

PARTS_MAX = 64
BOUNDARY_MAX = 100
_PART_HEAD_MAX = 4 * 1024
_MODEL_MAX = 16 * 1024
_PARAMETER = re.compile(r';[ \t]*+([^\s=;"]++)[ \t]*+=[ \t]*+(?:"((?:[^"\\]|\\.)*+)"|([^\s;"]*+))')


class Upload:
    """A multipart body, spooled.

    Attributes:
        ask: What it asks for.
    """

    def __init__(self, spool: Spool, ask: Ask, model_span: tuple[int, int]) -> None:
        self.ask = ask
        self.spool = spool
        self._span = model_span

    def pieces(self, model: str | None = None) -> tuple[tuple[Piece, ...], int]:
        """Give what to send, with another model name if one is given, and its length in bytes."""
        if model is None:
            return ((0, self.spool.size),), self.spool.size
        start, end = self._span
        name = model.encode()
        return ((0, start), name, (end, self.spool.size)), self.spool.size - (end - start) + len(name)


async def receive(request: web.Request, limits: BodyLimits, spool: Spool) -> Upload:
    """Read a multipart body into the spool.

    Raises:
        RequestError: 400 if it is not the multipart form it claims to be, or names several models; and as `chunks`.
    """
    finder = PartFinder(_boundary(request.headers.get("Content-Type", "")))
    async for data in chunks(request, limits.upload_max, limits):
        finder.feed(data)
        await spool.append(data)
    finder.finish()
    return Upload(spool, Ask(finder.model or ""), finder.span)


def _boundary(content_type: str) -> bytes:
    value = _parameter(content_type, "boundary")
    if not value or len(value) > BOUNDARY_MAX or not value.isascii():
        raise _malformed(f"the multipart boundary is missing or not 1 to {BOUNDARY_MAX} ASCII characters")
    return value.encode()


def _parameter(header: str, name: str) -> str:
    """Give a parameter of a header value, empty if it has none of that name. The stdlib's parser is quadratic."""
    for match in _PARAMETER.finditer(header):
        if match[1].lower() == name:
            return match[3] if match[2] is None else re.sub(r"\\(.)", r"\1", match[2])
    return ""


def _malformed(message: str) -> RequestError:
    return RequestError(400, message, "invalid_multipart", {"Connection": "close"})


class PartFinder:
    """Finds the part named `model` in a form that comes in pieces. Holds at most one part head or one model name.

    Attributes:
        model: The value of the field; None until it has been found.
        span: Where that value lies in the body.
    """

    def __init__(self, boundary: bytes) -> None:
        self._delimiter = b"\r\n--" + boundary
        self._buffer = bytearray(b"\r\n")  # lets the first delimiter look like the others
        self._base = -2  # offset in the body of the buffer's start
        self._state = self._in_body
        self._model_from: int | None = None
        self._parts = 0
        self._ended = False
        self.model: str | None = None
        self.span = (0, 0)

    def feed(self, data: bytes) -> None:
        """Take the next piece.

        Raises:
            RequestError: 400.
        """
        if self._ended:
            return  # the epilogue means nothing
        self._buffer += data
        while self._state():
            pass

    def finish(self) -> None:
        """Say that all has been fed.

        Raises:
            RequestError: 400 if the form is cut short.
        """
        if not self._ended:
            raise _malformed("the multipart body ends before its closing boundary")

    def _drop(self, count: int) -> None:
        del self._buffer[:count]
        self._base += count

    def _in_body(self) -> bool:
        at = self._buffer.find(self._delimiter)
        if self._model_from is not None and (at if at >= 0 else len(self._buffer)) > _MODEL_MAX:
            raise _malformed("the `model` field is too long")
        if at < 0:
            if self._model_from is None:
                self._drop(max(0, len(self._buffer) - len(self._delimiter) + 1))
            return False
        if self._model_from is not None:
            self._take_model(at)
        self._drop(at + len(self._delimiter))
        self._state = self._after_delimiter
        return True

    def _take_model(self, at: int) -> None:
        assert self._model_from is not None
        start, self._model_from = self._model_from, None
        if self.model is not None:
            raise _malformed("`model` is given more than once")
        try:
            self.model = self._buffer[start - self._base : at].decode()
        except UnicodeDecodeError:
            raise _malformed("the `model` field is not UTF-8") from None
        self.span = (start, self._base + at)

    def _after_delimiter(self) -> bool:
        if len(self._buffer) < 2:
            return False
        if self._buffer.startswith(b"--"):
            self._ended = True
            self._buffer.clear()
            return False
        self._parts += 1
        if self._parts > PARTS_MAX:
            raise _malformed(f"the multipart body has more than {PARTS_MAX} parts")
        self._state = self._in_head
        return True

    def _in_head(self) -> bool:
        end = self._buffer.find(b"\r\n\r\n")
        if end > _PART_HEAD_MAX or (end < 0 and len(self._buffer) > _PART_HEAD_MAX):
            raise _malformed("a part of the multipart body has too long a head")
        if end < 0:
            return False
        padding, _, head = bytes(self._buffer[:end]).partition(b"\r\n")
        if padding.strip(b" \t"):
            raise _malformed("a multipart boundary is followed by something else than a line end")
        # The blank line's last CRLF stays: an empty part's delimiter begins with it.
        self._drop(end + 2)
        if _names_model(head):
            self._model_from = self._base + 2
        self._state = self._in_body
        return True


def _names_model(head: bytes) -> bool:
    for line in head.decode("utf-8", "replace").split("\r\n"):
        name, _, value = line.partition(":")
        if name.strip().lower() == "content-disposition":
            return _parameter(value.strip(), "name") == "model"
    return False
