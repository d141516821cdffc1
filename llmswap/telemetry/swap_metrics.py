"""Swaps: what asked for them, what they took, whom they cost, and who came back too soon."""

import time
from collections.abc import Callable, Iterable, Mapping

from llmswap.core.eviction import rules_of
from llmswap.core.fleet import Fleet, ModelId
from llmswap.core.snapshot import SwapView
from llmswap.runtime.observing import Phase, PhaseKind
from llmswap.telemetry import names
from llmswap.telemetry.cells import Catalogue
from llmswap.telemetry.lives import Life, Swap
from llmswap.telemetry.names import NOBODY
from llmswap.telemetry.swap_outcomes import OK

PAIRS_MAX = 1000  # so many are there from the start; what is beyond comes with its first swap


class SwapMetrics:
    """Counts swaps.

    Args:
        trace_of: Gives the trace of the last swap to a model; empty if there is none.
    """

    def __init__(self, catalogue: Catalogue, trace_of: Callable[[ModelId], str]) -> None:
        self._trace_of = trace_of
        self._swaps = catalogue.family(names.SWAPS)
        triggers = catalogue.family(names.SWAP_TRIGGERS)
        self._triggers = {reason: triggers.cell(reason) for reason in names.TRIGGERS}
        self._pairs = catalogue.family(names.SWAP_TRANSITIONS)
        self._durations = catalogue.histogram(names.SWAP_DURATION)
        self._phases = catalogue.histogram(names.SWAP_PHASE)
        self._running = catalogue.family(names.SWAP_IN_PROGRESS).cell()
        self._running_since = catalogue.family(names.SWAP_IN_PROGRESS_START).cell()
        self._last = catalogue.family(names.SWAP_LAST_START)
        self._thrash = catalogue.family(names.SWAP_THRASH)
        self._joined = catalogue.histogram(names.SWAP_JOINED)
        self._by_caller = catalogue.family(names.SWAPS_BY_CALLER)
        self._models: frozenset[ModelId] = frozenset()
        for kind in names.SWAP_KINDS:
            for phase in names.SWAP_PHASES:
                if phase != ("wake" if kind == names.COLD else "start"):
                    self._phases.cell(phase, kind)

    def configured(self, fleet: Fleet, kinds: Mapping[ModelId, tuple[str, ...]], callers: Iterable[str]) -> None:
        """Take over a fleet.

        Args:
            fleet: It; what is gone from it has been forgotten by the catalogue.
            kinds: In which ways each model can come up.
            callers: Classes of callers beside those that are always there.
        """
        self._models = frozenset(fleet.models)
        for caller in (*callers, names.OTHER_CALLER, NOBODY):
            self._by_caller.cell(caller)
        for model in fleet.models:
            for outcome in names.SWAP_OUTCOMES:
                for kind in names.SWAP_KINDS:
                    self._swaps.cell(model, kind, outcome)
            for kind in kinds[model]:
                self._durations.cell(model, kind)
            self._last.cell(model)
            self._thrash.cell(model)
            self._joined.cell(model)
            self._pairs.cell(NOBODY, model)
        if len(fleet.models) ** 2 <= PAIRS_MAX:
            rules = rules_of(fleet, {})
            for model in fleet.models:
                for other in fleet.models:
                    if other != model and rules.evictions(model, [other], ready=False):
                        self._pairs.cell(other, model)

    def begun(self, swap: Swap, trigger: str, at_s: float) -> None:
        """Count a start or a wake that was ordered."""
        self._triggers[trigger].value += 1
        if swap.target not in self._models:
            return
        self._last.set(time.time() - (time.monotonic() - at_s), swap.target)
        for other in swap.evicted or (NOBODY,):
            if other is NOBODY or other in self._models:
                self._pairs.cell(other, swap.target).value += 1
        drained = swap.drained()
        if drained is not None:
            began_s, ended_s = drained
            self._phases.cell("drain", swap.kind).observe(ended_s - began_s)

    def over(self, life: Life, swap: Swap, outcome: str) -> None:
        """Count the end of a swap that was begun."""
        self._by_caller.cell(NOBODY if swap.asked_by is None else swap.asked_by.caller_class).value += 1
        if swap.target not in self._models:
            return
        self._swaps.cell(swap.target, swap.kind, outcome).value += 1
        if outcome != OK or swap.over_s is None:
            return
        trace_id = self._trace_of(swap.target)
        took_s = swap.over_s - swap.decided_s
        self._durations.cell(swap.target, swap.kind).observe_with(took_s, trace_id, time.time())
        self._joined.cell(swap.target).observe(len(life.waiting))
        if life.came_back_soon(swap):
            self._thrash.cell(swap.target).value += 1

    def phase(self, phase: Phase, life: Life | None) -> None:
        """Count a stretch of what was done to an upstream, if it was for a swap."""
        if life is None or phase.kind is PhaseKind.CALL:
            return
        swap = life.leaves_for if phase.kind in {PhaseKind.STOP, PhaseKind.SLEEP, PhaseKind.FREE_WAIT} else life.swap
        if swap is not None:
            self._phases.cell(phase.kind, swap.kind).observe(phase.ended_s - phase.began_s)

    def read(self, running: Iterable[SwapView], now_s: float) -> None:
        """Read off which swaps are on."""
        since_s = [view.since_s for view in running]
        self._running.value = float(bool(since_s))
        self._running_since.value = time.time() - now_s + min(since_s) if since_s else 0.0
