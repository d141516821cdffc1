"""A refusal of the scheduler's, as the client is told of it."""

import math

from aiohttp import web

from llmswap.core.commands import Reject, RejectReason
from llmswap.core.fleet import ModelId
from llmswap.proxy.context import Context
from llmswap.proxy.errors import RequestError
from llmswap.proxy.request_keys import IS_ADMIN
from llmswap.proxy.swapping import SWAP_CLASS

TAIL_LINES = 20  # of a failed upstream's log, for the operator

_STATUS = {
    RejectReason.OVER_LIMIT: 429,
    RejectReason.QUEUE_FULL: 503,
    RejectReason.QUEUE_TIMEOUT: 503,
    RejectReason.DRAINING: 503,
    RejectReason.UPSTREAM_FAILED: 502,
    RejectReason.START_TIMEOUT: 504,
    RejectReason.BACKOFF: 503,
    RejectReason.STUCK: 503,
    RejectReason.UNLOADED: 503,
    RejectReason.WOULD_SWAP: 503,
    RejectReason.MODEL_REMOVED: 404,
}
_START_REASONS = frozenset({RejectReason.UPSTREAM_FAILED, RejectReason.START_TIMEOUT})
_CODE = {
    RejectReason.OVER_LIMIT: "concurrency_limit",
    RejectReason.UPSTREAM_FAILED: "start_failed",
    RejectReason.START_TIMEOUT: "start_timeout",
    RejectReason.WOULD_SWAP: "would_swap",
    RejectReason.MODEL_REMOVED: "model_not_found",
}
WAYS_OUT = (
    f"send `{SWAP_CLASS}: may-swap` to have it swapped in, or list models that may stand in for it under `substitutes`"
)


def refusal(context: Context, request: web.Request, model: ModelId, reject: Reject) -> RequestError:
    """Say to a client why it was not served."""
    message = reject.detail
    retry_after_s = reject.retry_after_s
    if reject.reason is RejectReason.OVER_LIMIT:
        message = "Too many requests"
        retry_after_s = retry_after_s or 1.0
    elif reject.reason is RejectReason.WOULD_SWAP:
        message = f"{message}; {WAYS_OUT}"
    elif reject.reason in _START_REASONS and request.get(IS_ADMIN, False):
        tail = context.logs.tail_lines(model, TAIL_LINES)
        message = "\n".join((message, "last log lines:", *tail)) if tail else message
    extra = {} if retry_after_s is None else {"Retry-After": str(max(1, math.ceil(retry_after_s)))}
    return RequestError(_STATUS[reject.reason], message, _CODE.get(reject.reason), extra)
