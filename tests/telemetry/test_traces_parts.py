"""Parts of tracing by themselves: context, sampler, receiver, the way out, and what no program does at will."""

import logging
import subprocess
import sys
from collections.abc import Mapping
from typing import Any

import pytest
from opentelemetry.sdk.trace.export import SpanExporter, SpanExportResult

from llmswap.config.settings import Launch, Sleeping, SleepStep, TelemetrySettings
from llmswap.core.commands import Dispatch, RejectReason, Start, StartCause, Stop, StopCause
from llmswap.core.events import (
    Generation,
    LoadRequested,
    RequestArrived,
    RequestId,
    StartFailed,
    UpstreamReady,
    UpstreamStopped,
)
from llmswap.core.fleet import ModelId
from llmswap.core.step import Step
from llmswap.runtime.observing import RequestOutcome, RequestRecord, UpstreamError
from llmswap.telemetry.backends import Backend, backends_of
from llmswap.telemetry.lives import Life, Waiter
from llmswap.telemetry.otlp import Pipe
from llmswap.telemetry.sampling import Sampler, sampler_of
from llmswap.telemetry.spans import Span, Tree
from llmswap.telemetry.trace_context import TraceContext, is_this_machine, parse
from llmswap.telemetry.tracing import Complaints, Tracing, receiver

TRACE, SPAN = "0123456789abcdef0123456789abcdef", "0123456789abcdef"
A, B = ModelId("a"), ModelId("b")


@pytest.mark.parametrize(
    ("header", "sampled"),
    [(f"00-{TRACE}-{SPAN}-01", True), (f"00-{TRACE}-{SPAN}-00", False), (f"01-{TRACE}-{SPAN}-03-more", True)],
)
def test_a_good_traceparent_is_read(header: str, sampled: bool) -> None:
    found = parse(header, "v=1")
    assert found == TraceContext(int(TRACE, 16), int(SPAN, 16), sampled, "v=1", remote=True)


@pytest.mark.parametrize(
    "header",
    [
        "",
        f"00-{TRACE}-{SPAN}",
        f"00-{TRACE}-{SPAN}-01-more",
        f"ff-{TRACE}-{SPAN}-01",
        f"00-{'0' * 32}-{SPAN}-01",
        f"00-{TRACE}-{'0' * 16}-01",
        f"00-{TRACE.upper()}-{SPAN}-01",
        "x" * 10_000,
    ],
)
def test_a_bad_traceparent_is_nobodys(header: str) -> None:
    assert parse(header) is None


def test_a_state_that_could_not_be_sent_on_is_forgotten() -> None:
    for state in ("v=1\r\nx: y", "x" * 513, "\u00e9"):
        found = parse(f"00-{TRACE}-{SPAN}-01", state)
        assert found is not None
        assert found.state == ""


def test_this_machine_is_told_from_others() -> None:
    assert [is_this_machine(it) for it in ("127.0.0.1", "127.9.9.9", "::1", "::ffff:127.0.0.1")] == [True] * 4
    assert [is_this_machine(it) for it in ("10.0.0.1", "", "localhost", "::ffff:10.0.0.1")] == [False] * 4


@pytest.mark.parametrize(
    ("settings", "environ", "sampler"),
    [
        ({}, {}, Sampler()),
        ({"sampler": "always"}, {"OTEL_TRACES_SAMPLER": "always_off"}, Sampler()),
        ({"sampler": "never"}, {}, Sampler(0.0, 0.0)),
        ({"sampler": "residency", "ratio": 0.25}, {}, Sampler(of_hits=0.25)),
        ({}, {"OTEL_TRACES_SAMPLER": "always_on"}, Sampler(follows=False)),
        ({}, {"OTEL_TRACES_SAMPLER": "parentbased_always_off"}, Sampler(0.0, 0.0)),
        ({}, {"OTEL_TRACES_SAMPLER": "traceidratio", "OTEL_TRACES_SAMPLER_ARG": "0.5"}, Sampler(0.5, 0.5, False)),
        ({}, {"OTEL_TRACES_SAMPLER": "parentbased_traceidratio", "OTEL_TRACES_SAMPLER_ARG": "2"}, Sampler()),
        ({}, {"OTEL_TRACES_SAMPLER": "jaeger_remote"}, Sampler()),
    ],
)
def test_the_sampler_is_the_configured_one_else_that_of_the_environment(
    settings: dict[str, Any], environ: dict[str, str], sampler: Sampler
) -> None:
    assert sampler_of(TelemetrySettings(**settings), environ) == sampler


