"""Connections to upstreams: opening them, and keeping idle ones for a while."""

import asyncio
import socket
import ssl
import time
from collections import deque
from dataclasses import dataclass
from functools import cache, lru_cache
from urllib.parse import urlsplit

from llmswap.config.settings import Timeouts
from llmswap.proxy.hop.connection import Connection
from llmswap.proxy.hop.messages import UpstreamFault

_IDLE_MAX = 256
_SWEEP_S = 5.0


@dataclass(frozen=True, slots=True)
class Address:
    """Where an upstream listens.

    Attributes:
        prefix: Base path, without a trailing slash.
    """

    host: str
    port: int
    tls: bool
    prefix: str

    def __str__(self) -> str:
        return f"{self.host}:{self.port}"


@lru_cache(maxsize=1024)
def parse_address(base_url: str) -> Address:
    """Take a base URL apart.

    Raises:
        ValueError: It is not an http or https URL.
    """
    url = urlsplit(base_url)
    if url.scheme not in ("http", "https") or not url.hostname:
        raise ValueError(f"not an http or https URL: {base_url}")
    tls = url.scheme == "https"
    return Address(url.hostname, url.port or (443 if tls else 80), tls, url.path.rstrip("/"))


@cache
def _tls_context() -> ssl.SSLContext:
    return ssl.create_default_context()


class Pool:
    """Idle connections, newest first. A connection that lies idle too long is closed by the next sweep."""

    def __init__(self) -> None:
        self._idle: dict[Address, deque[tuple[Connection, float]]] = {}
        self._sweeper: asyncio.TimerHandle | None = None
        self._closed = False

    def take(self, address: Address) -> Connection | None:
        """Give an idle connection that is still open."""
        idle = self._idle.get(address)
        while idle:
            connection, _ = idle.pop()
            if connection.is_open:
                return connection
        return None

    def give(self, address: Address, connection: Connection, idle_s: float | None) -> None:
        """Keep a connection for later, for at most `idle_s`; None for as long as the upstream likes."""
        idle = self._idle.setdefault(address, deque())
        if self._closed or len(idle) >= _IDLE_MAX or not connection.is_open:
            connection.transport.close()
            return
        idle.append((connection, time.monotonic() + idle_s if idle_s is not None else float("inf")))
        if self._sweeper is None:
            self._sweeper = asyncio.get_running_loop().call_later(min(idle_s or _SWEEP_S, _SWEEP_S), self._sweep)

    def _sweep(self) -> None:
        now_s = time.monotonic()
        for address, idle in list(self._idle.items()):
            while idle and (idle[0][1] <= now_s or not idle[0][0].is_open):
                idle.popleft()[0].transport.close()
            if not idle:
                del self._idle[address]
        self._sweeper = asyncio.get_running_loop().call_later(_SWEEP_S, self._sweep) if self._idle else None

    def close(self) -> None:
        """Close all idle connections, and keep none from now on."""
        self._closed = True
        if self._sweeper is not None:
            self._sweeper.cancel()
            self._sweeper = None
        for idle in self._idle.values():
            for connection, _ in idle:
                connection.transport.close()
        self._idle.clear()


async def connect(address: Address, timeouts: Timeouts) -> Connection:
    """Open a connection.

    Raises:
        UpstreamFault: 502 if it is refused, 504 if it takes too long.
    """
    loop = asyncio.get_running_loop()
    tls_handshake_s = timeouts.tls_handshake_s if address.tls else None
    try:
        async with asyncio.timeout(timeouts.connect_s):
            transport, connection = await loop.create_connection(
                Connection,
                address.host,
                address.port,
                ssl=_tls_context() if address.tls else None,
                ssl_handshake_timeout=tls_handshake_s,
            )
    except TimeoutError as error:
        raise UpstreamFault(f"the upstream at {address} did not accept a connection in time", status=504) from error
    except OSError as error:
        raise UpstreamFault(f"cannot connect to the upstream at {address}: {error.strerror or error}") from error
    if timeouts.keepalive_s is not None:
        _probe(transport.get_extra_info("socket"), timeouts.keepalive_s)
    return connection


def _probe(sock: socket.socket, every_s: float) -> None:
    """Let the kernel find out when the upstream's host is gone without a word."""
    sock.setsockopt(socket.SOL_SOCKET, socket.SO_KEEPALIVE, 1)
    for option in ("TCP_KEEPIDLE", "TCP_KEEPINTVL"):
        if hasattr(socket, option):
            sock.setsockopt(socket.IPPROTO_TCP, getattr(socket, option), max(1, int(every_s)))
