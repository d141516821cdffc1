"""What an operator reads when models come and go."""

import logging

import pytest

from llmswap.core.commands import Start, StartCause, Stop, StopCause
from llmswap.core.events import Generation, LoadRequested, StartFailed, UpstreamReady, UpstreamStopped
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
