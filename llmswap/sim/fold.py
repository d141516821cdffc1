"""What an observer knows who sees nothing but Steps: the fold of the history that invariant I19 speaks of.

Written against the contract of events and commands, not after the scheduler's books, so that the two can disagree.
"""

from dataclasses import dataclass, field
from enum import StrEnum
from math import inf

from llmswap.core import events as ev
from llmswap.core.commands import Command, Dispatch, Reject, Sleep, Start, Stop, Wake
from llmswap.core.fleet import Fleet, Model, ModelId
from llmswap.core.states import HOLDING, State


class Fate(StrEnum):
    """What became of a request so far."""

    WAITING = "waiting"
    SERVING = "serving"
    FINISHED = "finished"
    REFUSED = "refused"
    CANCELLED = "cancelled"


@dataclass(slots=True)
class Life:
    """One model as an observer sees it.

    Attributes:
        fingerprint: Of the config its current generation was started with.
        waiting: Request -> when it arrived, in order of arrival.
        serving: On the current generation.
        sleep_by_s: An operator ordered it to sleep while it was up; until then it may finish what it serves.
        load: Somebody asked to load it, and neither got it nor was told no.
    """

    model: Model
    state: State = State.STOPPED
    generation: int = 0
    fingerprint: str = ""
    stuck: bool = False
    removed: bool = False
    load: bool = False
    sleep_by_s: float = -inf
    waiting: dict[ev.RequestId, float] = field(default_factory=dict)
    serving: set[ev.RequestId] = field(default_factory=set)

    @property
    def holding(self) -> bool:
        """Whether it may hold memory."""
        return self.state in HOLDING

    @property
    def retiring(self) -> bool:
        """Whether it runs with a config that is no longer in force."""
        return self.holding and (self.removed or self.fingerprint != self.model.fingerprint)

    def gone(self) -> None:
        """Note that its tree is gone."""
        self.state = State.STOPPED
        self.stuck = False
        self.serving.clear()


class Fold:
    """The history so far. Apply the event of a step, then its commands one by one, then `settle`."""

    def __init__(self, fleet: Fleet) -> None:
        self.fleet = fleet
        self.lives = {model.id: Life(model) for model in fleet.models.values()}
        self.fates: dict[ev.RequestId, Fate] = {}
        self.asked_for: dict[ev.RequestId, ModelId] = {}
        self.swap_classes: dict[ev.RequestId, ev.SwapClass] = {}
        self.served_by: dict[ev.RequestId, ModelId] = {}
        self.drain_by_s: float | None = None

    def alive(self, event: ev.Event) -> Life | None:
        """Find the life an upstream's outcome speaks of; None if it is over, or the event is of another kind."""
        if not isinstance(
            event,
            ev.UpstreamReady
            | ev.StartFailed
            | ev.UpstreamAsleep
            | ev.SleepFailed
            | ev.WakeFailed
            | ev.UpstreamExited
            | ev.UpstreamStopped
            | ev.StopFailed,
        ):
            return None
        life = self.lives.get(event.model)
        return life if life is not None and life.holding and life.generation == event.generation else None

    def event(self, now_s: float, event: ev.Event) -> None:
        """Take note of what happened."""
        match event:
            case ev.RequestArrived(request, model):
                self.fates[request] = Fate.WAITING
                self.asked_for[request] = model
                self.swap_classes[request] = event.swap_class
                if model in self.lives:
                    self.lives[model].waiting[request] = now_s
            case ev.RequestCancelled(request):
                if self.fates[request] is Fate.WAITING:
                    self._end_wait(request, Fate.CANCELLED)
            case ev.RequestFinished(request):
                self.fates[request] = Fate.FINISHED
                if life := self.lives.get(self.served_by[request]):
                    life.serving.discard(request)
            case ev.DrainRequested(deadline_s):
                self.drain_by_s = deadline_s if self.drain_by_s is None else min(self.drain_by_s, deadline_s)
            case _:
                self._order(event)
                self._outcome(event)

    def _order(self, event: ev.Event) -> None:
        match event:
            case ev.UnloadRequested(models):
                for life in self.lives.values():
                    if not models or life.model.id in models:
                        self._pardon(life)
                        life.load = False
            case ev.SleepRequested(model, deadline_s) if model in self.lives and self.lives[model].state is State.READY:
                self.lives[model].sleep_by_s = deadline_s
            case ev.LoadRequested(model) if model in self.lives and self.drain_by_s is None:
                self.lives[model].load = True
            case ev.FleetReloaded(fleet) if self.drain_by_s is None:
                self._reload(fleet)

    def _outcome(self, event: ev.Event) -> None:
        life = self.alive(event)
        if life is None:
            return
        match event, life.state:
            case ev.UpstreamReady(), (State.STARTING | State.WAKING):
                life.state, life.load = State.READY, False
            case ev.UpstreamAsleep(), State.SLEEP_PENDING:
                life.state = State.ASLEEP
            case ev.StartFailed() as failed, State.STARTING:
                life.state, life.load = State.FAILED, life.load and failed.out_of_memory
            case ((ev.StartFailed() | ev.UpstreamStopped()), State.STOPPING):
                life.gone()
            case ev.UpstreamExited(), (State.READY | State.SLEEP_PENDING | State.ASLEEP | State.WAKING):
                life.state = State.STOPPING
            case ev.StopFailed(), (State.STARTING | State.STOPPING):
                life.load = life.load and life.state is State.STOPPING
                life.state, life.stuck = State.STOPPING, True

    def command(self, command: Command) -> None:
        """Take note of what was decided."""
        match command:
            case Dispatch(request, model):
                self._end_wait(request, Fate.SERVING)
                self.served_by[request] = model
                self.lives[model].serving.add(request)
            case Reject(request):
                self._end_wait(request, Fate.REFUSED)
            case Start(model, generation):
                life = self.lives[model]
                life.state, life.generation, life.fingerprint = State.STARTING, generation, life.model.fingerprint
            case Stop(model):
                self.lives[model].state = State.STOPPING
            case Sleep(model):
                self.lives[model].state = State.SLEEP_PENDING
            case Wake(model):
                self.lives[model].state = State.WAKING

    def settle(self) -> None:
        """Draw the conclusions at the end of a step."""
        for model, life in tuple(self.lives.items()):
            if life.removed and not life.holding:
                del self.lives[model]
            elif self.drain_by_s is not None and life.state in (State.STOPPED, State.FAILED):
                life.state = State.SHUTDOWN

    def _end_wait(self, request: ev.RequestId, fate: Fate) -> None:
        self.fates[request] = fate
        if life := self.lives.get(self.asked_for[request]):
            life.waiting.pop(request, None)

    def _pardon(self, life: Life) -> None:
        if life.state is State.FAILED:
            life.state = State.STOPPED

    def _reload(self, fleet: Fleet) -> None:
        self.fleet = fleet
        for model in fleet.models.values():
            life = self.lives.setdefault(model.id, Life(model))
            if life.model.fingerprint != model.fingerprint:
                self._pardon(life)
            life.model, life.removed = model, False
        for life in self.lives.values():
            if life.model.id not in fleet.models:
                life.removed = True
                life.load = False
