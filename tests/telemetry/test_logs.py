"""What an operator reads when models come and go."""

import logging

import pytest

from llmswap.core.commands import Sleep, SleepCause, Start, StartCause, Stop, StopCause, Wake
from llmswap.core.events import (
    DeadlineReached,
    Generation,
    LoadRequested,
    SleepFailed,
    StartFailed,
    UpstreamAsleep,
    UpstreamReady,
    UpstreamStopped,
    WakeFailed,
)
from llmswap.core.fleet import ModelId
from llmswap.core.step import Step
from llmswap.telemetry.logs import StepLog

A, B = ModelId("a"), ModelId("b")
G1 = Generation(1)


def test_a_swap_reads_as_stop_start_ready_with_durations(caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level(logging.INFO)
    log = StepLog()

    log(Step(10.0, LoadRequested(B), [Stop(A, G1, StopCause.EVICT, evicted_for=B)]))
    log(Step(11.5, UpstreamStopped(A, G1), [Start(B, G1, StartCause.REQUEST, (A,))]))
    log(Step(14.0, UpstreamReady(B, G1), []))

    assert caplog.messages == [
        "a: stopping (to make room for b)",
        "a: stopped after 1.50 s",
        "b: starting (generation 1, after evicting a)",
        "b: ready after 2.50 s",
    ]


def test_a_failed_start_is_a_warning_with_its_reason(caplog: pytest.LogCaptureFixture) -> None:
    log = StepLog()

    log(Step(0.0, LoadRequested(A), [Start(A, G1, StartCause.LOAD)]))
    log(Step(0.5, StartFailed(A, G1, "exited with code 1"), []))

    assert caplog.messages == ["a: start failed after 0.50 s: exited with code 1"]
    assert caplog.records[0].levelno == logging.WARNING


def test_sleeping_and_waking_read_as_what_they_are(caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level(logging.INFO)
    log = StepLog()

    log(Step(1.0, LoadRequested(B), [Sleep(A, G1, SleepCause.EVICT, evicted_for=B)]))
    log(Step(1.5, UpstreamAsleep(A, G1, 3 << 29), [Wake(B, G1, StartCause.LOAD, (A,))]))
    log(Step(2.0, UpstreamReady(B, G1), []))
    log(Step(9.0, DeadlineReached(), [Sleep(B, G1, SleepCause.IDLE)]))
    log(Step(9.5, SleepFailed(B, G1, "answered 500"), [Stop(B, G1, StopCause.SLEEP_FAILED)]))
    log(Step(9.7, LoadRequested(A), [Wake(A, G1, StartCause.LOAD)]))
    log(Step(9.8, WakeFailed(A, G1, "hung"), []))
    log(Step(9.9, UpstreamAsleep(A, G1), []))

    assert caplog.messages == [
        "a: falling asleep (to make room for b)",
        "a: asleep after 0.50 s, keeps 1.5 GiB of host memory",
        "b: waking (generation 1, after evicting a)",
        "b: ready after 0.50 s",
        "b: falling asleep (idle)",
        "b: sleep failed after 0.50 s: answered 500",
        "b: stopping (sleep_failed)",
        "a: waking (generation 1)",
        "a: wake failed after 0.10 s: hung",
        "a: asleep after 0.00 s",
    ]
