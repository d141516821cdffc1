"""How long recorded clients would have waited: known of those who left, and only bounded from below for the others.

Who left after 30 s has a patience of 30 s. Who was served after 10 s would have waited longer than that, and how much
longer is drawn from what the same caller's patience for the same model turned out to be (the product-limit estimate of
Kaplan and Meier). Without it a policy that makes people wait longer would look as if nobody ever left.
"""

from bisect import bisect_right
from collections.abc import Iterable, Sequence
from itertools import groupby
from math import inf
from random import Random

from llmswap.sim.whatif.lanes import Past


def patience(requests: Iterable[Past], end_s: float, rng: Random) -> dict[Past, float]:
    """Say for each request how long its client waits, in seconds; infinite where nothing speaks against it.

    Args:
        requests: What was recorded.
        end_s: When the recording ended: who still waited then would have waited longer.
        rng: Decides the draws.
    """
    kinds: dict[tuple[str, str], list[Past]] = {}
    for past in requests:
        kinds.setdefault((past.caller, past.model), []).append(past)
    drawn: dict[Past, float] = {}
    for kind in kinds.values():
        waits_s = [past.waited_s(end_s) for past in kind]
        left_s, stay = survival([(wait_s, past.gave_up) for wait_s, past in zip(waits_s, kind, strict=True)])
        for past, wait_s in zip(kind, waits_s, strict=True):
            drawn[past] = wait_s if past.gave_up else _draw(left_s, stay, wait_s, rng)
    return drawn


def survival(waits: Iterable[tuple[float, bool]]) -> tuple[list[float], list[float]]:
    """Estimate patience from waits that ended with the client leaving (True) or otherwise (False).

    Returns:
        The times at which clients left, and the share of all that would wait longer than each.
    """
    ordered = sorted(waits)
    at_risk, share = len(ordered), 1.0
    times_s: list[float] = []
    shares: list[float] = []
    for time_s, group in groupby(ordered, key=lambda wait: wait[0]):
        ended = [left for _, left in group]
        if any(ended):
            share *= 1 - sum(ended) / at_risk
            times_s.append(time_s)
            shares.append(share)
        at_risk -= len(ended)
    return times_s, shares


def _draw(times_s: Sequence[float], shares: Sequence[float], waited_s: float, rng: Random) -> float:
    """Draw a patience, given that it was not used up by then."""
    first = bisect_right(times_s, waited_s)
    now = shares[first - 1] if first else 1.0
    mark = now * rng.random()
    return next((time_s for time_s, share in zip(times_s[first:], shares[first:], strict=True) if share <= mark), inf)
