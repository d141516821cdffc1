"""One model request, top to bottom: read it, find its model, wait at the gate, send it on, give the lease back."""

import asyncio
import logging
import math
import time
from contextlib import ExitStack, closing
from dataclasses import dataclass
from functools import partial

from aiohttp import web

from llmswap.config.settings import ModelSettings
from llmswap.core.commands import Reject, RejectReason
from llmswap.core.events import Generation
from llmswap.core.fleet import ModelId
from llmswap.core.snapshot import Snapshot
from llmswap.core.states import State
from llmswap.proxy import bodies, dialects, filters, headers, multipart, targets
from llmswap.proxy.context import CONTEXT, Context
from llmswap.proxy.dialects import Ask, Dialect
from llmswap.proxy.errors import RequestError
from llmswap.proxy.hop.head import wants_upgrade
from llmswap.proxy.loading import LoadingStream, shows_loading
from llmswap.proxy.request_keys import DELIVERY, IS_ADMIN, REQUEST_ID
from llmswap.proxy.upstream import UNREACHABLE, Delivery, End, Outgoing
from llmswap.runtime.gate import Lease, Refused, Ticket

log = logging.getLogger(__name__)

NOTICE_LIMIT_S = 0.25  # the news of an exit takes milliseconds
TAIL_LINES = 20  # of a failed upstream's log, for the operator
_SHOWN = 200  # characters of a client's model name in an error

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
    RejectReason.MODEL_REMOVED: 404,
}
_START_REASONS = frozenset({RejectReason.UPSTREAM_FAILED, RejectReason.START_TIMEOUT})
_CODE = {
    RejectReason.OVER_LIMIT: "concurrency_limit",
    RejectReason.UPSTREAM_FAILED: "start_failed",
    RejectReason.START_TIMEOUT: "start_timeout",
    RejectReason.MODEL_REMOVED: "model_not_found",
}


@dataclass(slots=True)
class Call:
    """A request on its way to a model.

    Attributes:
        ask: What it asks for; its model as the client wrote it.
    """

    request: web.Request
    settings: ModelSettings
    ask: Ask
    outgoing: Outgoing


async def infer(request: web.Request) -> web.StreamResponse:
    """Serve a POST that names its model in the body."""
    context = request.app[CONTEXT]
    head = headers.to_upstream(request, context.loaded.settings.access)
    target = targets.of_route(request)
    bodies.refuse_encoded(request)
    content_type = request.headers.get("Content-Type", "").lower()
    if "multipart/form-data" in content_type:
        with closing(bodies.Spool()) as spool:
            upload = await multipart.receive(request, context.limits, spool)
            settings = find_model(context, upload.ask.model)
            pieces, size = upload.pieces(settings.use_model_name or None)
            outgoing = Outgoing(request.method, target, head, spool.stream(pieces), size)
            return await serve(context, Call(request, settings, upload.ask, outgoing))
    with ExitStack() as held:
        declared = request.content_length
        if declared is not None and declared <= context.limits.json_max:  # more is refused by `read`
            held.enter_context(context.held_bodies.hold(declared))
        body = await bodies.read(request, context.limits)
        if declared is None:
            held.enter_context(context.held_bodies.hold(len(body)))
        ask = _find_ask(request, content_type, body)
        settings = find_model(context, ask.model)
        if "application/json" in content_type:
            body = filters.apply(body, settings, ask.model)
        return await serve(context, Call(request, settings, ask, Outgoing(request.method, target, head, body)))


async def infer_by_query(request: web.Request) -> web.StreamResponse:
    """Serve a GET that names its model in the query."""
    context = request.app[CONTEXT]
    head = headers.to_upstream(request, context.loaded.settings.access)
    ask = Ask(request.query.get("model", ""))
    settings = find_model(context, ask.model)
    outgoing = Outgoing(request.method, targets.of_route(request), head)
    return await serve(context, Call(request, settings, ask, outgoing))


def _find_ask(request: web.Request, content_type: str, body: bytes) -> Ask:
    """Find the model in a body that is no multipart form: JSON whatever its type says, else an urlencoded form."""
    if "application/json" in content_type:
        return dialects.read_json(body)
    if dialects.looks_like_json(body):
        ask = dialects.read_json(body)
        return ask if ask.model else Ask(request.query.get("model", ""), ask.stream)
    ask = dialects.read_form(body, request.query)
    if not ask.model and content_type and "application/x-www-form-urlencoded" not in content_type:
        raise RequestError(415, "send JSON (Content-Type: application/json) or a form that names its `model`")
    return ask


def find_model(context: Context, name: str) -> ModelSettings:
    """Find the model behind the name a client gave.

    Raises:
        RequestError: 404.
    """
    if not name:
        raise RequestError(404, "no model id could be identified; name one in `model`")
    model = context.loaded.fleet.resolve(name)
    if model is None:
        shown = name if len(name) <= _SHOWN else name[:_SHOWN] + "…"
        raise RequestError(404, f"no model {shown!r}; GET /v1/models lists those there are", "model_not_found")
    return context.settings_of(model)


