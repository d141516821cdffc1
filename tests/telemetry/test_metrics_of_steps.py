"""What metrics make of Steps: waits and their causes, swaps, residencies, states, GPU time."""

import time

import pytest

from llmswap.core.commands import (
    Dispatch,
    Reject,
    RejectReason,
    Sleep,
    SleepCause,
    Start,
    StartCause,
    Stop,
    StopCause,
    Wake,
)
from llmswap.core.events import (
    DeadlineReached,
    Generation,
    LoadRequested,
    RequestArrived,
    RequestCancelled,
    RequestFinished,
    RequestId,
    StartFailed,
    StopFailed,
    UpstreamAsleep,
    UpstreamExited,
    UpstreamReady,
    UpstreamStopped,
    WakeFailed,
)
from llmswap.core.fleet import Model, ModelId
from llmswap.core.snapshot import SwapView, UpstreamView
from llmswap.core.states import State
from llmswap.core.step import Step
from llmswap.runtime.footprints import Seen
from llmswap.runtime.gpu import Gpu
from llmswap.runtime.observing import Phase, PhaseKind
from llmswap.telemetry.metrics import Sources
from tests.telemetry.counted import Counted, record

A, B = ModelId("a"), ModelId("b")
G1, G2, G3 = Generation(1), Generation(2), Generation(3)
BY_REQUEST = StartCause.REQUEST


def request(number: int) -> RequestId:
    return RequestId(number)


def up(counted: Counted, model: ModelId, generation: Generation = G1, at_s: float = 0.0) -> None:
    """Bring a model up for nobody, in no time."""
    counted.steps(
        Step(at_s, LoadRequested(model), [Start(model, generation, StartCause.LOAD, decided_s=at_s)]),
        Step(at_s, UpstreamReady(model, generation), []),
    )


def swap_from_a_to_b(counted: Counted) -> None:
    """Let a be busy until 5, b be wanted at 2 and 7; decided at 6, started at 8, up at 12."""
    up(counted, A)
    counted.steps(
        Step(1.0, RequestArrived(request(1), A), [Dispatch(request(1), A, G1)]),
        Step(2.0, RequestArrived(request(2), B), []),
        Step(5.0, RequestFinished(request(1)), []),
        Step(6.0, DeadlineReached(), [Stop(A, G1, StopCause.EVICT, evicted_for=B)]),
        Step(7.0, RequestArrived(request(3), B), []),
        Step(8.0, UpstreamStopped(A, G1), [Start(B, G2, BY_REQUEST, (A,), "me", 6.0)]),
        Step(12.0, UpstreamReady(B, G2), [Dispatch(request(2), B, G2, 6.0), Dispatch(request(3), B, G2, 5.0)]),
    )


def test_a_swap_is_counted_from_its_decision_with_its_pair_its_waiters_and_its_cause() -> None:
    counted = Counted(A, B)
    swap_from_a_to_b(counted)
    samples = counted.samples()

    assert samples['swap_transitions_total{from_model="a",to_model="b"}'] == 1
    assert samples['swap_transitions_total{from_model="_none",to_model="a"}'] == 1
    assert samples['swaps_total{kind="cold",outcome="ok",to_model="b"}'] == 1
    assert samples['swap_duration_seconds_sum{kind="cold",to_model="b"}'] == 6.0
    assert samples['swap_joined_requests_sum{to_model="b"}'] == 2
    assert samples['swap_triggers_total{reason="request"}'] == samples['swap_triggers_total{reason="preload"}'] == 1
    assert samples['swap_phase_duration_seconds_sum{kind="cold",phase="drain"}'] == 3.0
    assert samples['model_exits_total{model="a",reason="requested"}'] == 1
    assert samples['model_load_estimate_seconds{kind="cold",model="b"}'] == 4.0
    assert samples['scheduler_decisions_total{decision="hold_policy"}'] == 1


