"""Run worlds by seed."""

from collections.abc import Callable, Iterable

from llmswap.core.fleet import Fleet
from llmswap.core.scheduler import Scheduler
from llmswap.sim.report import Report, WorldFailed
from llmswap.sim.world import Decider, World


def run_world(
    seed: int, make: Callable[[Fleet, float], Decider] = Scheduler, start_s: float = 0.0, *, fair: bool = False
) -> Report:
    """Simulate one world to its end.

    Raises:
        WorldFailed: An invariant does not hold; the message tells the last steps and how to replay them.
    """
    world = World(seed, make, start_s, fair=fair)
    try:
        world.run()
    except (AssertionError, LookupError) as error:
        raise WorldFailed(seed, world.steps, error, fair=fair) from error
    return world.report


def run_worlds(seeds: Iterable[int], *, fair: bool = False) -> Report:
    """Simulate many worlds.

    Raises:
        WorldFailed: As `run_world`, for the first that fails.
    """
    total = Report()
    for seed in seeds:
        total.add(run_world(seed, fair=fair))
    return total
