"""Who asks, as far as it can be told: what swaps are put down to. Never a secret, never a metric's label."""

import ipaddress
import re
from functools import lru_cache

from aiohttp import web

from llmswap.config.settings import AccessSettings
from llmswap.proxy.auth import KeyRing, candidate_key
from llmswap.proxy.origin import client_address
from llmswap.proxy.request_keys import KEY_MARK

CALLER = "X-LLMSwap-Caller"
CALLER_MAX = 64
SECRET_MIN = 8  # characters; a shorter key may be part of a name by chance
_ODD = re.compile(r"[^ -~]")
_LOOPBACK, _PRIVATE, _PUBLIC = "loopback", "private", "public"
_OURS = re.compile(rf"key:.*|{_LOOPBACK}|{_PRIVATE}|{_PUBLIC}", re.IGNORECASE)


def caller_of(request: web.BaseRequest, access: AccessSettings) -> str:
    """Name the caller: as it names itself, else by the key it used, else by the kind of address it comes from."""
    claimed = request.headers.get(CALLER)
    if claimed is not None and (name := _tidy(claimed.strip()[:CALLER_MAX])) and not _betrays(claimed, request, access):
        return name
    if access.api_keys and (mark := request.get(KEY_MARK)):
        return str(mark)
    address = request.remote or ""
    if access.trusted_proxies:
        address = client_address(address, request.headers.get("X-Forwarded-For"), access.trusted_proxies)
    return address_class(address)


@lru_cache(maxsize=1024)
def _tidy(claimed: str) -> str:
    """Make a name of what a client says: printable, and none of the names that only we give."""
    name = _ODD.sub("?", claimed)
    return "" if _OURS.fullmatch(name) else name


def _betrays(claimed: str, request: web.BaseRequest, access: AccessSettings) -> bool:
    """Tell whether a client put a key where its name belongs: the one it presents, or any that is accepted.

    The queue shows names and the journal keeps them. A key that was not asked for may be good elsewhere.
    """
    presented = candidate_key(request.headers)
    keys = access.api_keys if presented is None else (presented, *access.api_keys)
    if any(key == claimed or (len(key) >= SECRET_MIN and key in claimed) for key in keys):
        return True
    # Of hashed keys only whole words can be told. More words than this do not begin in what is shown.
    words = claimed.split(None, CALLER_MAX // 2)[: CALLER_MAX // 2]
    return any(_ring(access.api_keys).recognise(word) for word in words)


@lru_cache(maxsize=1)
def _ring(keys: tuple[str, ...]) -> KeyRing:
    return KeyRing(keys)


def caller_classes(access: AccessSettings) -> tuple[str, ...]:
    """Name every configured key: with `_other`, the closed set of `RequestRecord.caller_class`."""
    return tuple(map(key_mark, KeyRing(access.api_keys).digests))


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