def test_a_wait_is_spent_on_the_drain_the_hold_and_the_swap_that_it_saw() -> None:
    counted = Counted(A, B)
    swap_from_a_to_b(counted)
    samples = counted.samples()

    causes = {c: samples[f'request_wait_seconds_total{{cause="{c}",model="b"}}'] for c in ("drain", "policy", "swap")}
    assert causes == {"drain": 3.0, "policy": 1.0, "swap": 6.0 + 5.0}
    assert samples['queue_wait_seconds_sum{model="b",outcome="admitted"}'] == 15.0


def test_a_wait_at_the_concurrency_limit_is_told_from_one_for_anothers_turn() -> None:
    counted = Counted(Model(A, concurrency_limit=1))
    up(counted, A)
    counted.steps(
        Step(1.0, RequestArrived(request(1), A), [Dispatch(request(1), A, G1)]),
        Step(2.0, RequestArrived(request(2), A), []),
        Step(5.0, RequestFinished(request(1)), []),
        Step(9.0, DeadlineReached(), [Dispatch(request(2), A, G1)]),
    )
    samples = counted.samples()
    assert samples['request_wait_seconds_total{cause="concurrency",model="a"}'] == 3.0
    assert samples['request_wait_seconds_total{cause="policy",model="a"}'] == 4.0


def test_who_gives_up_before_anything_is_decided_waited_for_who_was_in_the_way() -> None:
    counted = Counted(A, B)
    up(counted, A)
    counted.steps(
        Step(1.0, RequestArrived(request(1), A), [Dispatch(request(1), A, G1)]),
        Step(2.0, RequestArrived(request(2), B), []),
        Step(5.5, RequestCancelled(request(2)), []),
    )
    assert counted.get('request_wait_seconds_total{cause="drain",model="b"}') == 3.5
    assert counted.get('queue_wait_seconds_sum{model="b",outcome="disconnect"}') == 3.5


def test_refusals_and_timeouts_are_told_apart() -> None:
    counted = Counted(A)
    counted.steps(
        Step(0.0, RequestArrived(request(1), A), [Reject(request(1), RejectReason.OVER_LIMIT, "full")]),
        Step(0.0, RequestArrived(request(2), A), []),
        Step(3.0, DeadlineReached(), [Reject(request(2), RejectReason.QUEUE_TIMEOUT, "late")]),
    )
    samples = counted.samples()
    assert samples['rejections_total{model="a",reason="over_limit"}'] == 1
    assert samples['queue_wait_seconds_count{model="a",outcome="rejected"}'] == 1
    assert samples['queue_wait_seconds_sum{model="a",outcome="timeout"}'] == 3.0
    assert samples['scheduler_decisions_total{decision="reject"}'] == 2


@pytest.mark.parametrize(
    ("failure", "outcome"),
    [
        (StartFailed(A, G1, "exited with code 1 during start"), "exit"),
        (StartFailed(A, G1, "not ready after 5 s", timed_out=True), "timeout"),
        (StartFailed(A, G1, "port 1 is taken by somebody"), "unhealthy"),
    ],
)
def test_a_start_that_fails_is_one_swap_and_one_end(failure: StartFailed, outcome: str) -> None:
    counted = Counted(A)
    counted.steps(
        Step(0.0, RequestArrived(request(1), A), [Start(A, G1, BY_REQUEST, decided_s=0.0)]),
        Step(4.0, failure, [Reject(request(1), RejectReason.UPSTREAM_FAILED, "no")]),
    )
    samples = counted.samples()
    assert samples[f'swaps_total{{kind="cold",outcome="{outcome}",to_model="a"}}'] == 1
    assert counted.total("swaps_total") == 1
    assert samples['model_exits_total{model="a",reason="start_failed"}'] == counted.total("model_exits_total") == 1
    assert samples['request_wait_seconds_total{cause="swap",model="a"}'] == 4.0


