"""What is known of one model's upstream. Books and their sums; nothing here decides or sends a command."""

from dataclasses import dataclass, field
from math import inf

from llmswap.core.commands import StopCause
from llmswap.core.events import Generation
from llmswap.core.fleet import Model, ModelId
from llmswap.core.holding import Rhythm
from llmswap.core.queueing import Line, Waiter
from llmswap.core.snapshot import UpstreamView
from llmswap.core.states import HOLDING, RESIDENT, State, move

FIRST_BACKOFF_S = 1.0
LONGEST_BACKOFF_S = 60.0
SLEEP_FAILURES_MAX = 2  # in a row: then it is stopped instead, until its config changes or it is unloaded
UNBORN = Generation(0)


@dataclass(slots=True, eq=False)
class Upstream:
    """The books of one model.

    Attributes:
        since_s: When `state` was entered.
        fingerprint: Of the config that the current generation runs with.
        in_flight: Dispatched to the current generation and not finished.
        load: The wish to have it resident with no client waiting.
        idle_since_s: When it was last ready with nothing in flight; None if it is not.
        failed_starts: In a row.
        dismissed: An operator ordered it to stop, busy or not.
        removed: The fleet no longer has the model; the books close when the upstream is gone.
        forced: A stop without grace was ordered.
        swap_since_s: When the last swap to it was decided.
        held_for: Who last wanted its place while it was kept, and the idle spell that was in.
        sleepless: Fingerprint of the config under which it turned out that it cannot sleep.
        sleep_failures: Sleeps and wakes that went wrong since the last wake that did not.
        bedless: There was no place for it among the sleepers when it had been idle long enough.
        cramped: Its start found too little device memory, and what sleepers keep of it was not given up for it yet.
        sleep_by_s: An operator ordered it to sleep: when that lapses if it is still busy.
        botched: A sleep or a wake went wrong: it must be stopped, and why.
        sleep_failure: The reason of the last sleep or wake that went wrong; None after one that did not.
        memory_free: It fell asleep and was not woken since.
        rests_since_s: Asleep: since when it served nobody.
        host_bytes: Host memory that it keeps asleep, as last seen.
        learnt_hold: The idle spell it is for, and for how long.
        rhythm: What its callers did and what its starts and stops took, kept over its lives.
        alarm_s: When the scheduler will look at it again by itself, at the latest.
    """

    model: Model
    since_s: float
    state: State = State.STOPPED
    generation: Generation = UNBORN
    fingerprint: str = ""
    line: Line = field(default_factory=Line)
    load: Waiter | None = None
    in_flight: int = 0
    idle_since_s: float | None = None
    failure: str | None = None
    failed_starts: int = 0
    retry_at_s: float | None = None
    stuck: bool = False
    dismissed: bool = False
    removed: bool = False
    forced: bool = False
    alarm_s: float | None = None
    swap_since_s: float = -inf
    held_for: tuple[ModelId, float | None] | None = None
    sleepless: str | None = None
    sleep_failures: int = 0
    bedless: bool = False
    cramped: bool = False
    sleep_by_s: float | None = None
    botched: StopCause | None = None
    sleep_failure: str | None = None
    memory_free: bool = False
    rests_since_s: float = 0.0
    host_bytes: int = 0
    learnt_hold: tuple[float | None, float] | None = None
    rhythm: Rhythm = field(default_factory=Rhythm)

    @property
    def id(self) -> ModelId:
        """The model's id."""
        return self.model.id

    @property
    def priority(self) -> int:
        """The model's priority."""
        return self.model.priority

    @property
    def holding(self) -> bool:
        """Whether it has, or may have, a process."""
        return self.state in HOLDING

    @property
    def resident(self) -> bool:
        """Whether it holds, or may hold, device memory."""
        return self.state in RESIDENT and not self.memory_free

    @property
    def can_sleep(self) -> bool:
        """Whether it may be put to sleep instead of being stopped, as soon as it is idle."""
        return self.model.sleeps and not self.retiring and self.sleepless != self.fingerprint

    @property
    def wanted(self) -> bool:
        """Whether anybody waits for it."""
        return bool(self.line) or self.load is not None

    @property
    def oldest_turn(self) -> int:
        """The turn of who has waited longest for it; somebody must."""
        return min(waiter.turn for waiter in (self.line.first, self.load) if waiter is not None)

    def is_due(self, now_s: float) -> bool:
        """Whether a client has waited for it beyond the bound."""
        first = self.line.first
        return first is not None and first.arrived_s + self.model.max_wait_s <= now_s

    @property
    def retiring(self) -> bool:
        """Whether its config changed, or went, under it: nobody is admitted any more, it stops when idle."""
        return self.holding and (self.removed or self.fingerprint != self.model.fingerprint)

    @property
    def admits(self) -> bool:
        """Whether requests may be dispatched to it."""
        return self.state is State.READY and not self.retiring and self.sleep_by_s is None

    def enter(self, state: State, now_s: float) -> None:
        """Change the state, if the table allows it."""
        self.state = move(self.state, state)
        self.since_s = now_s
        self.idle_since_s = now_s if state is State.READY else None
        self.bedless = False

    def begin(self, generation: Generation, now_s: float) -> None:
        """Begin a new life."""
        assert generation > self.generation, f"{self.id}: generation {generation} after {self.generation}"
        self.enter(State.STARTING, now_s)
        self.generation = generation
        if self.fingerprint != self.model.fingerprint:
            self.host_bytes = 0
        self.fingerprint = self.model.fingerprint
        self.in_flight = 0

    def gone(self, now_s: float) -> None:
        """Note that the process tree is gone and its memory free."""
        self.rhythm.stopped(now_s - self.since_s)
        self.enter(State.STOPPED, now_s)
        self.in_flight = 0
        self.stuck = False
        self.dismissed = False
        self.forced = False
        self.botched = None
        self.sleep_by_s = None
        self.memory_free = False

    def fall_asleep(self, now_s: float) -> None:
        """Begin to fall asleep."""
        assert self.in_flight == 0, f"{self.id} was to be put to sleep while busy"
        self.rests_since_s = self.since_s if self.idle_since_s is None else self.idle_since_s
        self.sleep_by_s = None
        self.enter(State.SLEEP_PENDING, now_s)

    def asleep(self, now_s: float, host_bytes: int | None) -> None:
        """Note that it is asleep and its device memory free."""
        self.rhythm.slept(now_s - self.since_s)
        self.enter(State.ASLEEP, now_s)
        self.memory_free = True
        self.host_bytes = self.host_bytes if host_bytes is None else host_bytes
        self.sleep_failure = None

    def wake(self, now_s: float) -> None:
        """Begin to wake up."""
        self.memory_free = False
        self.enter(State.WAKING, now_s)

    def botch(self, cause: StopCause, reason: str, *, lasting: bool) -> None:
        """Note a sleep or a wake that went wrong. One that will always go wrong, or did twice in a row, is the last."""
        self.botched = cause
        self.failure = self.sleep_failure = reason
        self.sleep_failures += 1
        if lasting or self.sleep_failures >= SLEEP_FAILURES_MAX:
            self.sleepless = self.fingerprint

    def ready(self, now_s: float) -> None:
        """Note a successful start or wake."""
        if self.state is State.WAKING:
            self.rhythm.woke(now_s - self.since_s)
            self.sleep_failure = None
            self.sleep_failures = 0
        else:
            self.rhythm.loaded(now_s - self.since_s)
        self.cramped = False
        self.enter(State.READY, now_s)
        self.failure = None
        self.forgive()

    def fail(self, reason: str, now_s: float) -> None:
        """Note a failed start, and until when not to try again."""
        self.enter(State.FAILED, now_s)
        self.failure = reason
        self.retry_at_s = now_s + min(FIRST_BACKOFF_S * 2.0 ** min(self.failed_starts, 10), LONGEST_BACKOFF_S)
        self.failed_starts += 1

    def forgive(self) -> None:
        """Forget failed starts, so that the next one is not put off."""
        self.failed_starts = 0
        self.retry_at_s = None

    def pardon(self, now_s: float) -> None:
        """Forget what failed and the state it led to: what made it fail may be different now."""
        self.forgive()
        self.sleepless = None
        self.sleep_failures = 0
        if self.state is State.FAILED:
            self.enter(State.STOPPED, now_s)
            self.failure = None

    def backing_off(self, now_s: float) -> bool:
        """Whether it is too early for another start."""
        return self.retry_at_s is not None and now_s < self.retry_at_s

    def due_s(self, now_s: float) -> float | None:
        """When something about it falls due: its oldest waiter's bound or timeout, or its own idle ttl."""
        waiting_since = [waiter.arrived_s for waiter in (self.line.first, self.load) if waiter is not None]
        if waiting_since:
            bound_s = min(waiting_since) + self.model.max_wait_s
            due_s = min(waiting_since) + self.model.queue_timeout_s
            due_s = min(bound_s, due_s) if bound_s > now_s else due_s
        else:
            due_s = self.idle_due_s
        if self.sleep_by_s is not None and self.state is State.READY:
            due_s = min(due_s, self.sleep_by_s)
        return None if due_s == inf else due_s

    @property
    def idle_due_s(self) -> float:
        """When it has been idle, or asleep, for so long that it goes to sleep, or ends; inf for never."""
        ttl_s = inf if self.model.idle_ttl_s is None else self.model.idle_ttl_s
        if self.state is State.ASLEEP:
            return self.rests_since_s + ttl_s
        if self.idle_since_s is None:
            return inf
        after_s = self.model.sleep_after_s if self.can_sleep and not self.bedless else None
        return self.idle_since_s + (ttl_s if after_s is None else min(ttl_s, after_s))

    def view(self, now_s: float) -> UpstreamView:
        """Show the books."""
        first = self.line.first
        return UpstreamView(
            model=self.id,
            state=self.state,
            generation=self.generation,
            in_flight=self.in_flight,
            waiting=len(self.line),
            since_s=self.since_s,
            oldest_waiting_s=None if first is None else first.arrived_s,
            idle_since_s=self.idle_since_s,
            failure=self.failure,
            retry_at_s=self.retry_at_s if self.backing_off(now_s) else None,
            stuck=self.stuck,
            sleep_failure=self.sleep_failure,
            sleep_ordered=self.sleep_by_s is not None,
            can_sleep=self.can_sleep,
            rests_since_s=self.rests_since_s if self.state is State.ASLEEP else None,
            wanted=self.wanted,
        )
