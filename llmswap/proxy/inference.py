"""One model request, top to bottom: read it, find its model, wait at the gate, send it on, give the lease back."""

import asyncio
import logging
import math
import time
from contextlib import ExitStack, closing
from functools import partial

from aiohttp import web

from llmswap.config.settings import ModelSettings
from llmswap.core.events import Generation
from llmswap.core.fleet import ModelId
from llmswap.core.snapshot import Snapshot
from llmswap.core.states import State
from llmswap.proxy import bodies, dialects, headers, multipart, records, targets
from llmswap.proxy.calls import Body, Call, call_of, fill_nothing, filler
from llmswap.proxy.context import CONTEXT, Context
from llmswap.proxy.dialects import Ask
from llmswap.proxy.errors import RequestError
from llmswap.proxy.hop.head import wants_upgrade
from llmswap.proxy.loading import LoadingStream, shows_loading
from llmswap.proxy.refusals import WAYS_OUT, refusal
from llmswap.proxy.request_keys import DELIVERY, METER, REQUEST_ID
from llmswap.proxy.upstream import UNREACHABLE, Delivery, End, Outgoing
from llmswap.runtime.gate import Lease, Refused, Ticket
from llmswap.runtime.observing import RequestOutcome

log = logging.getLogger(__name__)

NOTICE_LIMIT_S = 0.25  # the news of an exit takes milliseconds


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

            def fill(serving: ModelSettings, name: str | None) -> tuple[Body, int | None]:
                pieces, size = upload.pieces(name or serving.use_model_name or None)
                return spool.stream(pieces), size

            return await serve(context, call_of(context, request, upload.ask, target, head, fill))
    with ExitStack() as held:
        declared = request.content_length
        if declared is not None and declared <= context.limits.json_max:  # more is refused by `read`
            held.enter_context(context.held_bodies.hold(declared))
        body = await bodies.read(request, context.limits)
        if declared is None:
            held.enter_context(context.held_bodies.hold(len(body)))
        ask = _find_ask(request, content_type, body)
        return await serve(context, call_of(context, request, ask, target, head, filler(body, ask, content_type)))


async def infer_by_query(request: web.Request) -> web.StreamResponse:
    """Serve a GET that names its model in the query."""
    context = request.app[CONTEXT]
    head = headers.to_upstream(request, context.loaded.settings.access)
    ask = Ask(request.query.get("model", ""), in_query=True)
    return await serve(context, call_of(context, request, ask, targets.of_route(request), head, fill_nothing))


def _find_ask(request: web.Request, content_type: str, body: bytes) -> Ask:
    """Find the model in a body that is no multipart form: JSON whatever its type says, else an urlencoded form."""
    if "application/json" in content_type:
        return dialects.read_json(body)
    if dialects.looks_like_json(body):
        ask = dialects.read_json(body)
        return ask if ask.model else Ask(request.query.get("model", ""), ask.stream, in_query=True)
    ask = dialects.read_form(body, request.query)
    if not ask.model and content_type and "application/x-www-form-urlencoded" not in content_type:
        raise RequestError(415, "send JSON (Content-Type: application/json) or a form that names its `model`")
    return ask


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
        records.failed(request, error)
        return await loading.fail(error)
    except TimeoutError:
        if not scope.expired():
            raise
        cancelled = RequestError(503, "cancelled by an operator", "cancelled")
        call.record.outcome = RequestOutcome.REFUSED
        if delivery.status:
            raise ConnectionResetError(cancelled.message) from None
        if loading.response is None:
            raise cancelled from None
        return await loading.fail(cancelled)


async def _serve_on(
    context: Context, call: Call, delivery: Delivery, loading: LoadingStream, scope: asyncio.Timeout
) -> web.StreamResponse:
    """Serve on an upstream, and on its next life or another's if it died in the moment the call was sent.

    Once, and only if it died at once: a call that takes an upstream down after a while must not do it twice.
    """
    again = False
    while True:
        with (
            context.gate.enter(call.settings.id, call.caller, call.swap_class) as ticket,
            context.in_flight.listed(ticket.request, scope),
        ):
            records.entered(call.record, ticket, context.loop, context.observer)
            lease = await _lease(context, call, ticket, loading)
            serving = _serving(context, call, lease)
            call.granted(ticket, lease)
            outgoing = call.outgoing(serving)
            records.sends(call.record, outgoing, context.observer)
            sent_s = call.record.sent_s = time.monotonic()
            try:
                return await _forward(context, call, serving, lease, outgoing, delivery, loading)
            except ConnectionError:
                if delivery.end is End.UPSTREAM_DIED:
                    log.warning("%s cut request %s off: %s", lease.model, call.request[REQUEST_ID], delivery.error)
                raise
            except RequestError as error:
                quick = time.monotonic() - sent_s < NOTICE_LIMIT_S
                if again or not quick or loading.response is not None or not _unanswered(error, outgoing):
                    raise
                unanswered = error
            finally:
                call.record.hop_ended_s = time.monotonic()
        if not await _noticed(context, lease.model, lease.generation):
            raise unanswered
        again = True