def test_a_start_that_failed_and_holds_on_to_its_memory_ended_once() -> None:
    counted = Counted(A)
    counted.steps(
        Step(0.0, LoadRequested(A), [Start(A, G1, StartCause.LOAD)]),
        Step(4.0, StopFailed(A, G1, "its device memory is not free"), []),
        Step(9.0, UpstreamStopped(A, G1), []),
    )
    assert counted.get('model_exits_total{model="a",reason="start_failed"}') == counted.total("model_exits_total") == 1
    assert counted.get('model_state_seconds_total{model="a",state="stopping"}') == 5.0


@pytest.mark.parametrize(
    ("reason", "kind"),
    [
        ("exited with code 1", "crash"),
        ("was killed by SIGKILL", "oom_killed"),
        ("was killed by SIGSEGV: segfault", "crash"),
        ("it woke without being asked: /is_sleeping says so", "health"),
    ],
)
def test_an_end_by_itself_is_counted_once_by_what_it_looks_like(reason: str, kind: str) -> None:
    counted = Counted(A)
    up(counted, A)
    counted.steps(Step(2.0, UpstreamExited(A, G1, reason), []), Step(3.0, UpstreamStopped(A, G1), []))
    assert counted.get(f'model_exits_total{{model="a",reason="{kind}"}}') == counted.total("model_exits_total") == 1


def test_an_aborted_start_is_a_swap_that_was_aborted() -> None:
    counted = Counted(A)
    counted.steps(
        Step(0.0, LoadRequested(A), [Start(A, G1, StartCause.LOAD)]),
        Step(1.0, DeadlineReached(), [Stop(A, G1, StopCause.UNLOAD)]),
        Step(2.0, DeadlineReached(), [Stop(A, G1, StopCause.UNLOAD, force=True)]),
        Step(3.0, UpstreamStopped(A, G1), []),
    )
    assert counted.get('swaps_total{kind="cold",outcome="aborted",to_model="a"}') == counted.total("swaps_total") == 1
    assert counted.get('model_state_seconds_total{model="a",state="stopping"}') == 2.0


def asleep(counted: Counted) -> None:
    up(counted, A)
    counted.steps(
        Step(10.0, DeadlineReached(), [Sleep(A, G1, SleepCause.EVICT, evicted_for=B)]),
        Step(11.0, UpstreamAsleep(A, G1), []),
    )


def test_a_wake_that_fails_and_the_cold_start_after_it_are_two_swaps_and_one_wait() -> None:
    counted = Counted(Model(A, sleeps=True), B)
    asleep(counted)
    counted.steps(
        Step(20.0, RequestArrived(request(1), A), [Wake(A, G1, BY_REQUEST, decided_s=20.0)]),
        Step(23.0, WakeFailed(A, G1, "wake step 1 answered 500"), [Stop(A, G1, StopCause.WAKE_FAILED)]),
        Step(24.0, UpstreamStopped(A, G1), [Start(A, G2, BY_REQUEST, decided_s=24.0)]),
        Step(30.0, UpstreamReady(A, G2), [Dispatch(request(1), A, G2, 6.0)]),
    )
    samples = counted.samples()
    assert samples['swaps_total{kind="wake1",outcome="unhealthy",to_model="a"}'] == 1
    assert samples['swaps_total{kind="cold",outcome="ok",to_model="a"}'] == 2
    assert counted.total("swaps_total") == 3
    assert samples['request_wait_seconds_total{cause="swap",model="a"}'] == 10.0
    assert counted.total("request_wait_seconds_total") == 10.0


