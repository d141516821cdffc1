"""Every metric and label of llmswap, once. Names are part of the contract with dashboards and alerts.

This is the part of the catalogue (observability page, 7.1) that the events of the core can tell; requests, tokens,
traces and GPUs join it with the telemetry issue.
"""

from dataclasses import dataclass

# Seconds. WAIT has 10 s as a boundary because the queue-wait objective is "99 % within 10 s".
WAIT_BUCKETS_S = (0.01, 0.05, 0.1, 0.5, 1.0, 2.5, 5.0, 10.0, 30.0, 60.0, 120.0, 300.0, 600.0)
SWAP_BUCKETS_S = (0.1, 0.25, 0.5, 1.0, 2.5, 5.0, 10.0, 20.0, 40.0, 80.0, 160.0, 320.0)


@dataclass(frozen=True, slots=True)
class Metric:
    """One metric family.

    Attributes:
        name: As exposed, `_total` of counters included.
    """

    name: str
    help: str
    labels: tuple[str, ...] = ()


QUEUE_WAIT = Metric(
    "llmswap_queue_wait_seconds",
    "Arrival to dispatch or to giving up; outcome = admitted, rejected, disconnect.",
    ("model", "outcome"),
)
REJECTIONS = Metric("llmswap_rejections_total", "Requests the scheduler refused, by reason.", ("model", "reason"))
SWAPS = Metric(
    "llmswap_swaps_total", "Finished starts of a model; outcome = ok, failed, aborted.", ("to_model", "kind", "outcome")
)
SWAP_DURATION = Metric(
    "llmswap_swap_duration_seconds",
    "Decision to ready, waiting for evicted models to be gone included.",
    ("to_model", "kind"),
)
SWAP_TRANSITIONS = Metric(
    "llmswap_swap_transitions_total",
    "Evictions by pair; from_model is the one that had to go.",
    ("from_model", "to_model"),
)
MODEL_EXITS = Metric(
    "llmswap_model_exits_total", "Upstream exits; reason = requested, crash, start_failed.", ("model", "reason")
)
QUEUE_DEPTH = Metric("llmswap_queue_depth", "Requests waiting for a model.", ("model",))
QUEUE_OLDEST_AGE = Metric(
    "llmswap_queue_oldest_age_seconds", "Age of the oldest waiting request; 0 when none waits.", ("model",)
)
IN_FLIGHT = Metric("llmswap_requests_in_flight", "Requests dispatched to an upstream and not finished.", ("model",))
MODEL_STATE = Metric("llmswap_model_state", "1 for the current state of the model, else 0.", ("model", "state"))
CONFIG_MODELS = Metric("llmswap_config_models", "Configured models.")
CONFIG_RELOAD_OK = Metric("llmswap_config_last_reload_successful", "1 if the last config load was good, else 0.")
CONFIG_RELOAD_TIME = Metric(
    "llmswap_config_last_reload_success_timestamp_seconds", "Unix time of the last good config load."
)
BUILD_INFO = Metric("llmswap_build_info", "Build.", ("version", "python_version"))
