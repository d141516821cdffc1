"""Listening: sockets, limits of connections and heads, TLS, and an orderly end."""

import asyncio
import errno
import ipaddress
import logging
import os
import socket
import ssl
from collections.abc import Callable
from functools import partial

from aiohttp import web
from aiohttp.http import HttpRequestParser

from llmswap.config.settings import AccessSettings
from llmswap.proxy.connection import Connection, Crowd
from llmswap.proxy.context import CONTEXT
from llmswap.proxy.finished import Ends
from llmswap.proxy.origin import is_loopback, is_trusted
from llmswap.proxy.routes import DOOR

log = logging.getLogger(__name__)

KEEPALIVE_S = 75.0
LINGERING_S = 1.0  # aiohttp's 10 s would hold every rejected upload that long
LINE_BYTES_MAX = 8 * 1024
HEADERS_MAX = 64
BACKLOG = 1024
TLS_HANDSHAKE_S = 10.0
TLS_SHUTDOWN_S = 2.0
PURE_PARSER_VARIABLE = "LLMSWAP_ALLOW_PURE_PARSER"


class BindRefused(Exception):
    """Listening there would let anybody in; the message names the way out."""


class Server:
    """A listening application."""

    def __init__(self, app: web.Application, runner: web.AppRunner, listener: asyncio.Server, *, tls: bool) -> None:
        self._app = app
        self._runner = runner
        self._listener = listener
        scheme = "https" if tls else "http"
        self.addresses = tuple(f"{scheme}://{_host_port(sock.getsockname())}" for sock in listener.sockets)

    def announce_end(self) -> None:
        """Close each connection after its next response, while new ones are still answered."""
        self._app[DOOR].closing = True

    async def stop_accepting(self) -> None:
        """Stop listening, close idle connections; what is being served goes on."""
        self.announce_end()
        self._listener.close()
        for connection in self._connections():
            connection.retire()

    async def close(self, timeout_s: float) -> None:
        """End: give responses on their way this long, then break them off. Asked again, it does nothing."""
        if self._runner.server is None:
            return
        await self.stop_accepting()
        await self._runner.shutdown()  # ends what never ends by itself
        await self._runner.server.shutdown(timeout_s)
        await self._runner.cleanup()

    def _connections(self) -> list[Connection]:
        connections = self._runner.server.connections if self._runner.server is not None else ()
        return [connection for connection in connections if isinstance(connection, Connection)]


async def serve(app: web.Application, listen: str, tls: ssl.SSLContext | None = None) -> Server:
    """Listen and serve.

    Args:
        app: From `routes.build_app`.
        listen: `host:port`; an empty host means all interfaces, port 0 any free port.
        tls: Serve HTTPS with this certificate.

    Raises:
        OSError: The address cannot be listened on.
        RuntimeError: aiohttp came without its C parser.
    """
    _require_c_parser()
    host, port = parse_listen(listen)
    if tls is not None:
        tls.set_alpn_protocols(["http/1.1"])
    # The runner drives the application's life; connections are ours, so that they can be limited.
    runner = web.AppRunner(app, handler_cancellation=True, access_log=None)
    await runner.setup()
    assert runner.server is not None, "setup makes it"
    try:
        listener = await asyncio.get_running_loop().create_server(
            _connection_factory(app, runner.server),
            host,
            port,
            ssl=tls,
            backlog=BACKLOG,
            ssl_handshake_timeout=None if tls is None else TLS_HANDSHAKE_S,
            ssl_shutdown_timeout=None if tls is None else TLS_SHUTDOWN_S,
        )
    except BaseException:
        await runner.cleanup()
        raise
    return Server(app, runner, listener, tls=tls is not None)


def _connection_factory(app: web.Application, server: web.Server) -> Callable[[], Connection]:
    def is_familiar(address: str) -> bool:
        return is_loopback(address) or is_trusted(address, app[CONTEXT].loaded.settings.access.trusted_proxies)

    return partial(
        Connection,
        server,
        Crowd(is_familiar),
        loop=asyncio.get_running_loop(),
        keepalive_timeout=KEEPALIVE_S,
        lingering_time=LINGERING_S,
        max_line_size=LINE_BYTES_MAX,
        max_field_size=LINE_BYTES_MAX,
        max_headers=HEADERS_MAX,
        auto_decompress=False,
        access_log_class=Ends,
    )


def _require_c_parser() -> None:
    if HttpRequestParser.__module__ == "aiohttp._http_parser" or os.environ.get(PURE_PARSER_VARIABLE) == "1":
        return
    raise RuntimeError(
        "aiohttp runs its slow and more lenient pure-Python HTTP parser: install an aiohttp wheel with C extensions "
        f"and unset AIOHTTP_NO_EXTENSIONS, or set {PURE_PARSER_VARIABLE}=1 to run anyway"
    )


def parse_listen(listen: str) -> tuple[str | None, int]:
    """Split `host:port`, `:port` or `[v6]:port`; the host is None for all interfaces.

    Raises:
        OSError: It is none of them.
    """
    host, separator, port = listen.rpartition(":")
    if not separator or not port.isascii() or not port.isdigit() or int(port) > 65535:
        raise OSError(errno.EINVAL, "give host:port, like 127.0.0.1:8080")
    if host.startswith("[") and host.endswith("]"):
        host = host[1:-1]
    elif ":" in host:
        raise OSError(errno.EINVAL, "put an IPv6 address in brackets, like [::1]:8080")
    return host or None, int(port)


def check_bind(listen: str, access: AccessSettings) -> None:
    """Refuse an address that others can reach while nothing asks them who they are.

    Raises:
        BindRefused: No key protects it, and nobody said that this is intended.
        OSError: The address cannot be understood.
    """
    host, _ = parse_listen(listen)
    if access.api_keys or (host is not None and _is_loopback_host(host)):
        return
    place = host or "all interfaces"
    if not access.allow_unauthenticated:
        raise BindRefused(
            f"refusing to listen on {place} ({listen}) without keys: everybody who can reach this machine could "
            "use and control it. Set `apiKeys` in the config, or listen on 127.0.0.1, or say that it is meant so with "
            "`allowUnauthenticated: true` in the config or --allow-unauthenticated"
        )
    log.warning("listening on %s without keys: everybody who can reach this machine can use and control it", place)


def _is_loopback_host(host: str) -> bool:
    try:
        infos = socket.getaddrinfo(host, None, type=socket.SOCK_STREAM)
    except OSError:
        return False
    addresses = [str(info[4][0]).partition("%")[0] for info in infos]
    return bool(addresses) and all(ipaddress.ip_address(address).is_loopback for address in addresses)


def _host_port(sockname: tuple[str, int]) -> str:
    host, port = sockname[:2]
    return f"[{host}]:{port}" if ":" in host else f"{host}:{port}"
