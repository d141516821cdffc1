"""A swap's trace: its own root, until the model is up or will not be; its phases below it.

It begins with the decision, or, if that had to wait for busy ones to finish, with that wait.

A wake that fails and the cold start that follows are two swaps, as in the metrics: the first ends when what it left is
gone and its memory free, the second begins there. Requests that waited for both are linked to both.
"""

import math
from collections import deque
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, field
from itertools import count

from llmswap.core.commands import Dispatch, Sleep, Start, StartCause, Stop, Wake
from llmswap.core.events import (
    Event,
    Generation,
    RequestId,
    StartFailed,
    StopFailed,
    UpstreamAsleep,
    UpstreamExited,
    UpstreamReady,
    UpstreamStopped,
    WakeFailed,
)
from llmswap.core.fleet import ModelId
from llmswap.core.step import Step
from llmswap.runtime.observing import Phase
from llmswap.telemetry import swap_outcomes
from llmswap.telemetry.backends import Backend
from llmswap.telemetry.lives import Life
from llmswap.telemetry.names import COLD
from llmswap.telemetry.request_spans import RequestSpans, RequestTrace
from llmswap.telemetry.spans import Tree, Write
from llmswap.telemetry.swap_tree import Swap, spans_of
from llmswap.telemetry.trace_context import TraceContext, new_span_id, new_trace_id, traceparent

LINKS_MAX = 128
_PAST_KEPT = 8

_Run = tuple[ModelId, Generation]


@dataclass(slots=True)
class _Past:
    """A swap that is over."""

    context: TraceContext
    began_s: float
    ended_s: float


@dataclass(slots=True)
class _History:
    """Of one model: its swap that is on, and the last that were."""

    swap: Swap | None = None
    past: deque[_Past] = field(default_factory=lambda: deque(maxlen=_PAST_KEPT))


