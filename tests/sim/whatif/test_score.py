"""Scores of transcripts that are short enough to be worked out by hand."""

import pytest

from llmswap.core import events as ev
from llmswap.core.commands import Dispatch, Reject, RejectReason, Start, StartCause, Stop, StopCause
from llmswap.core.fleet import ModelId
from llmswap.core.step import Step
from llmswap.sim.whatif.score import Scorer, Waits, quantile

A, B = ModelId("a"), ModelId("b")


def come(at_s, request, model, caller, *commands):
    return Step(at_s, ev.RequestArrived(ev.RequestId(request), model, caller), commands)


def done(at_s, request, *commands):
    return Step(at_s, ev.RequestFinished(ev.RequestId(request)), commands)


def cancel(at_s, request):
    return Step(at_s, ev.RequestCancelled(ev.RequestId(request)), ())


def up(at_s, model, generation, *commands):
    return Step(at_s, ev.UpstreamReady(model, ev.Generation(generation)), commands)


def gone(at_s, model, generation, *commands):
    return Step(at_s, ev.UpstreamStopped(model, ev.Generation(generation)), commands)


def start(model, generation, *evicted):
    return Start(model, ev.Generation(generation), StartCause.REQUEST, evicted)


def evict(model, generation, target):
    return Stop(model, ev.Generation(generation), StopCause.EVICT, target)


def serve(request, model, generation, swap_s=None):
    return Dispatch(ev.RequestId(request), model, ev.Generation(generation), swap_s)


def score(*steps, start_s=0.0, end_s):
    scorer = Scorer(start_s)
    for step in steps:
        scorer(step)
    return scorer.score(end_s)


def test_a_swap_there_and_back_is_counted_to_the_second():
    told = score(
        come(100, 1, A, "ann", start(A, 1)),
        up(110, A, 1, serve(1, A, 1, 10.0)),
        come(112, 2, B, "bob"),
        done(115, 1, evict(A, 1, B)),
        gone(117, A, 1, start(B, 2, A)),
        come(118, 3, A, "ann"),
        up(127, B, 2, serve(2, B, 2, 12.0)),
        done(130, 2, evict(B, 2, A)),
        gone(131, B, 2, start(A, 3, B)),
        up(141, A, 3, serve(3, A, 3, 11.0)),
        come(142, 4, A, "cat", serve(4, A, 3)),
        done(145, 4),
        done(151, 3),
        start_s=100.0,
        end_s=160.0,
    )
    assert told.duration_s == 60.0
    assert (told.requests, told.completed, told.unanswered) == (4, 4, 0)
    assert told.completed_per_h == 240.0
    assert told.swaps == 3
    assert told.swap_s == 10 + 12 + 11
    assert told.lost_s == 33.0  # one model at a time: whenever a swap is on, nobody is served
    assert told.lost_share == 33 / 60
    assert told.evictions == {(A, B): 1, (B, A): 1}
    assert told.ping_pongs == 1  # b, ten seconds in the making, had to go three seconds later for a
    assert (told.hits, told.misses) == (1, 3)
    assert told.in_flight == (5 + 3 + 10 + 3) / 60
    assert told.waits == Waits(4, 4, 10.0, 23.0, 23.0)
    assert told.by_model == {A: Waits(3, 3, 10.0, 23.0, 23.0), B: Waits(1, 1, 15.0, 15.0, 15.0)}
    assert told.by_caller == {
        "ann": Waits(2, 2, 10.0, 23.0, 23.0),
        "bob": Waits(1, 1, 15.0, 15.0, 15.0),
        "cat": Waits(1, 1, 0.0, 0.0, 0.0),
    }


def test_a_swap_beside_served_requests_is_not_lost_time():
    told = score(
        come(0, 1, A, "", start(A, 1)),
        up(10, A, 1, serve(1, A, 1, 10.0)),
        come(12, 2, B, "", start(B, 2)),
        done(16, 1),
        up(22, B, 2, serve(2, B, 2, 10.0)),
        done(23, 2),
        end_s=30.0,
    )
    assert told.swap_s == 20.0
    assert told.lost_s == 16.0
    assert told.evictions == {}


def test_a_late_return_is_no_ping_pong():
    told = score(
        come(0, 1, B, "", start(B, 1, A)),
        up(10, B, 1, serve(1, B, 1, 10.0)),
        done(20, 1),
        come(31, 2, A, "", evict(B, 1, A)),
        end_s=40.0,
    )
    assert told.evictions == {(B, A): 1}
    assert told.ping_pongs == 0


def test_waits_that_end_badly_count_for_as_long_as_they_lasted():
    told = score(
        come(0, 1, A, "ann", start(A, 1)),
        come(1, 2, A, "ann", Reject(ev.RequestId(2), RejectReason.OVER_LIMIT, "full")),
        come(2, 3, A, "bob"),
        come(3, 4, A, "cat"),
        cancel(8, 3),
        Step(9, ev.DeadlineReached(), (Reject(ev.RequestId(4), RejectReason.QUEUE_TIMEOUT, "too long"),)),
        end_s=50.0,
    )
    assert told.rejected == {RejectReason.OVER_LIMIT: 1, RejectReason.QUEUE_TIMEOUT: 1}
    assert told.cancelled == 1
    assert told.unanswered == 1
    assert told.by_caller == {
        "ann": Waits(1, 0, 50.0, 50.0, 50.0),
        "bob": Waits(1, 0, 6.0, 6.0, 6.0),
        "cat": Waits(1, 0, 6.0, 6.0, 6.0),
    }
    assert told.swap_s == told.lost_s == 50.0  # the start was still under way


def test_room_made_for_somebody_who_left_is_time_lost_only_until_it_is_free():
    told = score(
        come(0, 1, A, "", evict(B, 1, A)),
        cancel(2, 1),
        gone(5, B, 1),
        end_s=60.0,
    )
    assert (told.swaps, told.swap_s, told.lost_s) == (0, 5.0, 5.0)


def test_a_failed_start_ends_its_swap():
    told = score(
        come(0, 1, A, "", start(A, 1)),
        Step(
            4,
            ev.StartFailed(A, ev.Generation(1), "exited"),
            (Reject(ev.RequestId(1), RejectReason.UPSTREAM_FAILED, "exited"),),
        ),
        end_s=60.0,
    )
    assert (told.swaps, told.swap_s) == (1, 4.0)


def test_a_substitute_counts_for_the_model_that_was_asked_for():
    told = score(come(0, 1, A, "ann", serve(1, B, 1)), done(2, 1), end_s=10.0)
    assert told.substituted == 1
    assert told.by_model == {A: Waits(1, 1, 0.0, 0.0, 0.0)}


def test_a_recording_that_begins_in_the_middle_is_scored_from_there():
    told = score(done(5, 77), cancel(6, 78), up(7, A, 3, serve(79, A, 3)), end_s=10.0)
    assert (told.requests, told.completed, told.cancelled, told.in_flight, told.swap_s) == (0, 0, 0, 0.0, 0.0)


@pytest.mark.parametrize(("share", "value"), [(0.0, 1), (0.5, 2), (0.51, 3), (0.95, 4), (1.0, 4)])
def test_a_quantile_is_one_of_the_values(share, value):
    assert quantile([1, 2, 3, 4], share) == value
