"""The one decision site: after every event, `drain` looks at the books and dispatches, starts, stops or refuses.

The rules are llama-swap's, but for what `policy.py` makes of them. Where they differ the reason stands at the place.
"""

from collections.abc import Iterable, Mapping, Sequence
from enum import Enum, auto

from llmswap.core import refusals
from llmswap.core.books import Books, Served
from llmswap.core.commands import Dispatch, Sleep, SleepCause, Start, StartCause, Stop, StopCause, Wake
from llmswap.core.events import RequestId, SwapClass
from llmswap.core.explanation import Rule
from llmswap.core.fleet import ModelId
from llmswap.core.policy import policy_of
from llmswap.core.queueing import Waiter
from llmswap.core.reasons import Reasons
from llmswap.core.states import State
from llmswap.core.swaps import Swap
from llmswap.core.upstreams import Upstream


class Verdict(Enum):
    """What can be done now for those who want a model."""

    WAIT = auto()  # something is on its way already, or somebody who is busy is in the way
    SERVE = auto()  # it is up, and nobody has to go first (llama-swap's fast path)
    SWAP = auto()  # it can be made room for, and started
    BACKOFF = auto()  # its last start failed a moment ago
    STUCK = auto()  # it, or somebody in the way, cannot be stopped


_RULES = {
    StopCause.TTL: Rule.TTL,
    StopCause.UNLOAD: Rule.ORDER,
    StopCause.RELOAD: Rule.CONFIG,
    StopCause.SLEEPERS: Rule.SLEEPERS,
    StopCause.SLEEP_FAILED: Rule.FAILURE,
    StopCause.WAKE_FAILED: Rule.FAILURE,
}


def movable(upstreams: Iterable[Upstream]) -> tuple[Upstream, ...]:
    """Leave out those that cannot be stopped."""
    return tuple(up for up in upstreams if not up.stuck)


