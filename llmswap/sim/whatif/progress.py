"""Tells somebody at a terminal how far a long comparison is."""

import sys
from collections.abc import Callable

CELLS = 30
AFTER_S = 1.0  # what takes no longer needs no bar


class Bar:
    """A bar on stderr, if that is a terminal and it takes a while.

    Args:
        clock: Seconds that pass for whoever waits; nothing simulated hears of it.
    """

    def __init__(self, clock: Callable[[], float]) -> None:
        self._clock = clock
        self._since_s = clock()
        self._shown = ""
        self._on = sys.stderr.isatty()

    def show(self, share: float, what: str) -> None:
        """Show how far it is, 0 to 1."""
        if not self._on or self._clock() - self._since_s < AFTER_S:
            return
        cells = round(CELLS * share)
        text = f"{'█' * cells}{'░' * (CELLS - cells)} {share:4.0%}  {what:.40}"
        if text != self._shown:
            sys.stderr.write(f"\r\x1b[K{text}")
            sys.stderr.flush()
            self._shown = text

    def clear(self) -> None:
        """Take it away."""
        if self._shown:
            sys.stderr.write("\r\x1b[K")
            sys.stderr.flush()
            self._shown = ""
