"""Property: under `fair` nobody waits beyond the bound, whatever the traffic; under `fifo` somebody may wait for ever.

Goal: wait <= max_wait + one round of drain, stop and load for each model that may have been due earlier. Method: random
traffic from seeds, under and over capacity, through a world that keeps its durations.
"""

import heapq
import itertools
from dataclasses import replace
from random import Random

import pytest

from llmswap.core import events as ev
from llmswap.core.commands import Dispatch, Start, Stop
from llmswap.core.explanation import Verb, Why
from llmswap.core.fleet import ModelId, Scheduling
from llmswap.core.policy import Fair
from llmswap.core.scheduler import Scheduler
from tests.core.story import fleet, model

SERVICE_S, LOAD_S, STOP_S = 20.0, 30.0, 2.0
MAX_WAIT_S = 60.0


class Box:
    """One GPU for all models; services, loads and stops take at most their durations."""

    def __init__(self, scheduling, models, arrivals, seed, holds=(None, 0.0, 10.0, 1000.0)):
        self.rng = Random(seed)
        made = [
            model(
                name,
                concurrency_limit=10_000,
                queue_timeout_s=float("inf"),
                max_wait_s=MAX_WAIT_S if scheduling is Scheduling.FAIR else float("inf"),
                hold_s=self.rng.choice(holds),
                priority=self.rng.choice((0, 0, 7)),
                queue_limit=10_000,
            )
            for name in models
        ]
        self.scheduler = Scheduler(replace(fleet(*made, queue_max=10_000), scheduling=scheduling))
        self.heap = []
        self.numbers = itertools.count()
        self.arrived = {}
        self.waits = {}
        for number, (at_s, name) in enumerate(arrivals):
            self.later(at_s, ev.RequestArrived(ev.RequestId(number), ModelId(name)))

    def later(self, at_s, event):
        heapq.heappush(self.heap, (at_s, next(self.numbers), event))

    def run(self, until_s):
        armed_s = None
        while self.heap and self.heap[0][0] <= until_s:
            now_s, _, event = heapq.heappop(self.heap)
            if isinstance(event, ev.RequestArrived):
                self.arrived[event.request] = now_s
            for command in self.scheduler.handle(now_s, event):
                self.perform(now_s, command)
            due_s = self.scheduler.next_deadline_s()
            if due_s is not None and (armed_s is None or due_s < armed_s or armed_s <= now_s):
                armed_s = due_s
                self.later(due_s, ev.DeadlineReached())

    def perform(self, now_s, command):
        match command:
            case Dispatch(request=request):
                self.waits[request] = now_s - self.arrived[request]
                self.later(now_s + SERVICE_S * self.rng.random(), ev.RequestFinished(request))
            case Start(model=name, generation=generation):
                self.later(now_s + LOAD_S, ev.UpstreamReady(name, generation))
            case Stop(model=name, generation=generation):
                self.later(now_s + STOP_S, ev.UpstreamStopped(name, generation))


def bound_s(models):
    return MAX_WAIT_S + (len(models) + 1) * (SERVICE_S + STOP_S + LOAD_S)


def traffic(seed, models, rate, span_s):
    rng = Random(seed)
    weights = [rng.choice((1, 1, 20)) for _ in models]
    times = sorted(rng.uniform(0, span_s) for _ in range(int(rate * span_s)))
    return [(at_s, rng.choices(models, weights)[0]) for at_s in times]


@pytest.mark.parametrize("rate", [0.02, 0.2, 2.0])
@pytest.mark.parametrize("size", [2, 3, 6])
def test_nobody_waits_beyond_the_bound(size, rate):
    models = [f"m{number}" for number in range(size)]
    for seed in range(8):
        arrivals = traffic(seed, models, rate, 1500.0)
        box = Box(Scheduling.FAIR, models, arrivals, seed)
        box.run(1e9)
        assert len(box.waits) == len(arrivals), f"seed {seed}"
        assert max(box.waits.values()) <= bound_s(models), f"seed {seed}"


