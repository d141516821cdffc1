"""Numbers that are counted on the event loop and read in one go: families of cells, one cell for each set of labels.

Counting costs an index and an addition, because every request pays for it; it needs no lock, because only the event
loop counts. A scrape freezes all cells, which takes a moment, and then writes them out (`exposition.py`).
"""

from bisect import bisect_left
from collections.abc import Iterable, Iterator
from itertools import repeat
from typing import NamedTuple

from llmswap.telemetry.names import Kind, Metric

Labels = tuple[str, ...]


class Exemplar(NamedTuple):
    """One observation that can be looked up.

    Attributes:
        at_s: Unix time.
    """

    trace_id: str
    value: float
    at_s: float


Exemplars = tuple[tuple[int, Exemplar], ...]
"""By bucket; 0 for what has no buckets."""


class Cell:
    """One number: a counter's, or a gauge's."""

    __slots__ = ("exemplar", "value")

    def __init__(self) -> None:
        self.value = 0.0
        self.exemplar: Exemplar | None = None


class Histogram:
    """One distribution.

    Attributes:
        counts: Observations by bucket, not summed up; the last one is beyond all bounds.
        exemplars: The newest of each bucket; empty as long as there is none.
    """

    __slots__ = ("_bounds", "counts", "exemplars", "total")

    def __init__(self, bounds: tuple[float, ...]) -> None:
        self._bounds = bounds
        self.counts = [0] * (len(bounds) + 1)
        self.total = 0.0
        self.exemplars: dict[int, Exemplar] = {}

    def observe(self, value: float) -> None:
        """Count an observation."""
        self.counts[bisect_left(self._bounds, value)] += 1
        self.total += value

    def observe_with(self, value: float, trace_id: str, at_s: float) -> None:
        """Count an observation of a trace, if it has one."""
        bucket = bisect_left(self._bounds, value)
        self.counts[bucket] += 1
        self.total += value
        if trace_id:
            self.exemplars[bucket] = Exemplar(trace_id, value, at_s)


class Numbers(NamedTuple):
    """A cell at one moment.

    Attributes:
        place: Its labels as they are written, without braces; made once and kept.
        counts: Of a histogram, by bucket; empty for others.
    """

    place: str
    value: float
    counts: tuple[int, ...] = ()
    exemplars: Exemplars = ()


class Frozen(NamedTuple):
    """A family at one moment."""

    metric: Metric
    cells: list[Numbers]


class Columns:
    """A family at one moment, copied in a few strokes: its cells are put together when they are written, elsewhere."""

    __slots__ = ("_counts", "_exemplars", "_places", "_values", "metric")

    def __init__(
        self,
        metric: Metric,
        places: list[str],
        values: list[float],
        counts: Iterable[tuple[int, ...]],
        exemplars: list[Exemplars],
    ) -> None:
        self.metric = metric
        self._places = places
        self._values = values
        self._counts = counts
        self._exemplars = exemplars

    @property
    def cells(self) -> Iterator[tuple[str, float, tuple[int, ...], Exemplars]]:
        """Its cells, each what Numbers is, which would take longer to make."""
        return zip(self._places, self._values, self._counts, self._exemplars, strict=False)


class Family:
    """All cells of one metric that is a counter or a gauge."""

    def __init__(self, metric: Metric) -> None:
        assert metric.kind is not Kind.HISTOGRAM, f"{metric.name} is a histogram"
        self.metric = metric
        self._cells: dict[Labels, Cell] = {}
        self._places: dict[Labels, str] = {}

    def cell(self, *labels: str) -> Cell:
        """Give the cell with these labels, at 0 if it is new."""
        cell = self._cells.get(labels)
        if cell is None:
            assert len(labels) == len(self.metric.labels), f"{self.metric.name} has labels {self.metric.labels}"
            cell = self._cells[labels] = Cell()
            self._places[labels] = place(self.metric.labels, labels)
        return cell

    def set(self, value: float, *labels: str) -> None:
        """Set a gauge, or a counter that somebody else counts."""
        self.cell(*labels).value = value

    def clear(self) -> None:
        """Forget every cell, but not how its labels are written."""
        self._cells.clear()

    def remove(self, label: str, value: str) -> None:
        """Forget every cell whose label has that value."""
        at = self.metric.labels.index(label)
        for labels in [labels for labels in self._places if labels[at] == value]:
            self._cells.pop(labels, None)
            del self._places[labels]

    def freeze(self) -> Columns:
        """Copy all cells."""
        cells = self._cells.values()
        return Columns(
            self.metric,
            [self._places[labels] for labels in self._cells],
            [cell.value for cell in cells],
            repeat(()),
            [((0, cell.exemplar),) if cell.exemplar else () for cell in cells],
        )


class Distributions:
    """All cells of one metric that is a histogram."""

    def __init__(self, metric: Metric) -> None:
        assert metric.kind is Kind.HISTOGRAM, f"{metric.name} is no histogram"
        self.metric = metric
        self._cells: dict[Labels, tuple[str, Histogram]] = {}

    def cell(self, *labels: str) -> Histogram:
        """Give the cell with these labels, empty if it is new."""
        found = self._cells.get(labels)
        if found is None:
            assert len(labels) == len(self.metric.labels), f"{self.metric.name} has labels {self.metric.labels}"
            found = self._cells[labels] = place(self.metric.labels, labels), Histogram(self.metric.buckets)
        return found[1]

    def remove(self, label: str, value: str) -> None:
        """Forget every cell whose label has that value."""
        at = self.metric.labels.index(label)
        for labels in [labels for labels in self._cells if labels[at] == value]:
            del self._cells[labels]

    def freeze(self) -> Columns:
        """Copy all cells."""
        cells = self._cells.values()
        return Columns(
            self.metric,
            [where for where, _ in cells],
            [cell.total for _, cell in cells],
            [tuple(cell.counts) for _, cell in cells],
            [tuple(cell.exemplars.items()) if cell.exemplars else () for _, cell in cells],
        )


class Catalogue:
    """Every family that is counted here, in the order in which they were made."""

    def __init__(self) -> None:
        self._families: dict[str, Family | Distributions] = {}

    def family(self, metric: Metric) -> Family:
        """Make the family of a counter or a gauge. One without labels has its cell from the start."""
        family = Family(metric)
        self._add(family)
        return family

    def histogram(self, metric: Metric) -> Distributions:
        """Make the family of a histogram. One without labels has its cell from the start."""
        family = Distributions(metric)
        self._add(family)
        return family

    def _add(self, family: Family | Distributions) -> None:
        assert family.metric.name not in self._families, f"{family.metric.name} is made twice"
        self._families[family.metric.name] = family
        if not family.metric.labels:
            family.cell()

    def forget(self, value: str, labels: Iterable[str]) -> None:
        """Forget every cell of every family of which one of the labels has that value."""
        wanted = frozenset(labels)
        for family in self._families.values():
            for label in wanted.intersection(family.metric.labels):
                family.remove(label, value)

    def freeze(self) -> list[Columns]:
        """Copy everything: all numbers are of one moment."""
        return [family.freeze() for family in self._families.values()]


def place(names: Iterable[str], values: Iterable[str]) -> str:
    """Write labels as Prometheus reads them, sorted by name, without the braces."""
    return ",".join(f'{name}="{_escaped(value)}"' for name, value in sorted(zip(names, values, strict=True)))


def _escaped(value: str) -> str:
    return value.replace("\\", r"\\").replace("\n", r"\n").replace('"', r"\"")
