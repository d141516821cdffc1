"""What the spans of a swap say: from what was noted of it to a tree."""

from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass, field

from llmswap.core.events import Generation, RequestId
from llmswap.core.fleet import ModelId
from llmswap.runtime.observing import Phase, PhaseKind
from llmswap.telemetry import span_names as n
from llmswap.telemetry import swap_outcomes
from llmswap.telemetry.request_spans import RequestTrace
from llmswap.telemetry.spans import Span, SpanKind
from llmswap.telemetry.trace_context import TraceContext, new_span_id

SHORTEST_DRAIN_S = 0.001
_NAMES = {
    PhaseKind.STOP: n.STOP,
    PhaseKind.SLEEP: n.SLEEP,
    PhaseKind.FREE_WAIT: n.FREE_WAIT,
    PhaseKind.START: n.START,
    PhaseKind.HEALTH_WAIT: n.HEALTH_WAIT,
    PhaseKind.WAKE: n.WAKE,
    PhaseKind.WARMUP: n.WARMUP,
}
_REASON_CHARS = 200


@dataclass(slots=True)
class Swap:
    """One swap, as it is noted.

    Attributes:
        root_id, start_id: Span ids that are known before their spans are written.
        number: Of the swaps of this run.
        generation: Of the life that is started or woken; None as long as nothing is.
        began_s: When it was decided.
        evicted: Who had to go for it.
        left: Who waited for it and does no more.
        touched_s: When something of it was last heard of.
        links: To the requests that waited, the one that triggered it first; `joined`: how many waited in all.
        drained: From when to when, before it was decided, it had to wait for others to finish.
        thrash: It brought back what had to go a short while before.
    """

    target: ModelId
    trace_id: int
    root_id: int
    start_id: int
    began_s: float
    number: int
    generation: Generation | None = None
    kind: str = ""
    reason: str = ""
    evicted: tuple[ModelId, ...] = ()
    phases: list[Phase] = field(default_factory=list)
    left: list[tuple[RequestId, RequestTrace]] = field(default_factory=list)
    touched_s: float = 0.0
    ended_s: float = 0.0
    outcome: str = ""
    failure: str = ""
    joined: int = 0
    links: tuple[TraceContext, ...] = ()
    drained: tuple[float, float] | None = None
    thrash: bool = False

    @property
    def context(self) -> TraceContext:
        """Its root span."""
        return TraceContext(self.trace_id, self.root_id)


def spans_of(swap: Swap, backend: Callable[[ModelId], str]) -> list[Span]:
    """Give the spans of a swap that is over, the root first."""
    drain = _drain(swap)
    began_s = min([swap.began_s, *(span.began_s for span in drain)])
    root = Span(n.SWAP, swap.root_id, began_s, swap.ended_s, links=swap.links)
    root.events = ((swap.began_s, n.DECIDED, {}),)
    root.attributes = {
        n.FROM_MODEL: ", ".join(swap.evicted),
        n.TO_MODEL: swap.target,
        n.SWAP_ID: str(swap.number),
        n.JOINED: swap.joined,
        n.SWAP_OUTCOME: swap.outcome,
        n.THRASH: swap.thrash,
    }
    if swap.generation is not None:
        root.attributes |= {n.SWAP_KIND: swap.kind, n.SWAP_REASON: swap.reason, n.GENERATION: swap.generation}
    freed = [phase.freed_bytes for phase in swap.phases if phase.freed_bytes is not None]
    if freed:
        root.attributes[n.FREED_BYTES] = sum(freed)
    if swap.outcome != swap_outcomes.OK:
        root.error, root.description = True, swap.failure[:_REASON_CHARS]
        root.attributes[n.ERROR_TYPE] = swap.outcome
    return [root, *drain, *_phases(swap, backend)]


def _drain(swap: Swap) -> list[Span]:
    began_s, ended_s = swap.drained or (0.0, 0.0)
    if ended_s - began_s <= SHORTEST_DRAIN_S:
        return []
    span = Span(n.DRAIN, new_span_id(), began_s, ended_s, parent=swap.root_id)
    span.attributes = {n.MODEL: ", ".join(swap.evicted)}
    return [span]


def _phases(swap: Swap, backend: Callable[[ModelId], str]) -> Iterable[Span]:
    """Give a span for each phase in the order of time, and below it one for each call that it made."""
    calls = [phase for phase in swap.phases if phase.kind is PhaseKind.CALL]
    whole = sorted((phase for phase in swap.phases if phase.kind is not PhaseKind.CALL), key=lambda it: it.began_s)
    starts = [phase for phase in whole if phase.kind is PhaseKind.START]
    for phase in whole:
        mine = [call for call in calls if _holds(phase, call)]
        calls = [call for call in calls if call not in mine]
        span = _span(phase, swap.root_id, backend)
        if starts and phase is starts[-1]:
            span.span_id = swap.start_id  # what its process was told to continue
        yield span
        yield from (_call(call, span.span_id) for call in mine)
    yield from (_call(call, swap.root_id) for call in calls)


def _holds(phase: Phase, call: Phase) -> bool:
    same = (phase.model, phase.generation) == (call.model, call.generation)
    return same and phase.began_s <= call.began_s and call.ended_s <= phase.ended_s


def _span(phase: Phase, parent: int, backend: Callable[[ModelId], str]) -> Span:
    span = Span(_NAMES[phase.kind], new_span_id(), phase.began_s, phase.ended_s, parent=parent)
    span.attributes = {n.MODEL: phase.model, n.BACKEND: backend(phase.model)}
    if phase.pid is not None:
        span.attributes[n.PID] = phase.pid
    if phase.exit_code is not None:
        span.attributes[n.EXIT_CODE] = phase.exit_code
    if phase.freed_bytes is not None:
        span.attributes[n.FREED_BYTES] = phase.freed_bytes
    span.error, span.description = bool(phase.error), phase.error[:_REASON_CHARS]
    span.events = _changes(phase.changes)
    return span


def _changes(changes: Sequence[tuple[float, str]]) -> tuple[tuple[float, str, dict[str, str | bool | int]], ...]:
    return tuple((at_s, n.HEALTH_CHANGED, {n.ANSWER: answer[:_REASON_CHARS]}) for at_s, answer in changes)


def _call(call: Phase, parent: int) -> Span:
    """Give the span of a call to a control API: the path without its query, which may hold what an operator wrote."""
    method, _, target = call.call.partition(" ")
    path = target.partition("?")[0]
    span = Span(f"{method} {path}", new_span_id(), call.began_s, call.ended_s, SpanKind.CLIENT, parent)
    span.attributes = {n.METHOD: method, n.PATH: path, n.MODEL: call.model}
    if call.status is not None:
        span.attributes[n.STATUS] = call.status
    if call.error or (call.status is not None and call.status >= 400):
        span.error = True
        span.description = call.error[:_REASON_CHARS]
        span.attributes[n.ERROR_TYPE] = str(call.status) if call.status is not None else "no_answer"
    return span