def starving():
    """Overlapping calls of `hot`, so that it is never idle, and one request for `cold`."""
    return [(0.5 * number, "hot") for number in range(4000)] + [(50.0, "cold")]


def test_a_model_that_never_falls_idle_starves_nobody():
    fair = Box(Scheduling.FAIR, ["hot", "cold"], starving(), 1)
    fair.run(2000.0)
    assert fair.waits[4000] <= bound_s(["hot", "cold"])

    fifo = Box(Scheduling.FIFO, ["hot", "cold"], starving(), 1)
    fifo.run(1900.0)
    assert 4000 not in fifo.waits


def held_too_long(box):
    """Name models that wait for one that is kept although its own hold is over."""
    upstreams, models = box.scheduler.snapshot().upstreams, box.scheduler._books.fleet.models
    for wait in box.scheduler.waits(0):
        if wait.obstacle.why is Why.HELD:
            ends_s = [upstreams[other].idle_since_s + (models[other].hold_s or 0.0) for other in wait.obstacle.whom]
            if wait.obstacle.until_s > max(ends_s):
                yield wait.model


def run_with_fixed_holds(seed, mutate=lambda box: None):
    """Run a box under light traffic; tell whether a hold lasted longer than it is."""
    models = [f"m{number}" for number in range(4)]
    box = Box(Scheduling.FAIR, models, traffic(seed, models, 0.1, 1500.0), seed, holds=(5.0, 10.0, 30.0))
    mutate(box)
    handle, late = box.scheduler.handle, []

    def watched(now_s, event):
        commands = handle(now_s, event)
        late.extend(held_too_long(box))
        return commands

    box.scheduler.handle = watched
    box.run(1e9)
    assert any(decision.verb is Verb.HOLD for decision in box.scheduler.decisions()), "nobody was ever held"
    return bool(late)


def test_only_requests_for_the_resident_prolong_its_hold():
    assert not any(run_with_fixed_holds(seed) for seed in range(8))


class AnyRequestRestartsTheHold(Fair):
    """Hold restarted by other models' requests."""

    def held_until_s(self, resident, target):
        until_s = super().held_until_s(resident, target)
        newest_s = max((other.line._waiters[key].arrived_s for key, other in self._books.waiting.items()), default=0.0)
        return None if until_s is None else max(until_s, newest_s + (resident.model.hold_s or 0.0))


def test_a_planted_bug_that_restarts_holds_is_caught():
    def mutate(box):
        mutant = AnyRequestRestartsTheHold(box.scheduler._books)
        box.scheduler._decisions.policy = box.scheduler._decisions.reasons.policy = mutant

    assert any(run_with_fixed_holds(seed, mutate) for seed in range(8))


class HoldsTheDue(Fair):
    """Bound ignored for held residents."""

    def held_until_s(self, resident, target):
        idle_since_s = resident.idle_since_s
        return None if idle_since_s is None else max(idle_since_s + 1e6, self._books.now_s + 1)


class PriorityBeatsTheBound(Fair):
    """Priority before due."""

    def turn(self, up):
        return (-up.priority, *super().turn(up))


class OrdersByName(Fair):
    """The due are taken by name, not by age."""

    def turn(self, up):
        return (*super().turn(up)[:1], *map(ord, up.id))


class NobodyYields(Fair):
    """Admission stays open for whoever is in the way of the due."""

    def yields_to(self, up):
        return None


@pytest.mark.parametrize("mutant", [HoldsTheDue, PriorityBeatsTheBound, OrdersByName, NobodyYields])
def test_a_planted_bug_breaks_the_bound(mutant):
    models = [f"m{number}" for number in range(6)]
    for seed in range(40):
        for rate in (0.2, 2.0):
            box = Box(Scheduling.FAIR, models, traffic(seed, models, rate, 1500.0), seed)
            box.scheduler._decisions.policy = mutant(box.scheduler._books)
            box.run(20_000.0)
            if len(box.waits) < len(box.arrived) or max(box.waits.values()) > bound_s(models):
                return
    pytest.fail(f"{mutant.__name__} survived")
