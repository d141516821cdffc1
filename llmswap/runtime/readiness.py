"""Is it up: asks a starting upstream until it answers 200, often enough not to be felt, seldom enough to be cheap."""

import asyncio
import contextlib
import ipaddress
import re
import ssl
import time
from urllib.parse import urlsplit

from llmswap.config.settings import Launch
from llmswap.runtime.ports import IpAddress, is_local

PROBE_TIMEOUT_S = 2.0
FIRST_PROBE_S = 0.01
SLOWEST_S = 0.5
# A closed port costs next to nothing to try, so it is tried often: most servers open it when they are ready.
SLOWEST_REFUSED_S = 0.04
CHANGES_MAX = 64
# Probes come so much apart, relative to the time that has passed: what they add to a long start is at most this share.
_SHARE = 0.04

_STATUS = re.compile(rb"HTTP/1\.[01] (\d{3})(?:\s|$)")


class Target:
    """Where an upstream is asked for its health.

    Attributes:
        port: TCP port of the upstream.
        addresses: What to connect to, in order.
        ownable: Its socket must be our tree's (not so for containers and remote hosts: `trustProxy`).
    """

    def __init__(self, launch: Launch) -> None:
        parts = urlsplit(launch.proxy)
        self.tls = parts.scheme == "https"
        self.host = parts.hostname or "localhost"
        self.port = parts.port or (443 if self.tls else 80)
        self.path = parts.path.rstrip("/") + (launch.check_path or "")
        self.host_header = launch.check_host or parts.netloc.rpartition("@")[2]
        self.ownable = not launch.trust_proxy
        self.addresses = _localhost() if self.host == "localhost" else (self.host,)
        self._launch = launch

    @property
    def is_here(self) -> bool:
        """Whether it is certain, before anything is asked, that the port is one of this machine."""
        if self.host == "localhost":
            return True
        try:
            return ipaddress.ip_address(self.host).is_loopback
        except ValueError:
            return False

    def pinned(self, address: IpAddress) -> str:
        """Give the base URL with `localhost` replaced by the address that answered, so that no other can be meant."""
        proxy = self._launch.proxy.rstrip("/")
        if self.host != "localhost":
            return proxy
        parts = urlsplit(proxy)
        shown = f"[{address}]" if address.version == 6 else str(address)
        netloc = shown if parts.port is None else f"{shown}:{parts.port}"
        return parts._replace(netloc=netloc).geturl()


def _localhost() -> tuple[str, ...]:
    """Give the loopback addresses there are. Many containers have no IPv6, and asking it would slow the probes down."""
    with contextlib.suppress(OSError):
        if is_local(ipaddress.IPv6Address("::1")):
            return "127.0.0.1", "::1"
    return ("127.0.0.1",)


class Prober:
    """Asks one target until it is ready.

    Attributes:
        last: What the last probe found, in words, for the reason of a timeout.
        asked: How many probes there were.
        changes: When that changed, monotonic, and to what: the first and the last CHANGES_MAX - 1 of them.
    """

    def __init__(self, target: Target) -> None:
        self.last = "was not asked yet"
        self.asked = 0
        self.changes: list[tuple[float, str]] = []
        self._target = target
        self._refused = True

    async def until_ready(self) -> IpAddress:
        """Return the address that answered 200. Runs until then: the caller has the deadline."""
        began_s = time.monotonic()
        await asyncio.sleep(FIRST_PROBE_S)
        while True:
            for address in self._target.addresses:
                peer = await self._probe(address)
                self._note()
                if peer is not None:
                    return peer
                if not self._refused:
                    break
            slowest_s = SLOWEST_REFUSED_S if self._refused else SLOWEST_S
            await asyncio.sleep(min(slowest_s, max(FIRST_PROBE_S, (time.monotonic() - began_s) * _SHARE)))

    def _note(self) -> None:
        self.asked += 1
        if not self.changes or self.changes[-1][1] != self.last:
            if len(self.changes) == CHANGES_MAX:
                del self.changes[1]
            self.changes.append((time.monotonic(), self.last))

    async def _probe(self, address: str) -> IpAddress | None:
        self._refused = False
        try:
            async with asyncio.timeout(PROBE_TIMEOUT_S):
                status, peer = await self._ask(address)
        except TimeoutError:
            self.last = f"did not answer within {PROBE_TIMEOUT_S:g} s"
        except ConnectionRefusedError:
            self._refused = True
            self.last = "refuses connections"
        except (OSError, ssl.SSLError, asyncio.LimitOverrunError, ValueError) as error:
            self.last = f"cannot be asked: {error}"
        else:
            self.last = f"answered {status}" if status else "answered something that is not HTTP"
            return peer if status == 200 else None
        return None

    async def _ask(self, address: str) -> tuple[int, IpAddress]:
        """Send one GET and read no more than the status line. Redirects are not followed."""
        target = self._target
        tls = ssl.create_default_context() if target.tls else None
        reader, writer = await asyncio.open_connection(
            address, target.port, ssl=tls, server_hostname=target.host if tls else None
        )
        try:
            peer = ipaddress.ip_address(writer.get_extra_info("peername")[0].partition("%")[0])
            head = f"GET {target.path or '/'} HTTP/1.1\r\nHost: {target.host_header}\r\n"
            writer.write(f"{head}User-Agent: llmswap\r\nAccept: */*\r\nConnection: close\r\n\r\n".encode())
            line = await reader.readline()
        finally:
            writer.transport.abort()
            with contextlib.suppress(OSError):
                await writer.wait_closed()
        match = _STATUS.match(line)
        return (int(match[1]) if match else 0), peer
