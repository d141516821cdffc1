"""How long an idle resident is kept: learned from when callers return, what they get then, and what the box gives."""

import pytest

from llmswap.core.holding import FIRST_HOLD_S, MARGIN, SAMPLES_MAX, Rhythm, auto_hold_s, pace_per_s

BOUND_S = 120.0
PACE = 1 / 15  # answers per second of the whole box


def rhythm(*gaps_s: float, answer_s: float = 5.0, load_s: float = 30.0, stop_s: float = 1.0) -> Rhythm:
    """Make one whose callers came back after these gaps, each time for one answer."""
    made = Rhythm(load_s=load_s, stop_s=stop_s)
    now_s = 0.0
    for gap_s in gaps_s:
        made.fell_idle(now_s)
        now_s += gap_s
        made.was_asked(now_s, resident=True)
        now_s += answer_s
        made.served(answer_s, now_s)
    made.fell_idle(now_s)
    return made


def test_with_no_gaps_seen_it_is_the_models_own_reload_cost_but_not_long():
    assert auto_hold_s(rhythm(load_s=3.0), PACE, BOUND_S) == 4.0
    assert auto_hold_s(rhythm(load_s=300.0), PACE, BOUND_S) == FIRST_HOLD_S


def test_callers_that_always_return_soon_are_waited_for_a_little_longer_than_they_took():
    assert auto_hold_s(rhythm(*[3.0, 3.5, 4.0] * 4), PACE, BOUND_S) == MARGIN * 3.0


def test_callers_that_rarely_return_soon_are_not_waited_for():
    assert auto_hold_s(rhythm(400.0, 300.0, 500.0), PACE, BOUND_S) == 0.0


def test_one_late_return_among_many_does_not_make_others_wait_for_the_next_such():
    assert auto_hold_s(rhythm(500.0, *[2.0] * 20), PACE, BOUND_S) == MARGIN * 2.0


def test_callers_who_get_less_done_than_the_box_on_average_are_not_waited_for():
    slow = [20.0] * 10
    assert auto_hold_s(rhythm(*slow), PACE, BOUND_S) == 0.0, "an answer in 25 s, where the box gives one in 15"
    assert auto_hold_s(rhythm(*slow), 1 / 100, BOUND_S) == MARGIN * 20.0


def test_a_tight_bound_makes_staying_worth_more_because_whoever_leaves_must_soon_be_back():
    callers = rhythm(*[12.0] * 10)
    assert auto_hold_s(callers, PACE, 1e6) == 0.0
    assert auto_hold_s(callers, PACE, 30.0) > 0.0


def test_many_answers_to_each_return_make_it_worth_waiting_longer():
    made = rhythm(*[20.0] * 10)
    made.spells.clear()
    made.spells.append((25.0, 8))
    assert auto_hold_s(made, PACE, BOUND_S) == MARGIN * 20.0


def test_what_callers_do_now_outweighs_what_they_did():
    assert auto_hold_s(rhythm(*[400.0] * 20, *[2.0] * 12), PACE, BOUND_S) == MARGIN * 2.0


def test_only_the_first_request_after_falling_idle_tells_a_gap():
    made = Rhythm()
    made.was_asked(1.0, resident=True)
    made.fell_idle(2.0)
    made.was_asked(5.0, resident=True)
    made.was_asked(6.0, resident=True)
    assert list(made.gaps_s) == [3.0]


def test_a_request_for_a_neighbour_ends_the_gap_and_begins_no_spell():
    made = Rhythm()
    made.fell_idle(2.0)
    made.came_back(5.0)
    made.fell_idle(9.0)
    assert list(made.gaps_s) == [3.0]
    assert not made.spells


def test_answers_to_those_who_found_it_gone_say_nothing_of_a_return():
    made = Rhythm()
    made.fell_idle(2.0)
    made.was_asked(5.0, resident=False)
    made.served(9.0, 60.0)
    made.fell_idle(60.0)
    assert not made.spells


def test_it_remembers_so_many_gaps_and_no_more():
    assert len(rhythm(*[1.0] * (SAMPLES_MAX + 5)).gaps_s) == SAMPLES_MAX


@pytest.mark.parametrize("after_s", [10.0, 600.0, 36_000.0])
def test_the_pace_of_a_steady_box_is_its_pace_however_old_it_is(after_s):
    made = Rhythm()
    now_s = 0.0
    while now_s < after_s:
        now_s += 0.5
        made.served(0.1, now_s)
    assert pace_per_s(made.recent(now_s), now_s) == pytest.approx(2.0, rel=0.01)


def test_the_pace_of_a_new_box_is_nought():
    assert pace_per_s(0.0, 0.0) == 0.0
