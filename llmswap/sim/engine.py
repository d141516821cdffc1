"""Virtual time: what happens next, in order of time. Things at the same moment come in a random, seeded order."""

import heapq
import itertools
from collections.abc import Callable
from random import Random

TICKS_PER_S = 1024  # times are multiples of a power of two: sums are exact, wherever the clock starts


def tick(seconds: float) -> float:
    """Round to a time that floats can hold exactly."""
    return round(seconds * TICKS_PER_S) / TICKS_PER_S


class Engine:
    """The clock of a simulated world.

    Args:
        rng: Decides the order of things that happen at the same moment.
        start_s: What the clock shows at first.
    """

    def __init__(self, rng: Random, start_s: float) -> None:
        self._rng = rng
        self._agenda: list[tuple[float, float, int, Callable[[], None]]] = []
        self._numbers = itertools.count()
        self.now_s = start_s

    def after(self, delay_s: float, action: Callable[[], None]) -> None:
        """Put something on the agenda."""
        self.at(self.now_s + tick(delay_s), action)

    def at(self, time_s: float, action: Callable[[], None]) -> None:
        """Put something on the agenda, now at the earliest."""
        heapq.heappush(self._agenda, (max(time_s, self.now_s), self._rng.random(), next(self._numbers), action))

    def run(self) -> None:
        """Let things happen until nothing is left to happen."""
        while self._agenda:
            self.now_s, _, _, action = heapq.heappop(self._agenda)
            action()
