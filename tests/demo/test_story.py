"""What the demo tells of the scheduler's Steps."""

import pytest

from llmswap.core.commands import Dispatch, Reject, RejectReason, Start, StartCause, Stop, StopCause
from llmswap.core.events import (
    RequestArrived,
    RequestFinished,
    StartFailed,
    UpstreamExited,
    UpstreamReady,
    UpstreamStopped,
)
from llmswap.core.step import Step
from llmswap.demo.story import Story


@pytest.fixture
def told():
    story = Story()
    story.at_s = story.began_s

    def step(seconds, event, *commands):
        story.at_s += seconds
        story(Step(story.at_s, event, commands))

    story.step = step
    return story


def swap(story):
    """a serves, b is asked for: a stops in 1 s, b loads in 2 s and serves."""
    story.step(0, RequestArrived(1, "a"), Start("a", 1, StartCause.REQUEST))
    story.step(3, UpstreamReady("a", 1), Dispatch(1, "a", 1))
    story.step(5, RequestFinished(1))
    story.step(0, RequestArrived(2, "b"), Stop("a", 1, StopCause.EVICT, "b"))
    story.step(1, UpstreamStopped("a", 1), Start("b", 2, StartCause.REQUEST, ("a",)))
    story.step(2, UpstreamReady("b", 2), Dispatch(2, "b", 2))


def test_a_swap_is_told_step_by_step(told):
    swap(told)
    assert [line.text for line in told.lines] == [
        "loading a",
        "a is ready after 3.0 s",
        "stopping a to make room for b",
        "a has stopped after 1.0 s",
        "loading b in place of a",
        "b is ready after 2.0 s",
    ]
    assert (told.loads, told.swaps) == (2, 1)


def test_time_is_lost_only_while_somebody_waits_for_a_move(told):
    swap(told)
    assert told.lost_s == pytest.approx(3 + 1 + 2)
    told.step(0, RequestFinished(2), Stop("b", 2, StopCause.TTL))
    told.step(4, UpstreamStopped("b", 2))
    assert told.lost_s == pytest.approx(6), "nobody waited while b stopped"


def test_requests_are_counted_by_the_model_that_served_them(told):
    swap(told)
    told.step(0, RequestFinished(2))
    assert dict(told.served) == {"a": 1, "b": 1}
    assert "2 requests served" in told.summary()


def test_refused_requests_wait_no_longer(told):
    told.step(0, RequestArrived(1, "a"), Start("a", 1, StartCause.REQUEST))
    told.step(2, StartFailed("a", 1, "exited with code 1"), Reject(1, RejectReason.UPSTREAM_FAILED, "no"))
    told.step(0, RequestArrived(2, "b"), Start("b", 2, StartCause.REQUEST), Reject(2, RejectReason.BACKOFF, "no"))
    told.step(9, UpstreamReady("b", 2))
    assert told.lost_s == pytest.approx(2)
    assert told.lines[1].kind == "bad"
    assert told.lines[1].text == "a failed to start: exited with code 1"


def test_a_death_is_told(told):
    told.step(0, UpstreamExited("a", 1, "killed by signal 9"))
    assert told.lines[0].text == "a died: killed by signal 9"
