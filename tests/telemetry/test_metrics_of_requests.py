"""What metrics make of requests' records: answers, tokens, times, and who served them."""

import pytest

from llmswap.core.commands import Dispatch, Sleep, SleepCause, Start, StartCause, Stop, StopCause, Wake
from llmswap.core.events import (
    Generation,
    LoadRequested,
    RequestArrived,
    RequestFinished,
    RequestId,
    UpstreamAsleep,
    UpstreamReady,
    UpstreamStopped,
)
from llmswap.core.fleet import Model, ModelId
from llmswap.core.step import Step
from llmswap.runtime.observing import RequestOutcome, UpstreamError, Usage
from llmswap.telemetry.metrics import Metrics
from llmswap.telemetry.request_metrics import PREFILL_REQUESTS
from tests.telemetry.counted import CHAT, Counted, record

A, B = ModelId("a"), ModelId("b")
G1, G2 = Generation(1), Generation(2)


def up(counted: Counted, at_s: float = 0.0, generation: Generation = G1) -> None:
    counted.steps(
        Step(at_s, LoadRequested(A), [Start(A, generation, StartCause.LOAD, decided_s=at_s)]),
        Step(at_s, UpstreamReady(A, generation), []),
    )


@pytest.mark.parametrize("outcome", RequestOutcome)
def test_each_request_is_counted_once_by_its_route_code_and_outcome(outcome: RequestOutcome) -> None:
    counted = Counted(A)
    counted.metrics.ended(record(A, outcome=outcome, status=418, route="/v1/embeddings"))

    series = f'requests_total{{code="418",model="a",outcome="{outcome}",route="/v1/embeddings"}}'
    assert counted.get(series) == counted.total("requests_total") == 1
    assert counted.get(f'request_duration_seconds_sum{{model="a",outcome="{outcome}"}}') == 1.0


def test_the_first_request_of_a_route_brings_its_usual_failures_at_zero() -> None:
    counted = Counted(A)
    counted.metrics.ended(record(A, route="/v1/rerank"))
    assert counted.get('requests_total{code="502",model="a",outcome="upstream_error",route="/v1/rerank"}') == 0


def test_tokens_are_those_of_who_served_and_unknown_ones_are_not_zero() -> None:
    counted = Counted(A, B)
    usage = Usage(100, 20, 60, 5, 12, 9)
    counted.metrics.ended(record(A, serving=B, usage=usage))
    counted.metrics.ended(record(A, serving=B, usage=Usage()))
    samples = counted.samples()

    for kind, tokens in {
        "input": 100,
        "output": 20,
        "cached_input": 60,
        "reasoning": 5,
        "draft": 12,
        "draft_accepted": 9,
    }.items():
        assert samples[f'tokens_total{{model="b",residency="hit",start="warm",token_type="{kind}"}}'] == tokens
    assert counted.total("tokens_total", 'model="a"') == 0
    assert samples['requests_without_usage_total{model="b"}'] == 1
    assert counted.total("requests_total", 'model="a"') == 2


def test_estimates_are_marked_and_make_no_speed() -> None:
    counted = Counted(A)
    times = {"first_token_s": 10.2, "last_token_s": 11.0}
    counted.metrics.ended(record(A, usage=Usage(output_tokens=5, estimated=True, **times)))
    samples = counted.samples()
    assert samples['estimated_tokens_total{model="a"}'] == 5
    assert samples['requests_without_usage_total{model="a"}'] == 1
    assert samples['time_per_output_token_seconds_count{model="a"}'] == 0

    counted.metrics.ended(record(A, usage=Usage(output_tokens=5, **times)))
    assert counted.get('time_per_output_token_seconds_sum{model="a"}') == pytest.approx(0.2)


def test_answers_without_tokens_by_nature_are_not_said_to_lack_them() -> None:
    counted = Counted(A)
    counted.metrics.ended(record(A, route="/v1/audio/speech", usage=Usage()))
    counted.metrics.ended(record(A, outcome=RequestOutcome.UPSTREAM_ERROR, usage=Usage()))
    assert counted.get('requests_without_usage_total{model="a"}') == 0


def test_first_tokens_are_told_apart_by_how_the_model_came_up_for_them() -> None:
    counted = Counted(Model(A, sleeps=True))
    up(counted)
    counted.steps(
        Step(20.0, UpstreamReady(A, G1), []),
        Step(20.0, LoadRequested(B), [Stop(A, G1, StopCause.UNLOAD)]),
        Step(21.0, UpstreamStopped(A, G1), []),
    )
    up(counted, 30.0, G2)
    for began_s, swap_s in ((30.5, None), (29.5, 0.5)):
        usage = Usage(10, 5, first_token_s=began_s + 0.25)
        counted.metrics.ended(record(A, began_s, granted_s=31.0, sent_s=31.0, swap_s=swap_s, usage=usage))

    samples = counted.samples()
    assert samples['time_to_first_token_seconds_sum{model="a",residency="hit",start="warm"}'] == 0.25
    assert samples['time_to_first_token_seconds_sum{model="a",residency="miss",start="cold"}'] == 0.25
    assert samples['tokens_total{model="a",residency="miss",start="cold",token_type="output"}'] == 5


