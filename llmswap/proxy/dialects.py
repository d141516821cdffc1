"""How clients speak: where a request names its model, and what an error in a stream looks like. Pure functions."""

import re
from collections.abc import Mapping
from dataclasses import dataclass
from enum import StrEnum
from itertools import accumulate
from urllib.parse import parse_qsl, quote, unquote_plus

import orjson

from llmswap.proxy.errors import RequestError
from llmswap.proxy.jsonedit import TooManyItems, count_members

NESTING_MAX = 200
# More than this costs more memory to parse than the body is long; no real prompt comes near.
CONTAINERS_MAX = 250_000
VALUES_MAX = 2_000_000
FORM_FIELDS_MAX = 1_000
FORM_MAX = 1024 * 1024  # taking it apart costs twenty times its length


class Dialect(StrEnum):
    """Whose shape an error takes."""

    OPENAI = "openai"
    ANTHROPIC = "anthropic"


@dataclass(frozen=True, slots=True)
class Ask:
    """What a request asks for.

    Attributes:
        model: The name as the client wrote it; empty if it named none.
        stream: It wants the answer as events.
        in_query: The query names the model, not the body.
        max_tokens: How long the answer may get, as the client limits it; None if it does not.
        stream_options: It says something about the stream itself.
    """

    model: str
    stream: bool = False
    in_query: bool = False
    max_tokens: int | None = None
    stream_options: bool = False


def dialect_of(path: str) -> Dialect:
    """Tell which dialect the clients of a path speak."""
    return Dialect.ANTHROPIC if path.startswith(("/v1/messages", "/v/messages", "/messages")) else Dialect.OPENAI


# --- finding the model ---------------------------------------------------------------------------------------------

# The key "model", however it is spelt: JSON lets any letter be written as \u00XX.
_MODEL_TOKEN = re.compile(
    rb'"(?:m|\\u006[dD])(?:o|\\u006[fF])(?:d|\\u0064)(?:e|\\u0065)(?:l|\\u006[cC])"[ \t\r\n]*:',
)
_LIMITS = ("max_completion_tokens", "max_tokens", "max_output_tokens", "n_predict")  # the first that is there counts
_STRING = re.compile(rb'"[^"\\]*+(?:\\.[^"\\]*+)*+"', re.DOTALL)
_NOT_BRACKETS = bytes(set(range(256)) - set(b"[]{}"))
_STEP = {ord("["): 1, ord("{"): 1, ord("]"): -1, ord("}"): -1}


def read_json(body: bytes) -> Ask:
    """Find the model in a JSON body that is to be forwarded.

    Strict on purpose: what we route by must be what the upstream reads, whatever its parser does with duplicates.

    Raises:
        RequestError: 400 for anything that is not one JSON object of sane depth with at most one `model`, a string;
            413 if it holds absurdly many values.
    """
    _refuse_bombs(body)
    try:
        data = orjson.loads(body)
    except orjson.JSONDecodeError as error:
        raise RequestError(400, f"the body is not valid JSON: {error.msg}", "invalid_json") from None
    if not isinstance(data, dict):
        raise RequestError(400, "the body must be a JSON object", "invalid_json")
    _refuse_deep(body)
    model = data.get("model", "")
    if not isinstance(model, str):
        raise RequestError(400, "`model` must be a string", "invalid_model")
    if _repeats_model(body):
        raise RequestError(400, "`model` is given more than once", "invalid_model")
    limits = (data[name] for name in _LIMITS if type(data.get(name)) is int and data[name] >= 0)
    streams = data.get("stream") in (True, "true", "1")
    return Ask(model, streams, max_tokens=next(limits, None), stream_options="stream_options" in data)


def looks_like_json(body: bytes) -> bool:
    """Tell whether a body of unknown type is meant as a JSON object."""
    return body.lstrip(b" \t\r\n\xef\xbb\xbf")[:1] == b"{"


