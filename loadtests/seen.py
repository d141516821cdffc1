"""What a run leaves behind: its samples, what the target showed of itself, and what the generator had to bear."""

from dataclasses import dataclass, field
from math import ceil

from loadtests.exposition import Exposition
from loadtests.samples import Sample
from loadtests.target import Kind, Lanes

LAG_MAX_S = 0.25


@dataclass(frozen=True, slots=True)
class Generator:
    """How the machine that makes the load did.

    Attributes:
        cpu_high: A process of it used more than nine tenths of its core.
        lags_s: How late a timer was, time and again.
    """

    cpu_high: bool
    lags_s: tuple[float, ...]

    @property
    def lag_p99_s(self) -> float:
        """How late it was at the 99th percentile."""
        return percentile(self.lags_s, 0.99) or 0.0

    @property
    def saturated(self) -> str:
        """Why its times cannot be trusted; empty if they can."""
        if self.cpu_high:
            return "the load generator used up a CPU core; give it more (--processes), or ask for less"
        if self.lag_p99_s > LAG_MAX_S:
            return f"the load generator's timers were {1000 * self.lag_p99_s:.0f} ms late (p99)"
        return ""


@dataclass(frozen=True, slots=True)
class Upstreams:
    """What simulated upstreams say of a run in which none of them was started or stopped.

    Attributes:
        aborted: Answers that were broken off.
        firsts_s: Real seconds from each request to its first token.
    """

    aborted: int
    firsts_s: tuple[float, ...]


@dataclass(frozen=True)
class Seen:
    """All of it.

    Attributes:
        began_s: Unix time at which the callers began.
        ran_s: Real seconds until the curtain fell.
        real_s: Real seconds for one of the scenario's.
        before, after: The target's metrics; None where it shows none of llmswap's.
        upstreams: None where they cannot be asked, or did not live all the time.
        firsts_s: Real seconds to the first token, of each request in llmswap's own log; None without one.
        alone: Nobody else sends requests to the target.
    """

    kind: Kind
    samples: list[Sample]
    began_s: float
    ran_s: float
    real_s: float
    lanes: Lanes
    generator: Generator
    before: Exposition | None = None
    after: Exposition | None = None
    upstreams: Upstreams | None = None
    firsts_s: tuple[float, ...] | None = None
    alone: bool = False

    @property
    def grown(self) -> Exposition | None:
        """What was counted during the run."""
        return None if self.before is None or self.after is None else self.after.since(self.before)


@dataclass
class Unseen:
    """Figures that nobody can know here, each with the reason."""

    why: dict[str, str] = field(default_factory=dict)

    def note(self, figure: str, reason: str) -> None:
        """Say of a figure why it is not there."""
        self.why[figure] = reason


def percentile(values: list[float] | tuple[float, ...], share: float) -> float | None:
    """Give the value that so many are at most; None of none."""
    ordered = sorted(values)
    return ordered[max(0, ceil(share * len(ordered)) - 1)] if ordered else None
