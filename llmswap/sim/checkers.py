"""The invariants I1..I19 of a scheduler, checked on every simulated step against the world's truth.

I14 (a stop terminates) is the world's promise; what is left of it for the scheduler is that a stuck upstream keeps its
memory, which I3 and I16 check. I15 (asleep only if each step of the sleep succeeded) is I19's, too: the fold takes
nobody for asleep without an UpstreamAsleep.
I18 (wall-clock jumps change nothing) holds by construction, since only `now_s` reaches the core; a test moves it.
"""

from collections.abc import Collection, Iterable, Mapping
from dataclasses import dataclass

from llmswap.core import events as ev
from llmswap.core.commands import (
    Command,
    Dispatch,
    Reject,
    RejectReason,
    Sleep,
    SleepCause,
    Start,
    StartCause,
    Stop,
    StopCause,
    Wake,
)
from llmswap.core.explanation import Wait, Why
from llmswap.core.fleet import Fleet, ModelId, Scheduling
from llmswap.core.snapshot import Snapshot
from llmswap.core.states import State
from llmswap.core.step import Step
from llmswap.sim.fold import Fate, Fold, Life
from llmswap.sim.oracle import Oracle
from llmswap.sim.residues import Residues


@dataclass(frozen=True, slots=True)
class Truth:
    """What is so in the world.

    Attributes:
        alive: Whose process is there, and which life of it.
        resident: Whose device memory is taken, and by which life.
    """

    alive: Mapping[ModelId, ev.Generation]
    resident: Mapping[ModelId, ev.Generation]


class Violation(AssertionError):
    """An invariant does not hold."""


_LEAVING = (State.STOPPING, State.SLEEP_PENDING)
_OPERATING = (State.STARTING, State.WAKING, *_LEAVING)
_ABOUT_AN_UPSTREAM = (
    ev.UpstreamReady
    | ev.StartFailed
    | ev.UpstreamAsleep
    | ev.SleepFailed
    | ev.WakeFailed
    | ev.UpstreamExited
    | ev.UpstreamStopped
    | ev.StopFailed
)


def demand(holds: object, invariant: str, message: str) -> None:
    """Insist on an invariant.

    Raises:
        Violation: It does not hold.
    """
    if not holds:
        raise Violation(f"{invariant}: {message}")


