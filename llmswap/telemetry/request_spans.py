"""A request's trace: SERVER, its waits, its tries upstream. Ids come first, spans when it is over."""

from collections.abc import Callable, Mapping
from dataclasses import dataclass

from llmswap.core.commands import RejectReason
from llmswap.core.events import RequestId
from llmswap.core.fleet import ModelId
from llmswap.runtime.observing import HeaderFields, RequestOutcome, RequestRecord
from llmswap.telemetry import request_attributes as told
from llmswap.telemetry import span_names as n
from llmswap.telemetry.lives import Waiter
from llmswap.telemetry.sampling import Sampler
from llmswap.telemetry.spans import Span, SpanKind, Tree, Write
from llmswap.telemetry.trace_context import (
    TraceContext,
    is_this_machine,
    new_span_id,
    new_trace_id,
    parse,
    traceparent,
)

SHORTEST_WAIT_S = 0.001

SwapsWithin = Callable[[ModelId, float, float], tuple[TraceContext, ...]]
"""Gives the swaps to a model that were on at some time between two moments."""


@dataclass(slots=True)
class Wait:
    """One stay in the queue that is over.

    Attributes:
        causes: What it was spent on; empty if nobody knows.
        outcome: admitted, timeout, disconnect or rejected.
    """

    began_s: float
    ended_s: float
    position: int | None
    depth: int
    causes: Mapping[str, float]
    outcome: str
    swaps: tuple[TraceContext, ...]


@dataclass(slots=True)
class Try:
    """One time it was sent upstream; `ended_s` is None for the last one, whose end the record tells."""

    span_id: int
    serving: ModelId
    base_url: str
    began_s: float = 0.0
    ended_s: float | None = None


@dataclass(slots=True)
class RequestTrace:
    """What is kept with a record until it is over.

    Attributes:
        parent: The client's span, if it is trusted; `stranger`, if it is not.
        sampled: None until it is decided.
        waits_since_s: When it began to wait; None while it does not. `waiter`: what is remembered of that.
    """

    trace_id: int
    server_id: int
    parent: TraceContext | None = None
    stranger: TraceContext | None = None
    sampled: bool | None = None
    waits_since_s: float | None = None
    waiter: Waiter | None = None
    waits: tuple[Wait, ...] = ()
    tries: tuple[Try, ...] = ()  # of one that is sampled

    @property
    def context(self) -> TraceContext:
        """Its SERVER span, for those who link to it."""
        return TraceContext(self.trace_id, self.server_id, bool(self.sampled))


