"""Every metric and label of llmswap, once: code, documents, dashboards and alerts take them from here.

Times are seconds, sizes bytes, shares 0 to 1. Label values are closed sets: states, routes, outcomes, and what the
configuration names. `docs/metrics.md` is this file as a table; a test holds it to that.
"""

from dataclasses import dataclass
from enum import StrEnum


class Kind(StrEnum):
    """What Prometheus calls the type of a family. Those named `_info` are gauges of 1: their labels tell."""

    COUNTER = "counter"
    GAUGE = "gauge"
    HISTOGRAM = "histogram"


@dataclass(frozen=True, slots=True)
class Metric:
    """One metric family.

    Attributes:
        name: As exposed, `_total` of counters included.
        buckets: Upper bounds of a histogram, without the infinite one.
    """

    name: str
    help: str
    labels: tuple[str, ...] = ()
    kind: Kind = Kind.GAUGE
    buckets: tuple[float, ...] = ()


def _counter(name: str, text: str, *labels: str) -> Metric:
    return Metric(f"llmswap_{name}", text, labels, Kind.COUNTER)


def _gauge(name: str, text: str, *labels: str) -> Metric:
    return Metric(f"llmswap_{name}", text, labels)


def _histogram(buckets: tuple[float, ...], name: str, text: str, *labels: str) -> Metric:
    return Metric(f"llmswap_{name}", text, labels, Kind.HISTOGRAM, buckets)


# Upper bounds. WAIT has 10 s because the queue-wait objective is "99 % within 10 s".
REQ = (0.05, 0.1, 0.25, 0.5, 1.0, 2.5, 5.0, 10.0, 20.0, 40.0, 60.0, 120.0, 300.0, 600.0)
TTFT = (0.025, 0.05, 0.1, 0.2, 0.3, 0.5, 0.75, 1.0, 2.0, 3.0, 5.0, 10.0, 20.0, 30.0, 60.0, 120.0, 300.0)
TPOT = (0.002, 0.005, 0.01, 0.015, 0.02, 0.03, 0.04, 0.05, 0.075, 0.1, 0.15, 0.25, 0.5, 1.0)
STALL = (0.05, 0.1, 0.25, 0.5, 1.0, 2.5, 5.0, 10.0, 30.0, 60.0)
WAIT = (0.005, 0.025, 0.1, 0.5, 1.0, 2.5, 5.0, 10.0, 30.0, 60.0, 120.0, 300.0, 600.0)
SWAP = (0.1, 0.25, 0.5, 1.0, 2.0, 3.0, 5.0, 8.0, 13.0, 20.0, 30.0, 45.0, 60.0, 90.0, 120.0, 180.0, 300.0, 600.0)
JOIN = (1.0, 2.0, 4.0, 8.0, 16.0, 32.0, 64.0, 128.0, 256.0)
RES = (1.0, 5.0, 15.0, 30.0, 60.0, 120.0, 300.0, 900.0, 1800.0, 3600.0, 14400.0)
OVER = (0.0001, 0.00025, 0.0005, 0.001, 0.0025, 0.005, 0.01, 0.025, 0.1)
LAG = (0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 1.0)

# Closed sets of label values that belong to nobody but the metrics.
UNKNOWN_MODEL = "_unknown"  # `model` of requests for what is not configured
NOBODY = "_none"  # `from_model` where nobody was evicted, `caller_class` where no request asked
OTHER_CALLER = "_other"  # callers without a configured key
OTHER_CODE = "_other"  # a status that no standard knows
WARM = "warm"
COLD, WAKE1, WAKE2 = SWAP_KINDS = ("cold", "wake1", "wake2")
STARTS = (WARM, *SWAP_KINDS)
HIT, MISS = RESIDENCIES = ("hit", "miss")
TOKEN_TYPES = ("input", "output", "cached_input", "reasoning", "draft", "draft_accepted")
CACHED_KNOWN, CACHED_UNKNOWN = ("known", "unknown")
WAIT_OUTCOMES = ("admitted", "timeout", "disconnect", "rejected")
WAIT_CAUSES = ("swap", "drain", "concurrency", "policy")
SWAP_OUTCOMES = ("ok", "timeout", "exit", "unhealthy", "oom", "aborted")
SWAP_PHASES = ("drain", "sleep", "stop", "free_wait", "start", "wake", "health_wait", "warmup")
TRIGGERS = ("request", "preload", "admin")
DECISIONS = ("serve", "join_swap", "start_swap", "hold_policy", "reject")
EXIT_REASONS = ("requested", "crash", "oom_killed", "health", "start_failed")
GPU_PHASES = ("serving", "swapping", "idle", "empty")
HEALTH_RESULTS = ("ok", "fail")
SPAN_RESULTS = ("exported", "dropped_queue", "failed")
MEMORY_KINDS = ("anon", "shmem", "file")