class Decisions:
    """Decides on what the books say, and writes into them what it decided."""

    def __init__(self, books: Books) -> None:
        self._books = books
        self.policy = policy_of(books)
        self.reasons = Reasons(books, self.policy)

    def adopt_policy(self) -> None:
        """Take the policy that the fleet in force names."""
        self.policy = self.reasons.policy = policy_of(self._books)

    def drain(self) -> None:
        """Do all that can be done now. Looks only at models whose chances the event may have changed."""
        books = self._books
        for up in tuple(books.touched.values()):
            self._leave(up)
        if books.drain_by_s is not None:
            self._wind_down()
        else:
            self._advance_swaps()
            self._decide_all()
            for up in tuple(books.touched.values()):
                self._rest_if_idle(up)
            if books.crowded:
                self._trim_sleepers()
            for up in books.touched.values():
                books.arm(up)
        books.touched.clear()

    def _leave(self, up: Upstream) -> None:
        """See off who waited too long, and the upstream itself if it was told to go and may."""
        for request in self._books.overdue(up):
            self._books.commands.append(refusals.queue_timeout(request, up, self.reasons.place_in_s(up)))
        if up.holding and up.state is not State.STOPPING:
            if up.dismissed:
                self._stop(up, StopCause.UNLOAD)
            elif up.botched is not None:
                self._stop(up, up.botched)
            elif up.retiring and up.in_flight == 0:
                self._stop(up, StopCause.RELOAD)
            elif up.sleep_by_s is not None:
                self._obey_sleep_order(up)
        self._place_choosy(up)
        self._books.settle(up)

    def verdict(self, up: Upstream) -> Verdict:
        """Judge the chances of those who want a model: llama-swap's rules, in their order."""
        books = self._books
        if up.stuck:
            return Verdict.STUCK
        leaving = up.state in (State.STOPPING, State.SLEEP_PENDING) or up.sleep_by_s is not None
        if leaving or up.id in books.swaps or up.retiring:
            return Verdict.WAIT
        if up.backing_off(books.now_s):
            return Verdict.BACKOFF
        evict = books.evictions(up)
        if up.state is State.READY:
            # Whom it would evict but nobody can stop is no reason to leave a ready upstream unused.
            if not movable(evict):
                return Verdict.SERVE if self.policy.yields_to(up) is None else Verdict.WAIT
        elif any(other.stuck for other in evict):
            return Verdict.STUCK
        free = self._is_free(up, evict) and self.policy.yields_to(up) is None and not self._is_held(up, evict)
        return Verdict.SWAP if free else Verdict.WAIT

    def serves_now(self, up: Upstream) -> bool:
        """Whether a request that came now would not have to wait."""
        free = up.state is State.READY and up.in_flight < up.model.concurrency_limit and not up.line
        return free and self.verdict(up) is Verdict.SERVE

    def _is_free(self, up: Upstream, evict: Sequence[Upstream]) -> bool:
        """Whether nobody in the way is busy, or part of another swap."""
        if any(self._is_busy(other) for other in evict):
            return False
        ids = [other.id for other in evict]
        return not any(swap.collides(up.id, ids) for swap in self._books.swaps.values())

    def _is_held(self, up: Upstream, evict: Sequence[Upstream]) -> bool:
        """Whether somebody in the way is kept for its callers; if so, it is looked at again when that is over."""
        ends = [(other, self.policy.held_until_s(other, up)) for other in evict]
        held = [(other, until_s) for other, until_s in ends if until_s is not None]
        for other, until_s in held:
            self._books.arm_at(other, until_s)
            self.reasons.note_hold(other, up, until_s)
        return bool(held)

    def _decide_all(self) -> None:
        """Do for each what can be done, in the order of their turns.

        Doing it for one can better the chances of others: who was due is not any more, or somebody moves in and the
        matrix chooses anew. Then all are looked at again.
        """
        books = self._books
        again = True
        while again:
            candidates = books.wanted if books.everyone else books.touched
            books.everyone = False
            for up in self._able(candidates):
                self._decide(up)
            again = books.everyone

    def _able(self, candidates: Mapping[ModelId, Upstream]) -> list[Upstream]:
        """Name, in the order of their turns, those for whom something can be done."""
        able = [up for up in candidates.values() if up.wanted and self.verdict(up) is not Verdict.WAIT]
        if len(able) > 1:
            able.sort(key=self.policy.turn)
        return able

    def _decide(self, up: Upstream) -> None:
        """Serve, begin a swap, refuse, or let wait; for all who want one model."""
        books = self._books
        match self.verdict(up):
            case Verdict.SERVE:
                self._dispatch(up)
            case Verdict.SWAP:
                self._place_choosy(up)  # it may be up, and others in its way
                books.settle(up)
                if up.wanted:
                    self._begin_swap(up)
            case Verdict.BACKOFF:
                books.send_away(up, lambda request: refusals.backoff(request, up, books.now_s))
            case Verdict.STUCK:
                culprit = next(other for other in (up, *books.evictions(up)) if other.stuck)
                books.send_away(up, lambda request: refusals.stuck(request, up, culprit))

    def _dispatch(self, up: Upstream) -> None:
        books = self._books
        while up.line and up.in_flight < up.model.concurrency_limit:
            self._serve(*books.pop(up), up)
        books.settle(up)

    def _serve(self, request: RequestId, waiter: Waiter, up: Upstream) -> None:
        """Have a request served by an upstream that is ready."""
        books = self._books
        books.leases[request] = Served(up, up.generation, books.now_s)
        up.in_flight += 1
        up.idle_since_s = None
        swap_s = up.since_s - max(waiter.arrived_s, up.swap_since_s) if waiter.arrived_s < up.since_s else None
        books.commands.append(Dispatch(request, up.id, up.generation, swap_s))

    def _place_choosy(self, up: Upstream) -> None:
        """See to those in line who shall not cause a swap, if nothing else will serve them.

        They go to a substitute that is up and has a place for them, at once, so that nobody can have it evicted first.
        Otherwise who may not swap is refused, and who would rather not waits like the others.
        """
        if not up.line.choosy or self._is_coming(up):
            return
        if up.state is State.READY and self.verdict(up) is Verdict.SERVE:  # a verdict on others notes whom it holds
            return
        books = self._books
        for request, swap_class in tuple(up.line.choosy.items()):
            substitute = next((other for other in self._substitutes(up) if self.serves_now(other)), None)
            if substitute is not None:
                self._serve(request, books.take_out(request), substitute)
                books.touch(substitute)
            elif swap_class is SwapClass.NEVER_SWAP:
                books.take_out(request)
                would_go = [other.id for other in books.evictions(up)]
                books.commands.append(refusals.would_swap(request, up, would_go, self.reasons.ready_in_s(up)))
            else:
                del up.line.choosy[request]

    def _is_coming(self, up: Upstream) -> bool:
        """Whether it is being started, for others: who joins them causes nothing."""
        swap = self._books.swaps.get(up.id)
        return swap is not None and swap.begun

    def _substitutes(self, up: Upstream) -> Iterable[Upstream]:
        known = self._books.upstreams
        return (known[model] for model in up.model.substitutes if model in known)

    def _begin_swap(self, up: Upstream) -> None:
        """Stop whom the rules say, all at once; start when all are gone."""
        evict = [*movable(self._books.evictions(up)), *self._cleared_for(up)]
        ids = tuple(other.id for other in evict)
        ready = [other for other in evict if other.state is State.READY]
        now_s = self._books.now_s
        swap = Swap(up.id, ids, pending=set(ids), evicted=tuple(other.id for other in ready), since_s=now_s)
        self.reasons.note_swap(up, ready)
        self._books.add_swap(swap)
        up.swap_since_s = now_s
        for other in ready:
            if not up.cramped and self._find_bed(other, displace=True):
                self._put_to_sleep(other, SleepCause.EVICT, evicted_for=up.id)
            else:
                self._stop(other, StopCause.EVICT, evicted_for=up.id)
        for other in ready:
            self._place_choosy(other)
            self._books.settle(other)
        if not swap.pending:
            self._start(up, swap)

    def _is_busy(self, up: Upstream) -> bool:
        """Whether it must not be evicted now. One that stops already is not spared by its last requests."""
        return up.state is State.READY and up.in_flight > 0

    def _advance_swaps(self) -> None:
        """Start whoever has the room now, and serve who waited for a swap that is done.

        There is no hopeful step: memory is free when its UpstreamStopped came.
        """
        for swap in tuple(self._books.swaps.values()):
            up = self._books.upstreams[swap.target]
            if swap.pending:
                continue
            if up.state is State.READY:
                self._books.end_swap(up)
                self._dispatch(up)  # before anybody of higher priority can have it evicted again
            elif not swap.begun:
                self._start(up, swap)

    def _start(self, up: Upstream, swap: Swap) -> None:
        books = self._books
        alive = [model for model in swap.evict if model in books.upstreams and books.upstreams[model].resident]
        assert not alive, f"{up.id} was to start before {alive} were gone"
        assert up.wanted, f"{up.id} was to start for nobody"
        swap.begun = True
        first = up.line.first
        cause = StartCause.LOAD if first is None else StartCause.REQUEST
        caller = "" if first is None else first.caller
        if up.state is State.ASLEEP:
            books.left_bed()
            up.wake(books.now_s)
            books.commands.append(Wake(up.id, up.generation, cause, swap.evicted, caller, up.swap_since_s))
        else:
            up.begin(books.next_generation(), books.now_s)
            books.commands.append(Start(up.id, up.generation, cause, swap.evicted, caller, up.swap_since_s))

    def spare_sleepers(self) -> list[Upstream]:
        """Name the sleepers that nobody wants, those that cost least to bring back first."""
        sleepers = (up for up in self._books.upstreams.values() if up.state is State.ASLEEP and not up.wanted)
        return sorted(sleepers, key=_worth)

    def _cleared_for(self, up: Upstream) -> list[Upstream]:
        """Stop the sleepers for a model that found too little device memory: each of them keeps a rest of it."""
        spare = self.spare_sleepers() if up.cramped else []
        for other in spare:
            self._stop(other, StopCause.SLEEPERS)
        return spare

    def _find_bed(self, up: Upstream, *, displace: bool = False) -> bool:
        """Find it a place among the sleepers, if it can sleep.

        Args:
            up: Who needs it.
            displace: If need be by stopping those that cost less.
        """
        if not up.can_sleep:
            return False
        fleet, known = self._books.fleet, self._books.upstreams.values()
        sleepers = [other for other in known if other.state in (State.ASLEEP, State.SLEEP_PENDING)]
        count, host_bytes = len(sleepers) + 1, sum(other.host_bytes for other in sleepers) + up.host_bytes
        displaced = []
        for other in self.spare_sleepers() if displace else []:
            if fleet.beds_suffice(count, host_bytes) or _worth(other) >= _worth(up):
                break
            displaced.append(other)
            count, host_bytes = count - 1, host_bytes - other.host_bytes
        if not fleet.beds_suffice(count, host_bytes):
            return False
        for other in displaced:
            self._stop(other, StopCause.SLEEPERS)
        return True

    def _trim_sleepers(self) -> None:
        """Stop sleepers, those that cost least to bring back first, until they are within the fleet's limits."""
        books = self._books
        books.crowded = False
        asleep = [up for up in books.upstreams.values() if up.state is State.ASLEEP]
        count, host_bytes = len(asleep), sum(up.host_bytes for up in asleep)
        for up in self.spare_sleepers():
            if books.fleet.beds_suffice(count, host_bytes):
                return
            count, host_bytes = count - 1, host_bytes - up.host_bytes
            self._stop(up, StopCause.SLEEPERS)

    def _obey_sleep_order(self, up: Upstream) -> None:
        """Put it to sleep as soon as it is idle; forget the order if that takes too long."""
        assert up.sleep_by_s is not None, f"{up.id} was not ordered to sleep"
        if up.state is State.READY and up.in_flight == 0 and self._find_bed(up, displace=True):
            self._put_to_sleep(up, SleepCause.ORDER)
        elif up.state is not State.READY or up.in_flight == 0 or up.sleep_by_s <= self._books.now_s:
            up.sleep_by_s = None

    def _put_to_sleep(self, up: Upstream, cause: SleepCause, *, evicted_for: ModelId | None = None) -> None:
        up.fall_asleep(self._books.now_s)
        self._books.end_swap(up)
        self._books.touch(up)
        if cause is not SleepCause.EVICT:
            self.reasons.note_sleep(up, Rule.TTL if cause is SleepCause.IDLE else Rule.ORDER)
        self._books.commands.append(Sleep(up.id, up.generation, cause, evicted_for))

    def _stop(self, up: Upstream, cause: StopCause, *, evicted_for: ModelId | None = None, force: bool = False) -> None:
        if cause in (StopCause.EVICT, StopCause.TTL):
            assert up.in_flight == 0, f"{up.id} was to be stopped for {cause} while busy"
        if up.state is State.ASLEEP:
            self._books.left_bed()
        if up.state is not State.STOPPING:
            up.enter(State.STOPPING, self._books.now_s)
            self._books.end_swap(up)
            if cause in _RULES:
                self.reasons.note_stop(up, _RULES[cause])
        up.forced = up.forced or force
        self._books.commands.append(Stop(up.id, up.generation, cause, evicted_for, force))

    def _rest_if_idle(self, up: Upstream) -> None:
        """Stop who has been idle, or asleep, for its ttl; let sleep who may before. Comes last: arrivals win."""
        now_s = self._books.now_s
        if up.wanted or up.id in self._books.swaps or up.idle_due_s > now_s:
            return
        since_s = up.rests_since_s if up.state is State.ASLEEP else up.idle_since_s
        assert since_s is not None, f"{up.id} is not idle"
        if up.model.idle_ttl_s is not None and since_s + up.model.idle_ttl_s <= now_s:
            self._stop(up, StopCause.TTL)
        elif self._find_bed(up):
            self._put_to_sleep(up, SleepCause.IDLE)
        else:
            up.bedless = True  # until a sleeper leaves, or its own ttl
            self._books.arm(up)

    def _wind_down(self) -> None:
        """Stop everything: who is idle now, who is busy when its last lease ends, all when the deadline has passed."""
        books = self._books
        force = books.drain_left_s() <= 0
        for up in books.upstreams.values():
            if up.state in (State.STOPPED, State.FAILED):
                up.enter(State.SHUTDOWN, books.now_s)
            elif up.holding:
                idle = up.state is not State.STOPPING and up.in_flight == 0
                hurry = force or up.stuck  # nothing is started after it: what it holds concerns nobody any more
                if idle or (hurry and not up.forced):
                    self._stop(up, StopCause.SHUTDOWN, force=hurry)


def _worth(up: Upstream) -> tuple[float, float]:
    """Give what bringing a sleeper back cold would cost, then since when it serves nobody: the smallest goes first."""
    awake_since_s = up.since_s if up.idle_since_s is None else up.idle_since_s
    return up.rhythm.load_s or 0.0, up.rests_since_s if up.state is State.ASLEEP else awake_since_s
