"""The tables of docs/metrics.md, made of the names; `python -m tests.telemetry.metrics_page` puts them there."""

import re
from itertools import pairwise
from pathlib import Path

from llmswap.telemetry import names
from llmswap.telemetry.names import Kind, Metric

PAGE = Path(__file__).parents[2] / "docs" / "metrics.md"
SECTIONS = {
    "requests": names.REQUESTS,
    "queue": names.QUEUE_DEPTH,
    "swaps": names.SWAPS,
    "models": names.MODEL_INFO,
    "gpus": names.GPU_INFO,
    "proxy": names.BUILD_INFO,
}


def tables() -> dict[str, str]:
    """Give the table of each section."""
    at = [names.EVERY.index(first) for first in SECTIONS.values()] + [len(names.EVERY)]
    ranges = (names.EVERY[start:end] for start, end in pairwise(at))
    head = "| metric | type | labels | what it says |\n|---|---|---|---|\n"
    return {section: head + "".join(map(_row, metrics)) for section, metrics in zip(SECTIONS, ranges, strict=True)}


def _row(metric: Metric) -> str:
    labels = ", ".join(f"`{label}`" for label in metric.labels)
    text = metric.help.replace("|", r"\|")
    if metric.kind is Kind.HISTOGRAM:
        text += " Buckets: " + " ".join(f"{bound:g}" for bound in metric.buckets) + "."
    return f"| `{metric.name}` | {metric.kind} | {labels} | {text} |\n"


def filled(page: str) -> str:
    """Give a page with its tables as they should be, each between its marks."""
    for section, table in tables().items():
        marks = f"<!-- {section} -->\n", f"<!-- /{section} -->"
        page = re.sub(f"(?s){marks[0]}.*?{marks[1]}", lambda _, t=table, m=marks: m[0] + t + m[1], page)
    return page


if __name__ == "__main__":
    PAGE.write_text(filled(PAGE.read_text()))
