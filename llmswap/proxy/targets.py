"""Where a request goes on its upstream: path and query as they go on the wire. Pure text, and strict about it."""

import re

from aiohttp import web

from llmswap.proxy.errors import RequestError

# What may stand in a request target: no space, no control character, nothing that is not ASCII.
_PRINTABLE = re.compile(r"[!-~]*")
_ABSOLUTE = re.compile(r"[A-Za-z][A-Za-z0-9+.-]*://[^/?#]*")


def raw_target(request: web.BaseRequest) -> tuple[str, str]:
    """Split the request target as it came: (path, query with its question mark, or empty).

    Raises:
        RequestError: 400, it holds characters that no target may hold.
    """
    raw = request.raw_path
    if not _PRINTABLE.fullmatch(raw):
        raise RequestError(400, "the request target holds characters that must be percent-encoded", "invalid_target")
    absolute = _ABSOLUTE.match(raw)
    if absolute:
        raw = raw[absolute.end() :]
    raw = raw.partition("#")[0]
    path, mark, query = raw.partition("?")
    return path or "/", mark + query


def of_route(request: web.Request) -> str:
    """Give the upstream's target for a model route: the path of the matched route, never the client's spelling of it.

    `/v/...` loses its `/v`, `/audioapi/...` its `/audioapi`; the query stays.

    Raises:
        RequestError: 400, as `raw_target`.
    """
    _, query = raw_target(request)
    resource = request.match_info.route.resource
    assert resource is not None, "a handler runs only for a matched route"
    path = resource.canonical
    for prefix in ("/v/", "/audioapi/"):
        if path.startswith(prefix):
            path = path[len(prefix) - 1 :]
    return path + query
