"""From what was seen to the score card: plain JSON values, times in seconds of the scenario unless a name ends in _ms.

A figure that cannot be seen from here is null, and `unseen` says why; 0 always means none.
"""

from collections import Counter
from collections.abc import Callable, Iterable, Sequence
from statistics import fmean
from typing import Any

from loadtests.checks import checks
from loadtests.samples import FAILURES, Ending, Sample
from loadtests.seen import Seen, Unseen, percentile
from loadtests.target import Kind

SLOWEST = 12
FORMAT = 1

Figure = Callable[[Sample], float | None]


def card(seen: Seen, run: dict[str, Any]) -> dict[str, Any]:
    """Make the score card, without thresholds and verdict.

    Args:
        seen: What the run left behind.
        run: What was run: the scenario's name and line, seed, policy, target.
    """
    unseen, held = Unseen(), list(checks(seen))
    ttft_off_s = [abs(check.ours - check.theirs) for check in held if check.times]
    if not ttft_off_s:
        unseen.note("ttft_off_ms", f"{seen.kind} does not say when first tokens came, or nobody was streamed to")
    ended = [sample for sample in seen.samples if sample.ending is not Ending.OPEN]
    hours = seen.ran_s / seen.real_s / 3600
    return {
        "format": FORMAT,
        "run": run | {"kind": str(seen.kind), "minutes": round(60 * hours, 3), "time_scale": seen.real_s},
        "calls": len({(sample.actor, sample.call) for sample in seen.samples}),
        "asked": len(seen.samples),
        "ended": len(ended),
        **{str(ending): sum(sample.ending is ending for sample in seen.samples) for ending in Ending},
        "done_per_h": _in_time(seen) / hours if hours else None,
        "failed_share": sum(sample.ending in FAILURES for sample in ended) / len(ended) if ended else None,
        "failures": dict(Counter(_kind(sample) for sample in ended if sample.ending in FAILURES)),
        "refusal_p99_ms": _in_ms(percentile([s.e2e_s for s in ended if s.ending is Ending.REFUSED], 0.99)),
        **_of_swaps(seen, unseen),
        **_times(seen.samples, seen, unseen),
        "stream": _stream(seen.samples),
        "models": _by(seen, unseen, lambda sample: sample.model, "models"),
        "callers": _by(seen, unseen, lambda sample: sample.caller, "callers"),
        "slowest": _slowest(seen),
        "residency": {
            "blind": seen.lanes.blind,
            "every_s": seen.lanes.every_s / seen.real_s,
            "lanes": {
                model: [[at_s / seen.real_s, state] for at_s, state in lane] for model, lane in seen.lanes.spans.items()
            },
        },
        "generator": {
            "lag_p99_ms": _in_ms(seen.generator.lag_p99_s),
            "cpu_high": seen.generator.cpu_high,
            "saturated": seen.generator.saturated,
        },
        "ttft_off_ms": _in_ms(max(ttft_off_s, default=None)),
        "checks": [check.row() for check in held],
        "unseen": unseen.why,
    }


def figure(card: dict[str, Any], name: str) -> float | None:
    """Look a figure up by its dotted name.

    Raises:
        KeyError: There is none of this name.
    """
    value: Any = card
    for part in name.split("."):
        if value is None:
            return None
        value = value[part]
    return None if value is None else float(value)


def _in_time(seen: Seen) -> int:
    """Count the answers that were complete when the time was up; a moment later others may be."""
    end_s = seen.began_s + seen.ran_s
    return sum(sample.ending is Ending.DONE and sample.at_s + sample.e2e_s <= end_s for sample in seen.samples)


def _kind(sample: Sample) -> str:
    return sample.why or str(sample.ending)


def _in_ms(seconds: float | None) -> float | None:
    return None if seconds is None else 1000 * seconds


def _of_swaps(seen: Seen, unseen: Unseen) -> dict[str, Any]:
    """Count swaps and what they cost, from llmswap's own metrics; from `/running` as far as that goes."""
    names = ("wakes", "joined", "thrash", "gpu_lost", "gpu_lost_s", "new_series", "in_flight", "aborted")
    figures: dict[str, Any] = dict.fromkeys(("swaps", "swaps_per_h", *names))
    hours = seen.ran_s / seen.real_s / 3600
    grown = seen.grown
    if grown is None or seen.before is None or seen.after is None:
        lost = "its metrics could not be read after the run"
        for name in names:
            unseen.note(name, f"{seen.kind} does not count it" if seen.before is None else lost)
        if seen.lanes.blind:
            unseen.note("swaps", seen.lanes.blind)
            unseen.note("swaps_per_h", seen.lanes.blind)
            return figures
        swaps = float(seen.lanes.count("starting"))
    else:
        swaps = grown.total("llmswap_swaps_total", outcome="ok")
        kinds = grown.by("llmswap_swaps_total", "kind", outcome="ok")
        phases = grown.by("llmswap_gpu_phase_seconds_total", "phase")
        lost_s, all_s = phases.get("swapping", 0.0), sum(phases.values())
        figures |= {
            "wakes": sum(many for kind, many in kinds.items() if kind.startswith("wake")),
            "joined": grown.total("llmswap_swap_joined_requests_sum"),
            "thrash": grown.total("llmswap_swap_thrash_total"),
            "gpu_lost": lost_s / all_s if all_s else None,
            "gpu_lost_s": lost_s / seen.real_s,
            "new_series": len(seen.after.newer_than(seen.before)),
            "in_flight": seen.after.total("llmswap_requests_in_flight") + seen.after.total("llmswap_queue_depth"),
            "aborted": None if seen.upstreams is None else seen.upstreams.aborted,
        }
        if seen.upstreams is None:
            unseen.note("aborted", "upstreams that are not simulated, or were stopped meanwhile, do not tell")
    return figures | {"swaps": swaps, "swaps_per_h": swaps / hours if hours else None}


