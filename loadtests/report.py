"""A report's folder: the card as JSON and as a page, the samples it was made of, the picture."""

import json
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from loadtests import picture, samples
from loadtests.page import number, page
from loadtests.picture import Panel
from loadtests.samples import Sample

CARD, SAMPLES, PAGE, PICTURE = "card.json", "samples.jsonl", "report.html", "picture.svg"


class BadReportError(ValueError):
    """A folder holds no report; the message says what is missing."""


@dataclass(frozen=True, slots=True)
class Report:
    """One that was read back."""

    folder: Path
    card: dict[str, Any]
    samples: list[Sample]

    @property
    def title(self) -> str:
        """Say which run it is, in a word or two."""
        run = self.card["run"]
        return str(run["policy"] or run["kind"])

    @property
    def panel(self) -> Panel:
        """Make its picture's panel."""
        return picture.panel(self.card, self.samples, self.card["run"]["began_s"], self.title, note(self.card))


def write(parent: Path, card: dict[str, Any], taken: Sequence[Sample]) -> Path:
    """Write a report into a folder of its own; gives that folder."""
    run = card["run"]
    stamp = run["when"][:19].replace(":", "").replace("-", "").replace("T", "-")
    words = filter(None, (stamp, run["scenario"], (run["policy"] or "").replace(",", "-").replace("=", "")))
    folder = parent / "-".join(words)
    folder.mkdir(parents=True, exist_ok=True)
    report = Report(folder, card, list(taken))
    drawing = picture.draw(run["scenario"], [report.panel])
    (folder / CARD).write_text(json.dumps(card, indent=1) + "\n")
    (folder / PICTURE).write_text(drawing)
    (folder / PAGE).write_text(page(card, drawing))
    samples.write(taken, folder / SAMPLES)
    return folder


def read(folder: Path) -> Report:
    """Read a report back.

    Raises:
        BadReportError: There is none, or it was written by another version.
    """
    try:
        card = json.loads((folder / CARD).read_text())
        return Report(folder, card, list(samples.read(folder / SAMPLES)))
    except (OSError, ValueError, TypeError) as error:
        raise BadReportError(f"{folder} holds no report of a load test: {error}") from None


def note(card: dict[str, Any]) -> str:
    """Say in a line how a run went."""
    parts = [f"{number(card['done_per_h'] or 0.0)} answers/h"]
    if card["swaps"] is not None:
        parts.append(f"{number(card['swaps'])} swaps")
    if card["gpu_lost"] is not None:
        parts.append(f"{100 * card['gpu_lost']:.0f} % of GPU time lost")
    name = "wait" if card["wait"] is not None else "ttft"
    if card[name]["worst_s"] is not None:
        parts.append(f"worst {'wait' if name == 'wait' else 'first token'} {number(card[name]['worst_s'])} s")
    return ", ".join(parts)
