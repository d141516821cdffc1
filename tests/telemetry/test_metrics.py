"""Metrics are a fold over Steps, with gauges read at scrape time."""

import re

from llmswap.core.commands import Dispatch, Reject, RejectReason, Start, StartCause, Stop, StopCause
from llmswap.core.events import (
    Generation,
    LoadRequested,
    RequestArrived,
    RequestCancelled,
    RequestFinished,
    RequestId,
    StartFailed,
    UpstreamExited,
    UpstreamReady,
    UpstreamStopped,
)
from llmswap.core.fleet import Fleet, Model, ModelId
from llmswap.core.snapshot import Snapshot, UpstreamView
from llmswap.core.states import State
from llmswap.core.step import Step
from llmswap.telemetry.metrics import Metrics

A, B = ModelId("a"), ModelId("b")
G1 = Generation(1)


def fleet(*models: ModelId) -> Fleet:
    return Fleet(models={model: Model(model) for model in models}, names={model: model for model in models})


def quiet() -> Snapshot:
    return Snapshot(upstreams={}, swaps=(), draining=False)


def sample(metrics: Metrics, series: str) -> float | None:
    text = metrics.render()[0].decode()
    found = re.search(rf"^{re.escape(series)} (\S+)$", text, re.MULTILINE)
    return float(found[1]) if found else None


def request(number: int) -> RequestId:
    return RequestId(number)


def test_every_configured_model_has_its_children_at_zero_from_the_start() -> None:
    metrics = Metrics(fleet(A), quiet)

    assert sample(metrics, 'llmswap_swaps_total{kind="cold",outcome="ok",to_model="a"}') == 0
    assert sample(metrics, 'llmswap_rejections_total{model="a",reason="over_limit"}') == 0
    assert sample(metrics, 'llmswap_model_exits_total{model="a",reason="crash"}') == 0


def test_a_swap_is_counted_with_its_pair_and_its_duration() -> None:
    metrics = Metrics(fleet(A, B), quiet)

    metrics(Step(1.0, RequestArrived(request(1), B), [Stop(A, G1, StopCause.EVICT, evicted_for=B)]))
    metrics(Step(3.0, UpstreamStopped(A, G1), [Start(B, G1, StartCause.REQUEST, (A,))]))
    metrics(Step(7.0, UpstreamReady(B, G1), [Dispatch(request(1), B, G1)]))

    assert sample(metrics, 'llmswap_swap_transitions_total{from_model="a",to_model="b"}') == 1
    assert sample(metrics, 'llmswap_swaps_total{kind="cold",outcome="ok",to_model="b"}') == 1
    assert sample(metrics, 'llmswap_swap_duration_seconds_sum{kind="cold",to_model="b"}') == 4.0
    assert sample(metrics, 'llmswap_model_exits_total{model="a",reason="requested"}') == 1
    assert sample(metrics, 'llmswap_queue_wait_seconds_sum{model="b",outcome="admitted"}') == 6.0


def test_refused_and_abandoned_requests_are_told_apart() -> None:
    metrics = Metrics(fleet(A), quiet)

    refusal = Reject(request(1), RejectReason.OVER_LIMIT, "full")
    metrics(Step(0.0, RequestArrived(request(1), A), [refusal]))
    metrics(Step(0.0, RequestArrived(request(2), A), []))
    metrics(Step(2.5, RequestCancelled(request(2)), []))

    assert sample(metrics, 'llmswap_rejections_total{model="a",reason="over_limit"}') == 1
    assert sample(metrics, 'llmswap_queue_wait_seconds_sum{model="a",outcome="disconnect"}') == 2.5


def test_a_crash_and_a_failed_start_are_each_counted_once() -> None:
    metrics = Metrics(fleet(A), quiet)

    metrics(Step(0.0, LoadRequested(A), [Start(A, G1, StartCause.LOAD)]))
    metrics(Step(1.0, UpstreamReady(A, G1), []))
    metrics(Step(2.0, UpstreamExited(A, G1, "killed by signal 9"), []))
    metrics(Step(3.0, UpstreamStopped(A, G1), [Start(A, Generation(2), StartCause.REQUEST)]))
    metrics(Step(4.0, StartFailed(A, Generation(2), "exited with code 1"), []))

    assert sample(metrics, 'llmswap_model_exits_total{model="a",reason="crash"}') == 1
    assert sample(metrics, 'llmswap_model_exits_total{model="a",reason="requested"}') == 0
    assert sample(metrics, 'llmswap_model_exits_total{model="a",reason="start_failed"}') == 1
    assert sample(metrics, 'llmswap_swaps_total{kind="cold",outcome="failed",to_model="a"}') == 1


def test_a_model_removed_by_a_reload_disappears_and_late_events_of_it_bring_nothing_back() -> None:
    metrics = Metrics(fleet(A, B), quiet)
    metrics(Step(0.0, RequestArrived(request(1), A), [Stop(B, G1, StopCause.EVICT, evicted_for=A)]))

    metrics.configured(fleet(B))
    metrics(Step(1.0, UpstreamReady(A, G1), [Dispatch(request(1), A, G1)]))
    metrics(Step(2.0, UpstreamExited(A, G1, "gone"), []))
    metrics(Step(2.0, RequestFinished(request(1)), []))

    text = metrics.render()[0].decode()
    assert '"a"' not in text
    assert 'to_model="b"' in text
    assert sample(metrics, "llmswap_config_models") == 1


def test_a_refused_reload_shows_until_the_next_good_one() -> None:
    metrics = Metrics(fleet(A), quiet)
    metrics.config_rejected()
    assert sample(metrics, "llmswap_config_last_reload_successful") == 0

    metrics.configured(fleet(A))
    assert sample(metrics, "llmswap_config_last_reload_successful") == 1


def test_gauges_come_from_the_snapshot_at_scrape_time() -> None:
    view = UpstreamView(A, State.READY, G1, in_flight=2, waiting=3, since_s=0.0)
    metrics = Metrics(fleet(A), lambda: Snapshot(upstreams={A: view}, swaps=(), draining=False))

    assert sample(metrics, 'llmswap_queue_depth{model="a"}') == 3
    assert sample(metrics, 'llmswap_requests_in_flight{model="a"}') == 2
    assert sample(metrics, 'llmswap_model_state{model="a",state="ready"}') == 1
    assert sample(metrics, 'llmswap_model_state{model="a",state="stopped"}') == 0


def test_openmetrics_is_given_to_who_asks_for_it() -> None:
    body, content_type = Metrics(fleet(A), quiet).render("application/openmetrics-text; version=1.0.0")

    assert content_type.startswith("application/openmetrics-text")
    assert body.endswith(b"# EOF\n")


def test_names_with_quotes_backslashes_and_newlines_are_escaped() -> None:
    odd = ModelId('a"b\\c\nd')

    text = Metrics(fleet(odd), quiet).render()[0].decode()

    assert 'to_model="a\\"b\\\\c\\nd"' in text
