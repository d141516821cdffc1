"""Traces, switched on and off: with no receiver configured nothing is imported, kept or sent."""

import logging
import time
import uuid
from collections.abc import Callable, Mapping
from typing import Protocol

from llmswap.config.settings import Launch, TelemetrySettings
from llmswap.core.events import Generation
from llmswap.core.fleet import ModelId
from llmswap.core.step import Step
from llmswap.runtime.observing import HeaderFields, Phase, RequestRecord
from llmswap.telemetry.backends import Backend, backends_of
from llmswap.telemetry.lives import History
from llmswap.telemetry.names import SPAN_RESULTS
from llmswap.telemetry.request_spans import RequestSpans
from llmswap.telemetry.sampling import sampler_of
from llmswap.telemetry.spans import Tree
from llmswap.telemetry.swap_spans import SwapSpans

log = logging.getLogger(__name__)

CLOSE_LIMIT_S = 2.0  # the rest of the end takes most of a second, and all of it shall take 3
PROTOCOLS = ("http/protobuf", "grpc")
_COMPLAIN_EVERY_S = 60.0
_ENDPOINTS = ("OTEL_EXPORTER_OTLP_TRACES_ENDPOINT", "OTEL_EXPORTER_OTLP_ENDPOINT")
_NOBODY = Backend()


class Outlet(Protocol):
    """Where trees go."""

    @property
    def counts(self) -> Mapping[str, int]:
        """Spans by what became of them: exported, dropped_queue, failed."""

    @property
    def queue_length(self) -> int:
        """Spans that wait to be sent."""

    def write(self, tree: Tree) -> None:
        """Take a tree. Must not block."""

    def close(self, limit_s: float) -> None:
        """Send what is left, at most for so long. Blocks."""


class Tracing:
    """Watches requests, Steps and phases, and writes traces of them; does nothing as long as there is nowhere to.

    A RequestObserver, and an Observer of Steps: both are to see what happens before metrics and logs do.

    Args:
        environ: OTEL_* are read from it.
        history: Gives what metrics remember, which sees each Step after this: so that both say the same.
        scheme: What clients are served by: http or https.
        open_outlet: Makes the outlet; for tests.
    """

    def __init__(  # noqa: PLR0913
        self,
        settings: TelemetrySettings,
        launches: Mapping[ModelId, Launch],
        environ: Mapping[str, str],
        history: Callable[[], History],
        *,
        scheme: str = "http",
        open_outlet: Callable[[str, str, Mapping[str, str]], Outlet] | None = None,
    ) -> None:
        self._environ = environ
        self._open_outlet = open_outlet or open_otlp
        self._outlet: Outlet | None = None
        self._past = dict.fromkeys(SPAN_RESULTS, 0)
        self._where: tuple[str, str] | None = None
        self._backends: dict[ModelId, Backend] = {}
        self._swaps = SwapSpans(self._write, self._backend, lambda model: history().life(model))
        self._requests = RequestSpans(
            self._write,
            self._swaps.within,
            lambda request: history().waiter(request),
            lambda model: self._backend(model).name,
            scheme,
        )
        self._swaps.requests = self._requests
        self._requests.left = self._swaps.left
        self.configure(settings, launches)

    def configure(self, settings: TelemetrySettings, launches: Mapping[ModelId, Launch]) -> None:
        """Put settings in force; those of a reload, too. Another receiver gets what ends from now on."""
        self._backends = backends_of(launches)
        self._requests.sampler = sampler_of(settings, self._environ)
        self._requests.trusts = settings.trust_remote_parent
        where = receiver(settings, self._environ)
        if where == self._where:
            return
        self._shut(0.0)  # what waits there has a moment left
        self._where = where
        if where is not None:
            self._outlet = self._open_outlet(*where, self._environ)
            log.info("traces go by OTLP (%s)", where[1])

    def _shut(self, limit_s: float) -> None:
        outlet, self._outlet = self._outlet, None
        if outlet is not None:
            outlet.close(limit_s)
            for result, spans in outlet.counts.items():
                self._past[result] += spans

    @property
    def on(self) -> bool:
        """Whether there is somewhere to send traces to."""
        return self._outlet is not None

    @property
    def counts(self) -> Mapping[str, int]:
        """Spans by what became of them since the program began: exported, dropped_queue, failed. For metrics."""
        if self._outlet is None:
            return self._past
        return {result: spans + self._past[result] for result, spans in self._outlet.counts.items()}

    @property
    def queue_length(self) -> int:
        """Spans that wait to be sent."""
        return 0 if self._outlet is None else self._outlet.queue_length

    def swap_trace_id(self, model: ModelId) -> str:
        """Give the trace of the last swap to a model, 32 hex digits; empty if there is none. For exemplars and logs."""
        return self._swaps.trace_id(model)

    def waits(self, record: RequestRecord) -> None:
        """See a request begin to wait."""
        if self._outlet is not None:
            self._requests.waits(record)

    def sends(self, record: RequestRecord) -> HeaderFields:
        """See it about to be sent; gives the trace context for the upstream."""
        return self._requests.sends(record) if self._outlet is not None else ()

    def ended(self, record: RequestRecord) -> None:
        """See it over, and write its trace."""
        if self._outlet is not None:
            self._requests.ended(record)

    def __call__(self, step: Step) -> None:
        """Follow swaps."""
        if self._outlet is not None:
            self._swaps(step)

    def phase(self, phase: Phase) -> None:
        """Take note of what was done to an upstream."""
        if self._outlet is not None:
            self._swaps.phase(phase)

    def environ(self, model: ModelId, generation: Generation) -> Mapping[str, str]:
        """Give the trace context for the environment of a start (StartEnviron)."""
        return self._swaps.environ(model, generation) if self._outlet is not None else {}

    def close(self) -> None:
        """Send what is left, within CLOSE_LIMIT_S. Blocks."""
        self._shut(CLOSE_LIMIT_S)

    def _write(self, tree: Tree) -> None:
        if self._outlet is not None:
            self._outlet.write(tree)

    def _backend(self, model: ModelId) -> Backend:
        return self._backends.get(model, _NOBODY)