def test_a_share_of_traces_is_kept_and_a_parents_word_goes_before() -> None:
    tenth = Sampler(of_hits=0.1)
    step = (1 << 64) // 1000
    assert sum(tenth.keeps(step * number + step // 2, None, missed=False) for number in range(1000)) == 100
    assert all(tenth.keeps(step * number, None, missed=True) for number in range(1000))
    yes, no = TraceContext(1, 1, sampled=True), TraceContext(1, 1, sampled=False)
    assert Sampler(0.0, 0.0).keeps(1, yes, missed=False)
    assert not Sampler().keeps(1, no, missed=True)
    assert Sampler(follows=False).keeps(1, no, missed=True)


BOTH = {"OTEL_EXPORTER_OTLP_ENDPOINT": "http://x:1", "OTEL_EXPORTER_OTLP_PROTOCOL": "grpc"}


@pytest.mark.parametrize(
    ("endpoint", "environ", "found"),
    [
        ("", {}, None),
        ("http://c", {}, ("http://c", "http/protobuf")),
        ("http://c", BOTH, ("http://c", "grpc")),
        ("", BOTH, ("", "grpc")),
        ("", {**BOTH, "OTEL_EXPORTER_OTLP_TRACES_PROTOCOL": "http/protobuf"}, ("", "http/protobuf")),
        ("", {**BOTH, "OTEL_EXPORTER_OTLP_PROTOCOL": "http/json"}, ("", "http/protobuf")),
        ("", {**BOTH, "OTEL_TRACES_EXPORTER": "none"}, None),
        ("", {"OTEL_TRACES_EXPORTER": "otlp"}, ("", "http/protobuf")),
        ("", {**BOTH, "OTEL_TRACES_EXPORTER": "console"}, None),
        ("http://c", {"OTEL_SDK_DISABLED": "true"}, None),
    ],
)
def test_where_traces_go(endpoint: str, environ: dict[str, str], found: tuple[str, str] | None) -> None:
    assert receiver(TelemetrySettings(endpoint=endpoint), environ) == found


def test_nothing_of_the_sdk_is_loaded_as_long_as_nothing_is_traced() -> None:
    script = "import sys, llmswap.app; sys.exit(any(name.startswith('opentelemetry') for name in sys.modules))"
    assert subprocess.run([sys.executable, "-c", script], check=False).returncode == 0


def test_models_are_known_by_their_engine_and_how_deep_they_sleep() -> None:
    deep = Sleeping((SleepStep("/sleep?level=2&mode=wait"),), (SleepStep("/wake_up"),))
    launches = {
        A: Launch(A, "vllm serve x --port ${PORT}", "http://x", sleeping=deep),
        B: Launch(B, "/opt/llama.cpp/llama-server -m x", "http://x"),
        ModelId("c"): Launch(ModelId("c"), "python serve.py", "http://x"),
    }
    assert list(backends_of(launches).values()) == [
        Backend("vllm", "wake2"),
        Backend("llama_cpp", "wake1"),
        Backend("unknown", "wake1"),
    ]


class Exporter(SpanExporter):
    """Takes what comes, and answers as it is told."""

    def __init__(self, result: SpanExportResult | None = SpanExportResult.SUCCESS) -> None:
        self.result = result

    def export(self, spans: Any) -> SpanExportResult:
        if self.result is None:
            raise OSError("no route")
        return self.result


def tree(spans: int = 1) -> Tree:
    return Tree(7, [Span(f"s{number}", number + 1, 0.0, 1.0) for number in range(spans)])


@pytest.mark.parametrize(
    ("result", "kept"), [(SpanExportResult.SUCCESS, "exported"), (SpanExportResult.FAILURE, "failed"), (None, "failed")]
)
def test_spans_are_counted_by_what_became_of_them(result: SpanExportResult | None, kept: str) -> None:
    pipe = Pipe(Exporter(result), {}, "test")
    pipe.write(tree(3))
    pipe.flush()
    assert {name: count for name, count in pipe.counts.items() if count} == {kept: 3}
    assert pipe.queue_length == 0
    pipe.close(3.0)


def test_what_does_not_fit_into_the_queue_is_dropped_as_a_whole_and_counted() -> None:
    pipe = Pipe(Exporter(), {"OTEL_BSP_MAX_QUEUE_SIZE": "4", "OTEL_BSP_SCHEDULE_DELAY": "60000"}, "test")
    pipe._counted.export = lambda spans: SpanExportResult.FAILURE  # type: ignore[method-assign]  # nothing is taken
    for _ in range(3):
        pipe.write(tree(2))
    assert (pipe.counts["dropped_queue"], pipe.queue_length) == (2, 4)
    pipe.close(3.0)


def test_numbers_of_the_environment_that_are_none_are_not_used(caplog: pytest.LogCaptureFixture) -> None:
    pipe = Pipe(Exporter(), {"OTEL_BSP_MAX_QUEUE_SIZE": "many"}, "test")
    pipe.close(3.0)
    assert "OTEL_BSP_MAX_QUEUE_SIZE is not a number" in caplog.text


def test_of_the_sdks_complaints_one_is_logged_and_the_others_are_counted(caplog: pytest.LogCaptureFixture) -> None:
    now_s = [0.0]
    complaints = Complaints(60.0, lambda: now_s[0])
    for at_s in (0.0, 1.0, 59.0, 60.0):
        now_s[0] = at_s
        complaints.handle(logging.LogRecord("x", logging.ERROR, "", 0, "it failed: %s", ("why",), None))
    assert [record.getMessage() for record in caplog.records] == [
        "exporting traces: it failed: why",
        "exporting traces: it failed: why (2 more lines like this since the last one)",
    ]


class Kept:
    """An outlet that keeps its trees."""

    def __init__(self) -> None:
        self.trees: list[Tree] = []
        self.counts: Mapping[str, int] = {"exported": 0, "dropped_queue": 0, "failed": 0}
        self.queue_length = 0
        self.closed_s: float | None = None

    def write(self, tree: Tree) -> None:
        self.trees.append(tree)

    def close(self, limit_s: float) -> None:
        self.closed_s = limit_s


class Forgetful:
    """A History that remembers nothing."""

    def life(self, model: ModelId) -> Life | None:
        return None

    def waiter(self, request: RequestId) -> Waiter | None:
        return None


@pytest.fixture
def kept() -> Kept:
    return Kept()


@pytest.fixture
def tracing(kept: Kept) -> Tracing:
    settings = TelemetrySettings(endpoint="http://127.0.0.1:9")
    return Tracing(settings, {}, {}, Forgetful, open_outlet=lambda *_: kept)


def waiting(record: RequestRecord, request: int, at_s: float) -> None:
    record.request, record.entered_s, record.model, record.waiting = RequestId(request), at_s, A, 1


def granted(record: RequestRecord, at_s: float, url: str) -> None:
    record.granted_s, record.serving, record.base_url = at_s, A, url
    record.waited_s += at_s - (record.entered_s or 0.0)


def test_a_request_that_is_sent_twice_has_two_waits_and_two_tries(tracing: Tracing, kept: Kept) -> None:
    record = RequestRecord("r", "POST", "/v1/chat/completions", "/v1/chat/completions", 0.0, asked="a")
    headers = []
    for number, url in enumerate(("http://127.0.0.1:1", "http://127.0.0.1:2")):
        waiting(record, number, 1.0 + 10 * number)
        tracing.waits(record)
        granted(record, 3.0 + 10 * number, url)
        headers += tracing.sends(record)
        record.sent_s, record.hop_ended_s = 3.5 + 10 * number, 4.0 + 10 * number
    record.status, record.upstream_status, record.outcome, record.ended_s = 200, 200, RequestOutcome.OK, 14.5
    tracing.ended(record)
    (tree,) = kept.trees
    root = tree.spans[0]
    assert [(it.name, it.began_s, it.ended_s, it.attributes.get("error.type")) for it in tree.spans[1:]] == [
        ("llmswap.queue", 1.0, 3.0, None),
        ("llmswap.queue", 11.0, 13.0, None),
        ("chat a", 3.5, 4.0, "connect"),
        ("chat a", 13.5, 14.0, None),
    ]
    assert [it.attributes["server.port"] for it in tree.spans[3:]] == [1, 2]
    assert {it.parent for it in tree.spans[1:]} == {root.span_id}
    assert [value[36:52] for _, value in headers] == [f"{it.span_id:016x}" for it in tree.spans[3:]]
    assert (record.trace_id, record.span_id) == (f"{tree.trace_id:032x}", f"{root.span_id:016x}")


def test_a_try_after_which_it_got_no_second_place_failed(tracing: Tracing, kept: Kept) -> None:
    record = RequestRecord("r", "POST", "/v1/chat/completions", "/v1/chat/completions", 0.0, asked="a")
    waiting(record, 1, 1.0)
    granted(record, 1.0, "http://127.0.0.1:1")
    tracing.sends(record)
    record.sent_s, record.hop_ended_s = 1.5, 2.0
    waiting(record, 2, 2.5)
    tracing.waits(record)
    record.refusal, record.status, record.ended_s = RejectReason.UNLOADED, 503, 9.0
    record.outcome = RequestOutcome.REFUSED
    tracing.ended(record)
    _, queue, client = kept.trees[0].spans
    assert (queue.attributes["llmswap.queue.outcome"], queue.ended_s) == ("rejected", 9.0)
    assert (client.error, client.attributes["error.type"]) == (True, "connect")


@pytest.mark.parametrize(
    ("fields", "error"),
    [
        ({"upstream_error": UpstreamError.TIMEOUT}, "timeout"),
        ({"upstream_status": 429}, "429"),
        ({"upstream_status": 200}, None),
    ],
)
def test_what_is_wrong_with_an_answer_is_told_on_the_try(
    tracing: Tracing, kept: Kept, fields: dict[str, Any], error: str | None
) -> None:
    record = RequestRecord("r", "POST", "/v1/rerank", "/v1/rerank", 0.0, asked="a", model=A)
    granted(record, 0.0, "https://host/base")
    tracing.sends(record)
    record.sent_s, record.hop_ended_s, record.ended_s = 0.0, 1.0, 1.0
    for name, value in fields.items():
        setattr(record, name, value)
    tracing.ended(record)
    client = kept.trees[0].spans[1]
    assert client.name == "POST /v1/rerank"
    assert client.attributes.get("error.type") == error
    assert client.attributes["server.port"] == 443
    assert "gen_ai.operation.name" not in client.attributes


def test_a_stream_without_its_end_is_an_error_unless_its_client_left(tracing: Tracing, kept: Kept) -> None:
    for outcome in (RequestOutcome.OK, RequestOutcome.CLIENT_DISCONNECT):
        record = RequestRecord("r", "POST", "/v1/chat/completions", "/", 0.0, model=A, stream=True)
        granted(record, 0.0, "http://h:1")
        tracing.sends(record)
        record.sent_s, record.hop_ended_s, record.ended_s, record.outcome = 0.0, 1.0, 1.0, outcome
        record.usage.done = False
        tracing.ended(record)
    assert [it.spans[1].attributes.get("error.type") for it in kept.trees] == ["bad_stream", None]


def test_a_swap_that_was_given_up_before_its_start_is_told_when_the_next_one_is_decided(
    tracing: Tracing, kept: Kept
) -> None:
    evict = Stop(B, Generation(1), StopCause.EVICT, evicted_for=A)
    tracing(Step(1.0, LoadRequested(A), [evict]))
    tracing(Step(2.0, UpstreamStopped(B, Generation(1)), []))
    tracing(Step(9.0, LoadRequested(A), [Start(A, Generation(2), StartCause.LOAD, decided_s=9.0)]))
    tracing(Step(10.0, UpstreamReady(A, Generation(2)), []))
    assert [(it.spans[0].began_s, it.spans[0].ended_s) for it in kept.trees] == [(1.0, 2.0), (9.0, 10.0)]
    assert [it.spans[0].attributes["llmswap.swap.outcome"] for it in kept.trees] == ["aborted", "ok"]


def test_who_was_up_and_only_had_another_in_its_way_has_its_swap_when_it_serves(tracing: Tracing, kept: Kept) -> None:
    asked = RequestId(1)
    tracing(Step(1.0, LoadRequested(A), [Start(A, Generation(1), StartCause.LOAD, decided_s=1.0)]))
    tracing(Step(2.0, UpstreamReady(A, Generation(1)), []))
    tracing(Step(3.0, RequestArrived(asked, A), [Stop(B, Generation(2), StopCause.EVICT, evicted_for=A)]))
    tracing(Step(4.0, UpstreamStopped(B, Generation(2)), [Dispatch(asked, A, Generation(1))]))
    root = kept.trees[-1].spans[0]
    assert (root.began_s, root.ended_s, root.attributes["llmswap.swap.outcome"]) == (3.0, 4.0, "ok")
    assert root.attributes["llmswap.swap.from_model"] == B


@pytest.mark.parametrize(
    ("reason", "timed_out", "outcome"),
    [
        ("exited with code 1 during start", False, "exit"),
        ("not ready after 120 s", True, "timeout"),
        ("was killed by SIGKILL during start", False, "oom"),
        ("port 1 is taken by somebody", False, "unhealthy"),
    ],
)
def test_a_failed_start_is_told_by_one_word_of_a_closed_set(
    tracing: Tracing, kept: Kept, reason: str, timed_out: bool, outcome: str
) -> None:
    tracing(Step(1.0, LoadRequested(A), [Start(A, Generation(1), StartCause.LOAD, decided_s=1.0)]))
    tracing(Step(2.0, StartFailed(A, Generation(1), reason, timed_out), []))
    root = kept.trees[0].spans[0]
    assert (root.attributes["llmswap.swap.outcome"], root.description) == (outcome, reason)
    assert tracing.swap_trace_id(A) == f"{kept.trees[0].trace_id:032x}"


def test_counts_go_on_when_a_reload_names_another_receiver(tracing: Tracing, kept: Kept) -> None:
    tracing(Step(1.0, LoadRequested(A), [Start(A, Generation(1), StartCause.LOAD, decided_s=1.0)]))
    kept.counts = {"exported": 5, "dropped_queue": 1, "failed": 2}
    tracing.configure(TelemetrySettings(), {})
    assert (tracing.on, kept.closed_s) == (False, 0.0)
    assert tracing.counts == {"exported": 5, "dropped_queue": 1, "failed": 2}
    assert (tracing.sends(RequestRecord("r", "GET", "/", "/", 0.0)), tracing.environ(A, Generation(1))) == ((), {})
