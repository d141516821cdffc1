"""Journals to read: of steps that were made up, or simulated."""

from collections.abc import Iterable
from pathlib import Path

from llmswap.core.fleet import Fleet
from llmswap.core.step import Step
from llmswap.journal.codec import VERSION, Header, encode_header, encode_step
from llmswap.sim.whatif.stage import play
from llmswap.sim.whatif.workload import Workload

START_S = 5000.0  # the monotonic clock of a machine does not begin at 0


def write(path: Path, fleet: Fleet, steps: Iterable[Step], *, run: str = "one", number: int = 0) -> None:
    """Append a stretch to a journal."""
    with path.open("ab") as file:
        file.write(encode_header(Header(VERSION, "0", run, number, 1.8e9, START_S, fleet)))
        for step in steps:
            file.write(encode_step(Step(START_S + step.at_s, step.event, step.commands)))


def record(path: Path, workload: Workload, fleet: Fleet, seed: int, until_s: float) -> None:
    """Play a workload, and keep a journal of it."""
    steps: list[Step] = []
    play(workload, fleet, seed, until_s, observers=(steps.append,))
    write(path, fleet, steps)
