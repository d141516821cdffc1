"""How frozen families are written: Prometheus' text format, or OpenMetrics with exemplars.

Written here and not by prometheus_client because that takes ten times as long for as many samples. Nothing in here may
touch what changes while it is written.
"""

import math
from collections.abc import Iterable, Iterator
from functools import lru_cache

from llmswap.telemetry.cells import Columns, Exemplar, Exemplars, Frozen
from llmswap.telemetry.names import Kind, Metric


def write(families: Iterable[Frozen | Columns], *, openmetrics: bool) -> str:
    """Write families, without the mark at the end of an OpenMetrics text."""
    return "".join(pieces(families, openmetrics=openmetrics))


def pieces(families: Iterable[Frozen | Columns], *, openmetrics: bool) -> Iterator[str]:
    """Write the same bit by bit: the head of a family, then a cell at a time."""
    for family in families:
        yield from _family(family, openmetrics=openmetrics)


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
        for place, total, counts, exemplars in family.cells:
            yield _histogram(metric.name, bounds, place, total, counts, exemplars if openmetrics else ())
    elif openmetrics and metric.kind is Kind.COUNTER:
        for place, value, _, exemplars in family.cells:
            mark = _exemplar(exemplars[0][1]) if exemplars else ""
            yield f"{metric.name}{_braced(place)} {number(value)}{mark}\n"
    else:
        yield "".join([f"{name}{_braced(place)} {number(value)}\n" for place, value, _, _ in family.cells])


@lru_cache(maxsize=4096)  # most of them have not changed since they were last written
def _histogram(  # noqa: PLR0913, PLR0917  what its text depends on
    name: str, bounds: tuple[str, ...], place: str, total: float, counts: tuple[int, ...], exemplars: Exemplars
) -> str:
    comma = "," if place else ""
    head = f"{name}_bucket{{{place}{comma}le="
    marks = {bucket: _exemplar(exemplar) for bucket, exemplar in exemplars}
    lines, seen = [], 0
    for bucket, (bound, count) in enumerate(zip(bounds, counts, strict=True)):
        seen += count
        lines.append(f"{head}{bound}}} {seen}.0{marks.get(bucket, '')}\n")
    where = _braced(place)
    lines.append(f"{name}_count{where} {seen}.0\n{name}_sum{where} {number(total)}\n")
    return "".join(lines)


def _braced(place: str) -> str:
    return f"{{{place}}}" if place else ""


def _exemplar(exemplar: Exemplar) -> str:
    return f' # {{trace_id="{exemplar.trace_id}"}} {number(exemplar.value)} {exemplar.at_s:.3f}'


@lru_cache(maxsize=256)
def _bounds(metric: Metric) -> tuple[str, ...]:
    return tuple(f'"{number(bound)}"' for bound in (*metric.buckets, math.inf))


@lru_cache(maxsize=1024)
def number(value: float) -> str:
    """Write a number as Go reads it."""
    if math.isfinite(value):
        return repr(float(value))
    return "NaN" if math.isnan(value) else "+Inf" if value > 0 else "-Inf"
