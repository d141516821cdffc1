"""The one middleware: who may enter which route, and what leaves when something fails.

All checks live in a single middleware because each further one costs every request. What a route asks for (its scope)
is looked up by the matched route object, never by looking at paths: two parsers of one path are one too many.
"""

import asyncio
import logging
import re
import struct
import time
from collections.abc import Awaitable, Callable, Mapping
from dataclasses import dataclass
from enum import StrEnum
from itertools import chain, count
from secrets import token_hex
from socket import SO_LINGER, SOL_SOCKET

from aiohttp import HttpVersion10, HttpVersion11, web
from multidict import CIMultiDictProxy

from llmswap.config.settings import AccessSettings
from llmswap.proxy import origin, records
from llmswap.proxy.auth import CHALLENGE, KeyRing, candidate_key
from llmswap.proxy.bodies import BodyLimits
from llmswap.proxy.callers import key_mark
from llmswap.proxy.context import Context
from llmswap.proxy.dialects import Dialect
from llmswap.proxy.errors import RequestError
from llmswap.proxy.finished import FINISHED
from llmswap.proxy.records import STATUS_LEFT
from llmswap.proxy.rendering import error_response, from_http_exception
from llmswap.proxy.request_keys import IS_ADMIN, KEY_MARK, REQUEST_ID, SERVED, STARTED
from llmswap.proxy.swapping import ANSWERS

log = logging.getLogger(__name__)

Handler = Callable[[web.Request], Awaitable[web.StreamResponse]]

HEAD_BYTES_MAX = 32 * 1024
PREFLIGHT_AGE_S = 86_400

_SAFE_METHODS = frozenset({"GET", "HEAD", "OPTIONS"})
_NEVER_METHODS = frozenset({"TRACE", "CONNECT"})
_METHODS = "GET, POST, PUT, PATCH, DELETE, OPTIONS"
_DEFAULT_HEADERS = "Content-Type, Authorization, Accept, X-Requested-With"
_EXPOSED = ", ".join(("X-Request-Id", "Retry-After", *ANSWERS))
_TOKEN = re.compile(r"[!#$%&'*+.^_`|~0-9A-Za-z-]+")
_REQUEST_ID = re.compile(r"[A-Za-z0-9._:/+=-]{1,128}")
_RESET_ON_CLOSE = struct.pack("ii", 1, 0)


class Scope(StrEnum):
    """What a key must be good for to use a route."""

    OPEN = "open"  # nobody asks
    INFERENCE = "inference"
    METRICS = "metrics"
    READ = "read"
    ADMIN = "admin"


@dataclass(frozen=True, slots=True)
class Route:
    """One line of the URL table.

    Attributes:
        method: `*` for any.
        acts: A GET that changes something (starts or stops a model), so that other sites' pages may not make it.
            HEAD is not answered where that would act, too.
        for_model: Its requests are for a model, and recorded as such.
        takes_body: A client that waits to be asked for its body is asked, if it is not too large for any route.
    """

    method: str
    path: str
    scope: Scope
    handler: Handler
    acts: bool = False
    for_model: bool = False
    takes_body: bool = False
    dialect: Dialect = Dialect.OPENAI


