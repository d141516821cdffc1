"""Every series a query may name: llmswap's own from `names.py`, those of others from an explicit list, recorded ones.

Dashboards and rules are checked against this, without a Prometheus: see `tests.promql.reading`.
"""

import functools
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from pathlib import Path

import yaml

from llmswap.core.commands import RejectReason
from llmswap.core.states import State
from llmswap.runtime.observing import RequestOutcome, UpstreamError
from llmswap.telemetry import names
from llmswap.telemetry.names import Kind, Metric

RULES = Path(__file__).parents[2] / "prometheus" / "rules"
TARGET = frozenset({"job", "instance"})  # what Prometheus adds to all that it scrapes


@dataclass(frozen=True, slots=True)
class Series:
    """What is known of the series of one name.

    Attributes:
        labels: All that they may have, those of the target included.
        kind: What it may be used as; None if that is not known.
        values: Of labels with a closed set of values, that set.
    """

    labels: frozenset[str]
    kind: Kind | None = None
    values: Mapping[str, frozenset[str]] = field(default_factory=dict)


# Closed sets of label values by family; a label that is not here may have any value.
_MODEL_STATE = {"state": State}
_VALUES: dict[Metric, dict[str, Iterable[str]]] = {
    names.REQUESTS: {"outcome": RequestOutcome},
    names.REQUEST_DURATION: {"outcome": RequestOutcome},
    names.TIME_TO_FIRST_TOKEN: {"residency": names.RESIDENCIES, "start": names.STARTS},
    names.TOKENS: {"token_type": names.TOKEN_TYPES, "residency": names.RESIDENCIES, "start": names.STARTS},
    names.TOKENS_PER_SECOND: {"token_type": ("input", "output")},
    names.PREFILL_TOKENS: {"start": names.SWAP_KINDS},
    names.PREFILL_REQUESTS: {"start": names.SWAP_KINDS, "cached": (names.CACHED_KNOWN, names.CACHED_UNKNOWN)},
    names.UPSTREAM_DURATION: {"outcome": RequestOutcome},
    names.UPSTREAM_ERRORS: {"error_type": UpstreamError},
    names.QUEUE_WAIT: {"outcome": names.WAIT_OUTCOMES},
    names.WAIT_SECONDS: {"cause": names.WAIT_CAUSES},
    names.REJECTIONS: {"reason": RejectReason},
    names.SWAPS: {"kind": names.SWAP_KINDS, "outcome": names.SWAP_OUTCOMES},
    names.SWAP_TRIGGERS: {"reason": names.TRIGGERS},
    names.SWAP_DURATION: {"kind": names.SWAP_KINDS},
    names.SWAP_PHASE: {"kind": names.SWAP_KINDS, "phase": names.SWAP_PHASES},
    names.DECISIONS_MADE: {"decision": names.DECISIONS},
    names.MODEL_STATE: _MODEL_STATE,
    names.MODEL_STATE_SECONDS: _MODEL_STATE,
    names.MODEL_LOAD_ESTIMATE: {"kind": names.SWAP_KINDS},
    names.MODEL_EXITS: {"reason": names.EXIT_REASONS},
    names.MODEL_HOST_MEMORY: {"kind": names.MEMORY_KINDS},
    names.MODEL_LEARNED_GPU: _MODEL_STATE,
    names.MODEL_LEARNED_HOST: _MODEL_STATE,
    names.HEALTH_CHECKS: {"result": names.HEALTH_RESULTS},
    names.GPU_PHASE: {"phase": names.GPU_PHASES},
    names.GPU_TEMPERATURE: {"sensor": ("gpu", "memory")},
    names.GPU_CLOCK: {"clock": ("sm", "memory")},
    names.GPU_THROTTLED: {"reason": ("sw_power_cap", "hw_slowdown", "hw_thermal", "sw_thermal", "power_brake")},
    names.GPU_PCIE: {"direction": ("rx", "tx")},
    names.GPU_ECC_ERRORS: {"kind": ("corrected", "uncorrected")},
    names.GPU_REMAPPED_ROWS: {"kind": ("corrected", "uncorrected", "pending", "failed")},
    names.TRACE_SPANS: {"result": names.SPAN_RESULTS},
}

