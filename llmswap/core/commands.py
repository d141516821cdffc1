"""What to do, each with its cause. Commands to an upstream carry the generation they mean."""

from dataclasses import dataclass
from enum import StrEnum

from llmswap.core.events import Generation, RequestId
from llmswap.core.fleet import ModelId


class RejectReason(StrEnum):
    """Why a request was refused. A closed set: it is a metric label and decides the HTTP status."""

    OVER_LIMIT = "over_limit"  # the model's concurrencyLimit is used up
    QUEUE_FULL = "queue_full"  # the fleet's waiting room is full
    QUEUE_TIMEOUT = "queue_timeout"  # waited longer than queueTimeout
    DRAINING = "draining"  # llmswap is shutting down
    UPSTREAM_FAILED = "upstream_failed"  # the start this request waited for failed
    START_TIMEOUT = "start_timeout"  # the start this request waited for was not ready in time
    BACKOFF = "backoff"  # an earlier start failed; too early to try again
    STUCK = "stuck"  # an upstream that must go cannot be stopped
    UNLOADED = "unloaded"  # an operator unloaded the model while the request waited
    WOULD_SWAP = "would_swap"  # the request may not cause a swap, and without one nobody can serve it
    MODEL_REMOVED = "model_removed"  # a reload removed the model while the request waited


class StartCause(StrEnum):
    """Why an upstream is started."""

    REQUEST = "request"
    LOAD = "load"  # preload or an operator's order


class StopCause(StrEnum):
    """Why an upstream is stopped."""

    EVICT = "evict"  # another model needs its place
    TTL = "ttl"
    UNLOAD = "unload"
    RELOAD = "reload"  # its config changed or it was removed
    SHUTDOWN = "shutdown"
    SLEEP_FAILED = "sleep_failed"  # what it holds is unknown
    WAKE_FAILED = "wake_failed"  # the same; it may start cold after that
    SLEEPERS = "sleepers"  # too many are asleep, or they keep too much host memory


class SleepCause(StrEnum):
    """Why an upstream is put to sleep."""

    EVICT = "evict"  # another model needs its place
    IDLE = "idle"  # sleepAfter
    ORDER = "order"  # an operator's


@dataclass(frozen=True, slots=True)
class Dispatch:
    """Serve this request on this upstream now. Always counts as in flight until RequestFinished.

    Attributes:
        model: Who serves it: the model that was asked for, or one of its substitutes.
        swap_s: How long of its wait a swap to the model was under way; None if it was up when the request came.
    """

    request: RequestId
    model: ModelId
    generation: Generation
    swap_s: float | None = None


@dataclass(frozen=True, slots=True)
class Reject:
    """Refuse this request.

    Attributes:
        detail: One line for the client.
        retry_after_s: When trying again makes sense, in seconds from now; None if nobody can say.
    """

    request: RequestId
    reason: RejectReason
    detail: str
    retry_after_s: float | None = None


@dataclass(frozen=True, slots=True)
class Start:
    """Spawn and bring to readiness. Answered by UpstreamReady or StartFailed, or nothing if stopped first.

    Attributes:
        evicted: The upstreams that were evicted for it.
        caller: Whose request brought it about; empty if nobody's.
        decided_s: Monotonic time of the decision: those in the way had to be drained first; None if nobody knows.
    """

    model: ModelId
    generation: Generation
    cause: StartCause
    evicted: tuple[ModelId, ...] = ()
    caller: str = ""
    decided_s: float | None = None


@dataclass(frozen=True, slots=True)
class Stop:
    """End an upstream in any state of its life. Answered by UpstreamStopped, or StopFailed and maybe later that.

    Attributes:
        evicted_for: Who needs the place, when the cause is EVICT.
        force: Skip the grace: kill at once (the drain deadline has passed, or a second signal came).
    """

    model: ModelId
    generation: Generation
    cause: StopCause
    evicted_for: ModelId | None = None
    force: bool = False


@dataclass(frozen=True, slots=True)
class Sleep:
    """Put a ready upstream with nothing in flight to sleep. Answered by UpstreamAsleep, SleepFailed or its end.

    Attributes:
        evicted_for: Who needs the place, when the cause is EVICT.
    """

    model: ModelId
    generation: Generation
    cause: SleepCause
    evicted_for: ModelId | None = None


@dataclass(frozen=True, slots=True)
class Wake:
    """Wake an upstream that is asleep. Answered by UpstreamReady, WakeFailed or its end.

    Attributes:
        evicted: The upstreams that were evicted for it.
        caller: Whose request brought it about; empty if nobody's.
        decided_s: Monotonic time of the decision: those in the way had to be drained first; None if nobody knows.
    """

    model: ModelId
    generation: Generation
    cause: StartCause
    evicted: tuple[ModelId, ...] = ()
    caller: str = ""
    decided_s: float | None = None


Command = Dispatch | Reject | Start | Stop | Sleep | Wake
