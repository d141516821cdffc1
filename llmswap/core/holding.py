"""How long an idle resident may make others wait, in case its callers come back. Pure.

A caller that works in a loop leaves its model idle after every answer. Evicting it at once costs a whole round of
swaps when the caller returns a moment later; keeping it costs the time of whoever waits. The rule is the one by which
a forager leaves a patch (Charnov's marginal value theorem): stay as long as more is to be had here, per second, than
on average everywhere, the ways between included. Here: as long as the callers of the resident are expected to get more
answers per second than the box gives on average, its swaps included.
"""

from collections import deque
from dataclasses import dataclass, field
from math import exp

SAMPLES_MAX = 32
DECAY = 0.9  # weight of a sample against the one after it: what callers do changes
UNSEEN = 1.0  # weight of the gap that nobody has seen yet, longer than all
MARGIN = 2.0  # a hold is this many times a gap that was seen: the next one may be a little longer
FIRST_HOLD_S = 10.0  # at most, while nothing is known of the callers
SMOOTHING = 0.3  # weight of the newest duration in a model's costs
PACE_MEMORY_S = 600.0  # answers of so long ago count for a third of one now


@dataclass(slots=True)
class Rhythm:
    """What is known of a model's callers and of its costs.

    Attributes:
        gaps_s: Idle times between the end of an answer and the next request, newest last; also those after which the
            model was no longer resident.
        spells: What followed the gaps after which it was still resident: how long it was busy, and how many answers it
            gave until it fell idle again.
        load_s: What a start takes; None until one succeeded.
        stop_s: What a stop takes; None until one succeeded.
        sleep_s: What falling asleep takes; None until it did.
        wake_s: What waking takes; None until it did.
        service_s: What an answer takes; None until one ended.
    """

    gaps_s: deque[float] = field(default_factory=lambda: deque(maxlen=SAMPLES_MAX))
    spells: deque[tuple[float, int]] = field(default_factory=lambda: deque(maxlen=SAMPLES_MAX))
    load_s: float | None = None
    stop_s: float | None = None
    sleep_s: float | None = None
    wake_s: float | None = None
    service_s: float | None = None
    _idle_since_s: float | None = None
    _busy_since_s: float | None = None
    _answers: int = 0
    _recent: float = 0.0
    _recent_at_s: float = 0.0

    def fell_idle(self, now_s: float) -> None:
        """Note that the last answer ended."""
        if self._busy_since_s is not None:
            self.spells.append((now_s - self._busy_since_s, self._answers))
            self._busy_since_s = None
        self._idle_since_s = now_s

    def was_asked(self, now_s: float, *, resident: bool) -> None:
        """Note a request; the first after the model fell idle tells how long its callers take."""
        if self._idle_since_s is not None:
            self.came_back(now_s)
            self._busy_since_s, self._answers = (now_s if resident else None), 0

    def came_back(self, now_s: float) -> None:
        """Note that callers came back: for this model, or for one beside it that keeps its place from others, too."""
        if self._idle_since_s is not None:
            self.gaps_s.append(now_s - self._idle_since_s)
            self._idle_since_s = None

    def loaded(self, took_s: float) -> None:
        """Note a successful start."""
        self.load_s = _smooth(self.load_s, took_s)

    def stopped(self, took_s: float) -> None:
        """Note a completed stop."""
        self.stop_s = _smooth(self.stop_s, took_s)

    def slept(self, took_s: float) -> None:
        """Note that it fell asleep."""
        self.sleep_s = _smooth(self.sleep_s, took_s)

    def woke(self, took_s: float) -> None:
        """Note that it woke up."""
        self.wake_s = _smooth(self.wake_s, took_s)

    def served(self, took_s: float, now_s: float) -> None:
        """Note the end of an answer."""
        self.service_s = _smooth(self.service_s, took_s)
        self._answers += 1
        self._recent, self._recent_at_s = self.recent(now_s) + 1.0, now_s

    def recent(self, now_s: float) -> float:
        """Count the answers of late, the older the less."""
        return self._recent * exp((self._recent_at_s - now_s) / PACE_MEMORY_S)

    @property
    def reload_s(self) -> float:
        """What it costs to put the model back once it has been evicted: asleep, if it ever was."""
        return self.leave_s + ((self.load_s if self.wake_s is None else self.wake_s) or 0.0)

    @property
    def leave_s(self) -> float:
        """What it takes to be gone once it is idle."""
        return (self.stop_s if self.sleep_s is None else self.sleep_s) or 0.0

    @property
    def spell(self) -> tuple[float, float]:
        """What follows when callers come back in time, on average: seconds busy, answers."""
        if not self.spells:
            return self.service_s or 0.0, 1.0
        count = len(self.spells)
        return sum(busy_s for busy_s, _ in self.spells) / count, sum(answers for _, answers in self.spells) / count


def _smooth(old: float | None, new: float) -> float:
    return new if old is None else old + SMOOTHING * (new - old)


def pace_per_s(recent: float, age_s: float) -> float:
    """Give answers per second from a sum of `Rhythm.recent`, for a scheduler that is so old."""
    seen_s = PACE_MEMORY_S * (1.0 - exp(-age_s / PACE_MEMORY_S))
    return recent / seen_s if seen_s > 0.0 else 0.0


def auto_hold_s(resident: Rhythm, pace: float, max_wait_s: float) -> float:
    """Choose the hold that is worth most.

    If callers return within the hold they get their answers and the same choice is there again; otherwise the hold was
    for nothing. Every second of it, and of the answers, is worth what the box does in a second on average. A little
    less where waits are bounded: whoever leaves late must be back late, and every return costs a swap.

    Args:
        resident: Of the model that is idle.
        pace: Answers per second of all models that contend for its place, itself included.
        max_wait_s: The bound after which its callers, once it has been evicted, have it brought back.

    Returns:
        Seconds, at least 0.
    """
    if not resident.gaps_s:
        return min(resident.reload_s, FIRST_HOLD_S)
    price = pace if resident.reload_s == 0.0 else pace / (1.0 + resident.reload_s / max(max_wait_s, 1e-9))
    busy_s, answers = resident.spell
    gain = answers - price * busy_s
    weighted = sorted((gap_s, DECAY**age) for age, gap_s in enumerate(reversed(resident.gaps_s)))
    left = total = sum(weight for _, weight in weighted) + UNSEEN  # weight of the gaps that are longer than the hold
    ended_s = 0.0  # sum of the others, weighted
    best, best_s = 0.0, 0.0
    following = 0
    for gap_s, _ in weighted:
        hold_s = MARGIN * gap_s
        while following < len(weighted) and weighted[following][0] <= hold_s:
            shorter_s, weight = weighted[following]
            ended_s += shorter_s * weight
            left -= weight
            following += 1
        worth = ((total - left) * gain - price * (ended_s + left * hold_s)) / left
        if worth > best:
            best, best_s = worth, hold_s
    return best_s
