"""What happens to upstreams, as events with fields: a swap has one beginning and one end, whatever becomes of it."""

import logging
from typing import Any

import pytest

from llmswap.config.errors import ConfigIssue
from llmswap.core.commands import Sleep, SleepCause, Start, StartCause, Stop, StopCause, Wake
from llmswap.core.events import (
    DeadlineReached,
    DrainRequested,
    Event,
    FleetReloaded,
    Generation,
    LoadRequested,
    SleepFailed,
    StartFailed,
    StopFailed,
    UpstreamAsleep,
    UpstreamExited,
    UpstreamReady,
    UpstreamStopped,
    WakeFailed,
)
from llmswap.core.fleet import Fleet, ModelId
from llmswap.core.step import Step
from llmswap.runtime.logevents import events_of
from llmswap.telemetry.logs import StepLog, listening, rejected
from tests.telemetry.test_log_page import keys

A, B = ModelId("a"), ModelId("b")
G1, G2 = Generation(1), Generation(2)
NOTHING = DeadlineReached()


class Told:
    """A StepLog and what it has told so far."""

    def __init__(self, caplog: pytest.LogCaptureFixture, trace: str = "") -> None:
        caplog.set_level(logging.INFO)
        self._caplog = caplog
        self._log = StepLog(lambda model: trace and f"{trace}-{model}")

    def step(self, at_s: float, event: Event, *commands: Any) -> list[tuple[str, dict[str, Any]]]:
        """Give name and known fields of every event that a step tells."""
        self._caplog.clear()
        self._log(Step(at_s, event, commands))
        told = [event for record in self._caplog.records for event in events_of(record) or ()]
        known = [{key: value for key, value in event.fields.items() if value is not None} for event in told]
        for told_event, fields in zip(told, known, strict=True):
            assert set(fields) <= keys(told_event.name), "the page does not say so"
        return [(event.name, fields) for event, fields in zip(told, known, strict=True)]


@pytest.fixture
def told(caplog: pytest.LogCaptureFixture) -> Told:
    return Told(caplog, "trace")


def start(model: ModelId = B, decided_s: float | None = None, evicted: tuple[ModelId, ...] = ()) -> Start:
    return Start(model, G1, StartCause.REQUEST, evicted, "agent", decided_s)


def wake() -> Wake:
    return Wake(B, G1, StartCause.LOAD)


def test_a_swap_that_had_to_evict_counts_from_its_decision(told: Told) -> None:
    (stopping,) = told.step(10.0, LoadRequested(B), Stop(A, G1, StopCause.EVICT, B))
    assert stopping == (
        "upstream.stopping",
        {"model": "a", "generation": 1, "cause": "evict", "evicted_for": "b", "force": False},
    )
    stopped, started = told.step(11.5, UpstreamStopped(A, G1), start(decided_s=10.0, evicted=(A,)))
    assert stopped == ("upstream.stopped", {"model": "a", "generation": 1, "duration_s": 1.5})
    swap = {"model": "b", "generation": 1, "cause": "request", "kind": "cold", "evicted": ("a",), "caller": "agent"}
    assert started == ("swap.started", {**swap, "drain_s": 1.5})
    ready, finished = told.step(14.0, UpstreamReady(B, G1))
    assert ready == ("upstream.ready", {"model": "b", "generation": 1, "duration_s": 2.5})
    assert finished == ("swap.finished", {**swap, "outcome": "ok", "duration_s": 4.0, "trace_id": "trace-b"})


@pytest.mark.parametrize("decided_s", [None, float("-inf"), float("nan")])
def test_a_swap_whose_decision_nobody_knows_counts_from_its_start(told: Told, decided_s: float | None) -> None:
    ((_, started),) = told.step(3.0, LoadRequested(B), start(decided_s=decided_s))
    assert started["drain_s"] == 0.0
    assert told.step(4.0, UpstreamReady(B, G1))[1][1]["duration_s"] == 1.0


def test_a_failed_start_ends_its_swap_with_the_reason(told: Told) -> None:
    told.step(0.0, LoadRequested(B), start())
    failed, finished = told.step(0.5, StartFailed(B, G1, "exited with code 1"))
    assert failed == (
        "upstream.failed",
        {"model": "b", "generation": 1, "duration_s": 0.5, "what": "start", "error": "exited with code 1"},
    )
    assert (finished[0], finished[1]["outcome"], finished[1]["error"]) == (
        "swap.finished",
        "exit",
        "exited with code 1",
    )
    told.step(1.0, LoadRequested(B), start())
    assert told.step(9.0, StartFailed(B, G1, "not ready", timed_out=True))[1][1]["outcome"] == "timeout"


