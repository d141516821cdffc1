"""Where spans leave, by OpenTelemetry's SDK. Imported only when traces are on: that takes 0.1 s and 15 MiB or more."""

import logging
import os
import socket
import threading
import time
from collections.abc import Iterator, Mapping, Sequence
from typing import Any, NamedTuple, cast

from opentelemetry.sdk.resources import OTELResourceDetector, Resource
from opentelemetry.sdk.trace import Event, ReadableSpan
from opentelemetry.sdk.trace.export import BatchSpanProcessor, SpanExporter, SpanExportResult
from opentelemetry.sdk.util.instrumentation import InstrumentationScope
from opentelemetry.trace import Link, SpanContext, Status, StatusCode, TraceFlags
from opentelemetry.trace import SpanKind as OtelKind
from opentelemetry.trace.span import TraceState

import llmswap
from llmswap.telemetry.names import SPAN_RESULTS
from llmswap.telemetry.spans import Span, SpanKind, Tree
from llmswap.telemetry.trace_context import TraceContext

log = logging.getLogger(__name__)

EXPORTED, DROPPED, FAILED = SPAN_RESULTS
EXPORT_TIMEOUT_S = 3.0
BATCH = 512
BREATH = 64  # spans; they hold the event loop for about 1 ms, and fewer at a time cost more in all
SCHEDULE_MS = 1000
QUEUE_MAX = 8192
LINKS_MAX = 128
TRACES_PATH = "v1/traces"

_KINDS = {SpanKind.SERVER: OtelKind.SERVER, SpanKind.CLIENT: OtelKind.CLIENT, SpanKind.INTERNAL: OtelKind.INTERNAL}
_ERROR, _UNSET = Status(StatusCode.ERROR), Status(StatusCode.UNSET)
_SAMPLED, _UNSAMPLED = TraceFlags(TraceFlags.SAMPLED), TraceFlags(TraceFlags.DEFAULT)
_ANY_SAMPLED = SpanContext(1, 1, is_remote=False, trace_flags=_SAMPLED)
_SCOPE = InstrumentationScope("llmswap", llmswap.__version__)


class _Same(Resource):
    """A Resource that is hashed once: the exporter does it for every span, by writing it as JSON."""

    def __init__(self, resource: Resource) -> None:
        super().__init__(resource.attributes, resource.schema_url)
        self._hash = super().__hash__()

    def __hash__(self) -> int:
        return self._hash

    def __eq__(self, other: object) -> bool:
        return self is other or super().__eq__(other)


class _Kept(NamedTuple):
    """A span on its way to the exporter, as little as the event loop can make of it: the rest is its thread's work."""

    span: Span
    trace_id: int
    above: TraceContext | None  # somebody else's span, if its tree has a parent
    offset_ns: int  # from monotonic time to that of the world

    @property
    def context(self) -> SpanContext:
        """What the queue asks of a span: whether it is sampled."""
        return _ANY_SAMPLED


class _Told(ReadableSpan):
    """A span of which nothing was dropped: for the exporter to ask abstract classes, three times each, takes long."""

    dropped_attributes = dropped_events = dropped_links = 0


class _Breathing(Sequence[ReadableSpan]):
    """Spans, made as they are walked through, that let other threads go on every now and then.

    Otherwise whoever encodes them keeps the event loop waiting, for as long as the interpreter allows: 5 ms.
    """

    def __init__(self, spans: Sequence[_Kept], resource: Resource) -> None:
        self._spans = spans
        self._resource = resource

    def __len__(self) -> int:
        return len(self._spans)

    def __getitem__(self, index: Any) -> Any:  # noqa: ANN401
        return list(self)[index]

    def __iter__(self) -> Iterator[ReadableSpan]:
        for number, kept in enumerate(self._spans):
            if number % BREATH == 0:
                time.sleep(0)
            yield _made(kept, self._resource)


class _Counted(SpanExporter):
    """An exporter of what the queue holds, whose batches are counted."""

    def __init__(self, exporter: SpanExporter, resource: Resource) -> None:
        self._exporter = exporter
        self._resource = resource
        self.taken = 0
        self.exported = 0
        self.failed = 0

    def export(self, spans: Sequence[Any]) -> SpanExportResult:
        self.taken += len(spans)
        result = SpanExportResult.FAILURE
        try:
            result = self._exporter.export(_Breathing(spans, self._resource))
        finally:
            if result is SpanExportResult.SUCCESS:
                self.exported += len(spans)
            else:
                self.failed += len(spans)
        return result

    def shutdown(self) -> None:
        self._exporter.shutdown()

    def force_flush(self, timeout_millis: int = 30_000) -> bool:
        return self._exporter.force_flush(timeout_millis)


