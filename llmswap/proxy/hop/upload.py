"""Request bodies on their way to the upstream, no faster than it takes them."""

from collections.abc import AsyncIterator

from llmswap.proxy.errors import RequestError
from llmswap.proxy.hop.connection import Connection
from llmswap.proxy.hop.messages import Delivery, Outgoing

AT_ONCE_MAX = 64 * 1024
"""A body up to this size is written in one go; the socket's buffer takes it."""


async def upload(connection: Connection, outgoing: Outgoing, delivery: Delivery) -> bool:
    """Send the body.

    Returns:
        False if the upstream closed its ears before the end. That is no error here: it may have answered.

    Raises:
        RequestError: 400, if the client sent more or less than it had announced.
    """
    body, size = outgoing.body, outgoing.body_size
    chunked = size is None and not isinstance(body, bytes)
    left = size
    async for part in _slices(body) if isinstance(body, bytes) else body or _slices(b""):
        if not connection.is_open:
            return False
        if left is not None and (left := left - len(part)) < 0:
            break
        if part:
            connection.transport.write(b"%x\r\n%b\r\n" % (len(part), part) if chunked else part)
            delivery.bytes_in += len(part)
            await connection.drain()
    if left:
        raise RequestError(400, "the request body is not as long as announced")
    if chunked:
        connection.transport.write(b"0\r\n\r\n")
    return True


async def _slices(body: bytes) -> AsyncIterator[bytes]:
    for start in range(0, len(body), AT_ONCE_MAX):
        yield body[start : start + AT_ONCE_MAX]
