"""Metrics as a whole: children at 0, reloads, the exposition, and what goes wrong inside."""

import asyncio
import logging
import re
import string
import threading
from random import Random

import pytest
from prometheus_client.openmetrics.parser import text_string_to_metric_families as read_openmetrics
from prometheus_client.parser import text_string_to_metric_families as read_text

from llmswap.core.commands import Dispatch, RejectReason, Start, StartCause, Stop, StopCause
from llmswap.core.events import (
    FleetReloaded,
    Generation,
    RequestArrived,
    RequestFinished,
    RequestId,
    UpstreamExited,
    UpstreamReady,
)
from llmswap.core.fleet import Model, ModelId
from llmswap.core.snapshot import UpstreamView
from llmswap.core.states import State
from llmswap.core.step import Step
from llmswap.runtime.observing import RequestOutcome
from llmswap.telemetry import exposition, metrics, names
from llmswap.telemetry.metrics import CACHE_MAX_S, Sources
from llmswap.telemetry.proxy_metrics import Losses
from tests.telemetry.counted import Counted, fleet_of, loaded, record

A, B = ModelId("a"), ModelId("b")
G1 = Generation(1)


def test_every_configured_model_has_its_children_at_zero_from_the_start() -> None:
    samples = Counted(A, Model(B, sleeps=True)).samples()

    for outcome in names.SWAP_OUTCOMES:
        for kind in names.SWAP_KINDS:
            assert samples[f'swaps_total{{kind="{kind}",outcome="{outcome}",to_model="a"}}'] == 0
    for reason in RejectReason:
        assert samples[f'rejections_total{{model="a",reason="{reason}"}}'] == 0
    for reason in names.EXIT_REASONS:
        assert samples[f'model_exits_total{{model="a",reason="{reason}"}}'] == 0
    for outcome in RequestOutcome:
        own = [series for series in samples if series.startswith("requests_total") and f'outcome="{outcome}"' in series]
        assert len(own) == 2, outcome
    assert samples['swap_transitions_total{from_model="a",to_model="b"}'] == 0
    assert 'time_to_first_token_seconds_count{model="b",residency="miss",start="wake1"}' in samples
    assert 'time_to_first_token_seconds_count{model="a",residency="miss",start="wake1"}' not in samples
    assert samples['tokens_total{model="a",residency="hit",start="warm",token_type="output"}'] == 0


def test_a_model_removed_by_a_reload_disappears_and_late_events_of_it_bring_nothing_back() -> None:
    counted = Counted(A, B)
    counted.steps(
        Step(0.0, RequestArrived(RequestId(1), A), [Start(A, G1, StartCause.REQUEST, decided_s=0.0)]),
        Step(1.0, UpstreamReady(A, G1), [Dispatch(RequestId(1), A, G1, 1.0)]),
    )
    counted.metrics.ended(record(A))

    counted.metrics.configured(loaded(B))
    counted.steps(
        Step(2.0, FleetReloaded(fleet_of(B)), []),
        Step(3.0, UpstreamExited(A, G1, "gone"), []),
        Step(3.0, RequestFinished(RequestId(1)), []),
    )
    counted.views = {A: UpstreamView(A, State.STOPPING, G1, 0, 0, 3.0)}
    counted.metrics.ended(record(A))

    samples = counted.samples()
    assert [series for series in samples if '"a"' in series] == []
    assert samples["config_models"] == 1
    assert counted.total("requests_total", 'model="_unknown"') == 1


def test_counters_go_on_through_a_reload_and_a_model_that_comes_back_begins_at_zero() -> None:
    counted = Counted(A, B)
    for model in (A, B):
        counted.metrics.ended(record(model))
    counted.metrics.configured(loaded(A))
    counted.metrics.ended(record(A))
    counted.metrics.configured(loaded(A, B))

    assert counted.total("requests_total", 'model="a"') == 2
    assert counted.total("requests_total", 'model="b"') == 0


