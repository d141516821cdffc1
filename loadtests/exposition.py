"""Prometheus' text format, as far as counting needs it: series before a run, series after it, and what grew."""

import re
from collections.abc import Mapping

Labels = tuple[tuple[str, str], ...]
Series = tuple[str, Labels]

_LINE = re.compile(r"([a-zA-Z_:][\w:]*)(?:\{(.*)\})? (\S+)(?: \S+)?")
_LABEL = re.compile(r'(\w+)="((?:[^"\\]|\\.)*)"')


class Exposition:
    """The samples of one scrape."""

    def __init__(self, values: Mapping[Series, float]) -> None:
        self.values = values

    @classmethod
    def parse(cls, text: str) -> "Exposition":
        """Read a scrape; what is no sample is passed over."""
        values = {}
        for line in text.splitlines():
            if match := _LINE.fullmatch(line):
                name, labels, value = match.groups()
                values[name, tuple(sorted(_LABEL.findall(labels or "")))] = float(value)
        return cls(values)

    def __contains__(self, name: str) -> bool:
        return any(series == name for series, _ in self.values)

    def total(self, name: str, **labels: str) -> float:
        """Add up the series of a name that carry these labels."""
        wanted = labels.items()
        return sum(value for (series, own), value in self.values.items() if series == name and wanted <= set(own))

    def by(self, name: str, label: str, **labels: str) -> dict[str, float]:
        """Add up the series of a name by the values of one label."""
        sums: dict[str, float] = {}
        for (series, own), value in self.values.items():
            if series == name and labels.items() <= set(own):
                key = dict(own).get(label, "")
                sums[key] = sums.get(key, 0.0) + value
        return sums

    def since(self, before: "Exposition") -> "Exposition":
        """Give what grew, series by series; one that was not there before counts from 0."""
        return Exposition({series: value - before.values.get(series, 0.0) for series, value in self.values.items()})

    def newer_than(self, before: "Exposition") -> list[str]:
        """Name the series that were not there before."""
        return sorted(f"{name}{dict(labels)}" for name, labels in self.values.keys() - before.values.keys())


def quantile(buckets: Mapping[str, float], share: float) -> tuple[float, float] | None:
    """Say between which two bounds a quantile of a histogram lies; None if it is empty.

    Args:
        buckets: Upper bound, as `le` says it -> how many are at most that.
        share: 0.95 for the 95th percentile.
    """
    ordered = sorted((float(bound), count) for bound, count in buckets.items())
    total = ordered[-1][1] if ordered else 0.0
    lower = 0.0
    for bound, count in ordered if total else ():
        if count >= share * total:
            return lower, bound
        lower = bound
    return None
