"""Recorded requests become lanes; written as (arrived, ended) in the order of arrival."""

from math import inf
from random import Random

import pytest

from llmswap.core.fleet import ModelId
from llmswap.sim.whatif.lanes import Link, Past, Traits, callers, lanes
from llmswap.sim.whatif.patience import patience, survival
from llmswap.sim.whatif.stage import REFUSED_PAUSE_S
from llmswap.sim.whatif.workload import Answer, Ending

A = ModelId("a")


def past(arrived_s, ended_s, caller="ann", *, waited_s=None, gave_up=False):
    dispatched_s = None if waited_s is None else arrived_s + waited_s
    return Past(A, caller, arrived_s, dispatched_s=dispatched_s, ended_s=ended_s, gave_up=gave_up)


def told(link: Link | None):
    """Write a lane as [(arrived, after, [lanes that came along]), …]."""
    lane = []
    while link is not None:
        lane.append((link.past.arrived_s, link.after_s, [told(other) for other in link.along]))
        link = link.then
    return lane


def test_who_comes_after_an_answer_comes_after_the_answer():
    assert [told(first) for first in lanes([past(10, 15), past(18, 20), past(26, 30)])] == [
        [(10, 10, []), (18, 3, []), (26, 6, [])]
    ]


def test_who_comes_while_another_is_served_has_a_lane_of_their_own():
    assert [told(first) for first in lanes([past(10, 30), past(14, 20), past(21, 40), past(33, 50)])] == [
        [(10, 10, []), (33, 3, [])],
        [(14, 14, []), (21, 1, [])],
    ]


def test_a_request_follows_the_one_that_ended_last():
    assert [told(first) for first in lanes([past(0, 5), past(1, 8), past(9, 11), past(12, 13)])] == [
        [(0, 0, [])],
        [(1, 1, []), (9, 1, []), (12, 1, [])],
    ]


def test_callers_do_not_share_lanes():
    assert len(lanes([past(0, 5), past(6, 8, "bob")])) == 2


def test_requests_made_at_once_stay_together_and_the_next_follows_the_last_of_their_answers():
    burst = [past(0, 1), past(5, 6), past(5.01, 9), past(5.02, 7), past(12, 13)]
    (first,) = lanes(burst)
    assert told(first) == [
        (0, 0, []),
        (5, 4, [[(5.01, pytest.approx(0.01), [[(5.02, pytest.approx(0.01), [])]]), (12, 3, [])]]),
    ]


def test_a_lane_that_no_answer_led_to_begins_with_who_came_a_moment_before():
    assert [told(first) for first in lanes([past(0, 9), past(0.4, 9), past(1, 9)])] == [
        [(0, 0, [[(0.4, 0.4, [])]])],
        [(1, 1, [])],
    ]


def test_a_request_that_never_ended_has_no_successor():
    assert [told(first) for first in lanes([past(0, None), past(50, 60)])] == [[(0, 0, [])], [(50, 50, [])]]


def test_the_pause_after_a_refusal_is_the_recorded_one():
    first, second = past(0, 0), past(3, 4)
    (caller,) = callers(lanes([first, second]), 99.0, lambda _: Traits(1.0))
    script = caller.script(Random(1))
    turn = next(script)
    refused = Answer(0.0, "ann", turn.calls[0], Ending.REFUSED, 1, 0.0, None)
    assert script.send((refused,)).after_s == 3 - REFUSED_PAUSE_S


def test_a_caller_asks_for_what_was_recorded():
    (caller,) = callers(lanes([past(2, 9)]), 99.0, lambda _: Traits(5.0, 30.0))
    turn = next(caller.script(Random(1)))
    assert (caller.name, turn.after_s) == ("ann", 2)
    assert (turn.calls[0].model, turn.calls[0].service_s, turn.calls[0].waits_s) == (A, 5.0, 30.0)
    assert turn.calls[0].patience_s == inf


def test_patience_is_estimated_from_those_who_left_among_those_who_still_waited():
    # five waits: served at 1, left at 2, served at 3, left at 4, left at 4
    times_s, shares = survival([(1, False), (2, True), (3, False), (4, True), (4, True)])
    assert times_s == [2, 4]
    assert shares == [1 - 1 / 4, 0.0]


def test_who_left_leaves_as_late_and_who_was_served_would_have_waited_longer_than_that():
    left = [past(0, 20, gave_up=True), past(0, 40, gave_up=True)]
    served = [past(0, 90, waited_s=30.0) for _ in range(50)]
    drawn = patience([*left, *served], 100.0, Random(1))
    assert [drawn[one] for one in left] == [20, 40]
    assert {drawn[one] for one in served} == {40}


def test_nobody_leaves_where_nobody_ever_did():
    calm, hasty = past(0, 9, waited_s=5.0), past(0, 3, "bob", gave_up=True)
    assert patience([calm, hasty], 100.0, Random(1))[calm] == inf


def turns(caller, many):
    """Act a caller out: the model and the pause of each turn, as far as asked for."""
    script = caller.script(Random(1))
    done = []
    turn = next(script, None)
    while turn is not None and len(done) < many:
        done.append(turn.after_s)
        try:
            turn = script.send((Answer(0.0, caller.name, turn.calls[0], Ending.DONE, 1, 0.0, 0.0),))
        except StopIteration:
            turn = None
    return done


def test_a_loop_that_was_on_when_the_recording_ended_goes_on():
    (caller,) = callers(lanes([past(7, 10), past(12, 20), past(23, 30)]), 33.0, lambda _: Traits(1.0))
    assert turns(caller, 6) == [7, 2, 3, 2, 3, 2]


def test_a_loop_that_had_ended_before_ends():
    (caller,) = callers(lanes([past(7, 10), past(12, 20), past(23, 30)]), 34.0, lambda _: Traits(1.0))
    assert turns(caller, 6) == [7, 2, 3]


def test_one_request_is_no_loop():
    (caller,) = callers(lanes([past(7, None)]), 10.0, lambda _: Traits(1.0))
    assert turns(caller, 6) == [7]


def test_requests_made_at_once_stay_together_even_if_several_answers_could_have_led_to_them():
    first, second = lanes([past(0, 5), past(1, 8), past(9, 11), past(9.01, 12)])
    assert told(first) == [(0, 0, [])]
    assert told(second) == [(1, 1, []), (9, 1, [[(9.01, pytest.approx(0.01), [])]])]


def test_a_loop_that_goes_on_brings_along_again_only_what_has_ended():
    """Otherwise each round would add a loop that never ends."""
    one_shot = [past(0, 1), past(5, 6), past(5.01, 5.5), past(9, 10)]
    lasting = [past(0, 1), past(5, 6), past(5.01, 7.5), past(8, 12), past(8.5, 11)]
    for requests, expected in ((one_shot, [0, 1, 0, 1, 0]), (lasting, [0, 1, 0, 0, 0])):
        (caller,) = callers(lanes(requests), max(one.ended_s for one in requests), lambda _: Traits(1.0))
        assert brought(caller, 5) == expected


def brought(caller, many):
    """Count who came along with each turn."""
    script = caller.script(Random(1))
    turn, counts = next(script), []
    while len(counts) < many:
        counts.append(len(turn.along))
        turn = script.send((Answer(0.0, caller.name, turn.calls[0], Ending.DONE, 1, 0.0, 0.0),))
    return counts