class SwapSpans:
    """An Observer of Steps and of phases that writes a tree for each swap.

    Args:
        write: Takes the trees.
        backend: What a model runs on.
        life: What metrics remember of a model, up to the step before.

    Attributes:
        requests: Who waits; set before the first step.
    """

    requests: RequestSpans

    def __init__(
        self, write: Write, backend: Callable[[ModelId], Backend], life: Callable[[ModelId], Life | None]
    ) -> None:
        self._write = write
        self._backend = backend
        self._life = life
        self._models: dict[ModelId, _History] = {}
        self._victims: dict[_Run, Swap] = {}
        self._cleared: list[Swap] = []
        self._numbers = count(1)

    def __call__(self, step: Step) -> None:
        """Follow one step."""
        self._follow(step.event, step.at_s)
        if self._cleared:
            self._serves(step)
        for command in step.commands:
            if isinstance(command, Stop | Sleep):
                self._evicts(command, step.at_s)
            elif isinstance(command, Start | Wake):
                self._begins(command, step.at_s)

    def _follow(self, event: Event, at_s: float) -> None:
        match event:
            case UpstreamReady(model=model, generation=generation):
                self._end(model, generation, at_s, swap_outcomes.OK)
            case StartFailed(model=model, generation=generation, reason=reason):
                self._end(model, generation, at_s, swap_outcomes.outcome_of(event), reason)
            case WakeFailed() | UpstreamExited():
                self._fails(event)
            case UpstreamStopped(model=model, generation=generation):
                self._gone(model, generation, at_s)
            case UpstreamAsleep(model=model, generation=generation):
                self._out_of_the_way(model, generation, at_s)
            case StopFailed(model=model, generation=generation, reason=reason):
                self._end(model, generation, at_s, swap_outcomes.ABORTED, reason)
                if (swap := self._victims.get((model, generation))) is not None:
                    self._close(swap, at_s, swap_outcomes.ABORTED, reason)

    def phase(self, phase: Phase) -> None:
        """Take note of a phase that is over."""
        run = phase.model, phase.generation
        swap = self._victims.get(run) or self._on(*run)
        if swap is not None:
            swap.phases.append(phase)
            swap.touched_s = phase.ended_s

    def environ(self, model: ModelId, generation: Generation) -> Mapping[str, str]:
        """Give the trace context that a start's process shall continue."""
        swap = self._on(model, generation)
        if swap is None:
            return {}
        return {"TRACEPARENT": traceparent(swap.trace_id, swap.start_id, sampled=True)}

    def within(self, model: ModelId, from_s: float, to_s: float) -> tuple[TraceContext, ...]:
        """Give the swaps to a model that were on at some time between two moments, the first one first."""
        history = self._models.get(model)
        if history is None:
            return ()
        found = [past.context for past in history.past if past.ended_s >= from_s and past.began_s <= to_s]
        if history.swap is not None:
            found.append(history.swap.context)
        return tuple(found)

    def trace_id(self, model: ModelId) -> str:
        """Give the trace of the last swap to a model that is over, 32 hex digits; empty if there was none."""
        history = self._models.get(model)
        return f"{history.past[-1].context.trace_id:032x}" if history is not None and history.past else ""

    def left(self, model: ModelId, request: RequestId, trace: RequestTrace) -> None:
        """Take note that somebody stopped waiting for a model whose swap may still be on."""
        history = self._models.get(model)
        if history is not None and history.swap is not None:
            history.swap.left.append((request, trace))

    def _on(self, model: ModelId, generation: Generation) -> Swap | None:
        history = self._models.get(model)
        swap = None if history is None else history.swap
        return swap if swap is not None and swap.generation == generation else None

    def _new(self, target: ModelId, began_s: float) -> Swap:
        swap = Swap(target, new_trace_id(), new_span_id(), new_span_id(), began_s, next(self._numbers))
        self._models.setdefault(target, _History()).swap = swap
        return swap

    def _current(self, target: ModelId, decided_s: float) -> Swap:
        """Give the swap to a model that was decided then, begun here if need be.

        One that was decided earlier, and of which no start came, was given up without a word: nobody wanted it.
        """
        history = self._models.get(target)
        swap = None if history is None else history.swap
        if swap is not None and (swap.generation is not None or swap.began_s != decided_s):
            self._close(swap, max(swap.began_s, swap.touched_s), swap_outcomes.ABORTED)
            swap = None
        return swap if swap is not None else self._new(target, decided_s)

    def _evicts(self, command: Stop | Sleep, at_s: float) -> None:
        if command.evicted_for is None:
            return
        swap = self._current(command.evicted_for, at_s)
        swap.evicted = (*swap.evicted, command.model)
        self._victims[command.model, command.generation] = swap

    def _begins(self, command: Start | Wake, at_s: float) -> None:
        decided_s = command.decided_s
        swap = self._current(command.model, at_s if decided_s is None or not math.isfinite(decided_s) else decided_s)
        swap.generation = command.generation
        swap.kind = COLD if isinstance(command, Start) else self._backend(command.model).wake
        swap.reason = "request" if command.cause is StartCause.REQUEST else "load"
        swap.evicted = swap.evicted or command.evicted

    def _fails(self, event: WakeFailed | UpstreamExited) -> None:
        """Note why it comes to nothing; it is over when what it left is gone."""
        swap = self._on(event.model, event.generation)
        if swap is not None:
            swap.outcome, swap.failure = swap_outcomes.outcome_of(event), event.reason

    def _gone(self, model: ModelId, generation: Generation, at_s: float) -> None:
        swap = self._on(model, generation)
        if swap is not None:
            self._close(swap, at_s, swap.outcome or swap_outcomes.ABORTED, swap.failure)
        self._out_of_the_way(model, generation, at_s)

    def _out_of_the_way(self, model: ModelId, generation: Generation, at_s: float) -> None:
        swap = self._victims.pop((model, generation), None)
        if swap is not None:
            swap.touched_s = at_s
            self._cleared.append(swap)

    def _serves(self, step: Step) -> None:
        """Close the swaps to models that were up and only had others in their way, if they serve now."""
        served = {command.model for command in step.commands if isinstance(command, Dispatch)}
        for swap in self._cleared:
            history = self._models[swap.target]
            if swap.generation is None and swap.target in served and history.swap is swap:
                self._close(swap, step.at_s, swap_outcomes.OK)
        self._cleared.clear()

    def _end(self, model: ModelId, generation: Generation, at_s: float, outcome: str, failure: str = "") -> None:
        swap = self._on(model, generation)
        if swap is not None:
            self._close(swap, at_s, swap.outcome or outcome, swap.failure or failure)

    def _close(self, swap: Swap, at_s: float, outcome: str, failure: str = "") -> None:
        history = self._models[swap.target]
        history.swap = None
        history.past.append(_Past(swap.context, swap.began_s, at_s))
        self._victims = {run: other for run, other in self._victims.items() if other is not swap}
        swap.ended_s, swap.outcome, swap.failure = at_s, outcome, failure
        joined = dict(sorted(self._joined(swap), key=lambda entry: entry[0]))
        swap.joined = len(joined)
        links = (trace.context for trace in joined.values() if self.requests.decide(trace, missed=True))
        swap.links = tuple(context for context, _ in zip(links, range(LINKS_MAX), strict=False))
        self._look_back(swap)
        spans = spans_of(swap, lambda model: self._backend(model).name)
        self._write(Tree(swap.trace_id, spans))

    def _look_back(self, swap: Swap) -> None:
        """Note what metrics know of a swap that is over: whom it had to wait for, and that it was thrashing."""
        life = self._life(swap.target)
        counted = None if life is None else life.swap
        if life is None or counted is None or counted.decided_s != swap.began_s:
            return
        swap.drained = counted.drained()
        swap.thrash = swap.outcome == swap_outcomes.OK and life.came_back_soon(counted)

    def _joined(self, swap: Swap) -> Iterator[tuple[RequestId, RequestTrace]]:
        """Give who waited for it, in no order; the first to come is who triggered it."""
        yield from swap.left
        yield from self.requests.waiting.get(swap.target, {}).items()
