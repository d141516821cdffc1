"""One turn of the scheduler, as its observers see it."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Protocol

from llmswap.core.commands import Command
from llmswap.core.events import Event


@dataclass(frozen=True, slots=True)
class Step:
    """What happened and what follows from it.

    Attributes:
        at_s: Monotonic seconds, stamped where the run loop (or the simulator) took the event.
    """

    at_s: float
    event: Event
    commands: Sequence[Command]


class Observer(Protocol):
    """Sees every Step before its commands are performed; can change nothing.

    An observer that raises is removed and logged. It must not block: the caller is the event loop.
    """

    def __call__(self, step: Step) -> None:
        """Take note of the step."""
