"""What metrics remember of models and of who waits for them: sums and marks. `fold.py` tells them what happened."""

from collections import deque
from collections.abc import Callable
from dataclasses import dataclass, field
from math import inf
from typing import Protocol

from llmswap.core.events import Generation, RequestId
from llmswap.core.fleet import Model, ModelId
from llmswap.core.holding import SMOOTHING
from llmswap.core.states import HOLDING, State
from llmswap.telemetry.names import COLD, OTHER_CALLER, WAIT_CAUSES

THRASH_WINDOW_S = 60.0
THRASH_LOADS = 3.0
RESIDENCIES_KEPT = 8  # an answer may come out when its model has been away and is back


@dataclass(slots=True, eq=False)
class Waiter:
    """A request in line.

    Attributes:
        model: Who is asked for.
        full_s: How long the model had been at its concurrency limit in all, when it came.
        caller_class: As soon as the request's own record has told it; likewise `trace_id`.
        causes: What its wait was spent on, once it is over and if it took time: see `wait_causes`.
    """

    model: ModelId
    arrived_s: float
    full_s: float = 0.0
    caller_class: str = OTHER_CALLER
    trace_id: str = ""
    causes: dict[str, float] | None = None


@dataclass(slots=True, eq=False)
class Swap:
    """One model's way in.

    Attributes:
        since_s: When it was decided; if an attempt before it failed and some still wait since then, when that was.
        decided_s: When this attempt was.
        kind: cold, wake1 or wake2.
        evicted: Who had to go.
        up_s: Until then some of them were on their own way in.
        idle_s: Until then some of them were busy.
        begun: The start or the wake was ordered.
        over_s: When it ended; `ok`, whether well.
        asked_by: The request that it was begun for; None if nobody's.
    """

    target: ModelId
    since_s: float
    decided_s: float
    kind: str = COLD
    evicted: list[ModelId] = field(default_factory=list)
    up_s: float = -inf
    idle_s: float = -inf
    begun: bool = False
    over_s: float | None = None
    ok: bool = False
    asked_by: Waiter | None = None

    def drained(self) -> tuple[float, float] | None:
        """Give from when to when who asked for it waited for busy ones in its way; None if nobody asked or had to go.

        Before that some of them may have been on their own way in, after that they may have been held.
        """
        if not self.evicted or self.asked_by is None:
            return None
        began_s = max(self.asked_by.arrived_s, self.up_s)
        return began_s, max(began_s, min(self.idle_s, self.decided_s))


@dataclass(slots=True, eq=False)
class Residency:
    """One time of being up.

    Attributes:
        kind: How it came up: cold, wake1 or wake2.
        dispatched: Requests, so far.
        told: Answers so far that said what they took of a prompt.
    """

    began_s: float
    kind: str
    dispatched: int = 0
    told: int = 0


