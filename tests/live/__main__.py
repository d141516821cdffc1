"""`python -m tests.live`: serve a scenario with a real llmswap under both policies, and hold the simulator to it.

Three seeds of an hour each at a twentieth of the time, so nine minutes; `--quick` takes less of each and allows twice
as much.
"""

import argparse
import asyncio
import sys
import tempfile
from contextlib import ExitStack
from pathlib import Path

from llmswap.core.fleet import Fleet, Scheduling
from llmswap.sim.whatif import scenario
from llmswap.sim.whatif.compare import simulate
from llmswap.sim.whatif.fleets import under_fair, under_fifo
from llmswap.sim.whatif.policies import Policy
from llmswap.sim.whatif.workload import Workload
from tests.live.run import Run, judge, record
from tests.live.verdict import checks, strays, table
from tests.live.world import TIME_SCALE
from tests.stack import Stack

SCENARIO = "opencode_fanout"
MINUTES, QUICK_MINUTES = 60, 18
QUICK_SLACK = 2.0
FULL_SIZE_SEEDS = range(1, 21)


def parse() -> argparse.Namespace:
    """Read the command line."""
    parser = argparse.ArgumentParser(prog="python -m tests.live", description="Hold the simulator to live runs.")
    parser.add_argument("--quick", action="store_true", help=f"{QUICK_MINUTES} minutes of each, bars twice as wide")
    parser.add_argument("--minutes", type=float, help=f"of the scenario, for each seed (default {MINUTES})")
    parser.add_argument("--seeds", type=int, nargs="+", default=[1, 2, 3], help="default: 1 2 3")
    parser.add_argument("--keep", type=Path, help="folder for journals and logs (default: a temporary one)")
    args = parser.parse_args()
    args.minutes = args.minutes or (QUICK_MINUTES if args.quick else MINUTES)
    return args


def live(args: argparse.Namespace, workload: Workload, directory: Path) -> dict[Scheduling, list[Run]]:
    """Run every seed, one after the other."""
    runs: dict[Scheduling, list[Run]] = {policy: [] for policy in Scheduling}
    duration_s = args.minutes * 60 * TIME_SCALE
    for number, seed in enumerate(args.seeds, 1):
        print(f"... seed {seed} ({number} of {len(args.seeds)}): {duration_s:.0f} s", file=sys.stderr, flush=True)
        with ExitStack() as ending:
            stack = Stack(directory / f"seed-{seed}")
            stack.directory.mkdir(parents=True, exist_ok=True)
            ending.callback(stack.close)
            takes = asyncio.run(record(stack, workload, seed, duration_s))
        for policy, take in takes.items():
            runs[policy].append(judge(take, workload, seed))
    return runs


def full_size(workload: Workload, minutes: float) -> float:
    """Give completions under fair for one under fifo in the scenario itself, simulated."""

    def done(fleet: Fleet) -> float:
        row = simulate(lambda _: workload, Policy("", fleet), FULL_SIZE_SEEDS, minutes * 60, lambda _: None)
        return row.score.completed

    return done(under_fair(workload.fleet)) / done(under_fifo(workload.fleet))


def main() -> int:
    """Run, simulate, print; 1 if they do not agree."""
    args = parse()
    workload = scenario.load(SCENARIO).workload
    with tempfile.TemporaryDirectory(prefix="llmswap-live-") as name:
        runs = live(args, workload, args.keep or Path(name))
    seeds = " ".join(map(str, args.seeds))
    print(f"{SCENARIO}, {args.minutes:g} of its minutes from each of the seeds {seeds}, at {TIME_SCALE:g} of its time")
    print(f"{table(runs)}, {full_size(workload, args.minutes):.2f} at full size, {len(FULL_SIZE_SEEDS)} seeds\n")
    made, lost = list(checks(runs, QUICK_SLACK if args.quick else 1.0)), strays(runs)
    print(*made, f"calls refused or cut off: {lost}, none allowed", sep="\n")
    return 0 if all(check.passed for check in made) and not lost else 1


if __name__ == "__main__":
    sys.exit(main())