# Requests ------------------------------------------------------------------------------------------------------------

REQUESTS = _counter(
    "requests_total",
    "Finished client requests for a model; model=_unknown for names that are not configured. Exemplar: trace_id.",
    *("model", "route", "code", "outcome"),
)
IN_FLIGHT = _gauge("requests_in_flight", "Requests dispatched to an upstream and not finished.", "model")
REQUEST_DURATION = _histogram(
    REQ, "request_duration_seconds", "Head of the request to the last byte of the answer.", "model", "outcome"
)
TIME_TO_FIRST_TOKEN = _histogram(
    TTFT,
    "time_to_first_token_seconds",
    "Head of the request to the first chunk with content; residency=hit and start=warm if the model was up.",
    *("model", "residency", "start"),
)
TIME_PER_OUTPUT_TOKEN = _histogram(
    TPOT,
    "time_per_output_token_seconds",
    "(last chunk - first chunk) / (output tokens - 1), once for each stream that says its tokens.",
    "model",
)
STREAM_STALL = _histogram(
    STALL, "stream_stall_seconds", "The longest gap between two chunks, once for each stream.", "model"
)
TOKENS = _counter(
    "tokens_total",
    "Tokens as upstreams count them. input holds cached_input, output holds reasoning: never sum over token_type.",
    *("model", "token_type", "residency", "start"),
)
ESTIMATED_TOKENS = _counter(
    "estimated_tokens_total",
    "Output tokens within tokens_total that are a count of chunks, for want of better.",
    "model",
)
TOKENS_PER_SECOND = _gauge(
    "tokens_per_second", "Tokens of the answers that ended in the last 10 s, per second.", "model", "token_type"
)
WITHOUT_USAGE = _counter(
    "requests_without_usage_total", "Answers that did not say what they took: tokens_total lacks them.", "model"
)
UNKNOWN_MODEL_REQUESTS = _counter("unknown_model_requests_total", "Requests for a model that is not configured.")
PREFILL_TOKENS = _counter(
    "prefill_after_swap_tokens_total",
    "Prompt tokens computed anew (input less cached) by the first 10 answers of a residency that say both.",
    *("model", "start"),
)
PREFILL_REQUESTS = _counter(
    "prefill_after_swap_requests_total",
    "The first 10 answers of each residency with a token count; cached=unknown did not say what came from a cache.",
    *("model", "start", "cached"),
)
UPSTREAM_DURATION = _histogram(
    REQ, "upstream_request_duration_seconds", "Sent to the last byte of the upstream.", "model", "outcome"
)
UPSTREAM_ERRORS = _counter("upstream_errors_total", "What went wrong with an upstream.", "model", "error_type")

# Queue ---------------------------------------------------------------------------------------------------------------

QUEUE_DEPTH = _gauge("queue_depth", "Requests waiting for a model.", "model")
QUEUE_LIMIT = _gauge("queue_limit", "Most requests that may wait for a model.", "model")
QUEUE_OLDEST_AGE = _gauge("queue_oldest_age_seconds", "Age of the oldest waiting request; 0 when none waits.", "model")
QUEUE_WAIT = _histogram(
    WAIT, "queue_wait_seconds", "Arrival to dispatch, or to giving up. Exemplar: trace_id.", "model", "outcome"
)
WAIT_SECONDS = _counter(
    "request_wait_seconds_total",
    "Request-seconds spent waiting; policy = another's turn, or a hold; swap = a swap, or one that goes first.",
    *("model", "cause"),
)
REJECTIONS = _counter("rejections_total", "Requests the scheduler refused.", "model", "reason")

# Swaps ---------------------------------------------------------------------------------------------------------------