class Door:
    """Lets requests in and sees responses out.

    Args:
        routes: Every route of the application with its line of the table. What is not in it is refused.

    Attributes:
        closing: Connections are to end after their current response.
    """

    def __init__(self, context: Context, routes: Mapping[web.AbstractRoute, Route]) -> None:
        self._context = context
        self._routes = routes
        self._ids = map((token_hex(4) + "-{:x}").format, count(1))
        self._access: AccessSettings | None = None
        self._keys = KeyRing(())
        self._host_checked = True
        self.closing = False

    def knows(self, route: web.AbstractRoute) -> bool:
        """Tell whether the route is in the table."""
        return route in self._routes

    @web.middleware
    async def enter(self, request: web.Request, handler: Handler) -> web.StreamResponse:
        """Check the request, run its handler, turn what it raises into an answer."""
        began_s = time.monotonic()
        offered = request.headers.get("X-Request-Id")
        request[REQUEST_ID] = offered if offered and _REQUEST_ID.fullmatch(offered) else next(self._ids)
        route = self._routes.get(request.match_info.route)
        if route is not None and route.for_model:
            records.begin(request, route.path, began_s)
        try:
            self._admit(request, route)
            if request.method == "OPTIONS":
                return self._preflight(request.headers)
            if "Expect" in request.headers and route is not None and route.takes_body:
                await _expect(request, self._context.limits)
            return await handler(request)
        except asyncio.CancelledError:
            request.app[FINISHED].note(request, STATUS_LEFT, 0, time.monotonic() - began_s)
            raise
        except Exception as error:
            if isinstance(error, web.HTTPException) and error.status < 400:
                raise
            records.failed(request, error)
            return self._failed(request, route, error)

    def _admit(self, request: web.Request, route: Route | None) -> None:
        headers = request.headers
        if sum(map(len, chain.from_iterable(request.raw_headers))) > HEAD_BYTES_MAX:
            raise RequestError(431, f"the request head is larger than {HEAD_BYTES_MAX} bytes")
        access = self._context.loaded.settings.access
        if access is not self._access:
            self._take(access)
        self._check_host(request, access)
        method = request.method
        if method in _NEVER_METHODS:
            raise RequestError(405, f"{method} is not served", headers={"Allow": _METHODS})
        if method == "OPTIONS":
            return
        if route is None:
            raise RequestError(404, "there is nothing at this path")
        guarded = route.acts or route.scope is Scope.ADMIN or method not in _SAFE_METHODS
        if guarded and origin.cross_site(
            headers.get("Origin"), headers.get("Sec-Fetch-Site"), headers.get("Host"), access.allowed_origins
        ):
            message = "a page of another site may not do this; list its origin under `allowedOrigins` if it should"
            raise RequestError(403, message, "cross_site")
        request[IS_ADMIN] = self._authenticate(request, route.scope)
        limit = self._context.limits.upload_max
        if route.takes_body and (request.content_length or 0) > limit:
            raise RequestError(413, f"the request body is larger than {limit} bytes", "request_too_large")

    def _take(self, access: AccessSettings) -> None:
        self._access = access
        self._keys = KeyRing(access.api_keys)
        self._host_checked = not access.api_keys or bool(access.allowed_hosts)

    def _check_host(self, request: web.Request, access: AccessSettings) -> None:
        host = request.headers.get("Host")
        if host is None and request.version == HttpVersion10:
            return  # no browser speaks HTTP/1.0, and only a browser can be tricked with a name
        name = origin.host_name(host or "")
        if name is None:
            raise RequestError(400, "the Host header is malformed", "bad_host")
        if not self._host_checked or origin.host_allowed(name, access.allowed_hosts) or name == _local_address(request):
            return
        message = f"this is not {name[:100]}: list that name under `allowedHosts` in the config if it is"
        raise RequestError(421, message, "host_not_allowed")

    def _authenticate(self, request: web.Request, scope: Scope) -> bool:
        """Tell whether the request comes from an admin.

        Raises:
            RequestError: 401, the route asks for a key and the request has no good one.
        """
        if not self._keys:
            return origin.is_loopback(request.remote or "") and "X-Forwarded-For" not in request.headers
        candidate = candidate_key(request.headers)
        digest = None if candidate is None else self._keys.recognise(candidate)
        if digest is not None:
            mark = request[KEY_MARK] = key_mark(digest)
            records.recognised(request, mark)
            return True
        if scope is Scope.OPEN:
            return False
        message = "unauthorized: invalid or missing API key"
        raise RequestError(401, message, headers={"WWW-Authenticate": CHALLENGE})

    def _preflight(self, headers: CIMultiDictProxy[str]) -> web.Response:
        """Answer OPTIONS: 204 anywhere, with permissions only for allowed origins (see `leave`)."""
        response = web.Response(status=204)
        if self._access is not None and headers.get("Origin") in self._access.allowed_origins:
            requested = headers.get("Access-Control-Request-Headers")
            names = [name.strip() for name in requested.split(",")] if requested else []
            allowed = ", ".join(filter(_TOKEN.fullmatch, names)) if requested else _DEFAULT_HEADERS
            response.headers["Access-Control-Allow-Methods"] = _METHODS
            response.headers["Access-Control-Allow-Headers"] = allowed
            response.headers["Access-Control-Max-Age"] = str(PREFLIGHT_AGE_S)
        return response

    def _failed(self, request: web.Request, route: Route | None, error: Exception) -> web.StreamResponse:
        started: web.StreamResponse | None = request.get(STARTED)
        if started is not None:
            if not isinstance(error, ConnectionError):
                log.error("request %s failed after its response began", request[REQUEST_ID], exc_info=error)
            _abort(request, started)
            return started
        refusal = self._as_refusal(request, error)
        dialect = route.dialect if route is not None else Dialect.OPENAI
        return error_response(refusal, dialect, request.headers.get("Accept", ""))

    def _as_refusal(self, request: web.Request, error: Exception) -> RequestError:
        match error:
            case RequestError():
                return error
            case web.HTTPException():
                return from_http_exception(error)
            case TimeoutError():
                return RequestError(504, "timed out")
            case ConnectionError():
                return RequestError(400, "the connection broke")  # nobody is left to read it
        request_id = request[REQUEST_ID]
        log.error("request %s failed: %s %s", request_id, request.method, request.rel_url.raw_path, exc_info=error)
        return RequestError(500, f"internal error; the log has it under request {request_id}")

    async def leave(self, request: web.Request, response: web.StreamResponse) -> None:
        """Put on every response, streams included, what it must carry."""
        headers = response.headers
        headers["X-Request-Id"] = request.get(REQUEST_ID, "")
        headers["X-Content-Type-Options"] = "nosniff"
        headers.pop("Server", None)
        served = request.get(SERVED)
        if served is not None:
            headers.extend(served.fields)
        if self._access is not None and self._access.allowed_origins:
            headers["Vary"] = f"{headers['Vary']}, Origin" if "Vary" in headers else "Origin"
            asking = request.headers.get("Origin")
            if asking in self._access.allowed_origins:
                headers["Access-Control-Allow-Origin"] = str(asking)
                headers["Access-Control-Expose-Headers"] = _EXPOSED
        if self.closing:
            response.force_close()
            headers["Connection"] = "close"
        request[STARTED] = response


