"""A journal as a Workload: what was asked, as closed loops, and what loads, stops and answers took.

Outcomes are not replayed, they are fitted: the box of a what-if takes the recorded times in an order of its own.
"""

from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from random import Random
from statistics import median

from llmswap.core import events as ev
from llmswap.core.commands import Command, Dispatch, Reject, Sleep, Start, Stop, Wake
from llmswap.core.fleet import Fleet, ModelId
from llmswap.core.step import Step
from llmswap.journal.codec import Header
from llmswap.journal.reader import Entry, Gap, JournalError, Recording
from llmswap.sim.whatif.lanes import Past, Traits, callers, lanes
from llmswap.sim.whatif.patience import patience
from llmswap.sim.whatif.score import Score, Scorer
from llmswap.sim.whatif.timeline import Camera, Timeline
from llmswap.sim.whatif.workload import Costs, Workload
from llmswap.sim.workload import Order

# Where a recording says nothing at all about how long something takes.
LOAD_S, STOP_S, SLEEP_S, WAKE_S, SERVICE_S = 30.0, 1.0, 1.0, 3.0, 5.0
PROGRESS_RECORDS = 10_000
END_S = 0.5  # who leaves this shortly before the end was cut off by it, as a demo's clients are

Times = Mapping[ModelId, Sequence[float]]


@dataclass(slots=True)
class Shuffled:
    """The recorded durations, each once, then all of them anew: a Duration with the recorded mean, not just nearly.

    It remembers how far it is: make new ones for each play.
    """

    seen_s: Sequence[float]
    left_s: list[float] = field(default_factory=list)

    def draw(self, rng: Random) -> float:
        """Give the next one, in seconds."""
        if not self.left_s:
            self.left_s = list(self.seen_s)
            rng.shuffle(self.left_s)
        return self.left_s.pop()


@dataclass(frozen=True, slots=True)
class Recorded:
    """What a journal tells of one stretch of time without gaps.

    Attributes:
        fleet: In force at the end; models that it lacks are left out.
        requests: In order of arrival.
        loads: Seconds each start took.
        stops: Seconds each stop took.
        orders: Loads and unloads that were ordered, by nobody's request.
        score: Of the recorded steps.
        notes: What a reader of the results should know.
    """

    name: str
    fleet: Fleet
    duration_s: float
    requests: tuple[Past, ...]
    loads: Times
    stops: Times
    sleeps: Times
    wakes: Times
    orders: tuple[Order, ...]
    score: Score
    timeline: Timeline
    notes: tuple[str, ...]

    def workload(self, seed: int) -> Workload:
        """Make the demand for one play."""
        rng = Random(f"{seed}/recorded")  # noqa: S311  replayed from the seed on purpose
        services_s, patience_s = self._services(rng), patience(self.requests, self.duration_s, rng)
        traits = {past: Traits(services_s[past], patience_s[past]) for past in self.requests}
        load_s, stop_s = (_typical(self.loads, LOAD_S),), (_typical(self.stops, STOP_S),)
        sleep_s, wake_s = (_typical(self.sleeps, SLEEP_S),), (_typical(self.wakes, WAKE_S),)
        costs = {
            model: Costs(
                Shuffled(self.loads.get(model, load_s)),
                Shuffled(self.stops.get(model, stop_s)),
                Shuffled(self.sleeps.get(model, sleep_s)),
                Shuffled(self.wakes.get(model, wake_s)),
            )
            for model in self.fleet.models
        }
        acted = callers(lanes(self.requests), self.duration_s, traits.__getitem__)
        return Workload(self.name, self.fleet, costs, acted, self.orders)

    def _services(self, rng: Random) -> dict[Past, float]:
        """Say how long each answer takes: as recorded, else as one of the model's that were recorded."""
        seen: dict[ModelId, list[float]] = {}
        for past in self.requests:
            if past.service_s is not None:
                seen.setdefault(past.model, []).append(past.service_s)
        typical_s = (_typical(seen, SERVICE_S),)
        services: dict[Past, float] = {}
        for past in self.requests:
            if past.service_s is not None:
                services[past] = past.service_s
            else:
                so_far_s = 0.0 if past.dispatched_s is None else self.duration_s - past.dispatched_s
                services[past] = max(so_far_s, rng.choice(seen.get(past.model, typical_s)))
        return services