async def serve(context: Context, call: Call) -> web.StreamResponse:
    """Wait for the model's upstream and send the call there; whatever happens, its place is given back.

    Raises:
        RequestError: Refused, failed or cancelled before anything was sent to the client.
        ConnectionResetError: After that; the client's connection is to be aborted.
    """
    request = call.request
    delivery = request[DELIVERY] = Delivery()
    if call.settings.ignore_websockets and request.method == "GET" and wants_upgrade(request):
        return await _serve_uncounted(context, call, delivery)
    loading = LoadingStream(request, call.ask.model)
    try:
        async with asyncio.timeout(None) as scope:
            return await _serve_on(context, call, delivery, loading, scope)
    except RequestError as error:
        if loading.response is None:
            raise
        return await loading.fail(error)
    except TimeoutError:
        if not scope.expired():
            raise
        cancelled = RequestError(503, "cancelled by an operator", "cancelled")
        if delivery.status:
            raise ConnectionResetError(cancelled.message) from None
        if loading.response is None:
            raise cancelled from None
        return await loading.fail(cancelled)


async def _serve_on(
    context: Context, call: Call, delivery: Delivery, loading: LoadingStream, scope: asyncio.Timeout
) -> web.StreamResponse:
    """Serve on the model's upstream, and on its next life if it died in the moment the call was sent.

    Once, and only if it died at once: a call that takes an upstream down after a while must not do it twice.
    """
    again = False
    while True:
        with context.gate.enter(call.settings.id) as ticket, context.in_flight.listed(ticket.request, scope):
            lease = await _lease(context, call, ticket, loading)
            sent_s = time.monotonic()
            try:
                return await context.upstream.forward(
                    call.request,
                    call.outgoing,
                    lease.base_url,
                    call.settings.timeouts,
                    delivery,
                    into=loading.response,
                    sse_error=partial(_upstream_failed, dialects.dialect_of(call.outgoing.target)),
                )
            except ConnectionError:
                if delivery.end is End.UPSTREAM_DIED:
                    log.warning("%s cut request %s off: %s", ticket.model, call.request[REQUEST_ID], delivery.error)
                raise
            except RequestError as error:
                quick = time.monotonic() - sent_s < NOTICE_LIMIT_S
                if again or not quick or loading.response is not None or not _unanswered(error, call.outgoing):
                    raise
                unanswered = error
        if not await _noticed(context, call, lease.generation):
            raise unanswered
        again = True


def _unanswered(error: RequestError, outgoing: Outgoing) -> bool:
    """Tell whether not a byte of an answer came, and the call can be sent once more."""
    return error.code == UNREACHABLE and (outgoing.body is None or isinstance(outgoing.body, bytes))


async def _noticed(context: Context, call: Call, generation: Generation) -> bool:
    """Wait a moment for the news that an upstream that gave no answer has died, if it has."""

    def gone(snapshot: Snapshot) -> bool:
        view = snapshot.upstreams.get(call.settings.id)
        return view is None or view.generation != generation or view.state is not State.READY

    return await context.loop.wait_for(gone, NOTICE_LIMIT_S)


async def _serve_uncounted(context: Context, call: Call, delivery: Delivery) -> web.StreamResponse:
    """Serve a websocket that counts for nothing (`compat.ignoreWebsockets`): a swap may cut it off."""
    base_url = context.gate.ready_url(call.settings.id)
    if base_url is None:
        raise RequestError(409, f"{call.settings.id} is not ready, and a websocket does not start it", "not_ready")
    return await context.upstream.forward(call.request, call.outgoing, base_url, call.settings.timeouts, delivery)


def _upstream_failed(dialect: Dialect, message: str) -> bytes:
    return dialects.sse_error(dialect, 502, message, "upstream_failed")


async def _lease(context: Context, call: Call, ticket: Ticket, loading: LoadingStream) -> Lease:
    try:
        if ticket.waiting and shows_loading(context.loop, call.request, call.settings, call.ask):
            call.outgoing.headers["Accept-Encoding"] = "identity"  # its events continue a stream that is plain
            return await loading.wait(context.loop, ticket)
        return await ticket.lease()
    except Refused as refused:
        raise refusal(context, call.request, ticket.model, refused.reject) from None


def refusal(context: Context, request: web.Request, model: ModelId, reject: Reject) -> RequestError:
    """Say to a client why it was not served."""
    message = "Too many requests" if reject.reason is RejectReason.OVER_LIMIT else reject.detail
    if reject.reason in _START_REASONS and request.get(IS_ADMIN, False):
        tail = context.logs.tail_lines(model, TAIL_LINES)
        message = "\n".join((message, "last log lines:", *tail)) if tail else message
    retry_after_s = reject.retry_after_s
    if reject.reason is RejectReason.OVER_LIMIT:
        retry_after_s = retry_after_s or 1.0
    extra = {} if retry_after_s is None else {"Retry-After": str(max(1, math.ceil(retry_after_s)))}
    return RequestError(_STATUS[reject.reason], message, _CODE.get(reject.reason), extra)