def test_a_failed_wake_ends_when_what_is_left_is_gone(told: Told) -> None:
    ((name, started),) = told.step(0.0, LoadRequested(B), wake())
    assert (name, started["kind"], "caller" in started) == ("swap.started", "wake", False)
    failed, stopping = told.step(1.0, WakeFailed(B, G1, "answered 500"), Stop(B, G1, StopCause.WAKE_FAILED))
    assert (failed[0], failed[1]["what"], stopping[0]) == ("upstream.failed", "wake", "upstream.stopping")
    stopped, finished = told.step(2.0, UpstreamStopped(B, G1))
    assert (stopped[0], finished[0]) == ("upstream.stopped", "swap.finished")
    assert (finished[1]["outcome"], finished[1]["error"]) == ("unhealthy", "answered 500")


def test_a_swap_that_is_called_off_is_aborted_and_one_that_dies_exits(told: Told) -> None:
    told.step(0.0, LoadRequested(B), start())
    told.step(1.0, NOTHING, Stop(B, G1, StopCause.UNLOAD))
    assert told.step(2.0, UpstreamStopped(B, G1))[1][1]["outcome"] == "aborted"
    told.step(3.0, LoadRequested(B), wake())
    ((name, exited),) = told.step(4.0, UpstreamExited(B, G1, "was killed by SIGTERM"))
    assert (name, exited["error"]) == ("upstream.exited", "was killed by SIGTERM")
    assert told.step(5.0, UpstreamStopped(B, G1))[1][1]["outcome"] == "exit"
    told.step(6.0, LoadRequested(B), start())
    failed, finished = told.step(7.0, StopFailed(B, G1, "in D state"))
    assert (failed[1]["what"], finished[1]["outcome"]) == ("stop", "aborted")
    assert [name for name, _ in told.step(8.0, UpstreamStopped(B, G1))] == ["upstream.stopped"], "it ended once"


def test_a_death_later_in_life_is_no_swap(told: Told) -> None:
    told.step(0.0, LoadRequested(B), start())
    told.step(1.0, UpstreamReady(B, G1))
    assert [name for name, _ in told.step(2.0, UpstreamExited(B, G1, "gone"))] == ["upstream.exited"]
    assert [name for name, _ in told.step(3.0, UpstreamStopped(B, G1))] == ["upstream.stopped"]


def test_sleeping_says_what_is_kept_and_why(told: Told) -> None:
    ((name, falling),) = told.step(1.0, NOTHING, Sleep(B, G1, SleepCause.IDLE))
    assert (name, falling) == ("upstream.sleeping", {"model": "b", "generation": 1, "cause": "idle"})
    ((name, asleep),) = told.step(1.5, UpstreamAsleep(B, G1, 7))
    assert (name, asleep) == ("upstream.asleep", {"model": "b", "generation": 1, "duration_s": 0.5, "host_bytes": 7})
    told.step(2.0, NOTHING, Sleep(B, G2, SleepCause.ORDER))
    ((name, failed),) = told.step(3.0, SleepFailed(B, G2, "hung"))
    assert (name, failed["what"], failed["error"]) == ("upstream.failed", "sleep", "hung")


def test_what_is_no_models_business_has_its_events_too(told: Told) -> None:
    fleet = Fleet({}, {}, ())
    assert told.step(0.0, FleetReloaded(fleet)) == [("config.reloaded", {"models": 0})]
    assert told.step(1.0, DrainRequested(31.0)) == [("server.draining", {"limit_s": 30.0})]
    assert listening("http://h:1").fields == {"address": "http://h:1"}
    issue = rejected(ConfigIssue("c.yaml", 3, 1, "models.a", "is wrong"))
    assert issue.fields == {"file": "c.yaml", "line": 3, "key": "models.a", "error": "is wrong"}
    assert set(issue.fields) == keys("config.rejected")
    assert issue.message == "reload refused: c.yaml:3:1: models.a: is wrong"


def test_without_traces_there_is_no_trace_id(caplog: pytest.LogCaptureFixture) -> None:
    told = Told(caplog)
    told.step(0.0, LoadRequested(B), start())
    assert "trace_id" not in told.step(1.0, UpstreamReady(B, G1))[1][1]
