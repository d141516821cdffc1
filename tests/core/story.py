"""Words to tell a scheduler's story with: `story.at(now, event)` gives what follows, one short line per command."""

from collections.abc import Sequence

from llmswap.core import events as ev
from llmswap.core.commands import Command, Dispatch, Reject, Start, StartCause, Stop
from llmswap.core.fleet import Fleet, Group, MatrixRules, Model, ModelId, Router
from llmswap.core.scheduler import Scheduler
from llmswap.core.snapshot import UpstreamView


def model(name: str, version: str = "1", **traits) -> Model:
    return Model(ModelId(name), fingerprint=version, **traits)


def fleet(*models: str | Model, groups: Sequence[Group] = (), matrix: MatrixRules | None = None, queue_max: int = 2000):
    """Make a fleet. With no groups every model excludes every other, as in llama-swap."""
    made = [each if isinstance(each, Model) else model(each) for each in models]
    return Fleet(
        models={each.id: each for each in made},
        names={each.id: each.id for each in made},
        groups=tuple(groups),
        matrix=matrix,
        router=Router.GROUP if matrix is None else Router.MATRIX,
        queue_max=queue_max,
    )


def group(name: str, *members: str, **traits) -> Group:
    return Group(name, tuple(map(ModelId, members)), **traits)


def together(*models: str) -> tuple[Group, ...]:
    """Groups that let these models live side by side."""
    return (group("together", *models, swap=False),)


def arrive(request: int, name: str) -> ev.Event:
    return ev.RequestArrived(ev.RequestId(request), ModelId(name))


def cancel(request: int) -> ev.Event:
    return ev.RequestCancelled(ev.RequestId(request))


def done(request: int) -> ev.Event:
    return ev.RequestFinished(ev.RequestId(request))


def ready(name: str, generation: int) -> ev.Event:
    return ev.UpstreamReady(ModelId(name), ev.Generation(generation))


def failed(
    name: str, generation: int, reason: str = "exited with code 1 during start", *, timed_out: bool = False
) -> ev.Event:
    return ev.StartFailed(ModelId(name), ev.Generation(generation), reason, timed_out)


def exited(name: str, generation: int) -> ev.Event:
    return ev.UpstreamExited(ModelId(name), ev.Generation(generation), "killed by signal 9")


def stopped(name: str, generation: int) -> ev.Event:
    return ev.UpstreamStopped(ModelId(name), ev.Generation(generation))


def stop_failed(name: str, generation: int) -> ev.Event:
    return ev.StopFailed(ModelId(name), ev.Generation(generation), "still there after SIGKILL")


def load(name: str) -> ev.Event:
    return ev.LoadRequested(ModelId(name))


def unload(*names: str) -> ev.Event:
    return ev.UnloadRequested(tuple(map(ModelId, names)))


reload = ev.FleetReloaded
drain = ev.DrainRequested
tick = ev.DeadlineReached()


class Story:
    """A scheduler, its commands in words: `start a#1`, `dispatch 7 a#1`, `stop a#1 evict for b`, `reject 7 stuck`."""

    def __init__(self, fleet: Fleet) -> None:
        self.scheduler = Scheduler(fleet)
        self.commands: Sequence[Command] = ()

    def at(self, now_s: float, event: ev.Event) -> list[str]:
        self.commands = self.scheduler.handle(now_s, event)
        return [tell(command) for command in self.commands]

    def all_at(self, now_s: float, *events: ev.Event) -> list[str]:
        return [line for event in events for line in self.at(now_s, event)]

    def upstream(self, name: str) -> UpstreamView:
        return self.scheduler.snapshot().upstreams[ModelId(name)]

    def states(self) -> dict[str, str]:
        return {str(name): str(view.state) for name, view in self.scheduler.snapshot().upstreams.items()}

    def position(self, request: int) -> int | None:
        return self.scheduler.queue_position(ev.RequestId(request))

    @property
    def deadline(self) -> float | None:
        return self.scheduler.next_deadline_s()

    @property
    def reject(self) -> Reject:
        """The only refusal of the last step."""
        (reject,) = [command for command in self.commands if isinstance(command, Reject)]
        return reject


def tell(command: Command) -> str:
    match command:
        case Dispatch(request, name, generation):
            return f"dispatch {request} {name}#{generation}"
        case Reject(request, reason):
            return f"reject {request} {reason}"
        case Start(name, generation, cause):
            return f"start {name}#{generation}" + (" load" if cause is StartCause.LOAD else "")
        case Stop(name, generation, cause, evicted_for, force):
            target = f" for {evicted_for}" if evicted_for else ""
            return f"stop {name}#{generation} {cause}{target}" + (" force" if force else "")