class Checkers:
    """Follows one world, step by step."""

    def __init__(self, fleet: Fleet, before: Snapshot) -> None:
        self._fold = Fold(fleet)
        self._oracle = Oracle(fleet)
        self._before = before
        self._started_at: dict[ModelId, int] = {}
        self._swapping_since: dict[ModelId, int] = {}
        self._evicted: dict[ModelId, list[tuple[ModelId, ev.Generation]]] = {}
        self._residues = Residues()
        self._steps = 0

    def check(self, step: Step, after: Snapshot, truth: Truth, due_s: float | None) -> None:
        """Check one step.

        Args:
            step: What happened.
            after: The scheduler's picture after it.
            truth: Before the step's commands are performed.
            due_s: The scheduler's deadline before the step.

        Raises:
            Violation: An invariant does not hold.
        """
        self._steps += 1
        stale = self._is_stale(step.event) and (due_s is None or due_s > step.at_s)
        demand(not (stale and step.commands), "I12", "a stale outcome led to commands")
        self._fold.event(step.at_s, step.event)
        self._residues.note(step.event, self._fold)
        if isinstance(step.event, ev.FleetReloaded):
            self._oracle = Oracle(self._fold.fleet)
            self._forget_swaps_but(())  # they were decided under the old rules
        elif isinstance(step.event, ev.StopFailed):
            # Whoever waited for it is judged anew, and the matrix may find another choice; I3 judges that one.
            stuck = step.event.model
            self._forget_swaps_but([t for t in self._swapping_since if stuck not in dict(self._evicted.get(t, []))])
        for command in step.commands:
            self._check_command(step, command, truth)
            self._fold.command(command)
        self._fold.settle()
        demand(not stale or _essence(self._before) == _essence(after), "I12", "a stale outcome changed the books")
        self._check_books(after)
        self._check_waits(step.at_s)
        if isinstance(step.event, ev.FleetReloaded):
            self._check_reload(step, after)
        targets = [swap.target for swap in after.swaps]
        self._forget_swaps_but(targets)
        for target in targets:
            self._swapping_since.setdefault(target, self._steps)
        self._before = after

    def check_quiet(self, after: Snapshot) -> None:
        """I11: nothing is left to happen, so nothing waits, nothing is on its way, nothing is counted."""
        final = {State.SHUTDOWN} if after.draining else {State.STOPPED, State.READY, State.ASLEEP, State.FAILED}
        for view in after.upstreams.values():
            demand(not view.waiting and not view.in_flight, "I11", f"{view.model} still has requests: {view}")
            demand(view.state in final, "I11", f"{view.model} rests in state {view.state}")
        demand(not after.swaps, "I11", f"swaps rest: {after.swaps}")
        open_fates = [request for request, fate in self._fold.fates.items() if fate in (Fate.WAITING, Fate.SERVING)]
        demand(not open_fates, "I11", f"requests {open_fates} never ended")

    def _forget_swaps_but(self, targets: Collection[ModelId]) -> None:
        """Forget what concerns swaps that are over."""
        self._evicted = {target: gone for target, gone in self._evicted.items() if target in targets}
        self._swapping_since = {target: at for target, at in self._swapping_since.items() if target in targets}

    def _is_stale(self, event: ev.Event) -> bool:
        return isinstance(event, _ABOUT_AN_UPSTREAM) and self._fold.alive(event) is None

    def _check_command(self, step: Step, command: Command, truth: Truth) -> None:
        match command:
            case Dispatch():
                self._check_dispatch(command)
            case Reject():
                self._check_reject(step, command)
            case Start():
                self._check_start(command, truth)
            case Stop():
                self._check_stop(step, command)
            case Sleep():
                self._check_sleep(command, truth)
            case Wake():
                self._check_wake(command, truth)

    def _check_dispatch(self, command: Dispatch) -> None:
        request = command.request
        demand(self._fold.fates.get(request) is Fate.WAITING, "I2", f"dispatch of {request}, which does not wait")
        life = self._fold.lives[command.model]
        asked_for = self._fold.asked_for[request]
        if command.model == asked_for:
            demand(next(iter(life.waiting)) == request, "I8", f"{request} overtook another for {command.model}")
        else:
            demand(self._may_replace(command.model, request), "I2", f"{request} asked for {asked_for}")
        demand(life.state is State.READY, "I5", f"dispatch to {command.model}, which is {life.state}")
        demand(life.generation == command.generation, "I5", f"dispatch to an old life of {command.model}")
        demand(not life.retiring, "I5", f"dispatch to {command.model}, which retires")
        demand(len(life.serving) < life.model.concurrency_limit, "I1", f"{command.model} serves more than its limit")

    def _may_replace(self, model: ModelId, request: ev.RequestId) -> bool:
        """Whether a model may serve a request that asked for another one."""
        asked_for = self._fold.lives[self._fold.asked_for[request]].model
        return model in asked_for.substitutes and self._fold.swap_classes[request] is not ev.SwapClass.MAY_SWAP

    def _check_reject(self, step: Step, command: Reject) -> None:
        request = command.request
        demand(self._fold.fates.get(request) is Fate.WAITING, "I2", f"refusal of {request}, which does not wait")
        life = self._fold.lives.get(self._fold.asked_for[request])
        demand(self._has_reason(step, command, life), "I2", f"no ground to refuse {request} with {command.reason}")

    def _has_reason(self, step: Step, command: Reject, life: Life | None) -> bool:
        reason = command.reason
        if reason is RejectReason.DRAINING:
            return self._fold.drain_by_s is not None
        if life is None or reason is RejectReason.MODEL_REMOVED:
            return reason is RejectReason.MODEL_REMOVED and (life is None or life.removed)
        waits_since_s = life.waiting[command.request]
        return {
            RejectReason.OVER_LIMIT: self._is_full(life),
            RejectReason.QUEUE_FULL: sum(len(o.waiting) for o in self._fold.lives.values())
            > self._fold.fleet.queue_max,
            RejectReason.QUEUE_TIMEOUT: waits_since_s + life.model.queue_timeout_s <= step.at_s,
            RejectReason.UPSTREAM_FAILED: _start_failed(step.event, life, timed_out=False),
            RejectReason.START_TIMEOUT: _start_failed(step.event, life, timed_out=True),
            RejectReason.BACKOFF: life.state is State.FAILED,
            RejectReason.STUCK: any(other.stuck for other in self._fold.lives.values()),
            RejectReason.UNLOADED: isinstance(step.event, ev.UnloadRequested),
            RejectReason.WOULD_SWAP: self._never_swaps(command.request)
            and life.state not in (State.STARTING, State.WAKING),
        }[reason]

    def _check_start(self, command: Start, truth: Truth) -> None:
        model, life = command.model, self._fold.lives[command.model]
        demand(model not in truth.alive, "I6", f"{model} is started while it runs")
        demand(command.generation > life.generation, "I12", f"{model} is started with a used generation")
        rest = self._residues.left(model, truth.alive)
        demand(not rest, "I16", f"{model} lacked memory, and is started again beside {rest}, who sleep for nobody")
        self._check_bring_up(command, life, truth)

    def _check_sleep(self, command: Sleep, truth: Truth) -> None:
        model, life = command.model, self._fold.lives[command.model]
        demand(life.state is State.READY, "I6", f"{model} is put to sleep while it is {life.state}")
        demand(truth.resident.get(model) == command.generation, "I6", f"an old life of {model} is put to sleep")
        demand(not life.serving, "I4", f"{model} is put to sleep while busy")
        demand(life.model.sleeps and not life.retiring, "I15", f"{model} is put to sleep, and cannot")
        if command.cause is SleepCause.EVICT:
            assert command.evicted_for is not None, "an eviction is for somebody"
            self._evicted.setdefault(command.evicted_for, []).append((model, command.generation))
        if command.cause is SleepCause.IDLE:
            demand(not life.waiting, "I4", f"{model} is put to sleep for being idle while it is wanted")
        limit = self._fold.fleet.sleepers_max
        others = [o for o in self._fold.lives.values() if o.state in (State.ASLEEP, State.SLEEP_PENDING)]
        demand(limit is None or len(others) < limit, "I15", f"{model} is one sleeper too many")

    def _check_wake(self, command: Wake, truth: Truth) -> None:
        model, life = command.model, self._fold.lives[command.model]
        demand(life.state is State.ASLEEP, "I15", f"{model} is woken while it is {life.state}")
        demand(truth.alive.get(model) == command.generation, "I6", f"{model} is woken, but that life is over")
        demand(model not in truth.resident, "I15", f"{model} is woken while it is awake")
        demand(not life.retiring, "I17", f"{model} is woken with a config that is not in force")
        self._check_bring_up(command, life, truth)

    def _check_bring_up(self, command: Start | Wake, life: Life, truth: Truth) -> None:
        """Check what goes for a start and a wake alike."""
        model = command.model
        demand(self._fold.drain_by_s is None, "I9", f"{model} is started during shutdown")
        causes = [request for request in life.waiting if not self._never_swaps(request)]
        wanted = causes if command.cause is StartCause.REQUEST else life.load
        demand(wanted, "I9", f"{model} is started for nobody")
        for victim, generation in self._evicted.pop(model, []):
            demand(truth.resident.get(victim) != generation, "I16", f"{model} is started before {victim} is gone")
        self._check_exclusion(model, truth.resident)
        self._started_at[model] = self._steps

    def _check_exclusion(self, model: ModelId, resident: Mapping[ModelId, ev.Generation]) -> None:
        """I3: what may not live together never holds memory together.

        llmswap keeps llama-swap's one-way rule: who came while this model's own swap was under way, and does
        not itself evict this model, may stay.
        """
        others = [other for other in resident if other in self._fold.fleet.models]
        if not self._oracle.pairwise:
            demand(self._oracle.together([model, *others]), "I3", f"{model} may not live with {others}")
            return
        since = self._swapping_since.get(model, self._steps)
        for other in others:
            came_later = self._started_at[other] >= since and not self._oracle.evicts(other, model)
            demand(came_later or not self._oracle.evicts(model, other), "I3", f"{model} may not live with {other}")

    def _check_stop(self, step: Step, command: Stop) -> None:
        model, life = command.model, self._fold.lives[command.model]
        demand(life.holding and life.generation == command.generation, "I6", f"{model} is stopped but does not run")
        again = life.state is State.STOPPING
        demand(not again or command.force, "I6", f"{model} is told to stop twice")
        by_s = self._fold.drain_by_s
        overdue = by_s is not None and (life.stuck or by_s <= step.at_s)
        demand(overdue or not command.force, "I4", f"{model} is killed without need")
        by_order = command.force or command.cause is StopCause.UNLOAD
        demand(by_order or not life.serving, "I4", f"{model} is stopped for {command.cause} while busy")
        if command.cause is StopCause.EVICT:
            assert command.evicted_for is not None, "an eviction is for somebody"
            self._evicted.setdefault(command.evicted_for, []).append((model, command.generation))
        if command.cause is StopCause.TTL:
            demand(not life.waiting, "I4", f"{model} is stopped for its ttl while it is wanted")

    def _check_books(self, after: Snapshot) -> None:
        """I1, I13, I19: the fold of the history is what the scheduler's books say, to the request."""
        lives = self._fold.lives
        demand(
            set(lives) == set(after.upstreams), "I19", f"models {set(after.upstreams)}, the history says {set(lives)}"
        )
        for model, life in lives.items():
            view = after.upstreams[model]
            books = view.state, view.generation, view.waiting, view.in_flight, view.stuck
            history = life.state, life.generation, len(life.waiting), len(life.serving), life.stuck
            demand(books == history, "I19", f"{model}: the books say {books}, the history {history}")
            idle = life.state is State.READY and not life.serving
            demand(idle == (view.idle_since_s is not None), "I19", f"{model}: idle since {view.idle_since_s}")
            oldest_s = next(iter(life.waiting.values()), None)
            demand(oldest_s == view.oldest_waiting_s, "I19", f"{model}: oldest waits since {view.oldest_waiting_s}")

    def _check_waits(self, now_s: float) -> None:
        """I7 and I10: nobody waits too long, and nobody waits for nothing."""
        operating = any(life.state in _OPERATING for life in self._fold.lives.values())
        for model, life in self._fold.lives.items():
            if not life.waiting:
                continue
            demand(self._fold.drain_by_s is None, "I10", f"requests wait for {model} during shutdown")
            oldest_s = next(iter(life.waiting.values()))
            demand(
                oldest_s + life.model.queue_timeout_s > now_s, "I7", f"a request for {model} waits beyond its timeout"
            )
            demand(not life.stuck, "I10", f"requests wait for {model}, which is stuck")
            up = life.state in (State.STARTING, State.WAKING, State.READY)
            idle = not up and any(map(self._never_swaps, life.waiting))
            demand(not idle, "I10", f"a request that causes no swap waits for {model}, which is {life.state}")
            demand(
                operating or self._is_blocked(model, life, now_s), "I10", f"requests wait for {model}, but for nothing"
            )

    def _never_swaps(self, request: ev.RequestId) -> bool:
        return self._fold.swap_classes[request] is ev.SwapClass.NEVER_SWAP

    def _is_full(self, life: Life) -> bool:
        """Whether the request that is being refused was one too many."""
        if self._fold.fleet.scheduling is Scheduling.FAIR:
            return len(life.waiting) > life.model.queue_limit
        return len(life.waiting) + len(life.serving) > life.model.concurrency_limit

    def _is_blocked(self, model: ModelId, life: Life, now_s: float) -> bool:
        """Whether busy upstreams explain why nothing is done for those who wait.

        Under `fair` idle ones do, too, for as long as their hold lasts; that it ends, the bound shows.
        """
        if self._fold.fleet.scheduling is Scheduling.FAIR:
            return any(other.holding for other in self._fold.lives.values())
        full = len(life.serving) >= life.model.concurrency_limit
        if life.state is State.READY and (life.retiring or full or (life.serving and life.sleep_by_s > now_s)):
            return True
        busy = [other for other in self._fold.lives.values() if other.serving and other is not life]
        return any(self._in_the_way(model, other.model.id) for other in busy)

    def _in_the_way(self, model: ModelId, other: ModelId) -> bool:
        if other not in self._fold.fleet.models or not self._oracle.pairwise:
            return True
        return self._oracle.evicts(model, other)

    def _check_reload(self, step: Step, after: Snapshot) -> None:
        """I17: a model whose config is the same keeps its life."""
        restarted = {command.model for command in step.commands if isinstance(command, Start)}
        for model in _unchanged(self._fold, self._before, after):
            told = [
                c for c in step.commands if isinstance(c, Stop) and c.model == model and c.cause is StopCause.RELOAD
            ]
            demand(not told, "I17", f"{model} did not change but is stopped by the reload")
            same = self._before.upstreams[model].generation == after.upstreams[model].generation
            demand(same or model in restarted, "I17", f"{model} changed its generation by itself")


