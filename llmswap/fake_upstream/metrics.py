"""The fake's own counting, and its exposition in the engines' families (upstreams.md 2.6 and 3.3)."""

from bisect import bisect_left
from collections import Counter
from dataclasses import dataclass, field

TTFT_BUCKETS = (0.001, 0.005, 0.01, 0.02, 0.04, 0.06, 0.08, 0.1, 0.25, 0.5, 0.75, 1, 2.5, 5, 7.5, 10, 20, 40, 80, 160,
                640, 2560)  # fmt: skip
ITL_BUCKETS = (0.01, 0.025, 0.05, 0.075, 0.1, 0.15, 0.2, 0.3, 0.4, 0.5, 0.75, 1, 2.5, 5, 7.5, 10, 20, 40, 80)
LATENCY_BUCKETS = (0.3, 0.5, 0.8, 1, 1.5, 2, 2.5, 5, 10, 15, 20, 30, 40, 50, 60, 120, 240, 480, 960, 1920, 7680)
SLEEP_BUCKETS = (0.01, 0.1, 1, 10, 30, 60, 120, 300, 600)
SLEEP_OPERATIONS = ("sleep", "release_kv_cache_memory", "wake")
TOKEN_BUCKETS = (1, 2, 5, 10, 20, 50, 100, 200, 500, 1000, 2000, 5000, 10000, 20000)


class Histogram:
    """Observations in buckets."""

    def __init__(self, bounds: tuple[float, ...]) -> None:
        self.bounds = bounds
        self.counts = [0] * (len(bounds) + 1)
        self.sum = 0.0

    def observe(self, value: float, times: int = 1) -> None:
        """Add one value, or the same value several times."""
        self.counts[bisect_left(self.bounds, value)] += times
        self.sum += value * times


@dataclass(slots=True)
class Metrics:
    """Everything counted since the process started."""

    prompt_tokens: int = 0
    cached_tokens: int = 0
    prompt_seconds: float = 0.0
    output_tokens: int = 0
    output_seconds: float = 0.0
    finished_by_reason: Counter[str] = field(default_factory=Counter)
    sleep_state: str = "awake"
    ttft: Histogram = field(default_factory=lambda: Histogram(TTFT_BUCKETS))
    itl: Histogram = field(default_factory=lambda: Histogram(ITL_BUCKETS))
    queue: Histogram = field(default_factory=lambda: Histogram(LATENCY_BUCKETS))
    prefill: Histogram = field(default_factory=lambda: Histogram(LATENCY_BUCKETS))
    decode: Histogram = field(default_factory=lambda: Histogram(LATENCY_BUCKETS))
    e2e: Histogram = field(default_factory=lambda: Histogram(LATENCY_BUCKETS))
    prompt_sizes: Histogram = field(default_factory=lambda: Histogram(TOKEN_BUCKETS))
    output_sizes: Histogram = field(default_factory=lambda: Histogram(TOKEN_BUCKETS))
    sleeps: dict[str, Histogram] = field(
        default_factory=lambda: {operation: Histogram(SLEEP_BUCKETS) for operation in SLEEP_OPERATIONS}
    )

    def count_tokens(self, finish: str, prompt: int, cached: int, output: int) -> None:
        """Count one finished request."""
        self.finished_by_reason[finish] += 1
        self.prompt_tokens += prompt
        self.cached_tokens += cached
        self.output_tokens += output
        self.prompt_sizes.observe(prompt)
        self.output_sizes.observe(output)

    def count_times(self, came_s: float, started_s: float, first_s: float, last_s: float, tokens: int) -> None:
        """Count one request's times; all are monotonic seconds."""
        decode_s = last_s - first_s
        self.prompt_seconds += first_s - started_s
        self.output_seconds += decode_s
        self.queue.observe(started_s - came_s)
        self.prefill.observe(first_s - started_s)
        self.ttft.observe(first_s - came_s)
        self.decode.observe(decode_s)
        self.e2e.observe(last_s - came_s)
        if tokens > 1:
            self.itl.observe(decode_s / (tokens - 1), tokens - 1)
