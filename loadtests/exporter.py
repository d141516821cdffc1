"""The users' own view for Prometheus: what callers saw, beside what the proxy says of itself."""

from typing import TYPE_CHECKING

from prometheus_client import CollectorRegistry, Counter, Gauge, Histogram, start_http_server

from loadtests.samples import Sample

if TYPE_CHECKING:
    from loadtests.stage import Stage

# Buckets of the proxy's own histograms, so that the two can be laid side by side.
FIRST_BUCKETS = (0.025, 0.05, 0.1, 0.2, 0.3, 0.5, 0.75, 1, 2, 3, 5, 10, 20, 30, 60, 120, 300)
WAIT_BUCKETS = (0.005, 0.025, 0.1, 0.5, 1, 2.5, 5, 10, 30, 60, 120, 300, 600)
WHOLE_BUCKETS = (0.05, 0.1, 0.25, 0.5, 1, 2.5, 5, 10, 20, 40, 60, 120, 300, 600)
GAP_BUCKETS = (0.05, 0.1, 0.25, 0.5, 1, 2.5, 5, 10, 30, 60)
UNKNOWN = "unknown"


class Exporter:
    """Counts samples, in real seconds, and serves the counts. Labels hold the scenario's own names only."""

    def __init__(self, port: int) -> None:
        registry = CollectorRegistry()
        by_model = ["scenario", "model"]
        self._users = Gauge("locust_users", "Callers of the scenario that runs.", ["scenario"], registry=registry)
        self._scale = Gauge(
            "locust_time_scale", "Real seconds for one of the scenario.", ["scenario"], registry=registry
        )
        self._requests = Counter(
            "locust_requests", "Requests by what became of them.", [*by_model, "caller", "ending"], registry=registry
        )
        self._whole = Histogram(
            "locust_request_duration_seconds",
            "Sent to the end, whatever it was.",
            [*by_model, "ending"],
            buckets=WHOLE_BUCKETS,
            registry=registry,
        )
        self._first = Histogram(
            "locust_time_to_first_token_seconds",
            "Sent to the first content of a stream.",
            [*by_model, "residency"],
            buckets=FIRST_BUCKETS,
            registry=registry,
        )
        self._wait = Histogram(
            "locust_queue_wait_seconds",
            "What the proxy says that a request waited.",
            [*by_model, "residency"],
            buckets=WAIT_BUCKETS,
            registry=registry,
        )
        self._gap = Histogram(
            "locust_stream_stall_seconds",
            "The longest gap between two pieces, once for each stream.",
            by_model,
            buckets=GAP_BUCKETS,
            registry=registry,
        )
        start_http_server(port, registry=registry)

    def follow(self, stage: "Stage") -> None:
        """Count the samples of a run."""
        name = stage.scenario.name
        for gauge, value in ((self._users, stage.users), (self._scale, stage.real_s)):
            gauge.clear()
            gauge.labels(name).set(value)
        stage.listeners.append(lambda sample: self._count(name, sample))

    def _count(self, scenario: str, sample: Sample) -> None:
        residency = sample.residency or UNKNOWN
        self._requests.labels(scenario, sample.model, sample.caller, str(sample.ending)).inc()
        self._whole.labels(scenario, sample.model, str(sample.ending)).observe(sample.e2e_s)
        if sample.ttft_s is not None:
            self._first.labels(scenario, sample.model, residency).observe(sample.ttft_s)
        if sample.wait_s is not None:
            self._wait.labels(scenario, sample.model, residency).observe(sample.wait_s)
        if sample.gap_max_s is not None:
            self._gap.labels(scenario, sample.model).observe(sample.gap_max_s)
