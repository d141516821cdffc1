"""A simulated world: processes that take memory and time, clients that come and lose patience, an operator.

It keeps the promises of events.py and commands.py as the supervisor and the gate do, as unpleasantly as they allow.
"""

import itertools
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from functools import partial
from random import Random
from typing import Protocol

from llmswap.core import events as ev
from llmswap.core.commands import Command, Dispatch, Reject, Sleep, Start, Stop, Wake
from llmswap.core.explanation import Wait
from llmswap.core.fleet import Fleet, ModelId
from llmswap.core.snapshot import Snapshot
from llmswap.core.step import Step
from llmswap.sim.checkers import Checkers, Truth, check_reasons
from llmswap.sim.engine import Engine, tick
from llmswap.sim.faults import Faults
from llmswap.sim.report import Report
from llmswap.sim.workload import Arrival, draw_plan, fairly

Said = (
    ev.UpstreamReady
    | ev.StartFailed
    | ev.UpstreamAsleep
    | ev.SleepFailed
    | ev.WakeFailed
    | ev.UpstreamExited
    | ev.UpstreamStopped
    | ev.StopFailed
)


class Decider(Protocol):
    """The scheduler, as the world drives it."""

    def handle(self, now_s: float, event: ev.Event) -> Sequence[Command]:
        """Take an event, return the commands that follow."""

    def next_deadline_s(self) -> float | None:
        """When to come back with DeadlineReached if nothing else happens."""

    def snapshot(self) -> Snapshot:
        """Give a frozen picture."""

    def waits(self, requests_each: int) -> tuple[Wait, ...]:
        """Say for every model that is waited for why."""


@dataclass(slots=True, eq=False)
class Process:
    """One life of an upstream. It takes memory for as long as the world knows it, but for when it is asleep.

    Attributes:
        turns: How often it was put to sleep or woken. What is said of an earlier turn is not said again.
    """

    model: ModelId
    generation: ev.Generation
    serving: set[ev.RequestId] = field(default_factory=set)
    dying: bool = False
    asleep: bool = False
    turns: int = 0


