"""Who asks, as far as it can be told: what swaps are put down to. Never a secret, never a metric's label."""

import ipaddress
import re
from functools import lru_cache

from aiohttp import web

from llmswap.config.settings import AccessSettings
from llmswap.proxy.origin import client_address
from llmswap.proxy.request_keys import KEY_MARK

CALLER = "X-LLMSwap-Caller"
CALLER_MAX = 64
_ODD = re.compile(r"[^ -~]")
_LOOPBACK, _PRIVATE, _PUBLIC = "loopback", "private", "public"
_OURS = re.compile(rf"key:.*|{_LOOPBACK}|{_PRIVATE}|{_PUBLIC}", re.IGNORECASE)


def caller_of(request: web.BaseRequest, access: AccessSettings) -> str:
    """Name the caller: as it names itself, else by the key it used, else by the kind of address it comes from."""
    claimed = request.headers.get(CALLER)
    if claimed is not None and (name := _tidy(claimed)):
        return name
    if access.api_keys and (mark := request.get(KEY_MARK)):
        return str(mark)
    address = request.remote or ""
    if access.trusted_proxies:
        address = client_address(address, request.headers.get("X-Forwarded-For"), access.trusted_proxies)
    return address_class(address)


@lru_cache(maxsize=1024)
def _tidy(claimed: str) -> str:
    """Make a name of what a client says: bounded, printable, and none of the names that only we give."""
    name = _ODD.sub("?", claimed.strip())[:CALLER_MAX]
    return "" if _OURS.fullmatch(name) else name


def key_mark(digest: bytes) -> str:
    """Name a key by the beginning of its SHA-256 digest."""
    return f"key:{digest[:4].hex()}"


@lru_cache(maxsize=1024)
def address_class(address: str) -> str:
    """Tell this machine's addresses and those of private networks from the rest; what is no address is of the rest."""
    try:
        parsed = ipaddress.ip_address(address.partition("%")[0])
    except ValueError:
        return _PUBLIC
    parsed = getattr(parsed, "ipv4_mapped", None) or parsed
    if parsed.is_loopback:
        return _LOOPBACK
    return _PUBLIC if parsed.is_global else _PRIVATE