class Pipe:
    """Takes trees and sends them on in batches, from a thread. What it cannot keep is dropped and counted.

    Args:
        exporter: Sends them.
        environ: OTEL_BSP_*, OTEL_RESOURCE_ATTRIBUTES and OTEL_SERVICE_NAME are honoured.
        instance: Unique to this life of llmswap.
    """

    def __init__(self, exporter: SpanExporter, environ: Mapping[str, str], instance: str) -> None:
        self._counted = _Counted(exporter, _Same(_resource(instance)))
        self._queue_max = _number(environ, "OTEL_BSP_MAX_QUEUE_SIZE", QUEUE_MAX)
        batch = min(_number(environ, "OTEL_BSP_MAX_EXPORT_BATCH_SIZE", BATCH), self._queue_max)
        schedule_ms = _number(environ, "OTEL_BSP_SCHEDULE_DELAY", SCHEDULE_MS)
        self._processor = BatchSpanProcessor(self._counted, self._queue_max, schedule_ms, batch)
        self._put = 0
        self._dropped = 0

    @property
    def counts(self) -> Mapping[str, int]:
        """Spans by what became of them."""
        return {EXPORTED: self._counted.exported, DROPPED: self._dropped, FAILED: self._counted.failed}

    @property
    def queue_length(self) -> int:
        """Spans that wait to be sent."""
        return max(0, self._put - self._counted.taken)

    def write(self, tree: Tree) -> None:
        """Take a tree: whole, or not at all if the queue is full."""
        if self.queue_length + len(tree.spans) > self._queue_max:
            self._dropped += len(tree.spans)
            return
        offset_ns = time.time_ns() - time.monotonic_ns()
        for span in tree.spans:
            self._processor.on_end(cast("ReadableSpan", _Kept(span, tree.trace_id, tree.parent, offset_ns)))
            self._put += 1

    def flush(self) -> None:
        """Send what waits, now. Blocks."""
        self._processor.force_flush()

    def close(self, limit_s: float) -> None:
        """Send what waits, at most for so long. Blocks."""
        # In a thread of its own, because a receiver that hangs holds the SDK longer than it was told to take.
        closing = threading.Thread(target=self._processor.shutdown, name="closing traces", daemon=True)
        closing.start()
        closing.join(limit_s)


def _made(kept: _Kept, resource: Resource) -> ReadableSpan:
    """Make it as it is. Through a Tracer it would take three times as long, most of it for the attributes."""
    span, trace_id, above, offset_ns = kept
    parent = None if above is None else _as_otel(above)
    state = None if parent is None else parent.trace_state
    if span.parent is not None:
        parent = SpanContext(trace_id, span.parent, is_remote=False, trace_flags=_SAMPLED, trace_state=state)
    status = _UNSET
    if span.error:
        status = Status(StatusCode.ERROR, span.description) if span.description else _ERROR
    return _Told(
        span.name,
        SpanContext(trace_id, span.span_id, is_remote=False, trace_flags=_SAMPLED, trace_state=state),
        parent,
        resource,
        span.attributes,
        [Event(name, attributes, int(at_s * 1e9) + offset_ns) for at_s, name, attributes in span.events],
        [Link(_as_otel(link)) for link in span.links[:LINKS_MAX]],
        _KINDS[span.kind],
        status=status,
        start_time=int(span.began_s * 1e9) + offset_ns,
        end_time=int(max(span.began_s, span.ended_s) * 1e9) + offset_ns,
        instrumentation_scope=_SCOPE,
    )


def _as_otel(context: TraceContext) -> SpanContext:
    state = TraceState.from_header([context.state]) if context.state else None
    flags = _SAMPLED if context.sampled else _UNSAMPLED
    return SpanContext(context.trace_id, context.span_id, context.remote, flags, state)


def _resource(instance: str) -> Resource:
    """Say who tells all this: what the environment says of it, and for the rest ourselves."""
    own = {
        "service.name": "llmswap",
        "service.version": llmswap.__version__,
        "service.instance.id": instance,
        "host.name": socket.gethostname(),
    }
    given = OTELResourceDetector().detect().attributes
    return Resource.create({name: value for name, value in own.items() if name not in given})


def _number(environ: Mapping[str, str], name: str, otherwise: int) -> int:
    text = environ.get(name, "").strip()
    if text.isdecimal() and int(text) > 0:
        return int(text)
    if text:
        log.warning("%s is not a number above 0: %d is used", name, otherwise)
    return otherwise


def exporter_of(endpoint: str, protocol: str, environ: Mapping[str, str]) -> SpanExporter:
    """Make the exporter of a protocol.

    Args:
        endpoint: Base URL of the receiver; empty for what OTEL_EXPORTER_OTLP_[TRACES_]ENDPOINT says.
        protocol: `grpc` or `http/protobuf`.
        environ: Headers, certificates, compression and timeouts are taken from it by the SDK.
    """
    given = any(environ.get(name) for name in ("OTEL_EXPORTER_OTLP_TRACES_TIMEOUT", "OTEL_EXPORTER_OTLP_TIMEOUT"))
    timeout_s = None if given else EXPORT_TIMEOUT_S
    if protocol == "grpc":
        os.environ.setdefault("GRPC_ENABLE_FORK_SUPPORT", "0")  # upstreams are spawned while it runs
        from opentelemetry.exporter.otlp.proto.grpc.trace_exporter import OTLPSpanExporter as GrpcExporter  # noqa: PLC0415

        return GrpcExporter(endpoint=endpoint or None, timeout=timeout_s)
    from opentelemetry.exporter.otlp.proto.http.trace_exporter import OTLPSpanExporter as HttpExporter  # noqa: PLC0415

    return HttpExporter(endpoint=_traces_url(endpoint) if endpoint else None, timeout=timeout_s)


def _traces_url(endpoint: str) -> str:
    base = endpoint.rstrip("/")
    return base if base.endswith(f"/{TRACES_PATH}") else f"{base}/{TRACES_PATH}"