class World:
    """Everything around a scheduler, drawn from one seed.

    Args:
        make: Makes the scheduler under test.
        start_s: What the monotonic clock shows at the beginning.
        fair: Let the same clients come under `fair` instead of `fifo`.
    """

    def __init__(
        self, seed: int, make: Callable[[Fleet, float], Decider], start_s: float = 0.0, *, fair: bool = False
    ) -> None:
        self._rng = Random(seed)  # noqa: S311  replayed from the seed on purpose
        self._faults = Faults.draw(self._rng)
        plan = draw_plan(
            self._rng, impatient=self._faults.impatient, reload_race=self._faults.reload_race, start_s=start_s
        )
        plan = fairly(plan) if fair else plan
        self._engine = Engine(self._rng, start_s)
        self._scheduler = make(plan.fleet, start_s)
        self._checkers = Checkers(plan.fleet, self._scheduler.snapshot())
        self._processes: dict[ModelId, Process] = {}
        self._clients: dict[ev.RequestId, Arrival] = {}  # those who wait or are served
        self._served_by: dict[ev.RequestId, Process] = {}
        self._timer_s: float | None = None
        self.steps: list[Step] = []
        self.report = Report(worlds=1)
        self._numbers = map(ev.RequestId, itertools.count())
        self._retries = len(plan.arrivals)  # how often, in all, a client whose upstream crashed comes again
        for arrival in plan.arrivals:
            self._engine.at(start_s + arrival.at_s, partial(self._come, next(self._numbers), arrival))
        for order in plan.orders:
            self._engine.at(start_s + order.at_s, partial(self._post, order.event))

    def run(self) -> None:
        """Let the world come to rest.

        Raises:
            AssertionError: An invariant does not hold, or the scheduler's own assertions say so.
        """
        self._engine.run()
        self._checkers.check_quiet(self._scheduler.snapshot())

    def _post(self, event: ev.Event) -> None:
        due_s = self._scheduler.next_deadline_s()
        now_s = self._engine.now_s
        self.steps.append(Step(now_s, event, ()))  # so that a scheduler that raises is shown the event it raised on
        step = self.steps[-1] = Step(now_s, event, tuple(self._scheduler.handle(now_s, event)))
        self.report.note(step)
        truth = Truth(
            {model: process.generation for model, process in self._processes.items()},
            {model: process.generation for model, process in self._processes.items() if not process.asleep},
        )
        after = self._scheduler.snapshot()
        self._checkers.check(step, after, truth, due_s)
        check_reasons(self._scheduler.waits(0), after)
        for command in step.commands:
            self._perform(command)
        self._arm()

    def _arm(self) -> None:
        due_s = self._scheduler.next_deadline_s()
        if due_s is not None and (self._timer_s is None or due_s < self._timer_s):
            self._timer_s = due_s
            self._engine.at(due_s, partial(self._timer, due_s))

    def _timer(self, due_s: float) -> None:
        if self._timer_s == due_s:
            self._timer_s = None
            self._post(ev.DeadlineReached())

    def _perform(self, command: Command) -> None:
        match command:
            case Dispatch(request, model, generation):
                self._serve(request, self._processes.get(model), generation)
            case Reject(request):
                del self._clients[request]
            case Start(model, generation):
                self._spawn(Process(model, generation))
            case Stop(model):
                self._stop(self._processes[model], force=command.force)
            case Sleep(model):
                self._doze(self._processes[model])
            case Wake(model):
                self._rouse(self._processes[model])

    # Clients

    def _come(self, request: ev.RequestId, arrival: Arrival) -> None:
        self._clients[request] = arrival
        self._engine.after(arrival.patience_s, partial(self._give_up, request))
        self._post(ev.RequestArrived(request, arrival.model, swap_class=arrival.swap_class))

    def _come_again(self, process: Process) -> None:
        """Let clients whose answers broke off try once more, right into the sweep of the crashed upstream."""
        for request in sorted(process.serving):
            if self._retries > 0 and self._rng.random() < 0.5:
                self._retries -= 1
                arrival = self._clients[request]
                self._engine.after(0.1 * self._rng.random(), partial(self._come, next(self._numbers), arrival))

    def _give_up(self, request: ev.RequestId) -> None:
        if request in self._served_by:
            self._end(request)
        elif self._clients.pop(request, None):
            self._post(ev.RequestCancelled(request))

    def _serve(self, request: ev.RequestId, process: Process | None, generation: ev.Generation) -> None:
        assert process is not None, "dispatched to nothing"
        assert process.generation == generation, "dispatched to an old life"
        process.serving.add(request)
        self._served_by[request] = process
        self._engine.after(self._clients[request].service_s, partial(self._end, request))

    def _end(self, request: ev.RequestId) -> None:
        process = self._served_by.pop(request, None)
        if process is not None:
            process.serving.discard(request)
            del self._clients[request]
            self._post(ev.RequestFinished(request))

    # Processes

    def _spawn(self, process: Process) -> None:
        self._processes[process.model] = process
        load_s = self._rng.choice((0.0, 0.5, 5.0, 30.0)) * self._rng.random()
        if self._rng.random() < self._faults.start_fails:
            self._engine.after(load_s, partial(self._fail, process))
        else:
            self._engine.after(load_s, partial(self._get_ready, process))

    def _get_ready(self, process: Process) -> None:
        if process.dying and self._rng.random() >= self._faults.crossing:
            return
        if self._processes.get(process.model) is not process:
            return
        self._say(ev.UpstreamReady(process.model, process.generation))
        if self._rng.random() < self._faults.crash:
            self._engine.after(self._rng.choice((0.0, 1.0, 30.0)) * self._rng.random(), partial(self._crash, process))

    def _doze(self, process: Process) -> None:
        """Fall asleep, or fail to in some way, after a while; requests that were let in would be cut off."""
        assert not process.serving, f"{process.model} was put to sleep while it served"
        process.turns += 1
        after_s = self._rng.choice((0.0, 0.1, 10.0)) * self._rng.random()
        fails = self._rng.random() < self._faults.sleep_fails
        self._engine.after(after_s, partial(self._dozed, process, process.turns, fails=fails))

    def _dozed(self, process: Process, turn: int, *, fails: bool) -> None:
        if self._processes.get(process.model) is not process or process.dying or process.turns != turn:
            return
        if fails:
            lasting = self._rng.random() < 0.3
            self._say(ev.SleepFailed(process.model, process.generation, "step 2 of 2 answered 500", lasting))
        else:
            process.asleep = True
            self._say(ev.UpstreamAsleep(process.model, process.generation, self._rng.choice((None, 4, 8))))

    def _rouse(self, process: Process) -> None:
        assert process.asleep, f"{process.model} was woken while it was awake"
        process.turns += 1
        process.asleep = False  # from now on it may take memory
        after_s = self._rng.choice((0.0, 0.1, 10.0)) * self._rng.random()
        fails = self._rng.random() < self._faults.wake_fails
        self._engine.after(after_s, partial(self._roused, process, process.turns, fails=fails))

    def _roused(self, process: Process, turn: int, *, fails: bool) -> None:
        if self._processes.get(process.model) is not process or process.dying or process.turns != turn:
            return
        lasting = fails and self._rng.random() < 0.3
        event = ev.WakeFailed(process.model, process.generation, "out of memory", lasting) if fails else None
        self._say(event or ev.UpstreamReady(process.model, process.generation))

    def _fail(self, process: Process) -> None:
        if self._processes.get(process.model) is not process:
            return
        if not process.dying and self._rng.random() < self._faults.stuck:
            process.dying = True
            self._engine.after(self._rng.choice((20.0, 200.0)), partial(self._failed, process))
            self._get_stuck(process)
        elif not process.dying or self._rng.random() < self._faults.crossing:
            self._failed(process)

    def _failed(self, process: Process) -> None:
        if self._processes.get(process.model) is not process:
            return
        self._free(process)
        timed_out, lacking = self._rng.random() < 0.5, self._rng.random() < 0.5
        reason = "not ready in time" if timed_out else "exited with code 1 during start"
        self._say(ev.StartFailed(process.model, process.generation, reason, timed_out, lacking and not timed_out))

    def _crash(self, process: Process) -> None:
        if self._processes.get(process.model) is process and not process.dying:
            process.dying = True
            self._come_again(process)
            self._cut(process)
            awake = process.asleep and self._rng.random() < 0.5
            process.asleep = process.asleep and not awake
            reason = "it woke without being asked" if awake else "killed by signal 9"
            self._say(ev.UpstreamExited(process.model, process.generation, reason, awake))
            self._take_down(process)

    def _stop(self, process: Process, *, force: bool) -> None:
        process.dying = True
        if force:
            self._engine.after(0.01, partial(self._vanish, process))
        else:
            self._take_down(process)

    def _take_down(self, process: Process) -> None:
        if self._rng.random() < self._faults.stuck:
            self._engine.after(10.0, partial(self._get_stuck, process))
            self._engine.after(self._rng.choice((20.0, 200.0)), partial(self._vanish, process))
        else:
            self._engine.after(self._rng.choice((0.0, 0.1, 8.0)) * self._rng.random(), partial(self._vanish, process))

    def _get_stuck(self, process: Process) -> None:
        if self._processes.get(process.model) is process:
            self._say(ev.StopFailed(process.model, process.generation, "still there after SIGKILL"))

    def _vanish(self, process: Process) -> None:
        if self._processes.get(process.model) is process:
            self._free(process)
            self._say(ev.UpstreamStopped(process.model, process.generation))

    def _free(self, process: Process) -> None:
        del self._processes[process.model]
        self._cut(process)

    def _cut(self, process: Process) -> None:
        """End what was in flight, each lease a little later, when its handler has noticed."""
        for request in sorted(process.serving):
            self._engine.after(tick(0.2 * self._rng.random()), partial(self._end, request))

    def _say(self, event: Said) -> None:
        if self._rng.random() < self._faults.duplicate:
            process = self._processes.get(event.model)
            again = partial(self._say_again, event, process, None if process is None else process.turns)
            self._engine.after(self._rng.choice((0.0, 5.0, 60.0)) * self._rng.random(), again)
        self._post(event)

    def _say_again(self, event: Said, process: Process | None, turns: int | None) -> None:
        if process is None or process.turns == turns:
            self._post(event)