def test_coming_back_too_soon_is_thrashing_and_later_is_not() -> None:
    counted = Counted(Model(A, sleeps=True), B)
    asleep(counted)
    counted.steps(
        Step(69.0, RequestArrived(request(1), A), [Wake(A, G1, BY_REQUEST, decided_s=69.0)]),
        Step(70.0, UpstreamReady(A, G1), [Dispatch(request(1), A, G1, 1.0)]),
        Step(71.0, RequestFinished(request(1)), []),
        Step(80.0, DeadlineReached(), [Sleep(A, G1, SleepCause.EVICT, evicted_for=B)]),
        Step(81.0, UpstreamAsleep(A, G1), []),
        Step(141.0, RequestArrived(request(2), A), [Wake(A, G1, BY_REQUEST, decided_s=141.0)]),
        Step(142.0, UpstreamReady(A, G1), [Dispatch(request(2), A, G1, 1.0)]),
    )
    assert counted.get('swap_thrash_total{to_model="a"}') == 1
    assert counted.get('residency_requests_sum{model="a"}') == 1
    assert counted.get('residency_seconds_sum{model="a"}') == 10.0 + 10.0


def test_running_swaps_are_as_old_as_the_oldest_however_long_ago_the_one_before_was() -> None:
    counted = Counted(A, B)
    swap_from_a_to_b(counted)
    assert counted.get("swap_in_progress") == counted.get("swap_in_progress_start_timestamp_seconds") == 0
    counted.now_s = 5000.0
    counted.swaps = (SwapView(B, (A,), 4970.0), SwapView(A, (), 4990.0))
    before = time.time()
    samples = counted.samples()
    assert samples["swap_in_progress"] == 1
    assert before <= samples["swap_in_progress_start_timestamp_seconds"] + 30 <= time.time()


def test_every_second_of_a_state_counts_the_present_one_too() -> None:
    counted = Counted(A)
    counted.steps(Step(2.0, LoadRequested(A), [Start(A, G1, StartCause.LOAD)]), Step(5.0, UpstreamReady(A, G1), []))
    counted.views = {A: UpstreamView(A, State.READY, G1, 0, 3, 5.0, oldest_waiting_s=8.0)}
    counted.now_s = 9.5
    samples = counted.samples()

    spent = {
        s: samples[f'model_state_seconds_total{{model="a",state="{s}"}}'] for s in ("stopped", "starting", "ready")
    }
    assert spent == {"stopped": 2.0, "starting": 3.0, "ready": 4.5}
    assert samples['model_state{model="a",state="ready"}'] == 1
    assert samples['model_state{model="a",state="stopped"}'] == 0
    assert samples['model_state_code{model="a"}'] == 2
    assert samples['queue_depth{model="a"}'] == 3
    assert samples['queue_oldest_age_seconds{model="a"}'] == 1.5


def test_a_gpu_is_serving_before_it_is_swapping_and_lost_time_is_put_down_to_who_asked() -> None:
    counted = Counted(A, B)
    up(counted, A)
    counted.steps(
        Step(1.0, RequestArrived(request(1), A), [Dispatch(request(1), A, G1)]),
        Step(4.0, RequestFinished(request(1)), []),
        Step(6.0, RequestArrived(request(2), B), [Stop(A, G1, StopCause.EVICT, evicted_for=B)]),
    )
    counted.metrics.waits(record(B, request=request(2), caller_class="key:0123abcd"))
    counted.steps(
        Step(8.0, UpstreamStopped(A, G1), [Start(B, G2, BY_REQUEST, (A,), "me", 6.0)]),
        Step(12.0, UpstreamReady(B, G2), [Dispatch(request(2), B, G2, 6.0)]),
        Step(15.0, RequestFinished(request(2)), [Stop(B, G2, StopCause.TTL)]),
        Step(16.0, UpstreamStopped(B, G2), []),
    )
    counted.now_s = 20.0
    samples = counted.samples()
    phases = {p: samples[f'gpu_phase_seconds_total{{gpu="0",phase="{p}"}}'] for p in ("serving", "idle", "empty")}
    assert phases == {"serving": 3.0 + 3.0, "idle": 1.0 + 2.0, "empty": 4.0}
    assert samples['gpu_phase_seconds_total{gpu="0",phase="swapping"}'] == 7.0
    assert samples['swap_lost_gpu_seconds_total{caller_class="key:0123abcd"}'] == 6.0
    assert samples['swap_lost_gpu_seconds_total{caller_class="_none"}'] == 1.0
    assert samples['swaps_by_caller_total{caller_class="key:0123abcd"}'] == 1
    assert samples['swaps_by_caller_total{caller_class="_none"}'] == 1


