"""The machine at one moment, as one frozen value: whoever shows it asks neither a driver nor the kernel."""

from bisect import bisect_left
from collections.abc import Mapping
from dataclasses import dataclass, field, replace

from llmswap.core.fleet import ModelId
from llmswap.runtime.attribution import Share
from llmswap.runtime.gpu import Gpu
from llmswap.runtime.load import Load

# Seconds. A poll of eight GPUs takes some milliseconds; a driver that is waking up takes seconds.
POLL_BOUNDS_S = (0.0001, 0.00025, 0.0005, 0.001, 0.0025, 0.005, 0.01, 0.025, 0.1)


@dataclass(frozen=True, slots=True)
class Polls:
    """What polls of the GPUs have cost.

    Attributes:
        counts: How many took at most as long as each bound, and longer than the one before; the last: longer than all.
    """

    counts: tuple[int, ...] = (0,) * (len(POLL_BOUNDS_S) + 1)
    sum_s: float = 0.0

    def plus(self, took_s: float) -> "Polls":
        """Count one more."""
        place = bisect_left(POLL_BOUNDS_S, took_s)
        counts = tuple(count + (index == place) for index, count in enumerate(self.counts))
        return Polls(counts, self.sum_s + took_s)


@dataclass(frozen=True, slots=True)
class Xid:
    """Errors of one kind that a GPU has reported.

    Attributes:
        last: Unix time of the last one; None if there was none.
    """

    gpu: str
    code: int
    count: int = 0
    last: float | None = None

    def again(self, at: float) -> "Xid":
        """Count one more."""
        return replace(self, count=self.count + 1, last=at)


@dataclass(frozen=True, slots=True)
class ModelUse:
    """What one model's upstream takes.

    Attributes:
        processes: 0 if it is not up.
        host_bytes: By kind: anon, shmem, file; empty if it is not up.
        cpu_s: Of all its lives.
        device: Its device memory.
    """

    processes: int = 0
    host_bytes: Mapping[str, int] = field(default_factory=dict)
    cpu_s: float = 0.0
    device: Share = field(default_factory=Share)


@dataclass(frozen=True, slots=True)
class Machine:
    """What the sampler has seen last.

    Attributes:
        at_s: Monotonic time.
        gpus: With vitals; those that are cut into instances included, which have no memory of their own.
        problem: Why the last poll of the GPUs failed, or some GPU could not be read; empty if all is well.
        polled_at: Unix time of the last poll that succeeded; None if none has.
        xids: None if nobody tells of them.
        load: None until the first is due.
    """

    at_s: float
    gpus: tuple[Gpu, ...] = ()
    problem: str = ""
    polled_at: float | None = None
    polls: Polls = Polls()
    models: Mapping[ModelId, ModelUse] = field(default_factory=dict)
    unattributed: Mapping[str, int] = field(default_factory=dict)
    xids: tuple[Xid, ...] | None = None
    memory_total_bytes: int | None = None
    memory_available_bytes: int | None = None
    load: Load | None = None
