"""What Steps mean for metrics: who waited for what and how long, which swaps and residencies there were.

Written against the contract of events and commands, like `sim/fold.py`; the scheduler's own books are not asked. What
is found out goes to who counts it.
"""

from collections.abc import Callable, Iterable
from dataclasses import dataclass
from typing import Any

from llmswap.core import commands as do
from llmswap.core import events as ev
from llmswap.core.eviction import rules_of
from llmswap.core.fleet import Fleet, ModelId
from llmswap.core.snapshot import UpstreamView
from llmswap.core.states import RESIDENT, State
from llmswap.core.step import Step
from llmswap.telemetry.lives import Life, Swap, Waiter, wait_causes
from llmswap.telemetry.model_metrics import ModelMetrics
from llmswap.telemetry.names import COLD
from llmswap.telemetry.queue_metrics import QueueMetrics
from llmswap.telemetry.swap_metrics import SwapMetrics
from llmswap.telemetry.swap_outcomes import ABORTED, OK, UNHEALTHY, outcome_of

HOLD_MIN_S = 0.001  # a swap that was put off for less was not held up
_COMING = (State.STARTING, State.WAKING)


@dataclass(frozen=True, slots=True)
class Counts:
    """Who counts what the fold finds out."""

    queue: QueueMetrics
    swaps: SwapMetrics
    models: ModelMetrics


