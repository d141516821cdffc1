"""Colours, each with one meaning on every board; models have their own, by name.

The names are Grafana's, which fit both of its themes. Green is served, orange is a swap, blue is idle or asleep, grey
is empty or stopped, red is broken, yellow waits, purple is policy.
"""

from collections.abc import Mapping

from llmswap.telemetry import names

GOOD, BUSY, CALM, OFF, BAD, WAITS, RULE = ("green", "orange", "blue", "#6e7681", "red", "yellow", "purple")
NEUTRAL = "text"
CLEAR = "transparent"
LIMIT = "#c4162a"  # lines that should not be crossed

# In the order of `llmswap_model_state_code`.
STATES: Mapping[str, str] = {
    "stopped": OFF,
    "starting": BUSY,
    "ready": GOOD,
    "stopping": "light-orange",
    "sleepPending": "light-blue",
    "asleep": CALM,
    "waking": "light-yellow",
    "failed": BAD,
    "shutdown": "#3d444d",
}
OUTCOMES: Mapping[str, str] = {
    "ok": GOOD,
    "client_error": WAITS,
    "client_disconnect": OFF,
    "queue_timeout": BUSY,
    "queue_full": "dark-orange",
    "refused": RULE,
    "swap_failed": "dark-red",
    "upstream_error": BAD,
    "internal_error": "super-light-red",
}
WAIT_CAUSES = dict(zip(names.WAIT_CAUSES, (BUSY, WAITS, CALM, RULE), strict=True))
WAIT_OUTCOMES = dict(zip(names.WAIT_OUTCOMES, (GOOD, BUSY, OFF, BAD), strict=True))
GPU_PHASES = dict(zip(names.GPU_PHASES, (GOOD, BUSY, CALM, OFF), strict=True))
STARTS = dict(zip(names.STARTS, (GOOD, BUSY, "light-blue", "dark-blue"), strict=True))
SWAP_OUTCOMES = dict(zip(names.SWAP_OUTCOMES, (GOOD, BUSY, "dark-red", BAD, RULE, OFF), strict=True))
SWAP_PHASES: Mapping[str, str] = {
    "drain": WAITS,
    "sleep": "light-blue",
    "stop": OFF,
    "free_wait": RULE,
    "start": "light-orange",
    "wake": CALM,
    "health_wait": BUSY,
    "warmup": "dark-orange",
}
DECISIONS = dict(zip(names.DECISIONS, (GOOD, WAITS, BUSY, RULE, BAD), strict=True))
EXITS = dict(zip(names.EXIT_REASONS, (OFF, BAD, "dark-red", RULE, BUSY), strict=True))
PROBES = dict(zip(names.HEALTH_RESULTS, (GOOD, WAITS), strict=True))
TOKENS = dict(zip(names.TOKEN_TYPES, (CALM, GOOD, "super-light-blue", "light-green", OFF, "light-purple"), strict=True))
MEMORY_KINDS = dict(zip(names.MEMORY_KINDS, (CALM, "dark-blue", OFF), strict=True))
SPANS = dict(zip(names.SPAN_RESULTS, (GOOD, BUSY, BAD), strict=True))
PERCENTILES: Mapping[str, str] = {"mean": "super-light-blue", "p50": "light-blue", "p95": CALM, "p99": "dark-blue"}
ROUND_TRIP: Mapping[str, str] = {**WAIT_CAUSES, "prefill": "light-green", "decode": GOOD}
