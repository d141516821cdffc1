"""How long an idle resident may make others wait, in case its callers come back. Pure.

A caller that works in a loop leaves its model idle after every answer. Evicting it at once costs a whole round of
swaps when the caller returns a moment later; keeping it costs the time of whoever waits. What the callers of a model
did lately says which is cheaper.
"""

from collections import deque
from collections.abc import Iterable
from dataclasses import dataclass, field

SAMPLES_MAX = 32
DECAY = 0.9  # weight of a gap against the one after it: what callers do changes
FIRST_HOLD_S = 10.0  # at most, while nothing is known of the callers
SMOOTHING = 0.3  # weight of the newest duration in a model's costs


@dataclass(slots=True)
class Rhythm:
    """What is known of a model's callers and of its costs.

    Attributes:
        gaps_s: Idle times between the end of an answer and the next request, newest last; also those after which the
            model was no longer resident.
        load_s: What a start takes; None until one succeeded.
        stop_s: What a stop takes; None until one succeeded.
        service_s: What an answer takes; None until one ended.
    """

    gaps_s: deque[float] = field(default_factory=lambda: deque(maxlen=SAMPLES_MAX))
    load_s: float | None = None
    stop_s: float | None = None
    service_s: float | None = None
    _idle_since_s: float | None = None

    def fell_idle(self, now_s: float) -> None:
        """Note that the last answer ended."""
        self._idle_since_s = now_s

    def was_asked(self, now_s: float) -> None:
        """Note a request; the first after the model fell idle tells how long its callers take."""
        if self._idle_since_s is not None:
            self.gaps_s.append(now_s - self._idle_since_s)
            self._idle_since_s = None

    def loaded(self, took_s: float) -> None:
        """Note a successful start."""
        self.load_s = _smooth(self.load_s, took_s)

    def stopped(self, took_s: float) -> None:
        """Note a completed stop."""
        self.stop_s = _smooth(self.stop_s, took_s)

    def served(self, took_s: float) -> None:
        """Note the end of an answer."""
        self.service_s = _smooth(self.service_s, took_s)

    @property
    def reload_s(self) -> float:
        """What it costs to put the model back once it has been evicted."""
        return (self.load_s or 0.0) + (self.stop_s or 0.0)


def _smooth(old: float | None, new: float) -> float:
    return new if old is None else old + SMOOTHING * (new - old)


def auto_hold_s(resident: Rhythm, target: Rhythm, waiting: int) -> float:
    """Choose the hold with the least expected cost.

    Holding for h seconds costs the waiters' time until the callers return, or all of h; if they return later than h it
    costs a round of swaps besides. The best h is 0 or one of the gaps seen: between two gaps nothing is gained.

    Args:
        resident: Of the model that is idle.
        target: Of the model that needs its place.
        waiting: How many requests wait for the target.

    Returns:
        Seconds, at least 0.
    """
    round_s = resident.reload_s + target.reload_s
    if not resident.gaps_s:
        return min(resident.reload_s, FIRST_HOLD_S)
    weighted = [(gap_s, DECAY**age) for age, gap_s in enumerate(reversed(resident.gaps_s))]
    return min((0.0, *resident.gaps_s), key=lambda hold_s: (_cost(hold_s, weighted, waiting, round_s), hold_s))


def _cost(hold_s: float, weighted: Iterable[tuple[float, float]], waiting: int, round_s: float) -> float:
    cost = 0.0
    for gap_s, weight in weighted:
        cost += weight * (waiting * min(gap_s, hold_s) + (round_s if gap_s > hold_s else 0.0))
    return cost
