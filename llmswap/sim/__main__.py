"""`python -m llmswap.sim`: run worlds from the command line, or replay one."""

import argparse
import sys

from llmswap.core.scheduler import Scheduler
from llmswap.sim.report import WorldFailed, tell
from llmswap.sim.run import run_worlds
from llmswap.sim.world import World


def main() -> int:
    """Run the worlds asked for; exit code 1 if one breaks an invariant."""
    parser = argparse.ArgumentParser(prog="python -m llmswap.sim", description="Run the scheduler in simulated worlds.")
    parser.add_argument("--seed", type=int, default=0, help="the first seed (default 0)")
    parser.add_argument("--worlds", type=int, default=1, help="how many seeds in a row (default 1)")
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
        sys.stdout.write(f"{run_worlds(range(options.seed, options.seed + options.worlds), fair=options.fair)}\n")
    except WorldFailed as failure:
        sys.stdout.write(f"{failure}\n")
        return 1
    return 0


if __name__ == "__main__":
    sys.exit(main())
