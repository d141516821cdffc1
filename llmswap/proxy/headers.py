"""What of a request's head goes to the upstream, and what is added. Knows no body and no route."""

from enum import Enum, auto
from functools import lru_cache

from aiohttp import web
from multidict import CIMultiDict

from llmswap.config.settings import AccessSettings
from llmswap.proxy.errors import RequestError
from llmswap.proxy.origin import is_trusted
from llmswap.proxy.request_keys import REQUEST_ID

# They describe this connection and this framing, not the request; the next hop gets its own.
HOP_BY_HOP = frozenset(
    {
        "connection",
        "content-length",
        "expect",
        "keep-alive",
        "proxy-authenticate",
        "proxy-authorization",
        "proxy-connection",
        "te",
        "trailer",
        "transfer-encoding",
        "upgrade",
    }
)

# What proves who the client is to us is none of the upstream's business.
CREDENTIALS = frozenset({"authorization", "x-api-key", "cookie"})

_FORWARDING = frozenset({"forwarded", "x-real-ip", "x-request-id"})
# What we say ourselves, what is said to us, and what is said to proxies.
_PREFIXES = ("x-forwarded-", "x-llmswap-", "proxy-")


class _Fate(Enum):
    """What becomes of a header."""

    PASSES = auto()
    ENDS_HERE = auto()
    IS_CREDENTIAL = auto()
    IS_INVALID = auto()


@lru_cache(maxsize=512)
def _fate(name: str) -> _Fate:
    name = name.lower()
    if "_" in name:
        return _Fate.IS_INVALID
    if name in CREDENTIALS:
        return _Fate.IS_CREDENTIAL
    ends_here = name in HOP_BY_HOP or name in _FORWARDING or name.startswith(_PREFIXES)
    return _Fate.ENDS_HERE if ends_here else _Fate.PASSES


def to_upstream(request: web.BaseRequest, access: AccessSettings) -> CIMultiDict[str]:
    """Give the end-to-end headers of a request, with our own forwarding headers.

    `Host` stays the client's (llama-swap's rule for local upstreams); `Accept-Encoding` is passed on as it is.

    Raises:
        RequestError: 400, a header name holds an underscore. Servers that fold `_` into `-` would take it for
            another header, past every rule made here.
    """
    passing = (_Fate.PASSES, _Fate.IS_CREDENTIAL) if access.forward_auth else (_Fate.PASSES,)
    named = _named_by_connection(request)
    out: CIMultiDict[str] = CIMultiDict()
    for name, value in request.headers.items():
        fate = _fate(name)
        if fate in passing:
            if not named or name.lower() not in named:
                out.add(name, value)
        elif fate is _Fate.IS_INVALID:
            raise RequestError(400, f"header name {name[:64]!r} holds an underscore; use a hyphen", "invalid_header")
    trusted = is_trusted(request.remote or "", access.trusted_proxies)
    _add_forwarding(request, out, trusted=trusted)
    out["X-Request-Id"] = request[REQUEST_ID]
    return out


def _named_by_connection(request: web.BaseRequest) -> frozenset[str]:
    lines = request.headers.getall("Connection", None)
    if lines is None:
        return frozenset()
    return frozenset(token.strip().lower() for line in lines for token in line.split(",")) - {"host"}


def _add_forwarding(request: web.BaseRequest, out: CIMultiDict[str], *, trusted: bool) -> None:
    peer = request.remote or ""
    theirs = request.headers.getall("X-Forwarded-For", ()) if trusted else ()
    out["X-Forwarded-For"] = ", ".join((*theirs, peer)) if peer else ", ".join(theirs)
    own = {"X-Forwarded-Proto": request.scheme, "X-Forwarded-Host": request.headers.get("Host", "")}
    for name, value in own.items():
        said = (request.headers.get(name) if trusted else None) or value
        if said:
            out[name] = said