class Fold:
    """The history so far.

    Args:
        now_s: When it begins.
        kind_of_wake: Gives wake1 or wake2 for a model.

    Attributes:
        lives: Every model of the fleet, and removed ones that still hold memory.
        moved: A state changed since this was last set to False.
        turned: Somebody began or ceased to be busy since this was last set to False.
    """

    def __init__(self, fleet: Fleet, now_s: float, kind_of_wake: Callable[[ModelId], str], count: Counts) -> None:
        self.fleet = fleet
        self.lives = {model.id: Life(model, now_s) for model in fleet.models.values()}
        self.moved = self.turned = True
        self._rules = rules_of(fleet, {})
        self._kind_of_wake = kind_of_wake
        self._queue, self._swaps, self._models = count.queue, count.swaps, count.models
        self._waiting: dict[ev.RequestId, Waiter] = {}
        self._leases: dict[ev.RequestId, tuple[Life, ev.Generation]] = {}
        self._draining = False
        self._take: dict[type[Any], Callable[[float, Any], None]] = {
            ev.RequestArrived: self._arrived,
            ev.RequestCancelled: self._cancelled,
            ev.RequestFinished: self._finished,
            ev.UnloadRequested: self._unload,
            ev.FleetReloaded: self._reloaded,
            ev.DrainRequested: self._drain,
            ev.UpstreamReady: self._ready,
            ev.StartFailed: self._start_failed,
            ev.UpstreamAsleep: self._asleep,
            ev.WakeFailed: self._wake_failed,
            ev.UpstreamExited: self._exited,
            ev.UpstreamStopped: self._stopped,
            ev.StopFailed: self._stop_failed,
            do.Dispatch: self._dispatch,
            do.Reject: self._reject,
            do.Start: self._start,
            do.Wake: self._start,
            do.Sleep: self._leave,
            do.Stop: self._leave,
        }

    def step(self, step: Step) -> None:
        """Apply a step."""
        at_s, event, commands = step.at_s, step.event, step.commands
        if type(event) is ev.RequestArrived and len(commands) == 1 and self._at_once(at_s, event, commands[0]):
            return
        for part in (event, *commands):
            if (apply := self._take.get(type(part))) is not None:
                apply(at_s, part)

    def waiter(self, request: ev.RequestId) -> Waiter | None:
        """Find a request in line."""
        return self._waiting.get(request)

    def trust(self, views: Iterable[UpstreamView], at_s: float) -> None:
        """Go on from the scheduler's own picture, after a step that could not be understood."""
        for view in views:
            life = self.lives.get(view.model)
            if life is not None:
                if life.state is not view.state:
                    life.enter(view.state, at_s)
                life.generation, life.in_flight = view.generation, view.in_flight
                life.weigh(at_s)
        self.moved = True

    def _at_once(self, at_s: float, event: ev.RequestArrived, command: do.Command) -> bool:
        """Take the commonest step of all: a request comes and is served by its own model."""
        if type(command) is not do.Dispatch or command.model != event.model:
            return False
        life = self.lives[command.model]
        self._leases[command.request] = (life, command.generation)
        self.turned = self.turned or not life.in_flight
        life.taken(at_s)
        self._queue.admitted_at_once(event.model)
        return True

    # Requests

    def _arrived(self, at_s: float, event: ev.RequestArrived) -> None:
        life = self.lives.get(event.model)
        waiter = self._waiting[event.request] = Waiter(event.model, at_s)
        if life is not None:
            waiter.full_s = life.full_up_to(at_s)
            life.waiting[event.request] = waiter

    def _cancelled(self, at_s: float, event: ev.RequestCancelled) -> None:
        self._leaves_line(at_s, event.request, "disconnect")

    def _leaves_line(self, at_s: float, request: ev.RequestId, outcome: str) -> Waiter | None:
        waiter = self._waiting.pop(request, None)
        if waiter is None:
            return None
        life, wait_s = self.lives.get(waiter.model), at_s - waiter.arrived_s
        if life is not None and life.waiting.pop(request, None) is not None and wait_s > 0:
            waiter.causes = wait_causes(life, waiter, at_s, lambda: self._in_the_way(life))
        self._queue.waited(waiter, outcome, wait_s)
        return waiter

    def _in_the_way(self, life: Life) -> list[Life]:
        """Name who would have to go for a model, by the fleet's rules."""
        model = life.model.id
        if model not in self.fleet.models:
            return []
        running = [other for other in self.lives.values() if other.state in RESIDENT and other is not life]
        known = [other.model.id for other in running if not other.removed]
        return [self.lives[other] for other in self._rules.evictions(model, known, ready=False)]

    def _dispatch(self, at_s: float, command: do.Dispatch) -> None:
        life = self.lives[command.model]
        self._leases[command.request] = (life, command.generation)
        swap = life.swap
        if swap is not None and swap.over_s is None and not swap.begun:  # it was up, and others were in its way
            swap.over_s, swap.ok = at_s, True
        self.turned = self.turned or not life.in_flight
        self._leaves_line(at_s, command.request, "admitted")
        life.taken(at_s)
        self._queue.dispatched(swapped=command.swap_s is not None)

    def _reject(self, at_s: float, command: do.Reject) -> None:
        late = command.reason is do.RejectReason.QUEUE_TIMEOUT
        waiter = self._leaves_line(at_s, command.request, "timeout" if late else "rejected")
        if waiter is not None:
            self._queue.rejected(waiter.model, command.reason)

    def _finished(self, at_s: float, event: ev.RequestFinished) -> None:
        life, generation = self._leases.pop(event.request, (None, None))
        if life is not None and life.in_flight and generation == life.generation and life.holding:
            life.given_back(at_s)
            self.turned = self.turned or not life.in_flight

    # Swaps

    def _start(self, at_s: float, command: do.Start | do.Wake) -> None:
        life = self.lives[command.model]
        first = next(iter(life.waiting.values()), None)
        decided_s = at_s if command.decided_s is None else command.decided_s
        swap = life.swap
        if swap is None or swap.begun or swap.decided_s != decided_s:
            swap = self._decide(life, decided_s)
        woken = isinstance(command, do.Wake)
        swap.begun, swap.kind = True, self._kind_of_wake(command.model) if woken else COLD
        swap.evicted = list(command.evicted)
        by_request = command.cause is do.StartCause.REQUEST
        swap.asked_by = first if by_request else None
        life.generation = command.generation
        if not woken:
            life.fingerprint = life.model.fingerprint
        self._enter(life, State.WAKING if woken else State.STARTING, at_s)
        trigger = "request" if by_request else "admin" if woken else "preload"
        self._swaps.begun(swap, trigger, at_s)
        held_s = swap.decided_s - max(swap.since_s if first is None else first.arrived_s, swap.up_s, swap.idle_s)
        self._queue.swapped(held=held_s > HOLD_MIN_S)

    def _decide(self, life: Life, decided_s: float) -> Swap:
        old, swap = life.swap, Swap(life.model.id, decided_s, decided_s, self._kind_now(life))
        first = next(iter(life.waiting.values()), None)
        if old is not None and old.over_s is not None and not old.ok and first and first.arrived_s <= old.over_s:
            swap.since_s, swap.up_s, swap.idle_s = old.since_s, old.up_s, old.idle_s
        life.swap = swap
        return swap

    def _kind_now(self, life: Life) -> str:
        return self._kind_of_wake(life.model.id) if life.state is State.ASLEEP else COLD

    def _leave(self, at_s: float, command: do.Stop | do.Sleep) -> None:
        life = self.lives[command.model]
        target = None if command.evicted_for is None else self.lives.get(command.evicted_for)
        if target is not None:
            swap = target.swap
            if swap is None or swap.begun or swap.decided_s != at_s:
                swap = self._decide(target, at_s)
            swap.evicted.append(life.model.id)
            swap.up_s, swap.idle_s = max(swap.up_s, life.up_s), max(swap.idle_s, life.busy_until_s)
            life.leaves_for, life.evicted_s = swap, at_s
        if life.state in _COMING:
            self._swap_over(life, at_s, ABORTED)
        asleep = isinstance(command, do.Sleep)
        if asleep or life.state is not State.STOPPING:  # a stop may be told again, to be faster
            self._enter(life, State.SLEEP_PENDING if asleep else State.STOPPING, at_s)

    def _enter(self, life: Life, state: State, at_s: float) -> None:
        if life.state is State.READY and life.residencies:
            self._models.residency_over(life.model.id, life.residencies[-1], at_s)
        life.enter(state, at_s)
        self.moved = True

    def _swap_over(self, life: Life, at_s: float, outcome: str) -> None:
        swap = life.swap
        if swap is not None and swap.over_s is None:
            swap.over_s, swap.ok = at_s, outcome == OK
            self._swaps.over(life, swap, outcome)

    def _alive(self, model: ModelId, generation: ev.Generation) -> Life | None:
        life = self.lives.get(model)
        return life if life is not None and life.holding and life.generation == generation else None

    # Outcomes

    def _ready(self, at_s: float, event: ev.UpstreamReady) -> None:
        life = self._alive(event.model, event.generation)
        if life is None or life.state not in _COMING:
            return
        self._swap_over(life, at_s, OK)
        life.came_up(at_s, COLD if life.swap is None else life.swap.kind)
        self.moved = True

    def _start_failed(self, at_s: float, event: ev.StartFailed) -> None:
        life = self._alive(event.model, event.generation)
        if life is None:
            return
        if life.state is State.STOPPING:
            self._models.exited(event.model, "requested")
            self._gone(life, at_s)
            return
        self._swap_over(life, at_s, outcome_of(event))
        self._models.exited(event.model, "start_failed")
        life.gone(State.FAILED, at_s)
        self.moved = True

    def _wake_failed(self, at_s: float, event: ev.WakeFailed) -> None:
        life = self._alive(event.model, event.generation)
        if life is not None and life.state is State.WAKING:
            self._swap_over(life, at_s, outcome_of(event))

    def _asleep(self, at_s: float, event: ev.UpstreamAsleep) -> None:
        life = self._alive(event.model, event.generation)
        if life is not None and life.state is State.SLEEP_PENDING:
            self._enter(life, State.ASLEEP, at_s)
            life.leaves_for = None

    def _exited(self, at_s: float, event: ev.UpstreamExited) -> None:
        life = self._alive(event.model, event.generation)
        if life is None or life.state is State.STOPPING:
            return
        if life.state is State.WAKING:
            self._swap_over(life, at_s, outcome_of(event))
        self._models.exited(event.model, _exit_reason(event.reason))
        self._enter(life, State.STOPPING, at_s)
        life.crashed = True

    def _stop_failed(self, at_s: float, event: ev.StopFailed) -> None:
        life = self._alive(event.model, event.generation)
        if life is not None and life.state is State.STARTING:  # it has failed, and what it holds is not free
            self._swap_over(life, at_s, UNHEALTHY)
            self._models.exited(event.model, "start_failed")
            self._enter(life, State.STOPPING, at_s)
            life.crashed = True

    def _stopped(self, at_s: float, event: ev.UpstreamStopped) -> None:
        life = self._alive(event.model, event.generation)
        if life is None:
            return
        if not life.crashed:
            self._models.exited(event.model, "requested")
        self._gone(life, at_s)

    def _gone(self, life: Life, at_s: float) -> None:
        life.gone(State.SHUTDOWN if self._draining else State.STOPPED, at_s)
        self.moved = True
        if life.removed:
            del self.lives[life.model.id]

    # Orders

    def _unload(self, at_s: float, event: ev.UnloadRequested) -> None:
        for life in self.lives.values():
            if not event.models or life.model.id in event.models:
                self._pardon(life, at_s)

    def _pardon(self, life: Life, at_s: float) -> None:
        if life.state is State.FAILED:
            self._enter(life, State.STOPPED, at_s)

    def _drain(self, at_s: float, event: ev.DrainRequested) -> None:
        del event
        self._draining = True
        for life in self.lives.values():
            if life.state in (State.STOPPED, State.FAILED):
                self._enter(life, State.SHUTDOWN, at_s)

    def _reloaded(self, at_s: float, event: ev.FleetReloaded) -> None:
        if self._draining:
            return
        self.fleet, self._rules = event.fleet, rules_of(event.fleet, {})
        lives = {}
        for model in event.fleet.models.values():
            life = lives[model.id] = self.lives.get(model.id) or Life(model, at_s)
            if life.model.fingerprint != model.fingerprint:
                self._pardon(life, at_s)
            life.model, life.removed = model, False
            life.weigh(at_s)
        for name, life in self.lives.items():
            if name not in lives and life.holding:
                life.removed, lives[name] = True, life
        self.lives = lives
        self.moved = True


def _exit_reason(reason: str) -> str:
    """Tell a crash from a kill that nobody here asked for: mostly the kernel's, for want of memory."""
    if reason.startswith(("was killed by SIGKILL", "killed by signal 9")):
        return "oom_killed"
    return "crash" if reason.startswith(("exited", "was killed", "killed")) else "health"
