"""How a client is told no: one line of text for each reason, and when to come back."""

from collections.abc import Iterable

from llmswap.core.commands import Reject, RejectReason
from llmswap.core.events import RequestId
from llmswap.core.fleet import ModelId
from llmswap.core.upstreams import Upstream

SOON_S = 1.0  # the reason may be over at any moment
LATER_S = 5.0  # the reason has lasted a while


def over_limit(request: RequestId, up: Upstream, limit: str, place_in_s: float | None) -> Reject:
    """Refuse because the model takes no more; `limit` says in words which one is used up."""
    detail = f"too many requests for {up.id}: its {limit}"
    return Reject(request, RejectReason.OVER_LIMIT, detail, SOON_S if place_in_s is None else place_in_s)


def queue_full(request: RequestId, queue_max: int, place_in_s: float | None) -> Reject:
    """Refuse because too many wait already."""
    detail = f"the queue is full: {queue_max} requests are waiting"
    return Reject(request, RejectReason.QUEUE_FULL, detail, SOON_S if place_in_s is None else place_in_s)


def queue_timeout(request: RequestId, up: Upstream, place_in_s: float | None) -> Reject:
    """Refuse because the wait was too long."""
    detail = f"{up.id} did not become available within {up.model.queue_timeout_s:g} s"
    return Reject(request, RejectReason.QUEUE_TIMEOUT, detail, LATER_S if place_in_s is None else place_in_s)


def draining(request: RequestId, retry_after_s: float) -> Reject:
    """Refuse because llmswap is going down."""
    return Reject(request, RejectReason.DRAINING, "llmswap is shutting down", retry_after_s)


def upstream_failed(request: RequestId, up: Upstream, now_s: float, *, timed_out: bool) -> Reject:
    """Refuse because the start this request waited for failed."""
    reason = RejectReason.START_TIMEOUT if timed_out else RejectReason.UPSTREAM_FAILED
    return Reject(request, reason, f"{up.id} failed to start: {up.failure}", _backoff_left_s(up, now_s))


def backoff(request: RequestId, up: Upstream, now_s: float) -> Reject:
    """Refuse because the last start failed a moment ago."""
    left_s = _backoff_left_s(up, now_s)
    detail = f"{up.id} failed to start: {up.failure}; the next try is in {left_s:.1f} s"
    return Reject(request, RejectReason.BACKOFF, detail, left_s)


def stuck(request: RequestId, up: Upstream, culprit: Upstream) -> Reject:
    """Refuse because what holds the memory cannot be stopped."""
    what = "it" if culprit is up else culprit.id
    detail = f"{up.id} cannot be started: {what} cannot be stopped: {culprit.failure}"
    return Reject(request, RejectReason.STUCK, detail)


def would_swap(request: RequestId, up: Upstream, evict: Iterable[ModelId], ready_in_s: float | None) -> Reject:
    """Refuse because only a swap could serve it, and it may not cause one."""
    would_go = f", {' and '.join(sorted(evict))} would have to go," if evict else ""
    substitutes = "; no substitute is ready" if up.model.substitutes else ""
    detail = f"{up.id} is not up{would_go} and this request may not cause a swap{substitutes}"
    return Reject(request, RejectReason.WOULD_SWAP, detail, LATER_S if ready_in_s is None else ready_in_s)


def unloaded(request: RequestId, up: Upstream) -> Reject:
    """Refuse because an operator unloaded the model."""
    return Reject(request, RejectReason.UNLOADED, f"{up.id} was unloaded", SOON_S)


def model_removed(request: RequestId, model: ModelId) -> Reject:
    """Refuse because the config no longer has the model."""
    return Reject(request, RejectReason.MODEL_REMOVED, f"{model} was removed from the config")


def _backoff_left_s(up: Upstream, now_s: float) -> float:
    assert up.retry_at_s is not None, f"{up.id} does not back off"
    return up.retry_at_s - now_s