def read(path: Path, progress: Callable[[float], None] | None = None) -> Recorded:
    """Read a journal: of its stretches without a gap, the one with the most requests.

    Args:
        path: As `llmswap.journal.reader.Recording` takes it.
        progress: Is told now and then which share of the journal is read.

    Raises:
        JournalError: It cannot be read, or no request is in it.
    """
    recording = Recording(path)
    best: _Stretch | None = None
    stretch: _Stretch | None = None
    stretches = 0
    for number, record in enumerate(recording):
        if progress is not None and number % PROGRESS_RECORDS == 0:
            progress(recording.read_bytes / max(1, recording.total_bytes))
        if isinstance(record, Header | Gap):
            stretch = _Stretch(record if isinstance(record, Header) else record.header)
        elif isinstance(record, Entry):
            assert stretch is not None, "a journal begins with a header"
            stretch.take(record.step)
            if len(stretch.requests) == 1 and isinstance(record.step.event, ev.RequestArrived):
                stretches += 1
            if best is None or len(stretch.requests) > len(best.requests):
                best = stretch
    if best is None or not best.requests:
        raise JournalError(f"{path}: no request is in it: there is nothing to simulate")
    notes = []
    if stretches > 1:
        notes.append(
            f"the journal holds {stretches} stretches (restarts and gaps part them): the one with the most requests is "
            f"used, {len(best.requests)} of them"
        )
    return best.recorded(path.name, notes)


