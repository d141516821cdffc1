"""Why somebody waits, and why somebody had to go: the scheduler's reasons, as values. Never used to decide."""

from dataclasses import dataclass
from enum import StrEnum

from llmswap.core.events import RequestId
from llmswap.core.fleet import ModelId


class Why(StrEnum):
    """What keeps a model from being served or started now. A closed set: it is an API and a metric label."""

    STARTING = "starting"  # its upstream is on its way
    STOPPING = "stopping"  # memory is not free yet: its own last life, or somebody in its way, is being stopped
    BUSY = "busy"  # somebody in its way is serving, and is let finish
    HELD = "held"  # somebody in its way is kept for its callers
    LIMIT = "limit"  # it is up, and its concurrency limit is used up
    YIELDING = "yielding"  # somebody who is due needs its place
    SWAP = "swap"  # another swap that it collides with must end first
    LATER = "later"  # another model's turn came first
    BACKOFF = "backoff"  # its last start failed a moment ago
    STUCK = "stuck"  # somebody in its way cannot be stopped


@dataclass(frozen=True, slots=True)
class Obstacle:
    """What is in a model's way.

    Attributes:
        whom: The models that it waits for; empty where it waits for itself.
        until_s: Monotonic time at which this is over at the latest, where that is known (a hold, a backoff).
    """

    why: Why
    whom: tuple[ModelId, ...] = ()
    until_s: float | None = None


@dataclass(frozen=True, slots=True)
class WaitingRequest:
    """One request in line.

    Attributes:
        arrived_s: Monotonic time.
    """

    request: RequestId
    caller: str
    arrived_s: float


@dataclass(frozen=True, slots=True)
class Wait:
    """A model that is waited for.

    Attributes:
        requests: Who waits, first come first; at most as many as were asked for.
        waiting: How many wait in all.
        due: Somebody has waited for it beyond the bound.
        ready_at_s: Monotonic time at which its first waiter will be served, estimated from what loads, stops and
            answers took so far; None if nothing is known.
    """

    model: ModelId
    obstacle: Obstacle
    requests: tuple[WaitingRequest, ...]
    waiting: int
    due: bool
    ready_at_s: float | None


class Rule(StrEnum):
    """What put a decision before its alternatives."""

    BOUND = "bound"  # it was due
    PRIORITY = "priority"
    AGE = "age"
    ALONE = "alone"  # nobody else waited
    ORDER = "order"  # an operator's, or preload
    TTL = "ttl"
    CONFIG = "config"  # a reload changed or removed it
    SLEEPERS = "sleepers"  # more would be asleep than may be
    FAILURE = "failure"  # it could not be put to sleep, or woken


@dataclass(frozen=True, slots=True)
class Alternative:
    """A model that was waited for, too, and was not chosen.

    Attributes:
        waited_s: Its oldest request.
    """

    model: ModelId
    obstacle: Obstacle
    waiting: int
    waited_s: float


class Verb(StrEnum):
    """What was decided."""

    SWAP = "swap"  # to a model, others evicted for it if need be
    HOLD = "hold"  # somebody idle is kept although its place is wanted
    STOP = "stop"  # not for another model
    SLEEP = "sleep"  # the same


@dataclass(frozen=True, slots=True)
class Decision:
    """One decision of the scheduler, with what it was weighed against.

    Attributes:
        at_s: Monotonic time.
        model: Who is swapped to, held or stopped.
        evicted: Who had to go for it.
        kept: Residents that were left alone.
        wanted_by: The model that wants the place of one that is held.
        caller: Whose request brought it about; empty if nobody's.
        waiting: Requests that waited for it, and `waited_s`, the oldest of them.
        until_s: When a hold ends at the latest, monotonic.
    """

    at_s: float
    verb: Verb
    model: ModelId
    rule: Rule | None = None
    evicted: tuple[ModelId, ...] = ()
    kept: tuple[ModelId, ...] = ()
    wanted_by: ModelId | None = None
    caller: str = ""
    waiting: int = 0
    waited_s: float = 0.0
    until_s: float | None = None
    alternatives: tuple[Alternative, ...] = ()