@dataclass(slots=True, eq=False)
class Life:
    """One model as whoever sees only Steps knows it.

    Attributes:
        since_s: When `state` was entered.
        seconds: Spent in each state before that.
        fingerprint: Of the config that its present life was started with.
        in_flight: On its present life.
        busy_until_s: When it last fell idle, or came up; inf while it is busy.
        full_s: How long it was at its limit in all, but for the present time since `full_since_s`.
        removed: The fleet no longer has it.
        crashed: It ended by itself; what is left is being swept.
        swap: The last one to it.
        leaves_for: The swap that it goes for, while it does.
        evicted_s: When it last had to go for another model.
        loads_s: What coming up takes, by kind, smoothed as the scheduler does; without those that were never seen.
    """

    model: Model
    since_s: float
    state: State = State.STOPPED
    seconds: dict[State, float] = field(default_factory=dict)
    generation: Generation = Generation(0)  # noqa: RUF009  a number
    fingerprint: str = ""
    removed: bool = False
    crashed: bool = False
    waiting: dict[RequestId, Waiter] = field(default_factory=dict)
    in_flight: int = 0
    busy_until_s: float = -inf
    full_s: float = 0.0
    full_since_s: float | None = None
    last_used_s: float | None = None
    swap: Swap | None = None
    leaves_for: Swap | None = None
    evicted_s: float = -inf
    residencies: deque[Residency] = field(default_factory=lambda: deque(maxlen=RESIDENCIES_KEPT))
    loads_s: dict[str, float] = field(default_factory=dict)

    @property
    def holding(self) -> bool:
        """Whether it has, or may have, a process."""
        return self.state in HOLDING

    @property
    def up_s(self) -> float:
        """When it last came up; inf while it is on its way."""
        if self.state in (State.STARTING, State.WAKING):
            return inf
        return self.residencies[-1].began_s if self.residencies else -inf

    def enter(self, state: State, at_s: float) -> None:
        """Change the state."""
        self.seconds[self.state] = self.seconds.get(self.state, 0.0) + at_s - self.since_s
        self.state, self.since_s = state, at_s
        if state is not State.READY:
            self._not_full(at_s)

    def spent_s(self, state: State, at_s: float) -> float:
        """Give the time spent in a state up to now."""
        now_s = max(0.0, at_s - self.since_s) if state is self.state else 0.0
        return self.seconds.get(state, 0.0) + now_s

    def full_up_to(self, at_s: float) -> float:
        """Give how long it has been at its concurrency limit in all."""
        return self.full_s if self.full_since_s is None else self.full_s + at_s - self.full_since_s

    def taken(self, at_s: float) -> None:
        """Note one more in flight."""
        self.in_flight += 1
        self.busy_until_s = inf
        self.last_used_s = at_s
        if self.residencies:
            self.residencies[-1].dispatched += 1
        if self.in_flight >= self.model.concurrency_limit:
            self.weigh(at_s)

    def given_back(self, at_s: float) -> None:
        """Note one less in flight."""
        self.in_flight -= 1
        if not self.in_flight:
            self.busy_until_s = at_s
        if self.full_since_s is not None:
            self.weigh(at_s)

    def weigh(self, at_s: float) -> None:
        """Note whether it is at its limit."""
        if self.in_flight >= self.model.concurrency_limit and self.state is State.READY:
            if self.full_since_s is None:
                self.full_since_s = at_s
        elif self.full_since_s is not None:
            self._not_full(at_s)

    def _not_full(self, at_s: float) -> None:
        self.full_s, self.full_since_s = self.full_up_to(at_s), None

    def came_up(self, at_s: float, kind: str) -> None:
        """Note that it is up."""
        took_s, known_s = at_s - self.since_s, self.loads_s.get(kind)
        self.loads_s[kind] = took_s if known_s is None else known_s + SMOOTHING * (took_s - known_s)
        self.enter(State.READY, at_s)
        self.in_flight = 0
        self.busy_until_s = at_s
        self.residencies.append(Residency(at_s, kind))

    def gone(self, state: State, at_s: float) -> None:
        """Note that its processes are gone."""
        self.enter(state, at_s)
        self.in_flight = 0
        self.busy_until_s = min(self.busy_until_s, at_s)
        self.leaves_for = None
        self.crashed = False

    def came_back_soon(self, swap: Swap) -> bool:
        """Whether a swap to it brought back what had to go a short while before: that is thrashing."""
        window_s = max(THRASH_WINDOW_S, THRASH_LOADS * self.loads_s.get(swap.kind, 0.0))
        return swap.decided_s - self.evicted_s < window_s

    def residency_at(self, at_s: float) -> Residency | None:
        """Find the residency of that time."""
        for residency in reversed(self.residencies):  # nearly always the last one
            if residency.began_s <= at_s:
                return residency
        return None


class History(Protocol):
    """Tells what Steps have meant so far."""

    def life(self, model: ModelId) -> Life | None:
        """Give a model's; None if it is not known."""

    def waiter(self, request: RequestId) -> Waiter | None:
        """Find a request in line."""


def wait_causes(life: Life, waiter: Waiter, at_s: float, in_the_way: Callable[[], list[Life]]) -> dict[str, float]:
    """Say what a wait for a model was spent on. The parts sum to it.

    Before a swap is decided: others in the way are on their own way in (swap), or busy (drain), or it is another's
    turn, or they are held (policy). From then until it is up: swap. Once up: concurrency while it is at its limit, else
    policy.

    Args:
        life: Of the model that was asked for.
        waiter: Who waited.
        at_s: Until when.
        in_the_way: Gives who would have to go; asked only where nothing was decided.
    """
    since_s, swap = waiter.arrived_s, life.swap
    parts = dict.fromkeys(WAIT_CAUSES, 0.0)
    if swap is not None and (swap.over_s is None or swap.over_s > since_s):
        decided_s = min(max(since_s, swap.since_s), at_s)
        _split(parts, since_s, decided_s, swap.up_s, swap.idle_s)
        since_s = at_s if swap.over_s is None else min(swap.over_s, at_s)
        parts["swap"] += since_s - decided_s
    if life.state is State.READY:
        full_s = min(life.full_up_to(at_s) - waiter.full_s, at_s - since_s)
        parts["concurrency"], parts["policy"] = full_s, parts["policy"] + at_s - since_s - full_s
    elif since_s < at_s:
        others = in_the_way()
        up_s = max((other.up_s for other in others), default=-inf)
        _split(parts, since_s, at_s, up_s, max((other.busy_until_s for other in others), default=-inf))
    return {cause: max(0.0, spent_s) for cause, spent_s in parts.items()}


def _split(parts: dict[str, float], since_s: float, until_s: float, up_s: float, idle_s: float) -> None:
    up_s = min(max(since_s, up_s), until_s)
    idle_s = min(max(up_s, idle_s), until_s)
    parts["swap"] += up_s - since_s
    parts["drain"] += idle_s - up_s
    parts["policy"] += until_s - idle_s
