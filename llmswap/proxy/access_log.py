"""One line for each request, in llama-swap's words. Builds nothing while the level is off."""

import logging
import re

from aiohttp import web
from aiohttp.abc import AbstractAccessLogger

from llmswap.proxy.context import CONTEXT
from llmswap.proxy.origin import client_address

log = logging.getLogger(__name__)

_SKIPPED = ("/wol-health", "/api/performance", "/metrics")
_UNPRINTABLE = re.compile(r'[^\x20-\x7e]|["\\]')
_USER_AGENT_MAX = 200


class AccessLog(AbstractAccessLogger):
    """What aiohttp calls after each response."""

    @property
    def enabled(self) -> bool:
        """Tell whether anybody reads the lines."""
        return log.isEnabledFor(logging.INFO)

    def log(self, request: web.BaseRequest, response: web.StreamResponse, time: float) -> None:
        """Write the line of a finished request."""
        _write(request, response.status, response.content_length or response.body_length, f"{time:.6f}s")


def write_aborted(request: web.BaseRequest) -> None:
    """Write the line of a request whose client left. 499 is nginx's word for it."""
    if log.isEnabledFor(logging.INFO):
        _write(request, 499, 0, "-")


def _write(request: web.BaseRequest, status: int, size: int, took: str) -> None:
    path = request.rel_url.raw_path
    if path.startswith(_SKIPPED):
        return
    peer = request.remote or "-"
    if isinstance(request, web.Request):
        trusted = request.app[CONTEXT].loaded.settings.access.trusted_proxies
        peer = client_address(peer, request.headers.get("X-Forwarded-For"), trusted)
    agent = request.headers.get("User-Agent", "")[:_USER_AGENT_MAX]
    version = f"HTTP/{request.version.major}.{request.version.minor}"
    log.info(
        'Request %s "%s %s %s" %d %d "%s" %s',
        peer,
        request.method,
        _plain(path),
        version,
        status,
        size,
        _plain(agent),
        took,
    )


def _plain(text: str) -> str:
    return _UNPRINTABLE.sub(lambda found: f"\\x{ord(found[0]):02x}", text)
