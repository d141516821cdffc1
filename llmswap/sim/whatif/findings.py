"""How a comparison is told: as tables for a terminal, or as JSON."""

from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass
from typing import Any

from llmswap.sim.whatif.compare import Row, best
from llmswap.sim.whatif.score import Score, Waits

LABEL_MAX = 34
CALLERS_MAX = 12  # callers may be many; JSON has all
PAIRS_MAX = 2
SWAPS_BAR, WAIT_BAR = 0.05, 0.15  # how well a simulation of a recording must agree with it
SLACK_SWAPS, SLACK_S = 1.0, 1.0  # and what is too little to matter


@dataclass(frozen=True, slots=True)
class Findings:
    """Everything there is to tell.

    Attributes:
        kind: scenario or journal.
        rows: In the order in which they are told.
        faithful: The simulation of the policy that the first row was recorded under; None for a scenario.
        notes: What a reader should know before believing it.
    """

    kind: str
    name: str
    about: str
    duration_s: float
    seeds: int
    rows: Sequence[Row]
    faithful: Row | None = None
    notes: Sequence[str] = ()

    @property
    def best(self) -> Row | None:
        """The best of a sweep; None if there is no sweep."""
        swept = [row for row in self.rows if row.swept]
        return best(swept) if swept else None

    @property
    def told_in_full(self) -> list[Row]:
        """Every row that is not of a sweep, and the best that is."""
        return [row for row in self.rows if not row.swept or row is self.best]


def as_json(findings: Findings) -> dict[str, Any]:
    """Give all there is; times in seconds, shares 0 to 1."""
    best_row = findings.best
    return {
        "source": {
            "kind": findings.kind,
            "name": findings.name,
            "about": findings.about,
            "duration_s": findings.duration_s,
            "seeds": findings.seeds,
        },
        "notes": list(findings.notes),
        "rows": [
            {"policy": row.label, "simulated": row.policy is not None, "best": row is best_row, **_score(row.score)}
            for row in findings.rows
        ],
    }


def _score(score: Score) -> dict[str, Any]:
    data = asdict(score)
    data["completed_per_h"] = score.completed_per_h
    data["lost_share"] = score.lost_share
    data["evictions"] = [
        {"evicted": gone, "for": target, "count": count} for (gone, target), count in score.evictions.items()
    ]
    data["rejected"] = {str(reason): count for reason, count in score.rejected.items()}
    return data


def as_text(findings: Findings) -> str:
    """Give the tables."""
    runs = f", mean of {findings.seeds} seeds" if findings.seeds > 1 else ""
    told = findings.told_in_full
    parts = [
        [f"{findings.name}: {findings.about}", f"{duration(findings.duration_s)}{runs}"],
        _main_table(findings.rows, findings.best),
        list(_verdicts(findings)),
        _waits_table("model", [(row.label, row.score.by_model) for row in told]),
        _waits_table("caller", [(row.label, row.score.by_caller) for row in told]) if _callers_matter(told) else [],
        list(_evictions(told)),
        [f"note: {note}" for note in findings.notes],
    ]
    return "\n\n".join("\n".join(part) for part in parts if part) + "\n"


def _main_table(rows: Sequence[Row], marked: Row | None) -> list[str]:
    head = ("done/h", "swaps", "GPU lost", "hits", "p50 s", "p95 s", "worst", "refused", "gave up")
    cells = [
        (
            count(row.score.completed_per_h),
            count(row.score.swaps),
            f"{row.score.lost_share:.0%}",
            _share(row.score.hits, row.score.hits + row.score.misses),
            *_times(row.score.waits),
            count(sum(row.score.rejected.values())),
            count(row.score.cancelled),
        )
        for row in rows
    ]
    labels = [f"{'*' if row is marked else ' '} {_short(row.label)}" for row in rows]
    return _table("  policy", labels, head, cells)


