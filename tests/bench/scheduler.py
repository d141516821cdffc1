"""What an event costs in the scheduler: `python -m tests.bench.scheduler` prints microseconds per event.

A steady state in which nobody's place is settled: every model excludes every other, most requests wait, the resident
model works off its line and is swapped, impatient clients leave.
"""

import sys
import time
from collections import deque
from itertools import pairwise
from math import inf
from random import Random

from llmswap.core.commands import Command, Dispatch, Reject, Start, Stop
from llmswap.core.events import (
    Event,
    RequestArrived,
    RequestCancelled,
    RequestFinished,
    RequestId,
    UpstreamReady,
    UpstreamStopped,
)
from llmswap.core.fleet import Fleet, Group, MatrixRules, Model, ModelId, Router, Scheduling
from llmswap.core.scheduler import Scheduler

BUDGETS_US = {(20, 1000): 20.0, (100, 1000): 100.0}  # (models, waiting) -> the most an event may cost on average


def fleet_of(models: int, rule: str = "group", use: Scheduling = Scheduling.FIFO) -> Fleet:
    """Make a fleet of models that exclude one another, but for pairs; under fair, about half who wait are due."""
    ids = [ModelId(f"m{number}") for number in range(models)]
    bound_s = 0.5 if use is Scheduling.FAIR else inf
    made = {
        model: Model(model, concurrency_limit=10_000, idle_ttl_s=300, queue_limit=10_000, max_wait_s=bound_s)
        for model in ids
    }
    names = {str(model): model for model in ids}
    if rule == "matrix":
        sets = {f"s{number}": f"{one} & {other}" for number, (one, other) in enumerate(pairwise(ids))}
        matrix = MatrixRules({}, sets)
        return Fleet(made, names, matrix=matrix, router=Router.MATRIX, scheduling=use, queue_max=100_000)
    return Fleet(made, names, groups=(Group("(default)", tuple(ids)),), scheduling=use, queue_max=100_000)


class Bench:
    """A scheduler with a world so simple that it costs little: everything ordered happens next."""

    def __init__(self, fleet: Fleet) -> None:
        self._scheduler = Scheduler(fleet)
        self._models = list(fleet.models)
        self._rng = Random(1)  # the same work in every run
        self._inbox: deque[Event] = deque()
        self._waiting: dict[RequestId, None] = {}
        self._arrived = 0
        self._now_s = 0.0

    def fill(self, waiting: int) -> None:
        """Let so many wait. The first model's place is taken by the first of them."""
        while len(self._waiting) < waiting:
            self._arrive()
            self.turn()

    def turn(self) -> float:
        """Handle one event; give what the scheduler took for it, in seconds."""
        event = self._inbox.popleft()
        self._now_s += 0.001
        begin_s = time.thread_time()  # other processes are none of its business
        commands = self._scheduler.handle(self._now_s, event)
        self._scheduler.next_deadline_s()
        spent_s = time.thread_time() - begin_s
        for command in commands:
            self._perform(command)
        return spent_s

    def keep(self, waiting: int) -> None:
        """Give the next event: what was ordered, or else somebody comes, or the one who waits longest leaves."""
        if len(self._waiting) < waiting or not self._inbox:
            self._arrive()
        if len(self._waiting) > waiting:
            leaving = next(iter(self._waiting))
            del self._waiting[leaving]
            self._inbox.append(RequestCancelled(leaving))

    def _arrive(self) -> None:
        self._arrived += 1
        request = RequestId(self._arrived)
        self._waiting[request] = None
        self._inbox.append(RequestArrived(request, self._rng.choice(self._models)))

    def _perform(self, command: Command) -> None:
        match command:
            case Dispatch(request):
                self._waiting.pop(request, None)
                self._inbox.append(RequestFinished(request))
            case Reject(request):
                self._waiting.pop(request, None)
            case Start(model, generation):
                self._inbox.append(UpstreamReady(model, generation))
            case Stop(model, generation):
                self._inbox.append(UpstreamStopped(model, generation))


def measure(
    models: int, waiting: int, events: int = 20_000, rule: str = "group", use: Scheduling = Scheduling.FIFO
) -> float:
    """Give the mean cost of an event, in microseconds, with about so many requests waiting all the time."""
    bench = Bench(fleet_of(models, rule, use))
    bench.fill(waiting)
    spent_s = 0.0
    for _ in range(events):
        bench.keep(waiting)
        spent_s += bench.turn()
    return spent_s / events * 1e6


def table() -> list[tuple[str, str, int, int, float]]:
    """Measure every case: scheduler, rule, models, waiting, microseconds per event."""
    cases = [("group", 20, 10), ("group", 20, 1000), ("group", 100, 1000), ("group", 20, 10_000), ("matrix", 20, 1000)]
    return [
        (use, rule, models, waiting, measure(models, waiting, rule=rule, use=use))
        for use in Scheduling
        for rule, models, waiting in cases
    ]


def main() -> None:
    """Print the table."""
    sys.stdout.write(f"{'use':<6}{'rule':<8}{'models':>8}{'waiting':>9}{'us/event':>10}\n")
    for use, rule, models, waiting, cost_us in table():
        sys.stdout.write(f"{use:<6}{rule:<8}{models:>8}{waiting:>9}{cost_us:>10.1f}\n")


if __name__ == "__main__":
    main()
