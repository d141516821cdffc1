"""Error bodies, in each persona's shape, and in Anthropic's on its routes."""

import json

from aiohttp import web

LLAMACPP_TYPES = {400: "invalid_request_error", 404: "not_found_error", 501: "not_supported_error",
                  503: "unavailable_error"}  # fmt: skip
OPENAI_TYPES = {400: "BadRequestError", 404: "NotFoundError", 429: "RateLimitError", 503: "ServiceUnavailableError"}
ANTHROPIC_TYPES = {400: "invalid_request_error", 404: "not_found_error", 429: "rate_limit_error",
                   503: "overloaded_error"}  # fmt: skip


def error_body(persona: str, path: str, status: int, message: str) -> dict[str, object]:
    """Give the JSON body of an error."""
    if path.startswith("/v1/messages"):
        kind = ANTHROPIC_TYPES.get(status, "api_error")
        return {"type": "error", "error": {"type": kind, "message": message}}
    if persona == "llamacpp":
        return {"error": {"code": status, "message": message, "type": LLAMACPP_TYPES.get(status, "server_error")}}
    kind = OPENAI_TYPES.get(status, "InternalServerError")
    return {"error": {"message": message, "type": kind, "param": None, "code": status}}


def error_response(
    persona: str, path: str, status: int, message: str, headers: dict[str, str] | None = None
) -> web.Response:
    """Give a whole error response."""
    text = json.dumps(error_body(persona, path, status, message))
    return web.Response(status=status, text=text, content_type="application/json", headers=headers)
