"""The scheduler's memory: who exists, who waits, who is served, which swaps are on, what is due when.

Books only: every method keeps them consistent, none decides who is served, started or stopped.
"""

import heapq
import itertools
from collections.abc import Callable, Sequence
from typing import NamedTuple

from llmswap.core import refusals
from llmswap.core.commands import Command, Reject
from llmswap.core.events import Generation, RequestId, SwapClass
from llmswap.core.eviction import rules_of
from llmswap.core.fleet import Fleet, ModelId, Scheduling
from llmswap.core.holding import pace_per_s
from llmswap.core.queueing import Waiter, position
from llmswap.core.snapshot import Snapshot
from llmswap.core.swaps import Swap
from llmswap.core.upstreams import Upstream


class Served(NamedTuple):
    """What a dispatched request runs on, and since when."""

    up: Upstream
    generation: Generation
    since_s: float


class Books:
    """Everything the scheduler remembers.

    Attributes:
        now_s: The time of the event being handled.
        upstreams: Every model of the fleet, and removed ones that still hold memory.
        swaps: By target.
        waiting: Where each waiting request stands in line.
        leases: What each dispatched request runs on.
        wanted: Every model that somebody waits for.
        touched: Models whose own books changed in this step: the drain must look at them.
        everyone: Memory changed hands: the drain must look at all who are wanted.
        crowded: More may be asleep now than the fleet allows.
        drain_by_s: The deadline of the shutdown; None unless one has begun. It is final.
        commands: What this step has decided so far.
    """

    def __init__(self, fleet: Fleet, now_s: float | None) -> None:
        self._since_s = now_s
        self.now_s = now_s = now_s or 0.0
        self.fleet = fleet
        self.rules = rules_of(fleet, {})
        self.upstreams = {model.id: Upstream(model, now_s) for model in fleet.models.values()}
        self.swaps: dict[ModelId, Swap] = {}
        self.waiting: dict[RequestId, Upstream] = {}
        self.leases: dict[RequestId, Served] = {}
        self.wanted: dict[ModelId, Upstream] = {}
        self.touched: dict[ModelId, Upstream] = {}
        self.everyone = False
        self.crowded = False
        self.drain_by_s: float | None = None
        self.commands: list[Command] = []
        self._turns = itertools.count()
        # One numbering for all models: a model that is removed and comes back cannot meet its old numbers.
        self._generations = itertools.count(1)
        self._alarms: list[tuple[float, int, Upstream]] = []
        self._alarm_ids = itertools.count()
        self._evictions: dict[ModelId, tuple[Upstream, ...]] = {}  # valid until somebody moves in or out
        self._contend: dict[tuple[ModelId, ModelId], bool] = {}  # as long as the rules
        self._residents: Sequence[ModelId] = ()  # as long as that

    # Notes to the drain ----------------------------------------------------------------------------------------------

    def touch(self, up: Upstream) -> None:
        """Note that a model's own books changed."""
        self.touched[up.id] = up

    def moved(self) -> None:
        """Note that memory changed hands, or a swap ended: anybody's chances may be different now."""
        self._evictions.clear()
        self.everyone = True

    # Lines -----------------------------------------------------------------------------------------------------------

    def join(self, request: RequestId, up: Upstream, caller: str, swap_class: SwapClass) -> None:
        """Put a request in line."""
        up.rhythm.was_asked(self.now_s, resident=up.admits)
        if self.fleet.scheduling is Scheduling.FAIR:
            self._tell_neighbours(up)
        up.line.join(request, Waiter(self.now_s, next(self._turns), caller), swap_class)
        self.waiting[request] = up
        self.wanted[up.id] = up
        self.touch(up)

    def _tell_neighbours(self, up: Upstream) -> None:
        """Note a request in the rhythm of idle residents that may live beside its model: it keeps their place, too."""
        for model in self._running():
            other = self.upstreams[model]
            if other is not up and other.idle_since_s is not None and not self.contend(up, other):
                other.rhythm.came_back(self.now_s)

    def wish(self, up: Upstream) -> None:
        """Note that the model shall be resident with no client waiting."""
        up.load = Waiter(self.now_s, next(self._turns))
        self.wanted[up.id] = up
        self.touch(up)

    def pop(self, up: Upstream) -> tuple[RequestId, Waiter]:
        """Take the first of a line out."""
        self._let_go(up)
        request, waiter = up.line.pop()
        del self.waiting[request]
        return request, waiter

    def take_out(self, request: RequestId) -> Waiter:
        """Take a waiting request out of its line, wherever it stands."""
        up = self.waiting.pop(request)
        self._let_go(up)
        return up.line.leave(request)

    def _let_go(self, up: Upstream) -> None:
        """Note that somebody leaves a line; if he was due, others who stood back for him may go on."""
        self.everyone = self.everyone or up.is_due(self.now_s)

    def cancel(self, request: RequestId) -> None:
        """Forget a request if it waits."""
        up = self.waiting.get(request)
        if up is not None:
            self.take_out(request)
            self.touch(up)

    def send_away(self, up: Upstream, refusal: Callable[[RequestId], Reject]) -> None:
        """Refuse all who wait for a model, and forget the wish to load it."""
        while up.line:
            self.commands.append(refusal(self.pop(up)[0]))
        up.load = None
        self.settle(up)
        self.touch(up)

    def overdue(self, up: Upstream) -> list[RequestId]:
        """Take out of a model's line who has waited too long, and forget a wish that is as old."""
        timeout_s = up.model.queue_timeout_s
        overdue: list[RequestId] = []
        while (first := up.line.first) is not None and first.arrived_s + timeout_s <= self.now_s:
            overdue.append(self.pop(up)[0])
        if up.load is not None and up.load.arrived_s + timeout_s <= self.now_s:
            up.load = None
        return overdue

    def settle(self, up: Upstream) -> None:
        """Note that nobody wants a model any more, if so. A start that was ordered goes on; a swap before that ends."""
        if up.wanted:
            return
        self.wanted.pop(up.id, None)
        up.cramped = False
        swap = self.swaps.get(up.id)
        if swap is not None and not swap.begun:
            self.end_swap(up)

    # Swaps -----------------------------------------------------------------------------------------------------------

    def add_swap(self, swap: Swap) -> None:
        """Note a swap. With somebody new moving in, the matrix may choose anew for others."""
        self.swaps[swap.target] = swap
        self.moved()

    def end_swap(self, up: Upstream) -> None:
        """Forget the swap to a model, if there is one."""
        if self.swaps.pop(up.id, None) is not None:
            self.moved()

    def evictions(self, up: Upstream) -> tuple[Upstream, ...]:
        """Name who must go before a model is served, by the fleet's rules."""
        evict = self._evictions.get(up.id)
        if evict is None:
            others = [model for model in self._running() if model != up.id]
            chosen = self.rules.evictions(up.id, others, ready=up.admits)
            evict = self._evictions[up.id] = tuple(self.upstreams[model] for model in chosen)
        return evict

    def evictions_with(self, up: Upstream, beside: Upstream) -> tuple[Upstream, ...]:
        """Name who must go before a model is served, were another one resident beside those who are."""
        if beside.resident or beside.id in self.swaps:
            return self.evictions(up)
        others = [model for model in self._running() if model != up.id] + [beside.id]
        chosen = self.rules.evictions(up.id, others, ready=up.admits)
        return tuple(self.upstreams[model] for model in chosen)

    def contend(self, one: Upstream, other: Upstream) -> bool:
        """Whether bringing up one of two models evicts the other."""
        key = one.id, other.id
        known = self._contend.get(key)
        if known is None:
            known = bool(self.rules.evictions(one.id, [other.id], ready=False))
            known = known or bool(self.rules.evictions(other.id, [one.id], ready=False))
            self._contend[key] = self._contend[other.id, one.id] = known
        return known

    def pace(self, up: Upstream) -> float:
        """Give the answers per second of late of a model and of all that contend with it for a place."""
        recent = sum(
            other.rhythm.recent(self.now_s)
            for other in self.upstreams.values()
            if other is up or self.contend(up, other)
        )
        return pace_per_s(recent, 0.0 if self._since_s is None else self.now_s - self._since_s)

    def _running(self) -> Sequence[ModelId]:
        """Name all who hold memory or are about to, in the fleet's order."""
        if not self._evictions:
            swaps = self.swaps
            self._residents = [up.id for up in self.upstreams.values() if up.resident or up.id in swaps]
        return self._residents

    def next_generation(self) -> Generation:
        """Number a new life."""
        return Generation(next(self._generations))

    # Outcomes --------------------------------------------------------------------------------------------------------

    def alive(self, model: ModelId, generation: Generation) -> Upstream | None:
        """Find the upstream that an outcome speaks of; None if that life is over: the outcome is stale."""
        up = self.upstreams.get(model)
        return up if up is not None and up.generation == generation and up.holding else None

    def gone(self, up: Upstream) -> None:
        """Note that an upstream is gone, and its memory free."""
        up.gone(self.now_s)
        if up.removed:
            del self.upstreams[up.id]
        self.made_room(up)

    def made_room(self, up: Upstream) -> None:
        """Note that an upstream holds no device memory any more."""
        for swap in self.swaps.values():
            swap.pending.discard(up.id)
        self.moved()

    def left_bed(self) -> None:
        """Note that a sleeper sleeps no more: who found no place among the sleepers may look again."""
        for up in self.upstreams.values():
            if up.bedless:
                up.bedless = False
                self.touch(up)

    # Reload ----------------------------------------------------------------------------------------------------------

    def reload(self, fleet: Fleet) -> None:
        """Take over a new fleet. Who is unchanged keeps all; who changed or went retires."""
        leftovers: dict[ModelId, str] = {}
        upstreams: dict[ModelId, Upstream] = {}
        for model in fleet.models.values():
            up = self.upstreams.get(model.id)
            if up is None:
                up = Upstream(model, self.now_s)
            elif up.model.fingerprint != model.fingerprint:
                up.pardon(self.now_s)
            up.model, up.removed = model, False
            upstreams[model.id] = up
            self.touch(up)
        for up in self.upstreams.values():
            if up.id in upstreams:
                continue
            self._remove(up)
            if up.holding:
                upstreams[up.id] = up
                leftovers[up.id] = self.rules.group_name(up.id)
        self.fleet, self.rules, self.upstreams = fleet, rules_of(fleet, leftovers), upstreams
        self._contend.clear()
        self.crowded = True
        # Swaps not begun were decided under the old rules: forget them, the drain decides anew.
        self.swaps = {target: swap for target, swap in self.swaps.items() if swap.begun}
        self.moved()

    def _remove(self, up: Upstream) -> None:
        up.removed = True
        self.send_away(up, lambda request: refusals.model_removed(request, up.id))

    # Time ------------------------------------------------------------------------------------------------------------

    def arm(self, up: Upstream) -> None:
        """Set a model's alarm to when something about it falls due.

        At most one alarm per model counts. One that rings too early is set again, so that a hot model does not leave
        an alarm behind for each request.
        """
        due_s = up.due_s(self.now_s)
        if due_s is not None:
            self.arm_at(up, due_s)

    def arm_at(self, up: Upstream, due_s: float) -> None:
        """Have a model looked at then, or before."""
        if up.alarm_s is None or due_s < up.alarm_s:
            up.alarm_s = due_s
            heapq.heappush(self._alarms, (due_s, next(self._alarm_ids), up))

    def pass_to(self, now_s: float) -> None:
        """Let time pass; the first event is the beginning, unless an earlier one is known."""
        self.now_s = now_s
        if self._since_s is None:
            self._since_s = now_s

    def ring(self) -> None:
        """Touch every model whose alarm is due. A bound, or the end of a hold, changes the chances of others."""
        while self._alarms and self._alarms[0][0] <= self.now_s:
            due_s, _, up = heapq.heappop(self._alarms)
            if up.alarm_s == due_s and self.upstreams.get(up.id) is up:  # else it was overtaken, or the model went
                up.alarm_s = None
                self.touch(up)
                self.everyone = True

    def next_alarm_s(self) -> float | None:
        """When the next alarm rings."""
        return self._alarms[0][0] if self._alarms else None

    def drain_left_s(self) -> float:
        """Give the time left of a shutdown."""
        assert self.drain_by_s is not None, "no shutdown has begun"
        return self.drain_by_s - self.now_s

    # Pictures --------------------------------------------------------------------------------------------------------

    def snapshot(self) -> Snapshot:
        """Give a frozen picture."""
        return Snapshot(
            upstreams={up.id: up.view(self.now_s) for up in self.upstreams.values()},
            swaps=tuple(swap.view() for swap in self.swaps.values()),
            draining=self.drain_by_s is not None,
        )

    def queue_position(self, request: RequestId) -> int | None:
        """Give the 1-based place of a request that waits and whose model is not on its way yet."""
        up = self.waiting.get(request)
        if up is None or up.id in self.swaps:
            return None
        others = (other for other in self.wanted.values() if other is not up and other.id not in self.swaps)
        return position(request, up, others)
