"""A frozen picture of the scheduler, for gauges, /running, waits and the status view. Never used to decide."""

from collections.abc import Mapping
from dataclasses import dataclass

from llmswap.core.events import Generation
from llmswap.core.fleet import ModelId
from llmswap.core.states import State


@dataclass(frozen=True, slots=True)
class UpstreamView:
    """One model's upstream.

    Attributes:
        in_flight: Requests dispatched to the current generation and not finished.
        waiting: Requests in its queue.
        oldest_waiting_s: Monotonic arrival time of the oldest of them; None if there is none.
        since_s: Monotonic time of the last state change.
        idle_since_s: Monotonic time since when it is ready with nothing in flight; None otherwise.
        failure: The reason of the last failed start, exit or stop; None after a success.
        retry_at_s: Monotonic time until which starts are refused (backoff); None if not backing off.
        stuck: It was told to stop and could not be killed.
        sleep_failure: The reason of the last sleep or wake that went wrong; None after one that did not.
        sleep_ordered: An operator's order to sleep is waiting for its requests to end.
        can_sleep: It may be put to sleep instead of being stopped.
        rests_since_s: Monotonic time since when a sleeper has served nobody; None while it is not asleep.
        wanted: A client waits for it, or it shall be loaded for nobody.
    """

    model: ModelId
    state: State
    generation: Generation
    in_flight: int
    waiting: int
    since_s: float
    oldest_waiting_s: float | None = None
    idle_since_s: float | None = None
    failure: str | None = None
    retry_at_s: float | None = None
    stuck: bool = False
    sleep_failure: str | None = None
    sleep_ordered: bool = False
    can_sleep: bool = False
    rests_since_s: float | None = None
    wanted: bool = False


@dataclass(frozen=True, slots=True)
class SwapView:
    """A model on its way in, who must be gone first, and when that was decided."""

    target: ModelId
    waiting_for: tuple[ModelId, ...]
    since_s: float


@dataclass(frozen=True, slots=True)
class Snapshot:
    """Everything at one moment.

    Attributes:
        upstreams: Every model of the fleet, and removed ones that still drain.
        swaps: Swaps on their way.
        draining: A shutdown has begun.
    """

    upstreams: Mapping[ModelId, UpstreamView]
    swaps: tuple[SwapView, ...]
    draining: bool
