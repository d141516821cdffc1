"""What a run looked like, folded from its Steps: what each model was doing when, and how long each request waited."""

from collections import Counter
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from enum import StrEnum
from typing import Any, NamedTuple

from llmswap.core import events as ev
from llmswap.core.commands import Dispatch, Reject, Sleep, Start, Stop, Wake
from llmswap.core.fleet import ModelId
from llmswap.core.step import Step


class Doing(StrEnum):
    """What a model that holds memory is doing."""

    LOADING = "loading"
    SERVING = "serving"
    IDLE = "ready, idle"
    STOPPING = "stopping"


class Span(NamedTuple):
    """A stretch of time."""

    from_s: float
    to_s: float
    doing: Doing


class WaitSeen(NamedTuple):
    """One request's wait, so far as it went.

    Attributes:
        served: It ended in a dispatch.
    """

    arrived_s: float
    waited_s: float
    served: bool


@dataclass(frozen=True, slots=True)
class Timeline:
    """One run. Times are seconds since its beginning.

    Attributes:
        spans: By model, in order of time; gaps are times without memory.
        waits: By model that was asked for, in the order in which they ended.
    """

    duration_s: float
    spans: Mapping[ModelId, tuple[Span, ...]]
    waits: Mapping[ModelId, tuple[WaitSeen, ...]]


@dataclass(slots=True)
class _Lane:
    spans: list[Span] = field(default_factory=list)
    waits: list[WaitSeen] = field(default_factory=list)
    doing: Doing | None = None
    since_s: float = 0.0
    serves: ev.Generation | None = None  # the life that last took a request


class Camera:
    """An Observer that makes the timeline of a run.

    Args:
        start_s: When the run began.
        models: Whose lanes come first, in this order, even if they stay empty.
    """

    def __init__(self, start_s: float, models: tuple[ModelId, ...] = ()) -> None:
        self._start_s = start_s
        self._now_s = 0.0
        self._lanes: dict[ModelId, _Lane] = {model: _Lane() for model in models}
        self._waiting: dict[ev.RequestId, tuple[ModelId, float]] = {}
        self._serving: dict[ev.RequestId, tuple[ModelId, ev.Generation]] = {}
        self._in_flight: Counter[tuple[ModelId, ev.Generation]] = Counter()
        self._take: dict[type[Any], Callable[[Any], None]] = {
            ev.RequestArrived: self._arrived,
            ev.RequestCancelled: self._left,
            ev.RequestFinished: self._finished,
            ev.UpstreamReady: lambda event: self._turn(event.model, Doing.IDLE),
            ev.UpstreamExited: lambda event: self._turn(event.model, Doing.STOPPING),
            ev.UpstreamStopped: lambda event: self._turn(event.model, None),
            ev.UpstreamAsleep: lambda event: self._turn(event.model, None),
            ev.StartFailed: lambda event: self._turn(event.model, None),
            Dispatch: self._dispatched,
            Reject: self._left,
            Start: lambda command: self._turn(command.model, Doing.LOADING),
            Wake: lambda command: self._turn(command.model, Doing.LOADING),
            Stop: lambda command: self._turn(command.model, Doing.STOPPING),
            Sleep: lambda command: self._turn(command.model, Doing.STOPPING),
        }

    def __call__(self, step: Step) -> None:
        """Take a picture of a step."""
        self._now_s = step.at_s - self._start_s
        for happened in (step.event, *step.commands):
            take = self._take.get(type(happened))
            if take is not None:
                take(happened)

    def timeline(self, end_s: float) -> Timeline:
        """Give what was seen until the end of the run. Call it once, after the last step."""
        self._now_s = end_s - self._start_s
        for request in tuple(self._waiting):
            self._end_wait(request, served=False)
        for model in self._lanes:
            self._turn(model, None)
        return Timeline(
            self._now_s,
            {model: tuple(lane.spans) for model, lane in self._lanes.items()},
            {model: tuple(lane.waits) for model, lane in self._lanes.items()},
        )

    def _lane(self, model: ModelId) -> _Lane:
        lane = self._lanes.get(model)
        if lane is None:
            lane = self._lanes[model] = _Lane()
        return lane

    def _turn(self, model: ModelId, doing: Doing | None) -> None:
        lane = self._lane(model)
        if lane.doing is doing:
            return
        if lane.doing is not None and self._now_s > lane.since_s:
            lane.spans.append(Span(lane.since_s, self._now_s, lane.doing))
        lane.doing, lane.since_s = doing, self._now_s

    def _arrived(self, event: ev.RequestArrived) -> None:
        self._waiting[event.request] = event.model, self._now_s

    def _left(self, happened: ev.RequestCancelled | Reject) -> None:
        self._end_wait(happened.request, served=False)

    def _end_wait(self, request: ev.RequestId, *, served: bool) -> None:
        found = self._waiting.pop(request, None)
        if found is not None:
            model, arrived_s = found
            self._lane(model).waits.append(WaitSeen(arrived_s, self._now_s - arrived_s, served))

    def _dispatched(self, command: Dispatch) -> None:
        self._end_wait(command.request, served=True)
        life = command.model, command.generation
        self._serving[command.request] = life
        self._in_flight[life] += 1
        self._lane(command.model).serves = command.generation
        self._turn(command.model, Doing.SERVING)

    def _finished(self, event: ev.RequestFinished) -> None:
        life = self._serving.pop(event.request, None)
        if life is None:  # dispatched before the recording began
            return
        self._in_flight[life] -= 1
        if self._in_flight[life]:
            return
        del self._in_flight[life]
        lane = self._lane(life[0])
        if lane.doing is Doing.SERVING and lane.serves == life[1]:  # else it is being stopped, or lives anew
            self._turn(life[0], Doing.IDLE)