def _times(samples: Sequence[Sample], seen: Seen, unseen: Unseen | None = None, below: str = "") -> dict[str, Any]:
    """Sum up waits and first tokens, all of them and by whether the model was up."""
    told = seen.kind is Kind.LLMSWAP
    by_residency = {word: [sample for sample in samples if sample.residency == word] for word in ("hit", "miss")}
    figures: dict[str, Any] = {}
    for name, take in (("wait", _wait), ("ttft", _ttft)):
        visible = told or name == "ttft"
        figures[name] = _spread(map(take, samples), seen.real_s) if visible else None
        if not visible and unseen is not None:
            unseen.note(f"{below}{name}", f"{seen.kind} does not say how long a request waited")
        for word, own in by_residency.items():
            if figures[name] is not None:
                figures[name][word] = _spread(map(take, own), seen.real_s) if told else None
                if not told and unseen is not None:
                    unseen.note(f"{below}{name}.{word}", f"{seen.kind} does not say whether the model was up")
    return figures


def _wait(sample: Sample) -> float | None:
    return None if sample.ending is Ending.MISSING else sample.waited_s


def _ttft(sample: Sample) -> float | None:
    return sample.ttft_s


def _spread(values: Iterable[float | None], real_s: float) -> dict[str, Any]:
    known = [value / real_s for value in values if value is not None]
    return {
        "count": len(known),
        "p50_s": percentile(known, 0.5),
        "p95_s": percentile(known, 0.95),
        "worst_s": max(known, default=None),
    }


def _stream(samples: Sequence[Sample]) -> dict[str, Any]:
    """Sum up how evenly streams came, in real time."""
    means = [sample.gap_mean_s for sample in samples if sample.gap_mean_s is not None]
    longest = [sample.gap_max_s for sample in samples if sample.gap_max_s is not None]
    return {
        "count": len(longest),
        "gap_mean_ms": _in_ms(fmean(means) if means else None),
        "gap_longest_p99_ms": _in_ms(percentile(longest, 0.99)),
        "gap_worst_ms": _in_ms(max(longest, default=None)),
    }


def _by(seen: Seen, unseen: Unseen, key: Callable[[Sample], str], part: str) -> dict[str, Any]:
    groups: dict[str, list[Sample]] = {}
    for sample in seen.samples:
        groups.setdefault(key(sample), []).append(sample)
    told = seen.kind is Kind.LLMSWAP
    return {
        name: {
            "asked": len(own),
            "done": sum(sample.ending is Ending.DONE for sample in own),
            "gave_up": sum(sample.ending is Ending.GAVE_UP for sample in own),
            "failed": sum(sample.ending in FAILURES for sample in own),
            "hits": sum(sample.residency == "hit" for sample in own) if told else None,
            "misses": sum(sample.residency == "miss" for sample in own) if told else None,
            **_times(own, seen, unseen, f"{part}.{name}."),
        }
        for name, own in sorted(groups.items())
    }


def _slowest(seen: Seen) -> list[dict[str, Any]]:
    """List the slowest requests; those that were traced first among equals of a list of their own."""
    ordered = sorted(seen.samples, key=lambda sample: -sample.e2e_s)
    chosen = [*ordered[:SLOWEST], *[sample for sample in ordered[SLOWEST:] if sample.trace][: SLOWEST // 2]]
    return [
        {
            "at_s": (sample.at_s - seen.began_s) / seen.real_s,
            "caller": sample.caller,
            "model": sample.model,
            "ending": str(sample.ending),
            "e2e_s": sample.e2e_s / seen.real_s,
            "wait_s": None if sample.waited_s is None else sample.waited_s / seen.real_s,
            "swap_s": None if sample.swap_s is None else sample.swap_s / seen.real_s,
            "residency": sample.residency or None,
            "trace": sample.trace or None,
        }
        for sample in chosen
    ]