def test_a_refused_reload_shows_until_the_next_good_one() -> None:
    counted = Counted(A)
    counted.metrics.config_rejected()
    assert counted.get("config_last_reload_successful") == 0

    counted.metrics.configured(loaded(A))
    assert counted.get("config_last_reload_successful") == 1


def test_random_names_and_long_labels_move_no_series() -> None:
    counted = Counted(A)
    rng = Random(5)
    for outcome in (RequestOutcome.CLIENT_ERROR, RequestOutcome.OK):
        counted.metrics.ended(record(None, outcome=outcome, status=404, serving=None))
    before = counted.samples().keys()

    letters = string.ascii_letters + '"\\\n'
    for number in range(100_000):
        name = ModelId("".join(rng.choices(letters, k=8)) if number % 1000 else "x" * 10_000)
        stranger = record(None, asked=name, status=404, outcome=RequestOutcome.CLIENT_ERROR, serving=None)
        stranger.remote = stranger.path = stranger.caller = name
        stranger.caller_class = "_other"
        counted.metrics.ended(stranger)

    after = counted.samples()
    assert after.keys() == before
    assert after["unknown_model_requests_total"] == 100_002
    assert max(len(series) for series in after) < 300


def test_codes_that_no_standard_knows_are_one() -> None:
    counted = Counted(A)
    counted.metrics.ended(record(A))
    for status in range(100, 1000):
        counted.metrics.ended(record(A, status=status, outcome=RequestOutcome.OK))

    codes = {re.search('code="([^"]*)"', s)[1] for s in counted.samples() if s.startswith("requests_total")}  # type: ignore[index]
    assert len(codes) < 70
    assert counted.total("requests_total", f'code="{names.OTHER_CODE}"') > 800
    assert counted.total("requests_total") == 901


async def test_openmetrics_is_given_to_who_asks_for_it_and_both_forms_can_be_read() -> None:
    counted = Counted(A, B)
    counted.metrics.ended(record(A, trace_id="ab" * 16))
    text, text_type = await counted.metrics.render()
    openmetrics, openmetrics_type = await counted.metrics.render("application/openmetrics-text;version=1.0.0,*/*;q=0.1")

    assert text_type.startswith("text/plain; version=0.0.4")
    assert openmetrics_type.startswith("application/openmetrics-text; version=1.0.0")
    assert openmetrics.endswith(b"# EOF\n")
    plain = {family.name for family in read_text(text.decode())}
    families = list(read_openmetrics(openmetrics.decode()))
    assert {family.name for family in families} == plain
    assert "process_cpu_seconds" in plain
    exemplars = [sample.exemplar for family in families for sample in family.samples if sample.exemplar]
    assert {exemplar.labels["trace_id"] for exemplar in exemplars} == {"ab" * 16}
    assert b"ab" * 16 not in text


async def test_without_a_trace_there_is_no_exemplar() -> None:
    counted = Counted(A)
    counted.metrics.ended(record(A))
    body, _ = await counted.metrics.render("application/openmetrics-text")
    assert b" # {" not in body


async def test_names_with_quotes_backslashes_and_newlines_are_escaped() -> None:
    odd = ModelId('a"b\\c\nd')
    body, _ = await Counted(odd).metrics.render()
    models = {s.labels.get("model") for family in read_text(body.decode()) for s in family.samples}
    assert odd in models


async def test_scrapes_at_the_same_time_share_one_exposition_and_a_soon_one_gets_it_again() -> None:
    looked = []
    counted = Counted(A, sources=Sources(hardware=lambda: looked.append(threading.get_ident()) or ()))
    bodies = await asyncio.gather(*(counted.metrics.render() for _ in range(20)))

    assert looked == [threading.get_ident()], "numbers are frozen once, and on the event loop"
    assert len({id(body) for body, _ in bodies}) == 1
    for written in counted.metrics._written.values():
        assert written.until_s - asyncio.get_running_loop().time() <= CACHE_MAX_S