def receiver(settings: TelemetrySettings, environ: Mapping[str, str]) -> tuple[str, str] | None:
    """Find out where traces go: endpoint (empty: what the environment says) and protocol. None for nowhere."""
    if environ.get("OTEL_SDK_DISABLED", "").strip().lower() == "true":
        return None
    exporters = {name.strip().lower() for name in environ.get("OTEL_TRACES_EXPORTER", "").split(",")} - {""}
    named = any(environ.get(name, "").strip() for name in _ENDPOINTS)
    if exporters - {"otlp", "none"}:
        log.warning("OTEL_TRACES_EXPORTER: only otlp and none are known here")
    wanted = "otlp" in exporters if exporters else named
    if not settings.endpoint and not wanted:
        return None
    protocol = (
        settings.protocol
        or environ.get("OTEL_EXPORTER_OTLP_TRACES_PROTOCOL", "").strip()
        or environ.get("OTEL_EXPORTER_OTLP_PROTOCOL", "").strip()
        or PROTOCOLS[0]
    )
    if protocol not in PROTOCOLS:
        log.warning("OTLP protocol %s is not known here: %s is used", protocol[:40], PROTOCOLS[0])
        protocol = PROTOCOLS[0]
    return settings.endpoint, protocol


def open_otlp(endpoint: str, protocol: str, environ: Mapping[str, str]) -> Outlet:
    """Load the SDK and open the way to a receiver."""
    from llmswap.telemetry.otlp import Pipe, exporter_of  # noqa: PLC0415  costly; only for those who trace

    listen_to_the_sdk()
    return Pipe(exporter_of(endpoint, protocol, environ), environ, uuid.uuid4().hex)


class Complaints(logging.Handler):
    """Lets one line of the SDK through from time to time, without a traceback, and counts the others."""

    def __init__(self, every_s: float = _COMPLAIN_EVERY_S, clock: Callable[[], float] = time.monotonic) -> None:
        super().__init__(logging.WARNING)
        self._every_s = every_s
        self._clock = clock
        self._next_s = float("-inf")
        self._held = 0

    def emit(self, record: logging.LogRecord) -> None:
        """Log it as ours, or count it."""
        now_s = self._clock()
        if now_s < self._next_s:
            self._held += 1
            return
        more = f" ({self._held} more lines like this since the last one)" if self._held else ""
        self._next_s, self._held = now_s + self._every_s, 0
        log.warning("exporting traces: %s%s", record.getMessage(), more)


def listen_to_the_sdk() -> None:
    """Take over what the SDK logs. It would write a line, or a traceback, for every batch that fails."""
    sdk = logging.getLogger("opentelemetry")
    if not any(isinstance(handler, Complaints) for handler in sdk.handlers):
        sdk.addHandler(Complaints())
    sdk.propagate = False
