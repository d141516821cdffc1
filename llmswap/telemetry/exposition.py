"""How frozen families are written: Prometheus' text format, or OpenMetrics with exemplars.

Written here and not by prometheus_client because that takes ten times as long for as many samples, and holds the
interpreter meanwhile. Nothing in here may touch what the event loop changes.
"""

import math
from collections.abc import Iterable, Iterator
from functools import lru_cache

from llmswap.telemetry.cells import Columns, Exemplar, Frozen, Numbers
from llmswap.telemetry.names import Kind, Metric


def write(families: Iterable[Frozen | Columns], *, openmetrics: bool) -> str:
    """Write families, without the mark at the end of an OpenMetrics text."""
    return "".join(piece for family in families for piece in _family(family, openmetrics=openmetrics))


def _family(family: Frozen | Columns, *, openmetrics: bool) -> Iterator[str]:
    metric = family.metric
    name = metric.name
    if openmetrics and metric.kind is Kind.COUNTER:
        name = name.removesuffix("_total")
    text = metric.help.replace("\\", r"\\").replace("\n", r"\n")
    text = text.replace('"', r"\"") if openmetrics else text
    yield f"# HELP {name} {text}\n# TYPE {name} {metric.kind}\n"
    if metric.kind is Kind.HISTOGRAM:
        bounds = _bounds(metric)
        for cell in family.cells:
            yield _histogram(metric.name, bounds, cell, openmetrics=openmetrics)
        return
    for place, value, _, exemplars in family.cells:
        where = f"{{{place}}}" if place else ""
        mark = _exemplar(exemplars[0]) if exemplars and openmetrics else ""
        yield f"{metric.name}{where} {number(value)}{mark}\n"


def _histogram(name: str, bounds: tuple[str, ...], cell: Numbers, *, openmetrics: bool) -> str:
    comma = "," if cell.place else ""
    head = f"{name}_bucket{{{cell.place}{comma}le="
    exemplars = (cell.exemplars or {}) if openmetrics else {}
    lines, seen = [], 0
    for bucket, (bound, count) in enumerate(zip(bounds, cell.counts, strict=True)):
        seen += count
        mark = _exemplar(exemplars[bucket]) if bucket in exemplars else ""
        lines.append(f"{head}{bound}}} {seen}.0{mark}\n")
    where = f"{{{cell.place}}}" if cell.place else ""
    lines.append(f"{name}_count{where} {seen}.0\n{name}_sum{where} {number(cell.value)}\n")
    return "".join(lines)


def _exemplar(exemplar: Exemplar) -> str:
    return f' # {{trace_id="{exemplar.trace_id}"}} {number(exemplar.value)} {exemplar.at_s:.3f}'


@lru_cache(maxsize=256)
def _bounds(metric: Metric) -> tuple[str, ...]:
    return tuple(f'"{number(bound)}"' for bound in (*metric.buckets, math.inf))


def number(value: float) -> str:
    """Write a number as Go reads it."""
    if math.isfinite(value):
        return repr(float(value))
    return "NaN" if math.isnan(value) else "+Inf" if value > 0 else "-Inf"
