"""One client connection: aiohttp's protocol with a limit on how long a request head may take, and answers in JSON."""

import asyncio
import logging
from collections import Counter
from collections.abc import Callable
from typing import Any, NoReturn

from aiohttp import web
from aiohttp.web_protocol import RequestHandler

from llmswap.proxy.dialects import Dialect
from llmswap.proxy.errors import RequestError
from llmswap.proxy.rendering import error_response

log = logging.getLogger(__name__)

HEAD_TIMEOUT_S = 10.0
REMOTE_MAX = 512  # connections from other machines, together
REMOTE_MAX_PER_ADDRESS = 64
FAMILIAR_MAX = 4096  # this machine's own programs, and trusted proxies: not held to the limits for strangers
_FAMILIAR = "familiar"


class Crowd:
    """Counts open connections by peer and says when there are too many.

    Args:
        is_familiar: Whether an address is no stranger's.
    """

    def __init__(self, is_familiar: Callable[[str], bool]) -> None:
        self._is_familiar = is_familiar
        self._counts: Counter[str] = Counter()

    def enter(self, address: str) -> str | None:
        """Count a connection in, unless there is no room for it. Returns its place, for `leave`."""
        counts = self._counts
        if self._is_familiar(address):
            place, full = _FAMILIAR, counts[_FAMILIAR] >= FAMILIAR_MAX
        else:
            strangers = counts.total() - counts[_FAMILIAR]
            place, full = address, strangers >= REMOTE_MAX or counts[address] >= REMOTE_MAX_PER_ADDRESS
        if full:
            return None
        counts[place] += 1
        return place

    def leave(self, place: str) -> None:
        """Count a connection out."""
        self._counts[place] -= 1
        if not self._counts[place]:
            del self._counts[place]


class Connection(RequestHandler):
    """A client connection.

    Between requests it may idle for the keep-alive time, but a head once begun, and the first one from the moment
    of connecting, must be complete within HEAD_TIMEOUT_S (aiohttp itself has no such limit).
    """

    __slots__ = ("_crowd", "_head_timer", "_place", "_silent")

    def __init__(self, server: web.Server, crowd: Crowd, *, loop: asyncio.AbstractEventLoop, **settings: Any) -> None:  # noqa: ANN401
        super().__init__(server, loop=loop, **settings)
        self._crowd = crowd
        self._place: str | None = None
        self._head_timer: asyncio.TimerHandle | None = None
        self._silent = True

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        """Begin, if there is room."""
        super().connection_made(transport)
        peername = transport.get_extra_info("peername")
        address = str(peername[0]) if isinstance(peername, tuple) else ""
        self._place = self._crowd.enter(address)
        if self._place is None:
            self._refuse(RequestError(503, "too many connections", headers={"Retry-After": "1"}))
            return
        self._await_head()

    def connection_lost(self, exc: BaseException | None) -> None:
        """End."""
        self._head_done()
        if self._place is not None:
            self._crowd.leave(self._place)
            self._place = None
        super().connection_lost(exc)

    def data_received(self, data: bytes) -> None:
        """Take bytes, and note where heads begin and end."""
        self._silent = False
        between_requests = self._waiter is not None
        super().data_received(data)
        if self._messages:
            self._head_done()
        elif between_requests and self._head_timer is None:
            self._await_head()

    def _await_head(self) -> None:
        self._head_timer = self._loop.call_later(HEAD_TIMEOUT_S, self._head_overdue)

    def _head_done(self) -> None:
        if self._head_timer is not None:
            self._head_timer.cancel()
            self._head_timer = None

    def _head_overdue(self) -> None:
        self._head_timer = None
        if self._silent:
            self.force_close()
            return
        self._refuse(RequestError(408, f"the request head took longer than {HEAD_TIMEOUT_S:g} s"))

    def _refuse(self, error: RequestError) -> None:
        """Answer outside of any request, and close."""
        transport = self.transport
        if isinstance(transport, asyncio.Transport):
            body = error_response(error, Dialect.OPENAI).body
            assert isinstance(body, bytes)
            head = f"HTTP/1.1 {error.status} {web.Response(status=error.status).reason}\r\n"
            headers = {"Content-Type": "application/json", "Content-Length": str(len(body)), "Connection": "close"}
            lines = "".join(f"{name}: {value}\r\n" for name, value in (headers | dict(error.headers)).items())
            transport.write(f"{head}{lines}\r\n".encode() + body)
        self.force_close()

    def retire(self) -> None:
        """Close now if idle, else after the current response."""
        if self._waiter is not None and not self._messages:
            self.force_close()
        else:
            self.close()

    def handle_error(
        self, request: web.BaseRequest, status: int = 500, exc: BaseException | None = None, message: str | None = None
    ) -> NoReturn:
        """Answer a request head that could not be parsed: in JSON, without a traceback in the log, and close.

        What a handler raises is answered by the door; of that, only a bug of the door itself comes here.
        """
        del message
        if isinstance(exc, ConnectionError):
            raise exc
        if status == 400:
            log.debug("refused a malformed request from %s: %s", request.remote, exc)
            self._refuse(RequestError(400, "malformed HTTP request"))
        else:
            log.error("a request failed outside of its handler", exc_info=exc)
            self._refuse(RequestError(status, "internal error"))
        raise ConnectionError("answered, and closed")
