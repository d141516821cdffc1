"""An error as the client can read it: JSON in its dialect, or text, or a page."""

import html

from aiohttp import web

from llmswap.proxy.dialects import Dialect, error_body
from llmswap.proxy.errors import RequestError


def error_response(error: RequestError, dialect: Dialect, accept: str = "") -> web.Response:
    """Build the whole answer.

    Text or a page only for a client that asks for it and not for JSON as well. A 429 is always JSON: clients that
    retry read it. A `Connection: close` among the error's headers is not only said but done.
    """
    response = _response(error, dialect, accept)
    if error.headers.get("Connection") == "close":
        response.force_close()
    return response


def _response(error: RequestError, dialect: Dialect, accept: str) -> web.Response:
    if error.status != 429 and "application/json" not in accept:
        if "text/plain" in accept:
            return web.Response(status=error.status, headers=error.headers, text=f"llmswap: {error.message}\n")
        if "text/html" in accept:
            page = _page(error)
            return web.Response(status=error.status, headers=error.headers, text=page, content_type="text/html")
    body = error_body(dialect, error.status, error.message, error.code)
    return web.Response(status=error.status, headers=error.headers, body=body, content_type="application/json")


def _page(error: RequestError) -> str:
    title = f"{error.status} - llmswap"
    return (
        f'<!doctype html><html lang="en"><head><meta charset="utf-8"><title>{title}</title></head>'
        f"<body><h1>{title}</h1><p>{html.escape(error.message)}</p></body></html>\n"
    )


def from_http_exception(error: web.HTTPException) -> RequestError:
    """Translate aiohttp's own 4xx and 5xx; the Allow header survives."""
    headers = {"Allow": error.headers["Allow"]} if "Allow" in error.headers else {}
    return RequestError(error.status, error.reason.lower(), headers=headers)
