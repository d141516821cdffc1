"""What came out of simulated worlds: counts to show that they were worth simulating, and how a failure is told."""

from collections import Counter
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field

from llmswap.core.commands import Reject, Start, Stop
from llmswap.core.events import FleetReloaded
from llmswap.core.step import Step

SHOWN_STEPS = 40


@dataclass(slots=True)
class Report:
    """What happened in one world, or in many.

    Attributes:
        counts: By kind: the names of events and commands, with reason or cause where they have one.
    """

    worlds: int = 0
    steps: int = 0
    counts: Counter[str] = field(default_factory=Counter)

    def note(self, step: Step) -> None:
        """Count a step."""
        self.steps += 1
        self.counts[type(step.event).__name__] += 1
        for command in step.commands:
            self.counts[_kind(command)] += 1

    def add(self, other: "Report") -> None:
        """Add another report."""
        self.worlds += other.worlds
        self.steps += other.steps
        self.counts += other.counts

    def __str__(self) -> str:
        lines = [f"{self.worlds} worlds, {self.steps} steps, every invariant held"]
        lines += [f"{count:>10}  {kind}" for kind, count in sorted(self.counts.items())]
        return "\n".join(lines)


class WorldFailed(AssertionError):
    """A simulated world broke an invariant. Says which, when, after what, and how to see it again."""

    def __init__(self, seed: int, steps: Sequence[Step], reason: BaseException, *, fair: bool = False) -> None:
        last = steps[-1].at_s if steps else 0.0
        told = "\n".join(tell(steps[-SHOWN_STEPS:]))
        super().__init__(
            f"seed {seed}, step {len(steps)} at {last} s: {type(reason).__name__}: {reason}\n{told}\n"
            f"replay: python -m llmswap.sim{' --fair' if fair else ''} --seed {seed} --verbose"
        )
        self.seed = seed
        self.reason = reason


def _kind(command: object) -> str:
    name = type(command).__name__
    if isinstance(command, Reject):
        return f"{name} {command.reason}"
    return f"{name} {command.cause}" if isinstance(command, Start | Stop) else name


def tell(steps: Iterable[Step]) -> list[str]:
    """Write out steps, a line for each event and for each command."""
    lines = []
    for step in steps:
        event = (
            f"FleetReloaded({', '.join(step.event.fleet.models)})"
            if isinstance(step.event, FleetReloaded)
            else step.event
        )
        lines.append(f"{step.at_s:12.4f}  {event}")
        lines += [f"{'':14}-> {command}" for command in step.commands]
    return lines
