"""Two reports side by side: what differs, printed and drawn; and the page of the documentation made of it."""

import re
from collections.abc import Iterator, Sequence
from html import escape
from pathlib import Path
from typing import Any

from loadtests import picture, report
from loadtests.page import NOT_SEEN, STYLE, number
from loadtests.report import Report
from loadtests.score import figure

PAGE = "compare.html"
FIGURES = {
    "done": "answers",
    "done_per_h": "answers per hour",
    "gave_up": "gave up",
    "refused": "refused",
    "failed": "failed",
    "swaps": "swaps",
    "swaps_per_h": "swaps per hour",
    "gpu_lost": "share of GPU time lost to swapping",
    "gpu_lost_s": "GPU seconds lost",
    "wait.p50_s": "wait, p50, s",
    "wait.p95_s": "wait, p95, s",
    "wait.worst_s": "wait, worst, s",
    "ttft.p50_s": "first token, p50, s",
    "ttft.p95_s": "first token, p95, s",
    "ttft.worst_s": "first token, worst, s",
    "ttft.hit.p95_s": "first token of a hit, p95, s",
    "ttft.miss.p95_s": "first token of a miss, p95, s",
}
BEGIN, END = "<!-- card: begin, made by `make load-card` -->", "<!-- card: end -->"


def show(a: Path, b: Path, out: Path) -> int:
    """Print how two reports differ, and write a page that shows it; gives 0.

    Raises:
        BadReportError: One of them is none.
    """
    one, other = report.read(a), report.read(b)
    titles = _titles(one, other)
    lines = [("", *titles, "B/A"), *rows(one.card, other.card)]
    wide = [max(len(line[column]) for line in lines) for column in range(4)]
    for first, *rest in lines:
        cells = (cell.rjust(width) for cell, width in zip(rest, wide[1:], strict=True))
        print(first.ljust(wide[0]), *cells, sep="  ")
    for note in _notes(one, other):
        print(note)
    out.mkdir(parents=True, exist_ok=True)
    (out / PAGE).write_text(_page(one, other, lines))
    print(out / PAGE)
    return 0


def rows(a: dict[str, Any], b: dict[str, Any]) -> Iterator[tuple[str, str, str, str]]:
    """Give title, both figures and their ratio, for every figure that one of them has; then by caller."""
    names = dict(FIGURES)
    for caller in sorted({*a["callers"], *b["callers"]}):
        names[f"callers.{caller}.done"] = f"answers for {caller}"
        names[f"callers.{caller}.wait.worst_s"] = f"worst wait of {caller}, s"
    for name, title in names.items():
        ours, theirs = (_figure(card, name) for card in (a, b))
        if ours is None and theirs is None and not (_blind(a, name) or _blind(b, name)):
            continue
        ratio = f"{theirs / ours:.2f}" if ours and theirs is not None else "-"
        yield title, _shown(a, name, ours), _shown(b, name, theirs), ratio


def document(fifo: Report, fair: Report, page: Path) -> None:
    """Put the score card of two runs into a page, between its marks, and their picture beside it."""
    run = fair.card["run"]
    drawing = page.parent / "pictures" / f"{run['scenario']}.svg"
    drawing.parent.mkdir(exist_ok=True)
    drawing.write_text(picture.draw(run["scenario"], [fifo.panel, fair.panel]))
    table = ["| | fifo | fair | fair/fifo |", "|---|--:|--:|--:|"]
    table += [f"| {' | '.join(row)} |" for row in rows(fifo.card, fair.card)]
    verdicts = (f"under `{each.title}` {_verdict(each.card)}" for each in (fifo, fair))
    what = (
        f"`{run['scenario']}`, {run['minutes']:.3g} of its minutes at {run['time_scale']:g} of its time, "
        f"seed {run['seed']}, {run['when'][:10]}. Its thresholds: {'; '.join(verdicts)}."
    )
    text = "\n".join(
        [
            BEGIN,
            what,
            "",
            *table,
            "",
            f"![What the models did, and how long requests waited](pictures/{drawing.name})",
            END,
        ]
    )
    page.write_text(re.sub(f"(?s){re.escape(BEGIN)}.*?{re.escape(END)}", lambda _: text, page.read_text()))


def _verdict(card: dict[str, Any]) -> str:
    met = [f"`{row['figure']}` {row['verdict']}" for row in card["thresholds"]]
    return f"{'passed' if card['verdict']['passed'] else 'failed'} ({', '.join(met)})"


def _figure(card: dict[str, Any], name: str) -> float | None:
    try:
        return figure(card, name)
    except KeyError:
        return None


def _blind(card: dict[str, Any], name: str) -> bool:
    parts = name.split(".")
    return any(".".join(parts[:end]) in card["unseen"] for end in range(len(parts), 0, -1))


def _shown(card: dict[str, Any], name: str, value: float | None) -> str:
    return number(value) if value is not None else NOT_SEEN if _blind(card, name) else "-"


def _titles(one: Report, other: Report) -> tuple[str, str]:
    if one.title == other.title:
        return "A", "B"
    return f"A: {one.title}", f"B: {other.title}"


def _notes(one: Report, other: Report) -> Iterator[str]:
    """Say what makes the two hard to compare."""
    for key in ("scenario", "seed", "minutes", "time_scale"):
        ours, theirs = one.card["run"][key], other.card["run"][key]
        if ours != theirs:
            yield f"note: they differ in {key}: {ours} and {theirs}"


def _page(one: Report, other: Report, lines: Sequence[tuple[str, ...]]) -> str:
    head, *body = lines
    table = "".join("<tr>" + "".join(f"<td>{escape(cell)}</td>" for cell in row) + "</tr>" for row in body)
    title = one.card["run"]["scenario"]
    notes = "".join(f"<p class='FAIL'>{escape(note)}</p>" for note in _notes(one, other))
    return (
        f"<!doctype html><html lang='en'><meta charset='utf-8'><title>{escape(title)}, compared</title>"
        f"<style>{STYLE}</style><h1>{escape(title)}, compared</h1>"
        f"<p>A: {escape(str(one.folder))}<br>B: {escape(str(other.folder))}</p>{notes}"
        f"<table><tr>{''.join(f'<th>{escape(cell)}</th>' for cell in head)}</tr>{table}</table>"
        f"{picture.draw(title, [one.panel, other.panel])}</html>\n"
    )