class _Stretch:
    """Folds the steps of one stretch. It ends where a shutdown begins: from then on everybody is refused."""

    def __init__(self, header: Header) -> None:
        self.requests: dict[ev.RequestId, Past] = {}
        self._fleet = header.fleet
        self._start_s: float | None = None
        self._now_s = 0.0
        self._over = False
        self._observers: tuple[Scorer, Camera] | None = None
        self._since_s: dict[ModelId, float] = {}  # models that are being started or stopped
        self._loads: dict[ModelId, list[float]] = {}
        self._stops: dict[ModelId, list[float]] = {}
        self._sleeps: dict[ModelId, list[float]] = {}
        self._wakes: dict[ModelId, list[float]] = {}
        self._woken: set[ModelId] = set()
        self._orders: list[Order] = []
        self._seen_down: set[ModelId] = set()
        self._already_up: dict[ModelId, None] = {}
        self._reloads = self._crashes = 0

    def take(self, step: Step) -> None:
        """Take note of a step."""
        if self._start_s is None:
            self._start_s = step.at_s
            self._observers = Scorer(step.at_s), Camera(step.at_s, tuple(self._fleet.models))
        self._over = self._over or isinstance(step.event, ev.DrainRequested)
        if self._over:
            return
        self._now_s = step.at_s - self._start_s
        assert self._observers is not None, "made with the first step"
        for observer in self._observers:
            observer(step)
        self._take_demand(step.event)
        self._take_outcome(step.event)
        for command in step.commands:
            self._take_command(command)

    def _take_demand(self, event: ev.Event) -> None:
        now_s = self._now_s
        match event:
            case ev.RequestArrived(request, model, caller, swap_class):
                self.requests[request] = Past(model, caller, now_s, swap_class)
            case ev.RequestCancelled(request) | ev.RequestFinished(request):
                past = self.requests.get(request)
                if past is not None and past.ended_s is None:
                    past.ended_s, past.gave_up = now_s, isinstance(event, ev.RequestCancelled)
            case ev.LoadRequested() | ev.UnloadRequested():
                self._orders.append(Order(now_s, event))
            case ev.FleetReloaded(fleet):
                self._fleet = fleet
                self._reloads += 1

    def _take_outcome(self, event: ev.Event) -> None:
        match event:
            case ev.UpstreamReady(model):
                self._took(model, self._wakes if model in self._woken else self._loads)
                self._woken.discard(model)
            case ev.UpstreamStopped(model):
                self._took(model, self._stops)
            case ev.UpstreamAsleep(model):
                self._took(model, self._sleeps)
            case ev.StartFailed(model) | ev.UpstreamExited(model) | ev.SleepFailed(model) | ev.WakeFailed(model):
                self._crashes += 1
                self._woken.discard(model)
                self._since_s.pop(model, None)

    def _took(self, model: ModelId, times: dict[ModelId, list[float]]) -> None:
        since_s = self._since_s.pop(model, None)
        if since_s is not None:
            times.setdefault(model, []).append(self._now_s - since_s)

    def _take_command(self, command: Command) -> None:
        match command:
            case Dispatch(request, model):
                if model not in self._seen_down:
                    self._already_up[model] = None
                if request in self.requests:
                    self.requests[request].dispatched_s = self._now_s
            case Reject(request):
                if request in self.requests:
                    self.requests[request].ended_s = self._now_s
            case Start(model):
                self._seen_down.add(model)
                self._since_s[model] = self._now_s
            case Stop(model) | Sleep(model):
                self._since_s[model] = self._now_s
            case Wake(model):
                self._woken.add(model)
                self._since_s[model] = self._now_s

    def recorded(self, name: str, notes: Sequence[str]) -> Recorded:
        """Sum up."""
        assert self._start_s is not None, "it holds requests"
        assert self._observers is not None, "it holds requests"
        scorer, camera = self._observers
        end_s = self._start_s + self._now_s
        known = self._fleet.models
        for past in self.requests.values():
            if past.gave_up and past.ended_s is not None and past.ended_s >= self._now_s - END_S:
                past.gave_up, past.ended_s = False, None
        return Recorded(
            name=name,
            fleet=self._fleet,
            duration_s=self._now_s,
            requests=tuple(past for past in self.requests.values() if past.model in known),
            loads=self._loads,
            stops=self._stops,
            sleeps=self._sleeps,
            wakes=self._wakes,
            orders=tuple(order for order in self._orders if _models_of(order.event) <= known.keys()),
            score=scorer.score(end_s),
            timeline=camera.timeline(end_s),
            notes=(*notes, *self._notes()),
        )

    def _notes(self) -> Iterator[str]:
        """Say where simulated runs cannot be what was recorded."""
        asked = dict.fromkeys(past.model for past in self.requests.values())
        gone = [model for model in asked if model not in self._fleet.models]
        never = [model for model in asked if model not in self._loads and model not in gone]
        if self._already_up:
            yield (
                f"{', '.join(self._already_up)}: up already when the recording begins; simulated runs begin with an "
                f"empty box, and load them once more"
            )
        if self._reloads:
            times = _many(self._reloads, "time")
            yield f"the config was reloaded {times}: simulated runs have the last one from the beginning"
        if gone:
            yield f"{', '.join(gone)}: not in the last config; requests for them are left out of simulated runs"
        if never:
            source = "the median of all loads" if self._loads else "for want of any recorded load"
            yield f"{', '.join(never)}: no load was recorded; {_typical(self._loads, LOAD_S):.3g} s are taken, {source}"
        if self._crashes:
            yield f"{_many(self._crashes, 'start or upstream')} failed: simulated ones do not"


def _many(number: int, what: str) -> str:
    return f"{number} {what}" if number == 1 else f"{number} {what}s"


def _models_of(event: ev.Event) -> set[ModelId]:
    match event:
        case ev.LoadRequested(model):
            return {model}
        case ev.UnloadRequested(models):
            return set(models)
    return set()


def _typical(times: Times, otherwise_s: float) -> float:
    """Give the median over all models."""
    every = [time_s for times_s in times.values() for time_s in times_s]
    return median(every) if every else otherwise_s
