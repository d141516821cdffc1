"""`python -m llmswap.sim`: run worlds from the command line, or replay one."""

import argparse
import os
import sys

from llmswap.core.scheduler import Scheduler
from llmswap.sim.report import Report, WorldFailed, tell
from llmswap.sim.run import run_worlds
from llmswap.sim.soak import CHUNK, SoakFailed, soak
from llmswap.sim.world import World


def main() -> int:
    """Run the worlds asked for; exit code 1 if one breaks an invariant."""
    parser = argparse.ArgumentParser(prog="python -m llmswap.sim", description="Run the scheduler in simulated worlds.")
    parser.add_argument("--seed", type=int, default=0, help="the first seed (default 0)")
    parser.add_argument("--worlds", type=int, default=1, help="how many seeds in a row (default 1)")
    parser.add_argument("--jobs", type=int, default=1, help="how many processes; 0 means one per core (default 1)")
    parser.add_argument("--verbose", action="store_true", help="tell every step of the first world")
    parser.add_argument("--fair", action="store_true", help="under the fair scheduler instead of fifo")
    options = parser.parse_args()
    if options.verbose:
        world = World(options.seed, Scheduler, fair=options.fair)
        try:
            world.run()
        finally:
            sys.stdout.write("\n".join(tell(world.steps)) + "\n")
    try:
        sys.stdout.write(f"{_run(options)}\n")
    except (WorldFailed, SoakFailed) as failure:
        sys.stdout.write(f"{failure}\n")
        return 1
    return 0


def _run(options: argparse.Namespace) -> Report:
    seeds = range(options.seed, options.seed + options.worlds)
    if options.jobs == 1:
        return run_worlds(seeds, fair=options.fair)
    policy, live = "fair" if options.fair else "fifo", sys.stderr.isatty()

    def tell_progress(done: int) -> None:
        begin, end = ("\r", "\n" if done == len(seeds) else "") if live else ("", "\n")
        if live or done % max(CHUNK, len(seeds) // 10) == 0:
            sys.stderr.write(f"{begin}{policy}: {done} of {len(seeds)} worlds{end}")
            sys.stderr.flush()

    return soak(seeds, fair=options.fair, jobs=options.jobs or os.cpu_count() or 1, progress=tell_progress)


if __name__ == "__main__":
    sys.exit(main())
