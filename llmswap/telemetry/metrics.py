"""Prometheus metrics, folded from Steps and read from the snapshot at scrape time."""

import platform
import time
from collections.abc import Callable, Iterator

from prometheus_client import CollectorRegistry, Counter, Gauge, Histogram
from prometheus_client.core import GaugeMetricFamily
from prometheus_client.exposition import choose_encoder
from prometheus_client.registry import Collector

import llmswap
from llmswap.core.commands import Dispatch, Reject, RejectReason, Sleep, SleepCause, Start, Stop, StopCause, Wake
from llmswap.core.events import (
    Event,
    Generation,
    RequestArrived,
    RequestCancelled,
    RequestId,
    StartFailed,
    UpstreamExited,
    UpstreamReady,
    UpstreamStopped,
    WakeFailed,
)
from llmswap.core.fleet import Fleet, ModelId
from llmswap.core.snapshot import Snapshot
from llmswap.core.states import State
from llmswap.core.step import Step
from llmswap.telemetry import names
from llmswap.telemetry.names import Metric

COLD, WAKE = START_KINDS = ("cold", "wake")
WAIT_OUTCOMES = ("admitted", "rejected", "disconnect")
SWAP_OUTCOMES = ("ok", "failed", "aborted")
EXIT_REASONS = ("requested", "crash", "start_failed")


