"""The record of a request for a model: begun at the door, filled in on its way, closed when its answer is out."""

from aiohttp import web

from llmswap.core.commands import RejectReason
from llmswap.proxy.errors import RequestError
from llmswap.proxy.hop.messages import UNREACHABLE, Delivery, End, Outgoing
from llmswap.proxy.metering.meter import Meter
from llmswap.proxy.request_keys import RECORD, REQUEST_ID
from llmswap.runtime.gate import Lease, Ticket
from llmswap.runtime.loop import RunLoop
from llmswap.runtime.observing import RequestObserver, RequestOutcome, RequestRecord, UpstreamError

STATUS_LEFT = 499  # nginx's word for a client that left


_REFUSED = {
    RejectReason.OVER_LIMIT: RequestOutcome.QUEUE_FULL,
    RejectReason.QUEUE_FULL: RequestOutcome.QUEUE_FULL,
    RejectReason.QUEUE_TIMEOUT: RequestOutcome.QUEUE_TIMEOUT,
    RejectReason.UPSTREAM_FAILED: RequestOutcome.SWAP_FAILED,
    RejectReason.START_TIMEOUT: RequestOutcome.SWAP_FAILED,
    RejectReason.BACKOFF: RequestOutcome.SWAP_FAILED,
    RejectReason.STUCK: RequestOutcome.SWAP_FAILED,
}
_UPSTREAM_ERRORS = {
    UNREACHABLE: UpstreamError.CONNECT,
    "upstream_timeout": UpstreamError.TIMEOUT,
    "upstream_failed": UpstreamError.RESET,
    "upstream_refused": UpstreamError.HTTP_5XX,
}


def begin(request: web.Request, route: str, began_s: float) -> None:
    """Begin the record of a request for a model.

    Args:
        request: It, with its number.
        route: As the URL table has it.
        began_s: When its head was there.
    """
    request[RECORD] = RequestRecord(
        request[REQUEST_ID],
        request.method,
        route,
        request.rel_url.raw_path,
        began_s,
        request.remote or "",
        request.headers.get("traceparent", ""),
        request.headers.get("tracestate", ""),
    )


def recognised(request: web.Request, mark: str) -> None:
    """Note whose key came with it, if it has a record."""
    if RECORD in request:
        request[RECORD].caller_class = mark


def entered(record: RequestRecord, ticket: Ticket, loop: RunLoop, observer: RequestObserver) -> None:
    """Note that it stands at the gate."""
    record.request = ticket.request
    record.entered_s = ticket.arrived_s
    if ticket.waiting:
        record.position = loop.queue_position(ticket.request)
        record.waiting = loop.snapshot().upstreams[ticket.model].waiting
        observer.waits(record)


def granted(record: RequestRecord, ticket: Ticket, lease: Lease) -> None:
    """Note that it got its upstream."""
    record.granted_s = ticket.arrived_s + lease.waited_s
    record.waited_s += lease.waited_s
    if lease.swap_s is not None:
        record.swap_s = lease.swap_s + (record.swap_s or 0.0)
    record.serving, record.generation, record.base_url = lease.model, lease.generation, lease.base_url


def sends(record: RequestRecord, outgoing: Outgoing, observer: RequestObserver) -> None:
    """Give it what the observer wants to go along."""
    for name, value in observer.sends(record):
        outgoing.headers.popall(name, None)
        if value:
            outgoing.headers[name] = value


def failed(request: web.Request, error: BaseException) -> None:
    """Note what kept it from an answer, or cut that off."""
    record = request.get(RECORD)
    if record is None:
        return
    if isinstance(error, RequestError):
        record.upstream_error = _UPSTREAM_ERRORS.get(error.code or "")
        record.error = error.message.partition("\n")[0]
        if record.upstream_error is UpstreamError.HTTP_5XX and error.status < 500:
            record.upstream_error = UpstreamError.HTTP_4XX
    else:
        record.error = f"{type(error).__name__}: {error}"


def close(record: RequestRecord, delivery: Delivery | None, meter: Meter | None) -> None:
    """Note what became of it.

    Args:
        record: With the moment and the status that it ended with.
        delivery: What its client got from an upstream; None if it was sent to none.
        meter: Saw that.
    """
    if delivery is not None:
        _take(record, delivery)
        if meter is not None:
            _measure(record, meter, delivery)
    if record.outcome is None:
        record.outcome = _outcome(record, None if delivery is None else delivery.end)


def _take(record: RequestRecord, delivery: Delivery) -> None:
    record.status = delivery.status or record.status
    record.upstream_status = delivery.upstream_status
    record.bytes_in, record.bytes_out = delivery.bytes_in, delivery.bytes_out
    record.first_byte_s = delivery.first_byte_s
    record.error = record.error or delivery.error
    if delivery.end is End.UPSTREAM_DIED:
        record.upstream_error = record.upstream_error or UpstreamError.RESET
    elif record.upstream_status is not None and record.upstream_status >= 400:
        record.upstream_error = UpstreamError.HTTP_4XX if record.upstream_status < 500 else UpstreamError.HTTP_5XX


def _measure(record: RequestRecord, meter: Meter, delivery: Delivery) -> None:
    """Take what the answer took, now that nobody waits for its last byte."""
    usage = record.usage = meter.usage()
    broken = usage.done is False and not usage.finish_reasons and delivery.end is End.COMPLETE
    if record.upstream_error is None and (broken or usage.failed):
        record.upstream_error = UpstreamError.BAD_STREAM
        record.error = record.error or (
            "the answer's stream lacks its end" if broken else "the answer says that it failed"
        )


def _outcome(record: RequestRecord, end: End | None) -> RequestOutcome:
    if record.refusal is not None:
        return _REFUSED.get(record.refusal, RequestOutcome.REFUSED)
    if end is End.CLIENT_GONE or record.status == STATUS_LEFT:
        return RequestOutcome.CLIENT_DISCONNECT
    if record.upstream_error is UpstreamError.HTTP_4XX or (record.upstream_error is None and record.status < 500):
        return RequestOutcome.CLIENT_ERROR if record.status >= 400 else RequestOutcome.OK
    return RequestOutcome.INTERNAL_ERROR if record.upstream_error is None else RequestOutcome.UPSTREAM_ERROR