def test_phases_of_a_swap_are_those_of_who_comes_and_of_who_goes_for_it() -> None:
    counted = Counted(A, B)
    swap_from_a_to_b(counted)
    counted.metrics.phase(Phase(B, G2, PhaseKind.HEALTH_WAIT, 8.5, 12.0, probes=5))
    counted.metrics.phase(Phase(B, G2, PhaseKind.HEALTH_WAIT, 12.0, 12.0, error="not ready", probes=3))
    counted.metrics.phase(Phase(A, G1, PhaseKind.STOP, 6.0, 8.0))  # told late: it belongs to no swap any more
    up(counted, A, G3, 20.0)
    counted.steps(Step(21.0, RequestArrived(request(9), B), [Stop(A, G3, StopCause.EVICT, evicted_for=B)]))
    counted.metrics.phase(Phase(A, G3, PhaseKind.STOP, 21.0, 23.0))
    counted.metrics.phase(Phase(A, G3, PhaseKind.CALL, 21.0, 22.0))

    samples = counted.samples()
    assert samples['swap_phase_duration_seconds_sum{kind="cold",phase="health_wait"}'] == 3.5
    assert samples['swap_phase_duration_seconds_sum{kind="cold",phase="stop"}'] == 2.0
    assert samples['upstream_health_checks_total{model="b",result="ok"}'] == 1
    assert samples['upstream_health_checks_total{model="b",result="fail"}'] == 4 + 3


GIB = 1 << 30


def test_what_a_model_needs_is_held_against_what_is_free() -> None:
    gpus = (Gpu(0, "u0", total_bytes=24 * GIB, used_bytes=10 * GIB), Gpu(1, "u1", total_bytes=24 * GIB, used_bytes=0))
    learned = {
        A: {State.READY: Seen(G1, {"u0": 9 * GIB}, {"u0": 20 * GIB}, 5, 7)},
        B: {State.READY: Seen(G1, {"u1": 9 * GIB}, {"u1": 12 * GIB}), State.ASLEEP: Seen(G1, host_most_bytes=8)},
    }
    counted = Counted(A, B, sources=Sources(learned=lambda: learned, gpus=lambda: gpus))
    samples = counted.samples()
    assert samples['model_fits{model="a"}'] == 0
    assert samples['model_fit_headroom_bytes{gpu="0",model="a"}'] == -6 * GIB
    assert samples['model_fits{model="b"}'] == 1
    assert samples['model_learned_gpu_bytes{gpu="0",model="a",state="ready"}'] == 20 * GIB
    assert samples['model_learned_host_bytes{model="b",state="asleep"}'] == 8

    counted.views = {A: UpstreamView(A, State.READY, G1, 0, 0, 0.0)}
    assert counted.get('model_fits{model="a"}') == 1, "what it holds itself need not be free"
    assert counted.get('model_fit_headroom_bytes{gpu="0",model="a"}') == 3 * GIB


def test_time_is_kept_for_each_gpu_that_its_model_is_on() -> None:
    gpus = (Gpu(0, "u0"), Gpu(1, "u1"))
    learned = {A: {State.READY: Seen(G1, {"u1": GIB})}}
    counted = Counted(A, sources=Sources(learned=lambda: learned, gpus=lambda: gpus))
    counted.samples()
    up(counted, A)
    counted.now_s = 5.0
    samples = counted.samples()
    assert samples['gpu_phase_seconds_total{gpu="0",phase="empty"}'] == 5.0
    assert samples['gpu_phase_seconds_total{gpu="1",phase="idle"}'] == 5.0
