"""Where a request comes from and where it means to go: Host, Origin, Sec-Fetch-Site, peers and proxies. Pure.

Guards against DNS rebinding (a page whose name was pointed at us) and cross-site requests (a page that makes its
visitor's browser talk to us). Header values are judged as sent, never through a URL parser that mends them.
"""

import ipaddress
import re
import socket
from functools import lru_cache

# What a Host header may look like: a bracketed IPv6 literal or a name, and a port.
_HOST = re.compile(r"(?:\[([0-9A-Fa-f:.]{2,45})\]|([A-Za-z0-9._-]{1,253}))(?::[0-9]{1,5})?")


@lru_cache(maxsize=512)
def host_name(host: str) -> str | None:
    """Take the name out of a Host header: lower case, no port, no brackets, no final dot; None if malformed."""
    match = _HOST.fullmatch(host)
    if match is None:
        return None
    literal, name = match.groups()
    if literal is None:
        return str(name).lower().removesuffix(".") or None
    try:
        return str(ipaddress.IPv6Address(literal))
    except ValueError:
        return None


@lru_cache(maxsize=1)
def _own_name() -> str:
    return socket.gethostname().lower()


@lru_cache(maxsize=512)
def host_allowed(name: str, allowed: tuple[str, ...]) -> bool:
    """Tell whether a host name is one of ours, whatever address the connection came in at.

    Args:
        name: From `host_name`.
        allowed: Further names, from `allowedHosts`.
    """
    if name == "localhost" or name.endswith(".localhost") or name == _own_name():
        return True
    return is_loopback(name) or any(name == host_name(entry) for entry in allowed)


@lru_cache(maxsize=512)
def is_loopback(address: str) -> bool:
    """Tell whether this is a loopback IP literal."""
    try:
        parsed = ipaddress.ip_address(address)
    except ValueError:
        return False
    mapped = getattr(parsed, "ipv4_mapped", None)
    return (mapped or parsed).is_loopback


def cross_site(origin: str | None, fetch_site: str | None, host: str | None, allowed: tuple[str, ...]) -> bool:
    """Tell whether a browser says that another site's page is asking, and that site is not allowed to.

    Args:
        origin: The Origin header.
        fetch_site: The Sec-Fetch-Site header.
        host: The Host header, already checked where it must be.
        allowed: Exact origins, from `allowedOrigins`.
    """
    if origin is not None:
        if origin in allowed:
            return False
        if host is None or origin.lower() not in {f"http://{host.lower()}", f"https://{host.lower()}"}:
            return True
    return fetch_site is not None and fetch_site.strip().lower() not in {"same-origin", "none"}


@lru_cache(maxsize=1024)
def is_trusted(peer: str, trusted: tuple[str, ...]) -> bool:
    """Tell whether the peer is one of the proxies (addresses or networks) whose X-Forwarded-* are believed."""
    try:
        address = ipaddress.ip_address(peer)
        return any(address in ipaddress.ip_network(entry, strict=False) for entry in trusted)
    except ValueError:
        return False


def client_address(peer: str, forwarded_for: str | None, trusted: tuple[str, ...]) -> str:
    """Find the client's address: the peer, or the last hop before the proxies we trust."""
    if forwarded_for is None or not is_trusted(peer, trusted):
        return peer
    address = peer
    for hop in reversed(forwarded_for.split(",")):
        address = hop.strip()
        if not is_trusted(address, trusted):
            break
    return address if _is_address(address) else peer


def _is_address(text: str) -> bool:
    try:
        ipaddress.ip_address(text)
    except ValueError:
        return False
    return True