async def test_while_a_scrape_is_written_others_have_their_turn_and_its_numbers_stay_those_of_one_moment(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    models = [Model(ModelId(f"model-{number}"), sleeps=True) for number in range(20)]
    frozen: list[bool] = []
    counted = Counted(*models, sources=Sources(hardware=lambda: frozen.append(True) or ()))
    for model in models:
        for outcome in RequestOutcome:
            counted.metrics.ended(record(model.id, outcome=outcome, trace_id="1" * 32))
    monkeypatch.setattr(metrics, "SLICE_S", 0.0)
    before = exposition.write(counted.metrics.freeze(), openmetrics=False)
    frozen.clear()
    rendering = asyncio.ensure_future(counted.metrics.render())
    turns = 0
    while not rendering.done():
        if frozen:
            counted.metrics.ended(record(models[turns % 20].id))
            turns += 1
        await asyncio.sleep(0)
    text = (await rendering)[0].decode()
    assert turns > len(names.EVERY)
    assert len(text.splitlines()) < 20_000, "the limit of samples in docs/prometheus.md"

    def requests(text: str) -> list[str]:
        return [line for line in text.splitlines() if line.startswith("llmswap_request")]

    assert len(requests(before)) > 1000
    assert requests(text) == requests(before)


async def test_what_was_written_before_is_not_given_for_what_was_counted_since() -> None:
    counted = Counted(A)
    series = 'request_duration_seconds_count{model="a",outcome="ok"}'
    for count in (1, 2, 2, 3):
        if counted.get(series) != count:
            counted.metrics.ended(record(A))
        assert counted.get(series) == count


def test_what_did_not_get_where_it_should_is_shown() -> None:
    spans = {"exported": 5, "failed": 2}
    losses = Losses(lambda: spans, lambda: 7, journal=lambda: 11, stdout=lambda: 13, readers=lambda: 17)
    samples = Counted(A, sources=Sources(losses=losses)).samples()
    assert samples['trace_spans_total{result="failed"}'] == 2
    assert samples['trace_spans_total{result="dropped_queue"}'] == 0
    assert samples["trace_queue_length"] == 7
    assert samples["journal_dropped_lines_total"] == 11
    assert samples["stdout_dropped_bytes_total"] == 13
    assert samples["log_readers_dropped_bytes_total"] == 17


async def test_a_scrape_that_is_given_up_takes_it_from_nobody() -> None:
    counted = Counted(A)
    first = asyncio.create_task(counted.metrics.render())
    second = asyncio.create_task(counted.metrics.render())
    await asyncio.sleep(0)
    first.cancel()

    body, _ = await second
    assert b"llmswap_config_models 1.0" in body


def test_a_step_that_cannot_be_understood_is_logged_and_counted_and_ends_nothing(
    caplog: pytest.LogCaptureFixture,
) -> None:
    counted = Counted(A)
    counted.views = {A: UpstreamView(A, State.READY, G1, 1, 0, 0.0)}
    stranger = ModelId("never-seen")
    with caplog.at_level(logging.ERROR, "llmswap.telemetry.metrics"):
        for _ in range(3):
            counted.steps(Step(1.0, RequestArrived(RequestId(9), stranger), [Dispatch(RequestId(9), stranger, G1)]))
    assert len(caplog.records) == 1
    assert caplog.records[0].exc_info

    counted.steps(
        Step(5.0, RequestArrived(RequestId(10), A), [Dispatch(RequestId(10), A, G1)]),
        Step(6.0, UpstreamExited(A, G1, "exited with code 1"), []),
        Step(6.0, RequestArrived(RequestId(11), A), [Stop(A, G1, StopCause.UNLOAD)]),
    )
    samples = counted.samples()
    assert samples["metrics_errors_total"] == 3
    assert samples['queue_wait_seconds_count{model="a",outcome="admitted"}'] == 1
    assert samples['model_exits_total{model="a",reason="crash"}'] == 1
    assert samples['model_state_seconds_total{model="a",state="ready"}'] == 5.0
