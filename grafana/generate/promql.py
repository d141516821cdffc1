"""PromQL out of the catalogue of metrics: who asks for a label that a family does not have is told so at once.

Every selection is narrowed by the board's `job` and `instance`. A label's value is taken as it is; a `~` before it
makes it a pattern, a `!` an exception.
"""

from llmswap.telemetry import names
from llmswap.telemetry.names import Kind, Metric

SLO_WAIT_LE = "10.0"  # the queue-wait objective: 99 % wait no longer; a bucket of WAIT, as Prometheus 3 writes it
SLO_WAIT = 0.99
OURS_TO_BLAME = "~queue_timeout|queue_full|swap_failed|upstream_error|internal_error"
LATELY, RANGE = "$__rate_interval", "$__range"
OF_MODEL = "~$model"
_ROOM = 'job=~"$job", instance=~"$instance"'
_PARTS = {Kind.HISTOGRAM: ("bucket", "count", "sum")}


def pick(metric: Metric, part: str = "", /, **labels: str) -> str:
    """Select the series of a family; `part` is that of a histogram.

    Raises:
        ValueError: The family has no such label, or a histogram's part is missing, or another family has none.
    """
    if part not in _PARTS.get(metric.kind, ("",)):
        raise ValueError(f"{metric.name} is a {metric.kind}: {part or 'no part'} cannot be asked for")
    known = {*metric.labels, *(["le"] if part == "bucket" else [])}
    if strange := labels.keys() - known:
        raise ValueError(f"{metric.name} has no label {', '.join(sorted(strange))}; it has {', '.join(sorted(known))}")
    name = f"{metric.name}_{part}" if part else metric.name
    return f"{name}{{{', '.join([_ROOM, *(_matcher(label, value) for label, value in labels.items())])}}}"


def _matcher(label: str, value: str) -> str:
    operator = {"!~": "!~", "~": "=~", "!": "!="}
    for mark, written in operator.items():
        if value.startswith(mark):
            return f'{label}{written}"{value.removeprefix(mark)}"'
    return f'{label}="{value}"'


def by(labels: str, vector: str, function: str = "sum") -> str:
    """Aggregate; `labels` are separated by blanks, none makes one number of it."""
    kept = f" by ({', '.join(labels.split())}) " if labels else ""
    return f"{function}{kept}({vector})"


def rate(metric: Metric, part: str = "", /, of: str = "", **labels: str) -> str:
    """Give what is counted per second, lately, summed up by the labels in `of`."""
    return by(of, f"rate({pick(metric, part, **labels)}[{LATELY}])")


def lively(metric: Metric, part: str = "", /, of: str = "", **labels: str) -> str:
    """Give the rates of what counted at all in the time range, and those without a break: a stack has no holes then."""
    ever = by(of, f"increase({pick(metric, part, **labels)}[{RANGE}] @ end())")
    return f"{rate(metric, part, of, **labels)} and on ({', '.join(of.split())}) {ever} > 0"


def grown(metric: Metric, part: str = "", /, of: str = "", over: str = RANGE, **labels: str) -> str:
    """Give how much was counted over the board's time range, summed up by the labels in `of`."""
    return by(of, f"increase({pick(metric, part, **labels)}[{over}])")


def ratio(part: str, whole: str) -> str:
    """Divide; where the whole is 0 there is no answer."""
    return f"{part} / ({whole} > 0)"


def mean(metric: Metric, of: str = "", over: str = RANGE, **labels: str) -> str:
    """Give the mean of what a histogram has observed."""
    if over == LATELY:
        return ratio(rate(metric, "sum", of, **labels), rate(metric, "count", of, **labels))
    return ratio(grown(metric, "sum", of, over, **labels), grown(metric, "count", of, over, **labels))


def quantile(q: float, metric: Metric, of: str = "", over: str = LATELY, **labels: str) -> str:
    """Estimate a quantile of what a histogram has observed; no answer where it has observed nothing."""
    function = "rate" if over == LATELY else "increase"
    buckets = f"{function}({pick(metric, 'bucket', **labels)}[{over}])"
    return f"histogram_quantile({q:g}, {by(f'{of} le'.strip(), buckets)}) >= 0"


def heat(metric: Metric, **labels: str) -> str:
    """Give a histogram's buckets for a heat map."""
    return by("le", f"increase({pick(metric, 'bucket', **labels)}[{LATELY}])")


def relabelled(vector: str, new: str, old: str) -> str:
    """Give a label another name, the old one included."""
    return f'label_join({vector}, "{new}", "", "{old}")'


def good_ratio(over: str = RANGE, **labels: str) -> str:
    """Give the share of requests that did not fail for reasons on our side."""
    failed = grown(names.REQUESTS, over=over, outcome=OURS_TO_BLAME, **labels)
    return f"1 - ({failed} or vector(0)) / ({grown(names.REQUESTS, over=over, **labels)} > 0)"


def swapping_ratio() -> str:
    """Give the share of the GPUs' time that went into swaps in which nobody was served."""
    return ratio(grown(names.GPU_PHASE, phase="swapping"), grown(names.GPU_PHASE))
