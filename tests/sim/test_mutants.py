"""Planted bugs, each a mistake that real schedulers made: the simulator must catch them all, and soon."""

import pytest

from llmswap.core import events as ev
from llmswap.core.commands import Dispatch
from llmswap.core.decisions import Decisions
from llmswap.core.scheduler import Scheduler
from llmswap.core.states import State
from llmswap.sim.checkers import Violation
from llmswap.sim.report import WorldFailed
from llmswap.sim.run import run_world

SEEDS = 250


class EvictsTheBusy(Scheduler):
    def __init__(self, fleet, now_s):
        super().__init__(fleet, now_s)
        self._decisions = self.Blind(self._books)

    class Blind(Decisions):
        def _is_busy(self, up):
            return False

        def _stop(self, up, cause, **why):
            in_flight, up.in_flight = up.in_flight, 0  # past the scheduler's own assertion
            super()._stop(up, cause, **why)
            up.in_flight = in_flight


class LeaksACount(Scheduler):
    """Forgets to count down when a request ends while its upstream is being stopped."""

    def _finished(self, event):
        up, generation, _ = self._books.leases[event.request]
        if up.state is State.STOPPING and up.generation == generation:
            del self._books.leases[event.request]
        else:
            super()._finished(event)


class StartsTooSoon(Scheduler):
    """Takes the order to stop for the stop."""

    def __init__(self, fleet, now_s):
        super().__init__(fleet, now_s)
        self._decisions = self.Hopeful(self._books)

    class Hopeful(Decisions):
        def _advance_swaps(self):
            for swap in self._books.swaps.values():
                swap.pending.clear()
                swap.evict = ()  # past the scheduler's own assertion
            super()._advance_swaps()


class DispatchesTheCancelled(Scheduler):
    def __init__(self, fleet, now_s):
        super().__init__(fleet, now_s)
        self._ghosts = []

    def _cancelled(self, event):
        if up := self._books.waiting.get(event.request):
            self._ghosts.append((event.request, up))
        super()._cancelled(event)

    def handle(self, now_s, event):
        commands = list(super().handle(now_s, event))
        for ghost in [ghost for ghost in self._ghosts if ghost[1].state is State.READY]:
            self._ghosts.remove(ghost)
            commands.append(Dispatch(ghost[0], ghost[1].id, ghost[1].generation))
        return commands


class StrandsWaitersOnACrash(Scheduler):
    """Notes that a crashed upstream is gone, and looks at nobody who waits."""

    def __init__(self, fleet, now_s):
        super().__init__(fleet, now_s)
        self._crashed = set()

    def _exited(self, event):
        super()._exited(event)
        self._crashed.add((event.model, event.generation))

    def _stopped(self, event):
        super()._stopped(event)
        if (event.model, event.generation) in self._crashed:
            self._books.touched.clear()
            self._books.everyone = False


class ActsOnStaleGenerations(Scheduler):
    def __init__(self, fleet, now_s):
        super().__init__(fleet, now_s)
        self._books.alive = self._anybody

    def _anybody(self, model, generation):
        up = self._books.upstreams.get(model)
        return up if up is not None and up.holding else None


class DispatchesToTheSleeping(Scheduler):
    """Takes a sleeper for ready, because its process is there and answers its health check."""

    def __init__(self, fleet, now_s):
        super().__init__(fleet, now_s)
        self._decisions = self.Careless(self._books)

    class Careless(Decisions):
        def _decide(self, up):
            if up.state is State.ASLEEP:
                self._dispatch(up)
            else:
                super()._decide(up)


class TakesHalfASleepForSleep(Scheduler):
    def _sleep_failed(self, event):
        self._fell_asleep(event_of(event))


def event_of(failed):
    return ev.UpstreamAsleep(failed.model, failed.generation)


class StartsBeforeTheSleeperIsAsleep(Scheduler):
    """Takes the order to sleep for the sleep."""

    def __init__(self, fleet, now_s):
        super().__init__(fleet, now_s)
        self._decisions = self.Hopeful(self._books)

    class Hopeful(Decisions):
        def _advance_swaps(self):
            for swap in self._books.swaps.values():
                dozing = {m for m in swap.pending if self._books.upstreams[m].state is State.SLEEP_PENDING}
                swap.pending -= dozing
                swap.evict = tuple(model for model in swap.evict if model not in dozing)  # past our own assertion
            super()._advance_swaps()


class LosesWhoWaitsForAWake(Scheduler):
    """Serves those who came before the model fell asleep, and nobody who woke it."""

    def _became_ready(self, event):
        waking = self._books.upstreams[event.model].state is State.WAKING if event.model in self._books.upstreams else 0
        super()._became_ready(event)
        if waking:
            self._books.touched.clear()
            self._books.everyone = False
            self._books.swaps.pop(event.model, None)


class TriesAgainBesideTheRest(Scheduler):
    """Tries a start that lacked memory once more, and leaves the sleepers where they are."""

    def __init__(self, fleet, now_s=0.0):
        super().__init__(fleet, now_s)
        self._decisions._cleared_for = lambda _: []


@pytest.mark.parametrize(
    ("mutant", "invariants"),
    [
        (EvictsTheBusy, {"I4"}),
        (LeaksACount, {"I19"}),
        (StartsTooSoon, {"I3", "I16"}),
        (DispatchesTheCancelled, {"I2"}),
        (StrandsWaitersOnACrash, {"I10"}),
        (ActsOnStaleGenerations, {"I12", "assertion"}),
        (DispatchesToTheSleeping, {"I5"}),
        (TakesHalfASleepForSleep, {"I15", "I16", "I19"}),
        (StartsBeforeTheSleeperIsAsleep, {"I3", "I16"}),
        (LosesWhoWaitsForAWake, {"I10"}),
        (TriesAgainBesideTheRest, {"I16"}),
    ],
)
def test_a_planted_bug_is_caught(mutant, invariants):
    caught = first_failure(mutant)
    assert caught is not None, f"{mutant.__name__} survived {SEEDS} worlds"
    assert invariant(caught) in invariants, str(caught)


def test_the_real_scheduler_passes_where_the_mutants_fail():
    assert first_failure(Scheduler) is None


def first_failure(make):
    for seed in range(SEEDS):
        try:
            run_world(seed, make)
        except WorldFailed as failure:
            return failure
    return None


def invariant(failure):
    reason = failure.reason
    return str(reason).partition(":")[0] if isinstance(reason, Violation) else "assertion"