class Metrics:
    """An Observer that counts, and the exposition of what it counted.

    Args:
        snapshot: Gives the scheduler's picture; asked at each scrape.
    """

    def __init__(self, fleet: Fleet, snapshot: Callable[[], Snapshot]) -> None:
        self._registry = CollectorRegistry()
        self._wait = self._histogram(names.QUEUE_WAIT, names.WAIT)
        self._rejections = self._counter(names.REJECTIONS)
        self._swaps = self._counter(names.SWAPS)
        self._swap_duration = self._histogram(names.SWAP_DURATION, names.SWAP)
        self._transitions = self._counter(names.SWAP_TRANSITIONS)
        self._exits = self._counter(names.MODEL_EXITS)
        self._config_models = self._gauge(names.CONFIG_MODELS)
        self._reload_ok = self._gauge(names.CONFIG_RELOAD_OK)
        self._reload_time = self._gauge(names.CONFIG_RELOAD_TIME)
        self._gauge(names.BUILD_INFO).labels(llmswap.__version__, "", platform.python_version()).set(1)
        self._registry.register(_SnapshotCollector(snapshot))
        self._arrivals: dict[RequestId, tuple[ModelId, float]] = {}
        self._starts: dict[tuple[ModelId, Generation], tuple[float, str]] = {}
        self._crashed: set[tuple[ModelId, Generation]] = set()  # counted once, at UpstreamExited
        self._models: set[ModelId] = set()
        self.configured(fleet)

    def _counter(self, metric: Metric) -> Counter:
        return Counter(metric.name, metric.help, metric.labels, registry=self._registry)

    def _gauge(self, metric: Metric) -> Gauge:
        return Gauge(metric.name, metric.help, metric.labels, registry=self._registry)

    def _histogram(self, metric: Metric, buckets: tuple[float, ...]) -> Histogram:
        return Histogram(metric.name, metric.help, metric.labels, buckets=buckets, registry=self._registry)

    def configured(self, fleet: Fleet) -> None:
        """Take note of a good config: children at 0 for its models, those of removed models dropped."""
        for model in fleet.models.keys() - self._models:
            self._create(model)
        for model in self._models - fleet.models.keys():
            self._remove(model)
        self._models = set(fleet.models)
        self._config_models.set(len(fleet.models))
        self._reload_ok.set(1)
        self._reload_time.set(time.time())

    def config_rejected(self) -> None:
        """Take note that a reload failed and the old config serves on."""
        self._reload_ok.set(0)

    def _create(self, model: ModelId) -> None:
        for outcome in WAIT_OUTCOMES:
            self._wait.labels(model, outcome)
        for refusal in RejectReason:
            self._rejections.labels(model, refusal)
        for kind in START_KINDS:
            for outcome in SWAP_OUTCOMES:
                self._swaps.labels(model, kind, outcome)
            self._swap_duration.labels(model, kind)
        for reason in EXIT_REASONS:
            self._exits.labels(model, reason)

    def _remove(self, model: ModelId) -> None:
        for family in (self._wait, self._rejections, self._exits):
            family.remove_by_labels({"model": model})
        for family in (self._swaps, self._swap_duration, self._transitions):
            family.remove_by_labels({"to_model": model})
        self._transitions.remove_by_labels({"from_model": model})

    def render(self, accept: str = "") -> tuple[bytes, str]:
        """Give the exposition: body, content type (OpenMetrics if `accept` asks for it)."""
        encode, content_type = choose_encoder(accept)
        return encode(self._registry), content_type

    def __call__(self, step: Step) -> None:
        """Fold one step into the counters."""
        self._take_event(step.at_s, step.event)
        for command in step.commands:
            match command:
                case Dispatch(request=request):
                    self._waited(step.at_s, request, "admitted")
                case Reject(request=request, reason=reason):
                    model = self._waited(step.at_s, request, "rejected")
                    if model is not None:
                        self._rejections.labels(model, reason).inc()
                case Start(model=model, generation=generation):
                    self._starts[model, generation] = step.at_s, COLD
                case Wake(model=model, generation=generation):
                    self._starts[model, generation] = step.at_s, WAKE
                case Stop(cause=StopCause.EVICT) | Sleep(cause=SleepCause.EVICT):
                    if command.evicted_for in self._models and command.model in self._models:
                        self._transitions.labels(command.model, command.evicted_for).inc()
                case Stop() | Sleep():
                    pass

    def _take_event(self, at_s: float, event: Event) -> None:
        match event:
            case RequestArrived(request=request, model=model):
                self._arrivals[request] = (model, at_s)
            case RequestCancelled(request=request):
                self._waited(at_s, request, "disconnect")
            case UpstreamReady(model=model, generation=generation):
                self._started(at_s, model, generation, "ok")
            case StartFailed(model=model, generation=generation):
                if self._started(at_s, model, generation, "failed"):
                    self._exited(model, "start_failed")
            case WakeFailed(model=model, generation=generation):
                self._started(at_s, model, generation, "failed")
            case UpstreamExited(model=model, generation=generation):
                self._crashed.add((model, generation))
                self._exited(model, "crash")
            case UpstreamStopped(model=model, generation=generation):
                self._started(at_s, model, generation, "aborted")
                if (model, generation) in self._crashed:
                    self._crashed.discard((model, generation))
                else:
                    self._exited(model, "requested")

    def _waited(self, at_s: float, request: RequestId, outcome: str) -> ModelId | None:
        model, arrived_s = self._arrivals.pop(request, (None, at_s))
        if model not in self._models:
            return None
        self._wait.labels(model, outcome).observe(at_s - arrived_s)
        return model

    def _started(self, at_s: float, model: ModelId, generation: Generation, outcome: str) -> bool:
        decided_s, kind = self._starts.pop((model, generation), (None, COLD))
        if decided_s is None or model not in self._models:
            return False
        self._swaps.labels(model, kind, outcome).inc()
        if outcome == "ok":
            self._swap_duration.labels(model, kind).observe(at_s - decided_s)
        return True

    def _exited(self, model: ModelId, reason: str) -> None:
        if model in self._models:
            self._exits.labels(model, reason).inc()


class _SnapshotCollector(Collector):
    """Reads gauges off the scheduler's snapshot at scrape time."""

    def __init__(self, snapshot: Callable[[], Snapshot]) -> None:
        self._snapshot = snapshot

    def describe(self) -> list[GaugeMetricFamily]:
        return []  # so that registering does not collect

    def collect(self) -> Iterator[GaugeMetricFamily]:
        def gauge(metric: Metric) -> GaugeMetricFamily:
            return GaugeMetricFamily(metric.name, metric.help, labels=metric.labels)

        now_s = time.monotonic()
        depth, oldest, in_flight, states = map(
            gauge, (names.QUEUE_DEPTH, names.QUEUE_OLDEST_AGE, names.IN_FLIGHT, names.MODEL_STATE)
        )
        for view in self._snapshot().upstreams.values():
            depth.add_metric((view.model,), view.waiting)
            age_s = 0.0 if view.oldest_waiting_s is None else now_s - view.oldest_waiting_s
            oldest.add_metric((view.model,), age_s)
            in_flight.add_metric((view.model,), view.in_flight)
            for state in State:
                states.add_metric((view.model, state), float(view.state is state))
        yield from (depth, oldest, in_flight, states)
