"""Is the event loop blocked? Measures how late it runs what is due; who asks decides what follows."""

import asyncio
import time
from collections import deque

BEAT_S = 1.0
# The worst lag of so long a time is told: whoever looks every 15 s misses no block.
WINDOW_S = 30.0


class Heartbeat:
    """A timer that knows when it should have run."""

    def __init__(self) -> None:
        self._due_s = 0.0  # 0 while it does not beat
        self._last_lag_s = 0.0
        self._lags: deque[tuple[float, float]] = deque()  # (when, how late), of the window
        self._timer: asyncio.TimerHandle | None = None

    def start(self) -> None:
        """Begin to beat."""
        self._due_s = time.monotonic() + BEAT_S
        self._timer = asyncio.get_running_loop().call_at(self._due_s, self._beat)

    def stop(self) -> None:
        """Stop beating."""
        self._due_s = 0.0
        if self._timer is not None:
            self._timer.cancel()

    def _beat(self) -> None:
        now_s = time.monotonic()
        self._last_lag_s = now_s - self._due_s
        self._lags.append((now_s, self._last_lag_s))
        self._forget(now_s)
        self.start()

    def _forget(self, now_s: float) -> None:
        while self._lags and self._lags[0][0] < now_s - WINDOW_S:
            self._lags.popleft()

    @property
    def lag_s(self) -> float:
        """How late the last beat was, or the coming one already is."""
        coming_s = time.monotonic() - self._due_s if self._due_s else 0.0
        return max(self._last_lag_s, coming_s)

    @property
    def worst_s(self) -> float:
        """The longest lag of the last WINDOW_S."""
        self._forget(time.monotonic())
        return max([self.lag_s, *(lag_s for _, lag_s in self._lags)])