def test_an_answer_belongs_to_the_residency_that_it_was_granted_in() -> None:
    counted = Counted(Model(A, sleeps=True))
    up(counted)
    counted.steps(
        Step(5.0, LoadRequested(B), [Stop(A, G1, StopCause.EVICT, evicted_for=B)]),
        Step(6.0, UpstreamStopped(A, G1), []),
    )
    up(counted, 8.0, G2)
    counted.steps(
        Step(10.0, LoadRequested(B), [Sleep(A, G2, SleepCause.IDLE)]),
        Step(11.0, UpstreamAsleep(A, G2), []),
        Step(12.0, RequestArrived(RequestId(1), A), [Wake(A, G2, StartCause.REQUEST, decided_s=12.0)]),
        Step(13.0, UpstreamReady(A, G2), [Dispatch(RequestId(1), A, G2, 1.0)]),
        Step(14.0, RequestFinished(RequestId(1)), []),
    )
    usage = Usage(100, 1, 30)
    counted.metrics.ended(record(A, 12.0, granted_s=13.0, swap_s=1.0, usage=usage))
    counted.metrics.ended(record(A, 9.0, granted_s=9.0, usage=usage))
    samples = counted.samples()
    assert samples['prefill_after_swap_tokens_total{model="a",start="wake1"}'] == 70
    assert samples['prefill_after_swap_tokens_total{model="a",start="cold"}'] == 70
    assert samples['tokens_total{model="a",residency="miss",start="wake1",token_type="input"}'] == 100


def test_only_the_first_answers_of_a_residency_pay_for_the_swap() -> None:
    counted = Counted(A)
    up(counted)
    counted.metrics.ended(record(A, usage=Usage(100, 1)))
    for _ in range(PREFILL_REQUESTS + 5):
        counted.metrics.ended(record(A, usage=Usage(100, 1, 40)))
    samples = counted.samples()
    assert samples['prefill_after_swap_requests_total{cached="unknown",model="a",start="cold"}'] == 1
    assert samples['prefill_after_swap_requests_total{cached="known",model="a",start="cold"}'] == PREFILL_REQUESTS - 1
    assert samples['prefill_after_swap_tokens_total{model="a",start="cold"}'] == 60 * (PREFILL_REQUESTS - 1)


def test_what_the_proxy_takes_itself_is_what_was_neither_waiting_nor_upstream() -> None:
    counted = Counted(A)
    made = record(A, granted_s=13.0, sent_s=13.5, hop_ended_s=15.0, ended_s=15.5, waited_s=3.0)
    made.upstream_error = UpstreamError.RESET
    counted.metrics.ended(made)
    samples = counted.samples()
    assert samples["proxy_overhead_seconds_sum"] == 0.5
    assert samples['upstream_request_duration_seconds_sum{model="a",outcome="ok"}'] == 1.5
    assert samples['upstream_errors_total{error_type="reset",model="a"}'] == 1


def test_rates_are_of_the_last_ten_seconds() -> None:
    counted = Counted(A)
    counted.now_s = 100.0
    for _ in range(5):
        counted.metrics.ended(record(A, usage=Usage(40, 10)))
    counted.now_s = 105.0
    counted.metrics.ended(record(A, usage=Usage(40, 10)))
    assert counted.get('tokens_per_second{model="a",token_type="output"}') == 6.0
    counted.now_s = 112.0
    assert counted.get('tokens_per_second{model="a",token_type="output"}') == 1.0
    counted.now_s = 130.0
    assert counted.get('tokens_per_second{model="a",token_type="input"}') == 0.0


async def test_exemplars_stand_at_the_bucket_of_their_observation() -> None:
    counted = Counted(A)
    counted.metrics.ended(record(A, trace_id="1" * 32, usage=Usage(1, 1, first_token_s=10.6)))
    body, _ = await counted.metrics.render("application/openmetrics-text")
    lines = [line for line in body.decode().splitlines() if "trace_id" in line]

    first = [line for line in lines if line.startswith("llmswap_time_to_first_token_seconds_bucket")]
    assert len(first) == 1
    assert 'le="0.75"}' in first[0]
    assert f'# {{trace_id="{"1" * 32}"}} 0.5999' in first[0] or '"} 0.6 ' in first[0]
    assert any(
        line.startswith(f'llmswap_requests_total{{code="200",model="a",outcome="ok",route="{CHAT}"}} 1.0 # {{')
        for line in lines
    )


def test_a_record_that_cannot_be_counted_is_counted_as_such(caplog: pytest.LogCaptureFixture) -> None:
    counted = Counted(A)
    counted.metrics.ended(record(A, usage=None))
    counted.metrics.ended(record(A))
    assert counted.get("metrics_errors_total") == 1
    assert counted.total("tokens_total") == 120
    assert len(caplog.records) == 1


def test_it_sends_nothing_of_its_own() -> None:
    metrics: Metrics = Counted(A).metrics
    assert tuple(metrics.sends(record(A))) == ()
