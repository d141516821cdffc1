"""Why the scheduler lets wait, and what it decided lately: read from the books, after `decisions.py`'s rules.

Nothing here decides. What it says must agree with `Decisions.verdict`; the simulated worlds check that it does.
"""

from collections import deque
from collections.abc import Iterable, Sequence
from heapq import nsmallest

from llmswap.core.books import Books
from llmswap.core.explanation import Alternative, Decision, Obstacle, Rule, Verb, Wait, WaitingRequest, Why
from llmswap.core.fleet import ModelId
from llmswap.core.policy import Policy
from llmswap.core.states import State
from llmswap.core.upstreams import Upstream

DECISIONS_KEPT = 100
ALTERNATIVES_MAX = 8
_DEEPEST = 3  # how far an estimate follows who waits for whom


class Reasons:
    """Explains, estimates and remembers.

    Attributes:
        policy: The one in force.
        log: The last decisions, the oldest first.
    """

    def __init__(self, books: Books, policy: Policy) -> None:
        self._books = books
        self.policy = policy
        self.log: deque[Decision] = deque(maxlen=DECISIONS_KEPT)

    # Why -------------------------------------------------------------------------------------------------------------

    def waits(self, requests_each: int) -> tuple[Wait, ...]:
        """Say for every model that clients wait for why they do, in the order of their turns."""
        waited_for = [up for up in self._books.wanted.values() if up.line]
        return tuple(self._wait(up, requests_each) for up in sorted(waited_for, key=self.policy.turn))

    def _wait(self, up: Upstream, requests_each: int) -> Wait:
        obstacle = self.obstacle(up)
        shown = (WaitingRequest(number, w.caller, w.arrived_s) for number, w in up.line.head(requests_each))
        due = up.is_due(self._books.now_s)
        ready_in_s = self.ready_in_s(up)
        ready_at_s = None if ready_in_s is None else self._books.now_s + ready_in_s
        return Wait(up.id, obstacle, tuple(shown), len(up.line), due, ready_at_s)

    def obstacle(self, up: Upstream) -> Obstacle:
        """Name what is in the way of a model that is wanted; LATER if nothing but another's turn."""
        return self._own_obstacle(up) or self._resident_in_the_way(up) or self._claim_in_the_way(up)

    def _own_obstacle(self, up: Upstream) -> Obstacle | None:
        """Look for what has nothing to do with others, but for a swap that is on."""
        swap = self._books.swaps.get(up.id)
        if up.stuck:
            return Obstacle(Why.STUCK)
        if swap is not None:
            return Obstacle(Why.STOPPING, tuple(sorted(swap.pending))) if swap.pending else Obstacle(Why.STARTING)
        if up.state in (State.STOPPING, State.SLEEP_PENDING):
            return Obstacle(Why.STOPPING)
        if up.retiring or up.sleep_by_s is not None:
            return Obstacle(Why.BUSY, (up.id,))
        return Obstacle(Why.BACKOFF, until_s=up.retry_at_s) if up.backing_off(self._books.now_s) else None

    def _resident_in_the_way(self, up: Upstream) -> Obstacle | None:
        """Look for somebody who would have to go and cannot now."""
        evict = self._to_go(up)
        if stuck := [other for other in evict if other.stuck]:
            return _of(Why.STUCK, stuck)
        busy = [other for other in evict if other.state is State.READY and other.in_flight]
        if busy:
            return _of(Why.BUSY, busy)
        stopping = [other for other in evict if other.state in (State.STOPPING, State.SLEEP_PENDING)]
        return _of(Why.STOPPING, stopping) if stopping else None

    def _to_go(self, up: Upstream) -> list[Upstream]:
        """Name who must go for a model; a ready one does not wait for those who cannot."""
        return [other for other in self._books.evictions(up) if up.state is not State.READY or not other.stuck]

    def _claim_in_the_way(self, up: Upstream) -> Obstacle:
        """Look for others with a claim on the place; last for the model's own limit."""
        books, evict = self._books, self._to_go(up)
        due = self.policy.yields_to(up)
        if up.state is State.READY and not evict:
            return Obstacle(Why.LIMIT) if due is None else _of(Why.YIELDING, [due])
        ids = [other.id for other in evict]
        if colliding := [swap.target for swap in books.swaps.values() if swap.collides(up.id, ids)]:
            return Obstacle(Why.SWAP, tuple(colliding))
        if due is not None:
            return _of(Why.YIELDING, [due])
        held = [(other, until_s) for other in evict if (until_s := self.policy.held_until_s(other, up)) is not None]
        if held:
            return Obstacle(Why.HELD, tuple(other.id for other, _ in held), max(until_s for _, until_s in held))
        return Obstacle(Why.LATER)

    # How long --------------------------------------------------------------------------------------------------------

    def ready_in_s(self, up: Upstream, depth: int = 0) -> float | None:
        """Estimate when the next one in a model's line would be served, from what things took so far.

        Returns:
            Seconds from now; None if the model never came up yet, or it is anybody's guess.
        """
        obstacle = self.obstacle(up)
        if obstacle.why is Why.LIMIT:
            return 0.0 if up.in_flight < up.model.concurrency_limit else up.rhythm.service_s
        asleep = up.state in (State.ASLEEP, State.WAKING)
        load_s = up.rhythm.wake_s if asleep else up.rhythm.load_s
        if load_s is None:
            return None
        if up.state in (State.STARTING, State.WAKING):
            return max(0.0, load_s - (self._books.now_s - up.since_s))
        free_in_s = self._free_in_s(up, obstacle, depth)
        return None if free_in_s is None else free_in_s + load_s

    def _free_in_s(self, up: Upstream, obstacle: Obstacle, depth: int) -> float | None:
        """Estimate when its start can begin."""
        match obstacle.why:
            case Why.STARTING:
                return 0.0
            case Why.STOPPING | Why.BUSY:
                return self._gone_in_s(obstacle.whom or (up.id,), draining=obstacle.why is Why.BUSY)
            case Why.HELD | Why.BACKOFF:
                assert obstacle.until_s is not None, f"{obstacle.why} ends some time"
                left_s = max(0.0, obstacle.until_s - self._books.now_s)
                return left_s + self._gone_in_s(obstacle.whom, draining=False)
            case Why.LATER:
                return self._gone_in_s([other.id for other in self._books.evictions(up)], draining=False)
            case Why.SWAP | Why.YIELDING if depth < _DEEPEST:
                first = self._books.upstreams[obstacle.whom[0]]
                before_s = self.ready_in_s(first, depth + 1)
                return None if before_s is None else before_s + self._gone_in_s([first.id], draining=True)
        return None

    def _gone_in_s(self, models: Iterable[ModelId], *, draining: bool) -> float:
        """Estimate when the slowest of them will be gone."""
        slowest_s = 0.0
        for model in models:
            rhythm = self._books.upstreams[model].rhythm
            drain_s = (rhythm.service_s or 0.0) if draining else 0.0
            slowest_s = max(slowest_s, drain_s + rhythm.leave_s)
        return slowest_s

    def place_in_s(self, up: Upstream) -> float | None:
        """Estimate when one who joined a model's line now would be served; None if nothing is known."""
        ready_in_s = self.ready_in_s(up)
        if ready_in_s is None:
            return None
        return ready_in_s + len(up.line) / up.model.concurrency_limit * (up.rhythm.service_s or 0.0)

    # What was decided ------------------------------------------------------------------------------------------------

    def note_swap(self, up: Upstream, evicted: Sequence[Upstream]) -> None:
        """Remember the decision to bring a model up, before it changes the books."""
        books = self._books
        others = [other for other in books.wanted.values() if other is not up]
        alternatives = tuple(
            Alternative(other.id, self.obstacle(other), len(other.line), self._waited_s(other))
            for other in nsmallest(ALTERNATIVES_MAX, others, key=self.policy.turn)
        )
        stay = (other for other in books.upstreams.values() if other.resident and other.state is not State.STOPPING)
        kept = tuple(other.id for other in stay if other not in evicted)
        first = up.line.first
        self.log.append(
            Decision(
                books.now_s,
                Verb.SWAP,
                up.id,
                rule=self._rule(up, others),
                evicted=tuple(other.id for other in evicted),
                kept=kept,
                caller="" if first is None else first.caller,
                waiting=len(up.line),
                waited_s=self._waited_s(up),
                alternatives=alternatives,
            )
        )

    def _rule(self, up: Upstream, others: Sequence[Upstream]) -> Rule:
        if not up.line:
            return Rule.ORDER
        if not others:
            return Rule.ALONE
        if up.is_due(self._books.now_s):
            return Rule.BOUND
        return Rule.PRIORITY if all(up.priority > other.priority for other in others) else Rule.AGE

    def _waited_s(self, up: Upstream) -> float:
        since_s = [waiter.arrived_s for waiter in (up.line.first, up.load) if waiter is not None]
        return self._books.now_s - min(since_s, default=self._books.now_s)

    def note_hold(self, resident: Upstream, target: Upstream, until_s: float) -> None:
        """Remember that a resident is kept although its place is wanted; once for each time it falls idle."""
        if resident.held_for == (target.id, resident.idle_since_s):
            return
        resident.held_for = target.id, resident.idle_since_s
        waited_s = self._waited_s(target)
        self.log.append(
            Decision(
                self._books.now_s,
                Verb.HOLD,
                resident.id,
                wanted_by=target.id,
                waiting=len(target.line),
                waited_s=waited_s,
                until_s=until_s,
            )
        )

    def note_stop(self, up: Upstream, rule: Rule) -> None:
        """Remember that a model was stopped for nobody's sake."""
        self.log.append(Decision(self._books.now_s, Verb.STOP, up.id, rule=rule))

    def note_sleep(self, up: Upstream, rule: Rule) -> None:
        """Remember that a model was put to sleep for nobody's sake."""
        self.log.append(Decision(self._books.now_s, Verb.SLEEP, up.id, rule=rule))


def _of(why: Why, upstreams: Iterable[Upstream]) -> Obstacle:
    return Obstacle(why, tuple(up.id for up in upstreams))