async def _expect(request: web.Request, limits: BodyLimits) -> None:
    """Ask for the body, now that the request may have one."""
    if request.headers["Expect"].lower() != "100-continue":
        raise RequestError(417, "the only expectation served is 100-continue")
    is_upload = request.content_type.startswith("multipart/")
    size_max = limits.upload_max if is_upload else limits.json_max
    if (request.content_length or 0) > size_max:
        raise RequestError(413, f"the request body is larger than {size_max} bytes", "request_too_large")
    if request.version >= HttpVersion11:
        await request.writer.write(b"HTTP/1.1 100 Continue\r\n\r\n")
        request.writer.output_size = 0  # the response itself has not begun


def _local_address(request: web.Request) -> str:
    sockname = request.get_extra_info("sockname")
    return str(sockname[0]) if isinstance(sockname, tuple) else ""


def _abort(request: web.Request, response: web.StreamResponse) -> None:
    """Break the connection, so that the client cannot take what it has for everything.

    Unless that has been done: the hop ends an event stream with an error event, which a reset would overtake.
    """
    transport = request.transport
    if transport is None or transport.is_closing():
        return
    if "Transfer-Encoding" not in response.headers and response.content_length is None:
        # Only the end of the connection ends this body, so the end must be a reset.
        transport.get_extra_info("socket").setsockopt(SOL_SOCKET, SO_LINGER, _RESET_ON_CLOSE)
    transport.abort()
