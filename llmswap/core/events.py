"""What happened. Demand comes from outside and can be replayed; an Outcome answers a command or a deadline.

The scheduler handles events one at a time; it alone decides what follows from them.
"""

from dataclasses import dataclass
from enum import StrEnum
from typing import NewType

from llmswap.core.fleet import Fleet, ModelId

RequestId = NewType("RequestId", int)
Generation = NewType("Generation", int)


class SwapClass(StrEnum):
    """What a request may cost others."""

    MAY_SWAP = "may-swap"
    PREFER_WARM = "prefer-warm"  # a ready substitute will do; without one, swap
    NEVER_SWAP = "never-swap"  # a ready substitute will do; without one, refuse


@dataclass(frozen=True, slots=True)
class RequestArrived:
    """A client wants to be served by a model. Answered by exactly one Dispatch or Reject, unless cancelled first.

    Attributes:
        caller: Who asks, as far as known; what a swap for this request is put down to.
    """

    request: RequestId
    model: ModelId
    caller: str = ""
    swap_class: SwapClass = SwapClass.MAY_SWAP


@dataclass(frozen=True, slots=True)
class RequestCancelled:
    """The client left before it was dispatched. After this the request is unknown."""

    request: RequestId


@dataclass(frozen=True, slots=True)
class LoadRequested:
    """Make a model resident with nobody waiting for it: preload, or an operator's order."""

    model: ModelId


@dataclass(frozen=True, slots=True)
class UnloadRequested:
    """Stop these upstreams now, in-flight work included; whoever waits for them is refused with UNLOADED.

    Attributes:
        models: Which; empty means all.
    """

    models: tuple[ModelId, ...] = ()


@dataclass(frozen=True, slots=True)
class SleepRequested:
    """Put a model to sleep: an operator's order. Nobody is admitted from now on; what is in flight may end first.

    Attributes:
        deadline_s: Monotonic time after which the order lapses if it is still busy.
    """

    model: ModelId
    deadline_s: float


@dataclass(frozen=True, slots=True)
class FleetReloaded:
    """A new config. Upstreams whose fingerprint is unchanged are not touched; the others drain, then stop."""

    fleet: Fleet


@dataclass(frozen=True, slots=True)
class DrainRequested:
    """Shutdown: refuse new and waiting requests, let in-flight work end, then stop everything.

    Attributes:
        deadline_s: Monotonic time after which in-flight work is no longer waited for. Sent again with a
            time in the past it forces the end (a second signal).
    """

    deadline_s: float


@dataclass(frozen=True, slots=True)
class RequestFinished:
    """The lease of a dispatched request was closed, whatever the reason. Exactly one per Dispatch."""

    request: RequestId


@dataclass(frozen=True, slots=True)
class UpstreamReady:
    """A started upstream answers its readiness probe and owns its port; or one that was woken is verified awake."""

    model: ModelId
    generation: Generation


@dataclass(frozen=True, slots=True)
class StartFailed:
    """A start came to nothing. Its whole process tree is gone, so its memory is free.

    Attributes:
        reason: One line for the client, without secrets: "exited with code 1 during start".
        timed_out: It never became ready, rather than ending by itself.
        out_of_memory: By its last words, it found less free device memory than it needs.
    """

    model: ModelId
    generation: Generation
    reason: str
    timed_out: bool = False
    out_of_memory: bool = False


@dataclass(frozen=True, slots=True)
class UpstreamAsleep:
    """Every step of a sleep succeeded and was verified: its device memory is free, but for a small rest.

    Attributes:
        host_bytes: Host memory that it keeps; None if nobody could measure it.
    """

    model: ModelId
    generation: Generation
    host_bytes: int | None = None


@dataclass(frozen=True, slots=True)
class SleepFailed:
    """A sleep failed, hung, did half of it, or could not be verified. What it holds is unknown: it must be stopped.

    Attributes:
        lasting: As it is configured it cannot sleep at all; do not try again.
    """

    model: ModelId
    generation: Generation
    reason: str
    lasting: bool = False


@dataclass(frozen=True, slots=True)
class WakeFailed:
    """A wake failed, hung, did half of it, or could not be verified. It must be stopped, and may then start cold.

    Attributes:
        lasting: As it is configured it cannot be woken at all; do not put it to sleep again.
    """

    model: ModelId
    generation: Generation
    reason: str
    lasting: bool = False


@dataclass(frozen=True, slots=True)
class UpstreamExited:
    """The leader of an upstream that was up, awake or asleep, died by itself. UpstreamStopped follows its sweep.

    Attributes:
        awake: It slept, and was found to hold its device memory again: it woke without being asked.
    """

    model: ModelId
    generation: Generation
    reason: str
    awake: bool = False


@dataclass(frozen=True, slots=True)
class UpstreamStopped:
    """The whole process tree is gone and its memory is free. Ends a Stop, or follows UpstreamExited."""

    model: ModelId
    generation: Generation


@dataclass(frozen=True, slots=True)
class StopFailed:
    """The tree could not be killed (say, a process in D state), or its memory is not free. That stays reserved.

    Ends a Stop, or a start that has failed.

    The upstream stays `stopping`, marked stuck, until UpstreamStopped comes after all.
    """

    model: ModelId
    generation: Generation
    reason: str


@dataclass(frozen=True, slots=True)
class DeadlineReached:
    """The time of `Scheduler.next_deadline_s()` has come: idle ttl, queue timeout, backoff or drain deadline."""


Demand = (
    RequestArrived
    | RequestCancelled
    | LoadRequested
    | UnloadRequested
    | SleepRequested
    | FleetReloaded
    | DrainRequested
)
Outcome = (
    RequestFinished
    | UpstreamReady
    | StartFailed
    | UpstreamAsleep
    | SleepFailed
    | WakeFailed
    | UpstreamExited
    | UpstreamStopped
    | StopFailed
    | DeadlineReached
)
Event = Demand | Outcome
