"""What callers counted, held to what the proxy and its upstreams counted of the same run."""

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

from loadtests.exposition import quantile
from loadtests.samples import Ending, Sample
from loadtests.seen import Seen, percentile

TTFT_BAR_S = 0.010
WAITS_BAR = 0.02
REFUSALS = ("queue_full", "queue_timeout", "refused", "swap_failed")


@dataclass(frozen=True, slots=True)
class Check:
    """One thing that was counted twice.

    Attributes:
        slack: By how much they may differ.
        alone: Nobody else was counted by them.
        times: It is of times, which differ on a busy machine: only a scenario's threshold on `ttft_off_ms` fails a run.
    """

    name: str
    ours: float
    theirs: float
    slack: float
    alone: bool
    unit: str = ""
    times: bool = False

    @property
    def verdict(self) -> str:
        """agree, differ, or shared: they have counted more, and others may have asked."""
        if abs(self.ours - self.theirs) <= self.slack:
            return "agree"
        return "differ" if self.alone or self.theirs < self.ours else "shared"

    def row(self) -> dict[str, Any]:
        """Give it as JSON values."""
        return {
            "name": self.name,
            "ours": self.ours,
            "theirs": self.theirs,
            "slack": self.slack,
            "unit": self.unit,
            "times": self.times,
            "verdict": self.verdict,
        }


def checks(seen: Seen) -> Iterator[Check]:
    """Hold every figure that somebody else has counted, too, to theirs."""
    grown = seen.grown
    if grown is None or seen.after is None:
        return

    def check(name: str, ours: float, theirs: float, slack: float = 0.0, unit: str = "") -> Check:
        return Check(name, ours, theirs, slack, seen.alone, unit)

    count = {ending: sum(sample.ending is ending for sample in seen.samples) for ending in Ending}
    # Whether a request that its client broke off had got there, or was complete by then, only the other side knows.
    cut = count[Ending.GAVE_UP] + count[Ending.OPEN] + count[Ending.CUT]
    outcomes = grown.by("llmswap_requests_total", "outcome")
    yield check("requests", len(seen.samples), sum(outcomes.values()), cut)
    yield check("answers", count[Ending.DONE], outcomes.get("ok", 0.0), cut + count[Ending.LEFT])
    refusals = sum(outcomes.get(word, 0.0) for word in REFUSALS)
    yield check("refusals", count[Ending.REFUSED], refusals, cut)
    left = count[Ending.LEFT] + count[Ending.GAVE_UP] + count[Ending.OPEN]
    yield check("clients that left", left, outcomes.get("client_disconnect", 0.0), cut)
    waits_s = sum(sample.wait_s for sample in seen.samples if sample.wait_s is not None and sample.dispatched)
    theirs_s = grown.total("llmswap_queue_wait_seconds_sum", outcome="admitted")
    yield check("seconds waited", waits_s, theirs_s, WAITS_BAR * theirs_s + 0.001 * len(seen.samples) + cut, "s")
    yield check("still in flight", 0, seen.after.total("llmswap_requests_in_flight"))
    yield from _first_tokens(seen)
    if seen.upstreams is not None:
        broken = sum(_broken_off(sample) for sample in seen.samples)
        yield check("answers broken off", broken, seen.upstreams.aborted, cut)


def _broken_off(sample: Sample) -> bool:
    return sample.dispatched and sample.ending in (Ending.LEFT, Ending.GAVE_UP, Ending.OPEN)


def _first_tokens(seen: Seen) -> Iterator[Check]:
    """Hold our times to the first token to llmswap's histogram and log, and to the upstreams' journals."""
    ours = [sample.ttft_s for sample in seen.samples if sample.ttft_s is not None]
    p95_s, grown = percentile(ours, 0.95), seen.grown
    if p95_s is None or grown is None:
        return

    def check(whose: str, ours_s: float, theirs_s: float) -> Check:
        name = f"p95 to the first token, {whose}"
        return Check(name, ours_s, theirs_s, TTFT_BAR_S, seen.alone, "s", times=True)

    buckets = grown.by("llmswap_time_to_first_token_seconds_bucket", "le")
    if bounds := quantile(buckets, 0.95):
        yield check("histogram", p95_s, min(max(p95_s, bounds[0]), bounds[1]))
    if theirs_s := percentile(seen.firsts_s or (), 0.95):
        yield check("llmswap's log", p95_s, theirs_s)
    # Upstreams know nothing of the wait before them.
    served = [each.ttft_s - (each.wait_s or 0.0) for each in seen.samples if each.ttft_s is not None]
    if seen.upstreams is not None and (theirs_s := percentile(seen.upstreams.firsts_s, 0.95)):
        yield check("upstreams", percentile(served, 0.95) or 0.0, theirs_s)