SWAPS = _counter("swaps_total", "Finished swaps.", "to_model", "kind", "outcome")
SWAP_TRIGGERS = _counter("swap_triggers_total", "What asked for a swap.", "reason")
SWAP_TRANSITIONS = _counter(
    "swap_transitions_total", "Swaps begun by who had to go; _none if nobody.", "from_model", "to_model"
)
SWAP_DURATION = _histogram(
    SWAP, "swap_duration_seconds", "Decision to ready, evictions included. Exemplar: trace_id.", "to_model", "kind"
)
SWAP_PHASE = _histogram(SWAP, "swap_phase_duration_seconds", "One phase of a swap.", "phase", "kind")
SWAP_IN_PROGRESS = _gauge("swap_in_progress", "1 while a swap runs.")
SWAP_IN_PROGRESS_START = _gauge(
    "swap_in_progress_start_timestamp_seconds", "Unix time the oldest running swap was decided; 0 when none runs."
)
SWAP_LAST_START = _gauge("swap_last_start_timestamp_seconds", "Unix time of the last swap to a model.", "to_model")
SWAP_THRASH = _counter(
    "swap_thrash_total",
    "Swaps that brought back a model evicted less than max(60 s, 3 x its own load time) ago.",
    "to_model",
)
SWAP_JOINED = _histogram(JOIN, "swap_joined_requests", "Requests that waited for one swap.", "to_model")
SWAPS_BY_CALLER = _counter(
    "swaps_by_caller_total",
    "Swaps begun by the configured key of who asked; _other without one, _none if no request asked.",
    "caller_class",
)
SWAP_LOST_BY_CALLER = _counter(
    "swap_lost_gpu_seconds_total",
    "GPU-seconds in phase swapping, by who asked for the swap; the sum is that of gpu_phase_seconds_total.",
    "caller_class",
)
RESIDENCY = _histogram(RES, "residency_seconds", "Ready to the decision to stop or to sleep.", "model")
RESIDENCY_REQUESTS = _histogram(JOIN, "residency_requests", "Requests dispatched in one residency.", "model")
DECISIONS_MADE = _counter("scheduler_decisions_total", "Decisions of the scheduler.", "decision")

# Models and upstreams ------------------------------------------------------------------------------------------------

MODEL_INFO = _gauge(
    "model_info",
    "Facts of a configured model, as far as its command tells.",
    *("model", "backend", "quantization", "context", "sleep_level", "gpus"),
)
MODEL_STATE = _gauge("model_state", "1 for the current state of the model, else 0.", "model", "state")
MODEL_STATE_CODE = _gauge(
    "model_state_code",
    "The state as a number: stopped, starting, ready, stopping, sleepPending, asleep, waking, failed, shutdown = 0..8.",
    "model",
)
MODEL_STATE_SECONDS = _counter(
    "model_state_seconds_total", "Time spent in each state, the current one up to now included.", "model", "state"
)
MODEL_LAST_USED = _gauge(
    "model_last_used_timestamp_seconds", "Unix time of the last dispatch; 0 before the first.", "model"
)
MODEL_LOAD_ESTIMATE = _gauge(
    "model_load_estimate_seconds", "How long coming up takes, smoothed; absent before the first.", "model", "kind"
)
MODEL_EXITS = _counter("model_exits_total", "Ends of upstreams.", "model", "reason")
MODEL_PROCESSES = _gauge("model_processes", "Processes in the upstream's tree.", "model")
MODEL_HOST_MEMORY = _gauge("model_host_memory_bytes", "Host memory of the upstream's tree.", "model", "kind")
MODEL_GPU_MEMORY = _gauge("model_gpu_memory_bytes", "Device memory of the upstream's tree.", "model", "gpu")
MODEL_GPU_ESTIMATED = _gauge(
    "model_gpu_memory_estimated", "1 if model_gpu_memory_bytes is an estimate, 0 if it was measured.", "model"
)
MODEL_CPU = _counter("model_cpu_seconds_total", "CPU time of the upstream's tree.", "model")
MODEL_LEARNED_GPU = _gauge(
    "model_learned_gpu_bytes", "Most device memory the model was seen to hold in a state.", "model", "state", "gpu"
)
MODEL_LEARNED_HOST = _gauge(
    "model_learned_host_bytes", "Most host memory the model was seen to hold in a state.", "model", "state"
)
MODEL_FITS = _gauge(
    "model_fits", "1 if what is free now holds what the model was seen to hold when ready, else 0.", "model"
)
MODEL_FIT_HEADROOM = _gauge(
    "model_fit_headroom_bytes",
    "Free now less what the model was seen to hold when ready; below 0 lacks.",
    "model",
    "gpu",
)
HEALTH_CHECKS = _counter(
    "upstream_health_checks_total", "Probes of upstreams that come up, by what they found.", "model", "result"
)

# GPU and host --------------------------------------------------------------------------------------------------------

