"""Who waited, for how long, for what, and who was refused."""

import time
from collections.abc import Iterable

from llmswap.core.commands import RejectReason
from llmswap.core.fleet import Fleet, ModelId, Scheduling
from llmswap.core.snapshot import UpstreamView
from llmswap.telemetry import names
from llmswap.telemetry.cells import Catalogue, Cell, Histogram
from llmswap.telemetry.lives import Waiter


class _Line:
    """The cells of one model, so that no request looks for them."""

    __slots__ = ("admitted", "causes", "refusals", "waits")

    def __init__(self, waits: dict[str, Histogram], causes: dict[str, Cell], refusals: dict[str, Cell]) -> None:
        self.admitted = waits["admitted"]
        self.waits = waits
        self.causes = causes
        self.refusals = refusals


class QueueMetrics:
    """Counts waits and decisions."""

    def __init__(self, catalogue: Catalogue) -> None:
        self._depth = catalogue.family(names.QUEUE_DEPTH)
        self._limit = catalogue.family(names.QUEUE_LIMIT)
        self._oldest = catalogue.family(names.QUEUE_OLDEST_AGE)
        self._waits = catalogue.histogram(names.QUEUE_WAIT)
        self._causes = catalogue.family(names.WAIT_SECONDS)
        self._refusals = catalogue.family(names.REJECTIONS)
        decisions = catalogue.family(names.DECISIONS_MADE)
        self._decisions = {decision: decisions.cell(decision) for decision in names.DECISIONS}
        self._served = self._decisions["serve"]
        self._lines: dict[ModelId, _Line] = {}

    def configured(self, fleet: Fleet) -> None:
        """Take over a fleet; what is gone from it has been forgotten by the catalogue."""
        self._lines = {model: self._lines.get(model) or self._line(model) for model in fleet.models}
        for model in fleet.models.values():
            limit = model.queue_limit if fleet.scheduling is Scheduling.FAIR else model.concurrency_limit
            self._limit.set(min(limit, fleet.queue_max), model.id)

    def _line(self, model: ModelId) -> _Line:
        return _Line(
            {outcome: self._waits.cell(model, outcome) for outcome in names.WAIT_OUTCOMES},
            {cause: self._causes.cell(model, cause) for cause in names.WAIT_CAUSES},
            {reason: self._refusals.cell(model, reason) for reason in RejectReason},
        )

    def admitted_at_once(self, model: ModelId) -> None:
        """Count a request that was dispatched as it came."""
        self._served.value += 1
        line = self._lines.get(model)
        if line is not None:
            line.admitted.observe(0.0)

    def waited(self, waiter: Waiter, outcome: str, wait_s: float) -> None:
        """Count the end of a wait, and what it was spent on."""
        line = self._lines.get(waiter.model)
        if line is None:
            return
        line.waits[outcome].observe_with(wait_s, waiter.trace_id, time.time() if waiter.trace_id else 0.0)
        for cause, spent_s in (waiter.causes or {}).items():
            line.causes[cause].value += spent_s

    def dispatched(self, *, swapped: bool) -> None:
        """Count a dispatch that was not at once."""
        self._decisions["join_swap" if swapped else "serve"].value += 1

    def swapped(self, *, held: bool) -> None:
        """Count a swap that was begun, and whether somebody idle was in its way for a while and was kept."""
        self._decisions["start_swap"].value += 1
        if held:
            self._decisions["hold_policy"].value += 1

    def rejected(self, model: ModelId, reason: RejectReason) -> None:
        """Count a refusal."""
        self._decisions["reject"].value += 1
        line = self._lines.get(model)
        if line is not None:
            line.refusals[reason].value += 1

    def read(self, views: Iterable[UpstreamView], now_s: float) -> None:
        """Read off who waits now."""
        for view in views:
            if view.model in self._lines:
                self._depth.set(view.waiting, view.model)
                since_s = view.oldest_waiting_s
                self._oldest.set(0.0 if since_s is None else max(0.0, now_s - since_s), view.model)
