"""What the log's events say of a request for a model, from its record. Pure."""

from llmswap.runtime.logevents import Value
from llmswap.runtime.observing import RequestRecord

COMPLETED = "request.completed"
QUEUE_TIMEOUT = "queue.timeout"
SAMPLED = "01"


def of_model(record: RequestRecord) -> dict[str, Value]:
    """Give what became of it at its model; what nobody knows is None."""
    usage = record.usage
    return {
        "model": record.model,
        "asked": record.asked or None,
        "serving": record.serving,
        "generation": record.generation,
        "status": record.status,
        "upstream_status": record.upstream_status,
        "outcome": record.outcome,
        "refusal": record.refusal,
        "duration_s": None if record.ended_s is None else record.ended_s - record.began_s,
        "waited_s": None if record.entered_s is None else _waited_s(record),
        "swap_s": record.swap_s,
        "residency": None if record.granted_s is None else "hit" if record.swap_s is None else "miss",
        "ttft_s": None if usage.first_token_s is None else usage.first_token_s - record.began_s,
        "input_tokens": usage.input_tokens,
        "cached_tokens": usage.cached_tokens,
        "output_tokens": usage.output_tokens,
        "estimated": True if usage.estimated else None,
        "stream": record.stream,
        "caller": record.caller or None,
        **_trace(record),
        "error": record.error,
    }


def timed_out(record: RequestRecord) -> tuple[str, dict[str, Value]]:
    """Give words and fields for one that waited too long."""
    waited_s = _waited_s(record)
    fields: dict[str, Value] = {
        "id": record.id,
        "model": record.model,
        "waited_s": waited_s,
        "position": record.position,
        "caller": record.caller or None,
        **_trace(record),
    }
    return f"{record.model}: a request waited {waited_s:.1f} s in vain", fields


def _waited_s(record: RequestRecord) -> float:
    """Say how long it stood at the gate: until it was let in, or left."""
    if record.granted_s is not None or record.entered_s is None or record.ended_s is None:
        return record.waited_s
    return record.waited_s + record.ended_s - record.entered_s


def _trace(record: RequestRecord) -> dict[str, Value]:
    if not record.trace_id:
        return {}
    return {"trace_id": record.trace_id, "span_id": record.span_id or None, "trace_flags": SAMPLED}