class RequestSpans:
    """A RequestObserver that writes a tree for each sampled request.

    Args:
        write: Takes the trees.
        swaps_within: Who a wait is linked to.
        waiter: Finds what is remembered of a request in line.
        backend: Gives the name of a model's engine.
        scheme: Clients are served by: http or https.

    Attributes:
        sampler: In force from now on.
        trusts: Whether a client's trace is continued; None means for clients on this machine.
        waiting: Who waits for each model now, in order of arrival.
        left: Told who ends a wait.
    """

    def __init__(
        self,
        write: Write,
        swaps_within: SwapsWithin,
        waiter: Callable[[RequestId], Waiter | None],
        backend: Callable[[ModelId], str],
        scheme: str,
    ) -> None:
        self.sampler = Sampler()
        self.trusts: bool | None = None
        self.waiting: dict[ModelId, dict[RequestId, RequestTrace]] = {}
        self.left: Callable[[ModelId, RequestId, RequestTrace], None] = _ignore
        self._write = write
        self._swaps_within = swaps_within
        self._waiter = waiter
        self._backend = backend
        self._scheme = scheme

    def waits(self, record: RequestRecord) -> None:
        """Take note that it waits, so that a swap can be linked to it."""
        trace = self._trace(record)
        if record.model is None or record.request is None:
            return
        trace.waits_since_s = record.entered_s
        trace.waiter = self._waiter(record.request)
        self.waiting.setdefault(record.model, {})[record.request] = trace

    def sends(self, record: RequestRecord) -> HeaderFields:
        """Decide, and give the trace context that the upstream shall continue."""
        trace = self._trace(record)
        if trace.waits_since_s is not None:
            self._stops_waiting(record, trace, record.granted_s, told.ADMITTED)
        sampled, span_id = self.decide(trace, missed=record.swap_s is not None), new_span_id()
        if sampled:
            if trace.tries:
                self._gave_up(trace.tries[-1], record)
            sent = Try(span_id, record.serving or record.model or ModelId(""), record.base_url)
            trace.tries = (*trace.tries, sent)
            record.trace_id = f"{trace.trace_id:032x}"
        header = ("traceparent", traceparent(trace.trace_id, span_id, sampled=sampled))
        # What a stranger's tracing system wrote belongs to the stranger's trace.
        return (header, ("tracestate", "")) if record.trace_state and trace.parent is None else (header,)

    def ended(self, record: RequestRecord) -> None:
        """Write its tree, if it is sampled."""
        trace = self._trace(record)
        if trace.waits_since_s is not None:
            self._stops_waiting(record, trace, record.ended_s, told.wait_outcome(record))
        elif trace.sampled is False:
            return
        if trace.tries and _stood_again(record):
            self._gave_up(trace.tries[-1], record)
        self.decide(trace, missed=bool(trace.waits) and not trace.tries)
        if not trace.sampled:
            return
        record.trace_id = f"{trace.trace_id:032x}"
        record.span_id = f"{trace.server_id:016x}"
        self._write(Tree(trace.trace_id, self._spans(record, trace), trace.parent))

    def decide(self, trace: RequestTrace, *, missed: bool) -> bool:
        """Decide whether it is traced, if that is not decided yet."""
        if trace.sampled is None:
            trace.sampled = self.sampler.keeps(trace.trace_id, trace.parent, missed=missed)
        return trace.sampled

    def _trace(self, record: RequestRecord) -> RequestTrace:
        kept = record.trace
        if isinstance(kept, RequestTrace):
            return kept
        remote = parse(record.trace_parent, record.trace_state) if record.trace_parent else None
        if remote is None:
            trace = RequestTrace(new_trace_id(), new_span_id())
        elif is_this_machine(record.remote) if self.trusts is None else self.trusts:
            trace = RequestTrace(remote.trace_id, new_span_id(), parent=remote)
        else:
            trace = RequestTrace(new_trace_id(), new_span_id(), stranger=remote)
        record.trace = trace
        return trace

    def _stops_waiting(self, record: RequestRecord, trace: RequestTrace, at_s: float | None, outcome: str) -> None:
        began_s, model, request = trace.waits_since_s, record.model, record.request
        if began_s is None or at_s is None or model is None or request is None:
            return
        trace.waits_since_s = None
        self.waiting.get(model, {}).pop(request, None)
        self.left(model, request, trace)
        if at_s - began_s <= SHORTEST_WAIT_S:
            return
        swaps = self._swaps_within(model, began_s, at_s)
        causes = (trace.waiter and trace.waiter.causes) or {}
        wait = Wait(began_s, at_s, record.position, record.waiting, causes, outcome, swaps)
        trace.waits = (*trace.waits, wait)

    @staticmethod
    def _gave_up(last: Try, record: RequestRecord) -> None:
        """Close a try that got no answer: the request is sent once more. The record still tells of it."""
        last.began_s = record.sent_s if record.sent_s is not None else 0.0
        last.ended_s = record.hop_ended_s if record.hop_ended_s is not None else last.began_s

    def _spans(self, record: RequestRecord, trace: RequestTrace) -> list[Span]:
        server = told.server_span(record, trace.server_id, self._scheme)
        if trace.stranger is not None:
            server.links = (trace.stranger,)
        spans = [server, *(_queue_span(record, wait, trace.server_id) for wait in trace.waits)]
        for sent in trace.tries:
            span = told.client_span(record, sent.span_id, sent.serving, sent.base_url, self._backend(sent.serving))
            span.parent = trace.server_id
            if sent.ended_s is None:
                told.tell_answer(span, record)
            else:
                span.began_s, span.ended_s = sent.began_s, sent.ended_s
                span.error = True
                span.attributes[n.ERROR_TYPE] = told.UNANSWERED
            spans.append(span)
        return spans


def _queue_span(record: RequestRecord, wait: Wait, parent: int) -> Span:
    span = Span(n.QUEUE, new_span_id(), wait.began_s, wait.ended_s, SpanKind.INTERNAL, parent, links=wait.swaps)
    span.attributes = {
        n.MODEL: told.model_name(record),
        n.DEPTH: wait.depth,
        n.WAIT_OUTCOME: wait.outcome,
        **told.wait_causes(wait.causes),
    }
    if wait.position is not None:
        span.attributes[n.POSITION] = wait.position
    if wait.outcome == told.TIMEOUT or record.refusal is RejectReason.START_TIMEOUT:
        span.error = True
        span.attributes[n.ERROR_TYPE] = RequestOutcome.QUEUE_TIMEOUT
    return span


def _stood_again(record: RequestRecord) -> bool:
    """Whether it went back to the gate after it was sent, and got no further."""
    sent, entered = record.hop_ended_s, record.entered_s
    return sent is not None and entered is not None and entered > sent


def _ignore(model: ModelId, request: RequestId, trace: RequestTrace) -> None:
    del model, request, trace
