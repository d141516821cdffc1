"""Everything that may run, and every name that leads to it. Frozen: a reload brings a new Fleet."""

from collections.abc import Mapping
from dataclasses import dataclass, field
from enum import StrEnum
from math import inf
from typing import NewType

ModelId = NewType("ModelId", str)


class Router(StrEnum):
    """Which rule says who may live together."""

    GROUP = "group"
    MATRIX = "matrix"


class Scheduling(StrEnum):
    """Which policy works off the queue."""

    FIFO = "fifo"
    FAIR = "fair"


@dataclass(frozen=True, slots=True)
class Model:
    """What the scheduler must know of one model.

    Attributes:
        concurrency_limit: Most requests held at once. Under `fifo`, waiting ones count (llama-swap's rule).
        idle_ttl_s: Idle seconds after which the upstream is stopped; None means never.
        priority: Higher goes first in the queue.
        queue_timeout_s: Longest wait of a request before it is refused.
        queue_limit: Most requests waiting for it. Under `fair` only.
        max_wait_s: Wait after which a request is due: it then goes before all that are not. Under `fair` only.
        hold_s: How long it is kept idle while others wait for its place; None learns it. Under `fair` only.
        substitutes: Who may serve in its place a request that shall not cause a swap, the best first.
        sleeps: It can be put to sleep, and woken, instead of being stopped.
        sleep_after_s: Idle seconds after which it is put to sleep; None means never.
        fingerprint: Digest of the whole resolved config of this model. A reload that leaves it unchanged leaves
            the running upstream alone (invariant I17).
    """

    id: ModelId
    concurrency_limit: int = 10
    idle_ttl_s: float | None = None
    priority: int = 0
    queue_timeout_s: float = 600.0
    queue_limit: int = 1000
    max_wait_s: float = inf
    hold_s: float | None = None
    substitutes: tuple[ModelId, ...] = ()
    sleeps: bool = False
    sleep_after_s: float | None = None
    fingerprint: str = ""


@dataclass(frozen=True, slots=True)
class Group:
    """Models under one rule. Defaults and meaning are llama-swap's.

    Attributes:
        swap: Only one member may be resident at a time.
        exclusive: Loading a member evicts the other groups, but not the persistent ones.
        persistent: Members are never evicted for another group.
    """

    name: str
    members: tuple[ModelId, ...]
    swap: bool = True
    exclusive: bool = True
    persistent: bool = False


@dataclass(frozen=True, slots=True)
class MatrixRules:
    """The set expressions that say which models may live together. Parsed and validated by `matrix.py`.

    Attributes:
        vars: Short name -> model; a var hides a model id of the same name.
        sets: Set name -> expression, in definition order (ties are broken by it).
        evict_costs: What evicting a model costs; 1 where absent.
    """

    vars: Mapping[str, ModelId]
    sets: Mapping[str, str]
    evict_costs: Mapping[ModelId, int] = field(default_factory=dict)


@dataclass(frozen=True, slots=True)
class Fleet:
    """Every model, every name, and the rules of living together.

    Attributes:
        models: By id, in the config's order.
        names: Every name a client may use (ids, aliases) -> id.
        groups: A partition of the models; the implicit group `(default)` included.
        queue_max: Most requests waiting, over all models.
        sleepers_max: Most upstreams asleep at once; None for no limit.
        sleepers_host_bytes: Most host memory that sleepers keep, all together; None for no limit.
    """

    models: Mapping[ModelId, Model]
    names: Mapping[str, ModelId]
    groups: tuple[Group, ...] = ()
    matrix: MatrixRules | None = None
    router: Router = Router.GROUP
    scheduling: Scheduling = Scheduling.FIFO
    queue_max: int = 2000
    sleepers_max: int | None = None
    sleepers_host_bytes: int | None = None

    def beds_suffice(self, count: int, host_bytes: int) -> bool:
        """Whether so many may be asleep and keep so much host memory."""
        many = self.sleepers_max is not None and count > self.sleepers_max
        return not many and (self.sleepers_host_bytes is None or host_bytes <= self.sleepers_host_bytes)

    def resolve(self, name: str) -> ModelId | None:
        """Find the model behind a requested name; exact match, case-sensitive, no trimming."""
        return self.names.get(name)
