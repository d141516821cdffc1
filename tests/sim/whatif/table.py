"""`python -m tests.sim.whatif.table`: simulate every named scenario and rewrite the table in docs/scheduling.md.

Each scenario is played for a simulated hour from five seeds: under fifo, under fair, and under fair with fixed holds.
"""

import argparse
import os
import sys
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ProcessPoolExecutor
from dataclasses import dataclass
from pathlib import Path
from statistics import fmean

from llmswap.core.fleet import Fleet
from llmswap.sim.whatif import scenario
from llmswap.sim.whatif.fleets import under_fair, under_fifo
from llmswap.sim.whatif.score import Scorer
from llmswap.sim.whatif.stage import play
from llmswap.sim.whatif.workload import Answer, Ending, Workload

SEEDS = range(5)
HOUR_S = 3600.0
HOLDS_S = (0, 2, 5, 10, 20, 30)
DOCUMENT = Path(__file__).resolve().parents[3] / "docs" / "scheduling.md"
BEGIN, END = "<!-- scenarios: begin, made by `make scenarios` -->\n", "<!-- scenarios: end -->\n"
HEADER = """\
| scenario | done/h fifo | done/h fair | fair/fifo | swaps fifo | swaps fair | GPU lost fifo | GPU lost fair \
| worst wait fifo | worst wait fair | best fixed hold | auto/best |
|---|--:|--:|--:|--:|--:|--:|--:|--:|--:|--:|--:|
"""


@dataclass(frozen=True, slots=True)
class Hour:
    """What an hour under one policy came to, on average; the worst wait is the worst of all."""

    done: float
    swaps: float
    lost: float
    worst_wait_s: float


@dataclass(frozen=True, slots=True)
class Line:
    """One scenario."""

    name: str
    fifo: Hour
    fair: Hour
    held: dict[int, Hour]

    @property
    def gain(self) -> float:
        """Completions under fair for one under fifo."""
        return self.fair.done / self.fifo.done

    @property
    def best_hold_s(self) -> int:
        """The fixed hold with the most completions, the shortest of these."""
        return max(self.held, key=lambda hold_s: (self.held[hold_s].done, -hold_s))

    @property
    def learnt(self) -> float:
        """Completions with the learnt hold for one with the best fixed one."""
        return self.fair.done / self.held[self.best_hold_s].done

    def __str__(self) -> str:
        fifo, fair = self.fifo, self.fair
        cells = (
            *(f"`{self.name}`", f"{fifo.done:.0f}", f"{fair.done:.0f}", f"{self.gain:.2f}"),
            *(f"{fifo.swaps:.0f}", f"{fair.swaps:.0f}", f"{fifo.lost:.0%}", f"{fair.lost:.0%}"),
            *(f"{fifo.worst_wait_s:.0f} s", f"{fair.worst_wait_s:.0f} s"),
            *(f"{self.best_hold_s} s", f"{self.learnt:.2f}"),
        )
        return f"| {' | '.join(cells)} |\n"


def hour(workload: Workload, fleet: Fleet, seeds: Sequence[int]) -> Hour:
    """Play an hour from each seed."""
    scores, done = [], []
    for seed in seeds:
        scorer, answers = Scorer(0.0), list[Answer]()
        play(workload, fleet, seed, HOUR_S, observers=(scorer,), listeners=(answers.append,))
        scores.append(scorer.score(HOUR_S))
        done.append(sum(answer.ending is Ending.DONE for answer in answers))
    return Hour(
        fmean(done),
        fmean(score.swaps for score in scores),
        fmean(score.lost_share for score in scores),
        max(score.waits.worst_s for score in scores),
    )


def line(name: str, seeds: Sequence[int] = SEEDS) -> Line:
    """Simulate a scenario under every policy."""
    workload = scenario.load(name).workload
    fleet = workload.fleet
    held = {hold_s: hour(workload, under_fair(fleet, hold_s=hold_s), seeds) for hold_s in HOLDS_S}
    return Line(name, hour(workload, under_fifo(fleet), seeds), hour(workload, under_fair(fleet), seeds), held)


def lines(names: Sequence[str], jobs: int, tell: Callable[[str], None]) -> Iterator[Line]:
    """Simulate scenarios, as many at once as there are jobs."""
    with ProcessPoolExecutor(jobs) as pool:
        for number, made in enumerate(pool.map(line, names), 1):
            tell(f"{number} of {len(names)}: {made.name}")
            yield made


def rewrite(text: str, table: str) -> str:
    """Put a table between the markers of a document."""
    head, begin, rest = text.partition(BEGIN)
    _, end, tail = rest.partition(END)
    if not begin or not end:
        raise SystemExit(f"{DOCUMENT}: the markers are missing: {BEGIN.strip()} and {END.strip()}")
    return f"{head}{begin}{table}{end}{tail}"


def main() -> int:
    """Simulate, rewrite, print."""
    parser = argparse.ArgumentParser(prog="python -m tests.sim.whatif.table", description="Rewrite the scenario table.")
    parser.add_argument("--jobs", type=int, default=os.cpu_count(), help="processes (default: one per core)")
    parser.add_argument("--print", action="store_true", help="print the table, leave the document alone")
    parser.add_argument("scenario", nargs="*", help="only these, and only printed")
    options = parser.parse_args()
    names = options.scenario or scenario.names()
    made = lines(names, options.jobs, lambda text: print(f"... {text}", file=sys.stderr, flush=True))
    table = HEADER + "".join(map(str, made))
    sys.stdout.write(table)
    if not options.print and not options.scenario:
        DOCUMENT.write_text(rewrite(DOCUMENT.read_text(), table))
    return 0


if __name__ == "__main__":
    sys.exit(main())
