"""Many worlds at once, on several cores."""

from collections.abc import Callable, Iterator
from concurrent.futures import ProcessPoolExecutor, as_completed
from functools import partial
from multiprocessing import get_context

from llmswap.sim.report import Report, WorldFailed
from llmswap.sim.run import run_worlds

CHUNK = 100  # worlds per task: enough to pay for the way, few enough for progress to show

Progress = Callable[[int], None]


class SoakFailed(AssertionError):
    """A world failed in another process; tells what `WorldFailed` told there."""


def soak(seeds: range, *, fair: bool, jobs: int, progress: Progress) -> Report:
    """Run worlds on so many cores.

    Args:
        seeds: One world each.
        fair: Under the fair scheduler instead of fifo.
        jobs: How many processes.
        progress: Is told how many worlds are done.

    Raises:
        SoakFailed: An invariant does not hold in one of them; no more are begun.
    """
    total = Report()
    # Spawned, not forked: a world must not depend on what this process happens to have in memory.
    with ProcessPoolExecutor(jobs, mp_context=get_context("spawn")) as pool:
        tasks = [pool.submit(partial(_run, chunk, fair=fair)) for chunk in _chunks(seeds)]
        for task in as_completed(tasks):
            report = task.result()
            if isinstance(report, str):
                for other in tasks:
                    other.cancel()
                raise SoakFailed(report)
            total.add(report)
            progress(total.worlds)
    return total


def _chunks(seeds: range) -> Iterator[range]:
    for first in range(0, len(seeds), CHUNK):
        yield seeds[first : first + CHUNK]


def _run(seeds: range, *, fair: bool) -> Report | str:
    try:
        return run_worlds(seeds, fair=fair)
    except WorldFailed as failure:
        return str(failure)  # its steps and its cause are much to send
