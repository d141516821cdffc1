"""What the spans of a request say: from its record to names and values, and what counts as an error."""

from collections.abc import Mapping
from functools import lru_cache
from urllib.parse import urlsplit

from llmswap.core.commands import RejectReason
from llmswap.core.fleet import ModelId
from llmswap.runtime.observing import RequestOutcome, RequestRecord, UpstreamError
from llmswap.telemetry import span_names as n
from llmswap.telemetry.names import HIT, MISS, UNKNOWN_MODEL, WAIT_OUTCOMES
from llmswap.telemetry.spans import Span, SpanKind, Value

ADMITTED, TIMEOUT, DISCONNECT, REJECTED = WAIT_OUTCOMES
UNANSWERED = str(UpstreamError.CONNECT)
STATUS_LEFT = 499  # nobody was sent this

_METHODS = frozenset({"GET", "HEAD", "POST", "PUT", "DELETE", "CONNECT", "OPTIONS", "TRACE", "PATCH", "QUERY"})
_OPERATIONS = {
    "chat/completions": "chat",
    "completions": "text_completion",
    "embeddings": "embeddings",
}
_PATH_CHARS = 256
_NAME_CHARS = 128
_REASONS = 8


def server_span(record: RequestRecord, span_id: int, scheme: str) -> Span:
    """Tell what the client asked of us, and got."""
    method = record.method if record.method in _METHODS else "_OTHER"
    span = Span(f"{_spoken(method)} {record.route}", span_id, record.began_s, _end_s(record), SpanKind.SERVER)
    told = span.attributes
    told[n.METHOD] = method
    told[n.ROUTE] = record.route
    told[n.PATH] = record.path[:_PATH_CHARS]
    told[n.SCHEME] = scheme
    if record.remote:
        told[n.CLIENT_ADDRESS] = record.remote
    told[n.REQUEST_ID] = record.id
    told[n.MODEL] = model_name(record)
    if record.asked:
        told[n.REQUEST_MODEL] = record.asked[:_NAME_CHARS]
    if record.entered_s is not None:
        told[n.RESIDENCY] = residency(record)
        told[n.WAIT_S] = record.waited_s
    _tell_stream(span, record)
    _judge(span, record)
    return span


def _tell_stream(span: Span, record: RequestRecord) -> None:
    usage = record.usage
    if not record.stream and not usage.chunks:
        return
    span.attributes[n.CHUNKS] = usage.chunks
    span.attributes[n.STREAM_BYTES] = record.bytes_out
    if usage.max_gap_s is not None:
        span.attributes[n.MAX_GAP_S] = usage.max_gap_s


def _judge(span: Span, record: RequestRecord) -> None:
    """Say how it ended. A client that left is no error: pressing Stop is normal in chat clients. Nor is a 4xx."""
    outcome = record.outcome or RequestOutcome.INTERNAL_ERROR
    span.attributes[n.OUTCOME] = str(outcome)
    if record.status and record.status != STATUS_LEFT:
        span.attributes[n.STATUS] = record.status
    if outcome is RequestOutcome.CLIENT_DISCONNECT:
        span.attributes[n.ERROR_TYPE] = str(outcome)
    elif record.status >= 500 or (outcome not in _FINE and record.status < 400):
        span.error = True
        span.attributes[n.ERROR_TYPE] = str(outcome)


_FINE = frozenset({RequestOutcome.OK, RequestOutcome.CLIENT_ERROR})


def client_span(record: RequestRecord, span_id: int, serving: ModelId, base_url: str, backend: str) -> Span:
    """Tell what was asked of an upstream. What came of it: `tell_answer`."""
    method = record.method if record.method in _METHODS else "_OTHER"
    operation = operation_of(record.route)
    name = f"{operation} {serving}" if operation else f"{_spoken(method)} {record.route}"
    began_s = record.sent_s if record.sent_s is not None else _end_s(record)
    ended_s = record.hop_ended_s if record.hop_ended_s is not None else _end_s(record)
    span = Span(name, span_id, began_s, max(began_s, ended_s), SpanKind.CLIENT)
    told = span.attributes
    if operation:
        told[n.OPERATION] = operation
    told[n.PROVIDER] = backend
    told[n.REQUEST_MODEL] = serving
    told[n.REQUEST_STREAM] = record.stream
    if record.max_tokens is not None:
        told[n.REQUEST_MAX_TOKENS] = record.max_tokens
    told[n.METHOD] = method
    host, port = _address(base_url)
    told[n.SERVER_ADDRESS] = host
    told[n.SERVER_PORT] = port
    return span


