"""Errors a client sees, by blame, in the client's dialect."""

import html
from collections.abc import Mapping
from dataclasses import dataclass, field
from enum import StrEnum
from typing import Any

import orjson
from aiohttp import web


@dataclass(slots=True)
class RequestError(Exception):
    """The answer is this error, and nothing of the response has been sent yet.

    Attributes:
        message: One line: what is wrong and what to do. Never a secret.
        code: OpenAI's machine-readable `error.code`; None takes the status's default.
        headers: Extra response headers (Retry-After, Allow ...).
    """

    status: int
    message: str
    code: str | None = None
    headers: Mapping[str, str] = field(default_factory=dict)

    def __str__(self) -> str:
        return self.message


class ErrorShape(StrEnum):
    """Whose error body a route speaks."""

    OPENAI = "openai"
    ANTHROPIC = "anthropic"


# status -> (type, code), as llama-swap has them; 413 and 415 are ours
_OPENAI = {
    400: ("invalid_request_error", "bad_request"),
    401: ("authentication_error", "unauthorized"),
    403: ("authentication_error", "forbidden"),
    404: ("invalid_request_error", "not_found"),
    405: ("invalid_request_error", "method_not_allowed"),
    408: ("invalid_request_error", "request_timeout"),
    409: ("invalid_request_error", "conflict"),
    413: ("invalid_request_error", "request_too_large"),
    415: ("invalid_request_error", "unsupported_media_type"),
    429: ("rate_limit_error", "rate_limit_exceeded"),
    500: ("server_error", "internal_error"),
    502: ("server_error", "bad_gateway"),
    503: ("server_error", "service_unavailable"),
    504: ("server_error", "gateway_timeout"),
}
_ANTHROPIC = {
    400: "invalid_request_error",
    401: "authentication_error",
    403: "permission_error",
    404: "not_found_error",
    413: "request_too_large",
    429: "rate_limit_error",
    503: "overloaded_error",
    504: "timeout_error",
}


def error_body(error: RequestError, shape: ErrorShape, request_id: str | None = None) -> dict[str, Any]:
    """Give the JSON of an error; also what an SSE error event carries."""
    if shape is ErrorShape.ANTHROPIC:
        kind = _ANTHROPIC.get(error.status, "invalid_request_error" if error.status < 500 else "api_error")
        body: dict[str, Any] = {"type": "error", "error": {"type": kind, "message": error.message}}
        if request_id is not None:
            body["request_id"] = request_id
        return body
    fallback = (
        ("invalid_request_error", "invalid_request") if error.status < 500 else ("server_error", "internal_error")
    )
    kind, code = _OPENAI.get(error.status, fallback)
    detail = {"message": error.message, "type": kind, "param": None, "code": error.code or code}
    return {"src": "llmswap", "error": detail}


def error_response(error: RequestError, shape: ErrorShape, accept: str, request_id: str | None = None) -> web.Response:
    """Build the whole answer: JSON, unless the client plainly asks for text or a page.

    A 429 is always JSON: retrying clients read it. So is an answer to an Accept that also lists JSON.
    """
    if error.status != 429 and "application/json" not in accept:
        if "text/plain" in accept:
            return web.Response(status=error.status, headers=error.headers, text=f"llmswap: {error.message}\n")
        if "text/html" in accept:
            return web.Response(
                status=error.status, headers=error.headers, text=_page(error), content_type="text/html", charset="utf-8"
            )
    body = orjson.dumps(error_body(error, shape, request_id))
    return web.Response(status=error.status, headers=error.headers, body=body, content_type="application/json")


def _page(error: RequestError) -> str:
    title = f"{error.status} - llmswap"
    return (
        f'<!doctype html><html lang="en"><head><meta charset="utf-8"><title>{title}</title></head>'
        f"<body><h1>{title}</h1><p>{html.escape(error.message)}</p></body></html>\n"
    )


def from_http_exception(error: web.HTTPException) -> RequestError:
    """Translate aiohttp's own 4xx and 5xx; their Allow header survives."""
    headers = {"Allow": error.headers["Allow"]} if "Allow" in error.headers else {}
    return RequestError(error.status, error.reason.lower() if error.reason else "error", headers=headers)