def check_reasons(waits: Iterable[Wait], after: Snapshot) -> None:
    """Check that what the scheduler says of those who wait is so, and that nobody waits without a reason."""
    for wait in waits:
        view, obstacle = after.upstreams[wait.model], wait.obstacle
        whom = [after.upstreams[model] for model in obstacle.whom]
        swaps = {swap.target: swap.waiting_for for swap in after.swaps}
        true = {
            Why.STARTING: view.model in swaps and not swaps[view.model],
            Why.STOPPING: view.state in _LEAVING
            or swaps.get(view.model) == obstacle.whom
            or all(other.state in _LEAVING for other in whom),
            Why.BUSY: bool(whom) and all(other.in_flight for other in whom),
            Why.HELD: bool(whom) and all(other.idle_since_s is not None for other in whom),
            Why.LIMIT: view.state is State.READY and view.in_flight > 0,
            Why.YIELDING: bool(whom) and all(other.waiting for other in whom),
            Why.SWAP: bool(whom) and all(other.model in swaps for other in whom),
            Why.LATER: False,
            Why.BACKOFF: False,
            Why.STUCK: False,
        }
        demand(true[obstacle.why], "I10", f"requests wait for {wait.model}, and the reason given is {obstacle}")


def _unchanged(fold: Fold, before: Snapshot, after: Snapshot) -> Iterable[ModelId]:
    """Name the models that run, before and after a reload, with the config in force."""
    for model, life in fold.lives.items():
        if life.holding and not life.retiring and model in before.upstreams and model in after.upstreams:
            yield model


def _essence(picture: Snapshot) -> object:
    """Give all of a snapshot that time alone does not change."""
    return (
        picture.swaps,
        picture.draining,
        [
            (view.model, view.state, view.generation, view.in_flight, view.waiting, view.since_s, view.stuck)
            for view in picture.upstreams.values()
        ],
    )


def _start_failed(event: ev.Event, life: Life, *, timed_out: bool) -> bool:
    """Tell whether a model's start failed just now, in that way."""
    return isinstance(event, ev.StartFailed) and event.timed_out is timed_out and life.state is State.FAILED