GPU_INFO = _gauge("gpu_info", "Identity of a GPU.", "gpu", "uuid", "name", "driver_version", "cuda_version", "mig")
GPU_PHASE = _counter(
    "gpu_phase_seconds_total", "Time by what the GPU was taken up with; the phases sum to elapsed time.", "gpu", "phase"
)
GPU_UTILIZATION = _gauge("gpu_utilization_ratio", "Share of time in which a kernel ran.", "gpu")
GPU_MEMORY_USED = _gauge("gpu_memory_used_bytes", "Device memory in use, by anybody.", "gpu")
GPU_MEMORY_TOTAL = _gauge("gpu_memory_total_bytes", "Device memory.", "gpu")
GPU_MEMORY_UNATTRIBUTED = _gauge(
    "gpu_memory_unattributed_bytes", "In use by none of our models: driver, leaks, foreign processes.", "gpu"
)
GPU_POWER = _gauge("gpu_power_watts", "Power draw.", "gpu")
GPU_POWER_LIMIT = _gauge("gpu_power_limit_watts", "Enforced power limit.", "gpu")
GPU_ENERGY = _counter("gpu_energy_joules_total", "Energy since the driver was loaded.", "gpu")
GPU_TEMPERATURE = _gauge("gpu_temperature_celsius", "Temperature; sensor = gpu, memory.", "gpu", "sensor")
GPU_CLOCK = _gauge("gpu_clock_hertz", "Clock; clock = sm, memory.", "gpu", "clock")
GPU_THROTTLED = _gauge(
    "gpu_throttled",
    "1 while it is slowed; reason = sw_power_cap, hw_slowdown, hw_thermal, sw_thermal, power_brake.",
    *("gpu", "reason"),
)
GPU_PCIE = _counter("gpu_pcie_bytes_total", "PCIe traffic; direction = rx, tx.", "gpu", "direction")
GPU_ECC_ERRORS = _counter("gpu_ecc_errors_total", "Memory errors; kind = corrected, uncorrected.", "gpu", "kind")
GPU_REMAPPED_ROWS = _gauge(
    "gpu_remapped_rows",
    "Rows of memory that were replaced; kind = corrected, uncorrected; pending, failed: 1 if there is such a one.",
    *("gpu", "kind"),
)
GPU_XID_ERRORS = _counter("gpu_xid_errors_total", "XID errors since llmswap started.", "gpu", "xid")
GPU_XID_LAST = _gauge("gpu_xid_last_timestamp_seconds", "Unix time of the last XID error of a code.", "gpu", "xid")
GPU_POLL_SUCCESS = _gauge("gpu_poll_success", "1 if the last look at the GPUs worked, else 0; the log says why.")
GPU_POLL_TIME = _gauge("gpu_poll_timestamp_seconds", "Unix time of the last look that worked.")
GPU_POLL_DURATION = _histogram(OVER, "gpu_poll_duration_seconds", "What a look at the GPUs takes.")
HOST_MEMORY_TOTAL = _gauge("host_memory_total_bytes", "Host memory.")
HOST_MEMORY_AVAILABLE = _gauge("host_memory_available_bytes", "Host memory that can be had without swapping.")

# The proxy itself ----------------------------------------------------------------------------------------------------

BUILD_INFO = _gauge("build_info", "Build; revision is empty if unknown.", "version", "revision", "python_version")
CONFIG_MODELS = _gauge("config_models", "Configured models.")
CONFIG_RELOAD_OK = _gauge("config_last_reload_successful", "1 if the last config load was good, else 0.")
CONFIG_RELOAD_TIME = _gauge("config_last_reload_success_timestamp_seconds", "Unix time of the last good config load.")
PROXY_OVERHEAD = _histogram(
    OVER, "proxy_overhead_seconds", "Head of the request to the send upstream, less what it waited."
)
LOOP_LAG = _histogram(LAG, "event_loop_lag_seconds", "How late the event loop runs what is due.")
RENDER_SECONDS = _histogram(LAG, "metrics_render_seconds", "What an exposition took, the snapshot included.")
RENDER_HOLD_SECONDS = _histogram(
    OVER, "metrics_snapshot_seconds", "The longest stretch for which an exposition held the event loop."
)
TRACE_SPANS = _counter("trace_spans_total", "Spans by what became of them.", "result")
TRACE_QUEUE = _gauge("trace_queue_length", "Spans waiting for export.")
JOURNAL_DROPPED = _counter("journal_dropped_lines_total", "Steps that the journal could not keep.")
STDOUT_DROPPED = _counter("stdout_dropped_bytes_total", "Log bytes that standard output did not take.")
LOG_READERS_DROPPED = _counter(
    "log_readers_dropped_bytes_total", "Log bytes that readers of /logs/stream were too slow for."
)
OBSERVER_ERRORS = _counter("metrics_errors_total", "Steps and requests that metrics failed on; the log has each kind.")

EVERY = tuple(value for value in tuple(globals().values()) if isinstance(value, Metric))
