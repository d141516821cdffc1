"""How well live runs and simulated ones agree: a table, and the bars they are held to."""

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from statistics import fmean

from llmswap.core.fleet import Scheduling
from llmswap.sim.whatif.findings import SWAPS_BAR, WAIT_BAR
from llmswap.sim.whatif.score import Score
from llmswap.sim.whatif.workload import Ending
from tests.live.run import Run
from tests.live.world import TIME_SCALE

RATIO_BAR = 0.15
SOURCES = {"live": "live", "again": "its journal, simulated", "foretold": "the scenario, simulated"}

Runs = Mapping[Scheduling, Sequence[Run]]


@dataclass(frozen=True, slots=True)
class Check:
    """One bar.

    Attributes:
        off: By how much, relative to what was measured live.
    """

    name: str
    live: float
    simulated: float
    bar: float

    @property
    def off(self) -> float:
        """How far the simulation is from life, relative to life."""
        return self.simulated / self.live - 1 if self.live else float("inf")

    @property
    def passed(self) -> bool:
        """Whether that is near enough."""
        return abs(self.off) <= self.bar

    def __str__(self) -> str:
        verdict = "pass" if self.passed else "FAIL"
        return (
            f"{self.name:28} {self.live:8.2f} live {self.simulated:8.2f} simulated {self.off:+6.1%}, "
            f"at most {self.bar:.0%}  {verdict}"
        )


@dataclass(frozen=True, slots=True)
class Sum:
    """Some runs of one policy, taken together; the wait in the scenario's seconds."""

    swaps: float
    completed: float
    p95_s: float

    @classmethod
    def of(cls, scores: Sequence[Score]) -> "Sum":
        """Add up counts, average waits."""
        return cls(
            sum(score.swaps for score in scores),
            sum(score.completed for score in scores),
            fmean(score.waits.p95_s for score in scores) / TIME_SCALE,
        )


def sums(runs: Runs, source: str) -> dict[Scheduling, Sum]:
    """Take together what every policy came to, by one of SOURCES."""
    return {policy: Sum.of([getattr(run, source) for run in own]) for policy, own in runs.items()}


def gain(of: Mapping[Scheduling, Sum]) -> float:
    """Give completions under fair for one under fifo."""
    return of[Scheduling.FAIR].completed / of[Scheduling.FIFO].completed


def checks(runs: Runs, slack: float) -> Iterator[Check]:
    """Hold runs to the bars.

    Args:
        runs: All of them.
        slack: How many times as far off they may be.
    """
    live, again = sums(runs, "live"), sums(runs, "again")
    for policy in runs:
        yield Check(f"{policy}: swaps", live[policy].swaps, again[policy].swaps, SWAPS_BAR * slack)
        yield Check(f"{policy}: p95 wait, s", live[policy].p95_s, again[policy].p95_s, WAIT_BAR * slack)
    yield Check("fair/fifo completions", gain(live), gain(sums(runs, "foretold")), RATIO_BAR * slack)


def strays(runs: Runs) -> int:
    """Count the calls that ended in a way in which none should: refused, or cut off."""
    good = (Ending.DONE, Ending.HUNG_UP)
    return sum(many for own in runs.values() for run in own for end, many in run.endings.items() if end not in good)


def table(runs: Runs) -> str:
    """Lay the sums out, and what starts and stops took in the scenario's seconds."""
    lines = [f"{'policy':6}  {'source':24}  {'swaps':>6}  {'done':>6}  {'p95 wait':>8}"]
    for policy in runs:
        for source, title in SOURCES.items():
            of = sums(runs, source)[policy]
            lines.append(f"{policy:6}  {title:24}  {of.swaps:6.1f}  {of.completed:6.1f}  {of.p95_s:6.1f} s")
    for policy, own in runs.items():
        load_s, stop_s = (fmean(getattr(run, name) for run in own) / TIME_SCALE for name in ("load_s", "stop_s"))
        lines.append(f"{policy}: a start took {load_s:.1f} s on average, a stop {stop_s:.1f} s")
    gains = (f"{gain(sums(runs, source)):.2f} {title}" for source, title in SOURCES.items())
    return "\n".join([*lines, f"fair/fifo completions: {', '.join(gains)}"])