def tell_answer(span: Span, record: RequestRecord) -> None:
    """Add what the upstream answered to a CLIENT span."""
    usage, told = record.usage, span.attributes
    first_s = usage.first_token_s if usage.first_token_s is not None else record.first_byte_s
    if first_s is not None and first_s >= span.began_s:
        told[n.TIME_TO_FIRST_CHUNK] = first_s - span.began_s
        span.events = ((first_s, n.FIRST_CHUNK, {}),)
    if record.upstream_status is not None:
        told[n.STATUS] = record.upstream_status
    if usage.response_model:
        told[n.RESPONSE_MODEL] = usage.response_model[:_NAME_CHARS]
    if usage.finish_reasons:
        told[n.FINISH_REASONS] = tuple(reason[:_NAME_CHARS] for reason in usage.finish_reasons[:_REASONS])
    for name, count in (
        (n.INPUT_TOKENS, usage.input_tokens),
        (n.OUTPUT_TOKENS, usage.output_tokens),
        (n.CACHED_TOKENS, usage.cached_tokens),
        (n.REASONING_TOKENS, usage.reasoning_tokens),
    ):
        if count is not None:
            told[name] = count
    if usage.estimated:
        told[n.ESTIMATED] = True
    failure = _failure(record)
    if failure:
        span.error = True
        told[n.ERROR_TYPE] = failure


def _failure(record: RequestRecord) -> str:
    """Name what is wrong with an upstream's answer. That its client left is nothing of its doing."""
    if record.upstream_status is not None and record.upstream_status >= 400:
        return str(record.upstream_status)
    if record.upstream_error is not None:
        return str(record.upstream_error)
    broken = record.usage.failed or record.usage.done is False
    if broken and record.outcome is not RequestOutcome.CLIENT_DISCONNECT:
        return str(UpstreamError.BAD_STREAM)
    return ""


def wait_outcome(record: RequestRecord) -> str:
    """Say how a wait ended that led to no upstream."""
    if record.refusal is RejectReason.QUEUE_TIMEOUT:
        return TIMEOUT
    return DISCONNECT if record.outcome is RequestOutcome.CLIENT_DISCONNECT else REJECTED


def wait_causes(causes: Mapping[str, float]) -> dict[str, Value]:
    """Say what a wait was spent on, and on what most of it: as metrics count it."""
    spent: dict[str, Value] = {n.WAIT_PART_S.format(cause): seconds for cause, seconds in causes.items() if seconds > 0}
    return {n.WAIT_CAUSE: max(causes, key=causes.__getitem__), **spent} if spent else {}


def residency(record: RequestRecord) -> str:
    """Say whether the model was up, or a swap was needed; what never got an upstream missed one."""
    return HIT if record.granted_s is not None and record.swap_s is None else MISS


def model_name(record: RequestRecord) -> str:
    """Name the model of the configuration that was asked for."""
    return record.model or UNKNOWN_MODEL


@lru_cache(maxsize=256)
def operation_of(route: str) -> str:
    """Give OpenTelemetry's name of what a route does; empty if it has none."""
    return _OPERATIONS.get(route.removeprefix("/v1/").removeprefix("/v/"), "")


@lru_cache(maxsize=256)
def _address(base_url: str) -> tuple[str, int]:
    parts = urlsplit(base_url)
    return parts.hostname or "", parts.port or (443 if parts.scheme == "https" else 80)


def _spoken(method: str) -> str:
    return "HTTP" if method == "_OTHER" else method


def _end_s(record: RequestRecord) -> float:
    return record.ended_s if record.ended_s is not None else record.began_s
