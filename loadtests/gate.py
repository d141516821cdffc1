"""Whether a run passes: its thresholds, enough samples, a generator that kept up, and counters that agree."""

from dataclasses import dataclass
from math import ceil
from typing import Any

from loadtests.scenario import Limit, Scenario
from loadtests.score import figure

PASSED, FAILED, UNSEEN = "pass", "FAIL", "not seen"


@dataclass(frozen=True, slots=True)
class Row:
    """A threshold and what it met.

    Attributes:
        value: None if there is none.
        why: Why it cannot be seen, or there is nothing to say.
    """

    limit: Limit
    value: float | None
    verdict: str
    why: str = ""

    def row(self) -> dict[str, Any]:
        """Give it as JSON values."""
        return {
            "figure": self.limit.figure,
            "least": self.limit.least,
            "most": self.limit.most,
            "value": self.value,
            "verdict": self.verdict,
            "why": self.why,
        }


def judge(card: dict[str, Any], scenario: Scenario) -> dict[str, Any]:
    """Give the card with its thresholds and its verdict.

    A figure that somebody else's target does not show neither passes nor fails; at a box of our own it fails, like one
    that is not there because nothing happened.
    """
    rows = [_held(card, limit) for limit in scenario.thresholds]
    reasons = [f"{row.limit.figure}: {_words(row)}" for row in rows if row.verdict == FAILED]
    needed = ceil(scenario.samples * min(1.0, card["run"]["minutes"] / scenario.minutes))
    if card["ended"] < needed:
        reasons.insert(0, f"too few samples: {card['ended']} requests have ended, {needed} are needed")
    if card["generator"]["saturated"]:
        reasons.insert(0, card["generator"]["saturated"])
    reasons += [
        f"{check['name']}: we count {check['ours']:g}, the target {check['theirs']:g}"
        for check in card["checks"]
        if check["verdict"] == "differ" and not check["times"]
    ]
    return card | {
        "thresholds": [row.row() for row in rows],
        "verdict": {"passed": not reasons, "reasons": reasons, "samples_needed": needed},
    }


def failed_by_thresholds(card: dict[str, Any]) -> bool:
    """Say whether a run has failed for no other reason than its thresholds: all the rest of it can be trusted."""
    failed = sum(row["verdict"] == FAILED for row in card["thresholds"])
    return bool(0 < failed == len(card["verdict"]["reasons"]))


def _held(card: dict[str, Any], limit: Limit) -> Row:
    try:
        value = figure(card, limit.figure)
    except KeyError:
        return Row(limit, None, FAILED, "there is no such figure in this run")
    if value is None:
        parts = limit.figure.split(".")
        known = (card["unseen"].get(".".join(parts[:end])) for end in range(len(parts), 0, -1))
        why = next(filter(None, known), "")
        strange = why and not card["run"]["alone"]
        return Row(limit, None, UNSEEN if strange else FAILED, why or "it never happened")
    within = (limit.least is None or value >= limit.least) and (limit.most is None or value <= limit.most)
    return Row(limit, value, PASSED if within else FAILED)


def _words(row: Row) -> str:
    bounds = [f"at least {row.limit.least:g}"] if row.limit.least is not None else []
    bounds += [f"at most {row.limit.most:g}"] if row.limit.most is not None else []
    if row.limit.least == row.limit.most:
        bounds = [f"exactly {row.limit.least:g}"]
    return f"{row.why or f'{row.value:.4g}'}, wanted {' and '.join(bounds)}"