def _waits_table(title: str, told: Sequence[tuple[str, Mapping[Any, Waits]]]) -> list[str]:
    """Give waits by model or caller: under each, a line for each policy. Nothing if nobody asked for anything."""
    weights: dict[Any, float] = {}
    for _, table in told:
        for who, waits in table.items():
            weights[who] = max(weights.get(who, 0), waits.requests)
    whos = sorted(weights, key=lambda who: (-weights[who], str(who)))
    if not whos:
        return []
    shown = whos[:CALLERS_MAX]
    labels, cells = [], []
    for who in shown:
        for place, (label, table) in enumerate(told):
            waits = table.get(who, Waits())
            labels.append(_pair(who or "(unknown)" if place == 0 else "", label))
            cells.append((count(waits.requests), count(waits.completed), *_times(waits)))
    lines = _table(_pair(f"waits by {title}", ""), labels, ("requests", "done", "p50 s", "p95 s", "worst"), cells)
    if len(whos) > len(shown):
        lines.append(f"and {len(whos) - len(shown)} more; --json has all")
    return lines


def _callers_matter(told: Sequence[Row]) -> bool:
    """Whether callers are more than other words for models."""
    return any(dict(row.score.by_caller) != dict(row.score.by_model) for row in told)


def _pair(who: str, label: str) -> str:
    return f"{_short(who, 26):<26}  {_short(label)}"


def _evictions(told: Iterable[Row]) -> Iterator[str]:
    yield "most frequent evictions"
    for row in told:
        ranked = sorted(row.score.evictions.items(), key=lambda pair: -pair[1])[:PAIRS_MAX]
        pairs = ", ".join(f"{gone} for {target} {count(times)}" for (gone, target), times in ranked)
        undone = f"; undone at once: {count(row.score.ping_pongs)}" if row.score.ping_pongs else ""
        yield f"  {_short(row.label)}: {pairs or 'none'}{undone}"


def _verdicts(findings: Findings) -> Iterator[str]:
    if findings.faithful is not None:
        yield _fidelity(findings.rows[0].score, findings.faithful.score)
    best_row = findings.best
    if best_row is not None:
        yield "Best of the sweep (most completed; among those as good, the shortest p95 wait):"
        for row in findings.told_in_full:
            yield f"{'*' if row is best_row else ' '} {_short(row.label)}: {praise(row.score)}"


def praise(score: Score) -> str:
    """Sum a score up in a line."""
    return (
        f"{count(score.completed_per_h)} done/h, {count(score.swaps)} swaps, {score.lost_share:.0%} of the time "
        f"lost to swapping, p95 wait {count(score.waits.p95_s)} s"
    )


def _fidelity(recorded: Score, simulated: Score) -> str:
    swaps_off = abs(simulated.swaps - recorded.swaps)
    wait_off_s = abs(simulated.waits.p95_s - recorded.waits.p95_s)
    good = swaps_off <= max(SLACK_SWAPS, SWAPS_BAR * recorded.swaps) and wait_off_s <= max(
        SLACK_S, WAIT_BAR * recorded.waits.p95_s
    )
    told = (
        f"{count(simulated.swaps)} swaps for {count(recorded.swaps)} recorded, p95 wait "
        f"{count(simulated.waits.p95_s)} s for {count(recorded.waits.p95_s)} s"
    )
    if good:
        return f"The simulation agrees with the recording: {told}."
    return f"The simulation does not agree well with the recording ({told}): trust differences that are larger."


def _table(corner: str, labels: Sequence[str], head: Sequence[str], cells: Sequence[Sequence[str]]) -> list[str]:
    wide = max(map(len, (corner.rstrip(), *labels)))
    widths = [max(len(title), *(len(row[place]) for row in cells)) for place, title in enumerate(head)]

    def line(label: str, texts: Sequence[str]) -> str:
        return f"{label:<{wide}}" + "".join(f"  {text:>{width}}" for text, width in zip(texts, widths, strict=True))

    return [line(corner.rstrip(), head), *(line(*row) for row in zip(labels, cells, strict=True))]


def _times(waits: Waits) -> tuple[str, str, str]:
    return count(waits.p50_s), count(waits.p95_s), count(waits.worst_s)


def _short(text: str, most: int = LABEL_MAX) -> str:
    return text if len(text) <= most else text[: most - 1] + "…"


def _share(part: float, whole: float) -> str:
    return f"{part / whole:.0%}" if whole else "-"


def count(number: float) -> str:
    """Write a number as exactly as a table needs it."""
    return f"{number:.1f}" if number < 10 and number != round(number) else f"{number:.0f}"


def duration(seconds: float) -> str:
    """Write a duration in the unit that suits it."""
    if seconds >= 3600:
        return f"{seconds / 3600:.3g} h"
    return f"{seconds / 60:.3g} min" if seconds >= 60 else f"{seconds:.3g} s"