# What others expose and a query of ours may name, each with its labels beside those of the target.
_FOREIGN: dict[str, tuple[str, ...]] = {
    # Prometheus about its targets and alerts; targets of the job llmswap-upstream have a model
    **dict.fromkeys(("up", "scrape_samples_scraped", "scrape_duration_seconds"), ("model",)),
    "ALERTS": ("alertname", "alertstate", "severity", *("model", "to_model", "kind", "gpu", "xid", "window")),
    # every process with a Prometheus client; llmswap's own above all
    **dict.fromkeys(("process_cpu_seconds_total", "process_resident_memory_bytes", "process_virtual_memory_bytes"), ()),
    **dict.fromkeys(("process_open_fds", "process_max_fds", "process_start_time_seconds"), ()),
    # node-exporter
    "node_cpu_seconds_total": ("cpu", "mode"),
    **dict.fromkeys(("node_load1", "node_boot_time_seconds"), ()),
    **dict.fromkeys(("node_memory_MemAvailable_bytes", "node_memory_MemTotal_bytes"), ()),
    **dict.fromkeys(("node_vmstat_pswpin", "node_vmstat_pswpout", "node_vmstat_oom_kill"), ()),
    **dict.fromkeys(("node_memory_SwapTotal_bytes", "node_memory_SwapFree_bytes", "node_memory_Cached_bytes"), ()),
    **dict.fromkeys(("node_disk_read_bytes_total", "node_disk_io_time_seconds_total"), ("device",)),
    **dict.fromkeys(
        ("node_filesystem_avail_bytes", "node_filesystem_size_bytes"),
        ("device", "fstype", "mountpoint", "device_error"),
    ),
    # the engines behind llmswap, through /sd/prometheus: `model` is its target's
    **dict.fromkeys(
        ("vllm:num_requests_running", "vllm:num_requests_waiting", "vllm:kv_cache_usage_perc"), ("model", "model_name")
    ),
    **dict.fromkeys(("llamacpp:requests_processing", "llamacpp:requests_deferred"), ("model",)),
    # load tests: loadtests/exporter.py
    "locust_users": ("scenario",),
    "locust_requests_total": ("scenario", "model", "caller", "ending"),
    "locust_time_to_first_token_seconds_bucket": ("scenario", "model", "residency", "le"),
    "locust_stream_stall_seconds_bucket": ("scenario", "model", "le"),
    # Prometheus and Alertmanager about themselves
    **dict.fromkeys(("prometheus_config_last_reload_successful", "alertmanager_config_last_reload_successful"), ()),
    "prometheus_rule_evaluation_failures_total": ("rule_group",),
    "prometheus_tsdb_head_series": (),
    "prometheus_notifications_dropped_total": ("alertmanager",),
    "prometheus_target_scrapes_exceeded_sample_limit_total": (),
    **dict.fromkeys(("alertmanager_notifications_failed_total", "alertmanager_notifications_total"), ("integration",)),
}


def _own(metric: Metric) -> dict[str, Series]:
    values = {label: frozenset(map(str, closed)) for label, closed in _VALUES.get(metric, {}).items()}
    labels = frozenset(metric.labels) | TARGET
    if metric.kind is not Kind.HISTOGRAM:
        return {metric.name: Series(labels, metric.kind, values)}
    bounds = frozenset({*map(repr, map(float, metric.buckets)), "+Inf"})
    return {
        f"{metric.name}_bucket": Series(labels | {"le"}, Kind.HISTOGRAM, {**values, "le": bounds}),
        f"{metric.name}_count": Series(labels, Kind.COUNTER, values),
        f"{metric.name}_sum": Series(labels, Kind.COUNTER, values),
    }


@functools.cache
def exposed() -> Mapping[str, Series]:
    """Give what targets expose, by name."""
    known = {name: series for metric in names.EVERY for name, series in _own(metric).items()}
    for name, labels in _FOREIGN.items():
        kind = Kind.COUNTER if name.endswith("_total") else None
        known[name] = Series(TARGET | frozenset(labels), kind)
    return known


@functools.cache
def recorded() -> Mapping[str, str]:
    """Give the query behind each recorded series, by name."""
    found = {}
    for path in sorted(RULES.glob("*.yml")):
        for group in yaml.safe_load(path.read_text())["groups"]:
            found.update({rule["record"]: rule["expr"] for rule in group["rules"] if "record" in rule})
    return found