def read_form(body: bytes, query: Mapping[str, str]) -> Ask:
    """Find the model in an urlencoded body, else in the query. Beyond FORM_MAX only the query is looked at.

    Raises:
        RequestError: 400 if the form cannot be read or names several models; 413 if it is too large to be searched
            for the only place where a model could be.
    """
    if len(body) > FORM_MAX:
        if "model" not in query:
            raise RequestError(413, f"a form of more than {FORM_MAX} bytes must name its `model` in the query")
        return Ask(query["model"], in_query=True)
    try:
        fields = parse_qsl(body.decode("ascii", "replace"), keep_blank_values=True, max_num_fields=FORM_FIELDS_MAX)
    except ValueError:
        raise RequestError(400, f"the form has more than {FORM_FIELDS_MAX} fields", "invalid_form") from None
    models = [value for key, value in fields if key == "model"]
    if len(models) > 1:
        raise RequestError(400, "`model` is given more than once", "invalid_model")
    return Ask(models[0]) if models else Ask(query.get("model", ""), in_query=True)


def rename_in_query(fields: str, name: str) -> str:
    """Name another model in a query or an urlencoded form; nothing else of it changes."""
    parts = (
        f"{key}={quote(name, safe='')}" if unquote_plus(key) == "model" else part
        for part in fields.split("&")
        for key in [part.partition("=")[0]]
    )
    return "&".join(parts)


def _refuse_bombs(body: bytes) -> None:
    """Refuse what would fill the memory when parsed; parsing itself bounds the depth well above ours."""
    if body.count(b"[") + body.count(b"{") > CONTAINERS_MAX or body.count(b",") > VALUES_MAX:
        raise _too_many_values()


def _refuse_deep(body: bytes) -> None:
    """Look for deep nesting in valid JSON only: in anything else this search for strings could take for ever."""
    if body.count(b"[") + body.count(b"{") <= NESTING_MAX:
        return
    brackets = _STRING.sub(b"", body).translate(None, _NOT_BRACKETS)
    if max(accumulate(map(_STEP.__getitem__, brackets)), default=0) > NESTING_MAX:
        raise RequestError(400, f"the JSON body is nested deeper than {NESTING_MAX}", "invalid_json")


def _repeats_model(body: bytes) -> bool:
    if body.count(b'"model"') < 2 and b"\\u006" not in body:
        return False  # nearly every body
    if len(_MODEL_TOKEN.findall(body)) < 2:
        return False
    try:
        return count_members(body, "model") > 1
    except TooManyItems:
        raise _too_many_values() from None


def _too_many_values() -> RequestError:
    return RequestError(413, "the JSON body holds too many values", "too_many_values")


# --- errors --------------------------------------------------------------------------------------------------------

# status -> (type, code), as llama-swap has them; what it does not answer with is ours
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


def error_body(dialect: Dialect, status: int, message: str, code: str | None = None) -> bytes:
    """Give the error body the clients of a dialect expect, as JSON; OpenAI's carries llama-swap's `src` as well."""
    if dialect is Dialect.ANTHROPIC:
        kind = _ANTHROPIC.get(status, "invalid_request_error" if status < 500 else "api_error")
        return orjson.dumps({"type": "error", "error": {"type": kind, "message": message}})
    other = ("invalid_request_error", "invalid_request") if status < 500 else ("server_error", "internal_error")
    kind, default = _OPENAI.get(status, other)
    error = {"message": message, "type": kind, "param": None, "code": code or default}
    return orjson.dumps({"src": "llmswap", "error": error})


def sse_error(dialect: Dialect, status: int, message: str, code: str | None = None) -> bytes:
    """Give an error as one server-sent event, for a stream whose status is long gone."""
    name = b"event: error\n" if dialect is Dialect.ANTHROPIC else b""
    return name + b"data: " + error_body(dialect, status, message, code) + b"\n\n"