async def _forward(  # noqa: PLR0913, PLR0917
    context: Context,
    call: Call,
    serving: ModelSettings,
    lease: Lease,
    outgoing: Outgoing,
    delivery: Delivery,
    loading: LoadingStream,
) -> web.StreamResponse:
    """Send it on and meter the answer, asking for usage where nobody else does."""
    measure = context.manners.measure(call.ask, serving, lease.generation, outgoing)
    call.request[METER] = measure.meter
    wish = measure.wish
    try:
        return await context.upstream.forward(
            call.request,
            outgoing if wish is None else wish.outgoing,
            lease.base_url,
            serving.timeouts,
            delivery,
            into=loading.response,
            tap=measure.meter,
            addition=wish,
            sse_error=partial(_upstream_failed, call.target),
        )
    finally:
        context.manners.learn(lease.model, lease.generation, measure, delivery)


def _serving(context: Context, call: Call, lease: Lease) -> ModelSettings:
    """Give the settings of the model that serves.

    Raises:
        RequestError: 503, it stands in for another, and must not or no longer can.
    """
    if lease.model == call.settings.id:
        return call.settings
    if not call.substitutable:
        message = f"{call.settings.id} is not up, and no other model's answer would do here; {WAYS_OUT}"
        raise RequestError(503, message, "would_swap", {"Retry-After": "5"})
    serving = context.loaded.settings.models.get(lease.model)
    if serving is None:
        message = f"{lease.model}, which was to serve in place of {call.settings.id}, has just been removed; try again"
        raise RequestError(503, message, headers={"Retry-After": "1"})
    return serving


def _unanswered(error: RequestError, outgoing: Outgoing) -> bool:
    """Tell whether not a byte of an answer came, and the call can be sent once more."""
    return error.code == UNREACHABLE and (outgoing.body is None or isinstance(outgoing.body, bytes))


async def _noticed(context: Context, model: ModelId, generation: Generation) -> bool:
    """Wait a moment for the news that an upstream that gave no answer has died, if it has."""

    def gone(snapshot: Snapshot) -> bool:
        view = snapshot.upstreams.get(model)
        return view is None or view.generation != generation or view.state is not State.READY

    return await context.loop.wait_for(gone, NOTICE_LIMIT_S)


async def _serve_uncounted(context: Context, call: Call, delivery: Delivery) -> web.StreamResponse:
    """Serve a websocket that counts for nothing (`compat.ignoreWebsockets`): a swap may cut it off.

    A stop does so by itself. A sleep would leave it open, and what came through it would reach a sleeping engine.
    """
    model = call.settings.id
    base_url = context.gate.ready_url(model)
    if base_url is None:
        raise RequestError(409, f"{model} is not ready, and a websocket does not start it", "not_ready")
    outgoing = call.outgoing(call.settings)
    loop = asyncio.get_running_loop()
    served = loop.create_task(
        context.upstream.forward(call.request, outgoing, base_url, call.settings.timeouts, delivery)
    )
    slept = loop.create_task(context.loop.wait_for(partial(_sleeps, model), math.inf))
    try:
        await asyncio.wait((served, slept), return_when=asyncio.FIRST_COMPLETED)
        if served.done():
            return served.result()
        raise ConnectionResetError(f"{model} is put to sleep, and its uncounted websocket with it")
    finally:
        for task in (served, slept):
            task.cancel()
        await asyncio.gather(served, slept, return_exceptions=True)


def _sleeps(model: ModelId, snapshot: Snapshot) -> bool:
    view = snapshot.upstreams.get(model)
    return view is None or view.state in (State.SLEEP_PENDING, State.ASLEEP)


def _upstream_failed(target: str, message: str) -> bytes:
    return dialects.sse_error(dialects.dialect_of(target), 502, message, "upstream_failed")


async def _lease(context: Context, call: Call, ticket: Ticket, loading: LoadingStream) -> Lease:
    try:
        if ticket.waiting and shows_loading(context.loop, call.request, call.settings, call.ask):
            call.head["Accept-Encoding"] = "identity"  # its events continue a stream that is plain
            return await loading.wait(context.loop, ticket)
        return await ticket.lease()
    except Refused as refused:
        call.record.refusal = refused.reject.reason
        raise refusal(context, call.request, ticket.model, refused.reject) from None
