"""How long an idle resident is kept: learned from gaps and costs."""

import pytest

from llmswap.core.holding import FIRST_HOLD_S, SAMPLES_MAX, Rhythm, auto_hold_s


def rhythm(*gaps_s: float, load_s: float = 30.0, stop_s: float = 1.0) -> Rhythm:
    made = Rhythm(load_s=load_s, stop_s=stop_s)
    now_s = 0.0
    for gap_s in gaps_s:
        made.fell_idle(now_s)
        now_s += gap_s
        made.was_asked(now_s)
    return made


TARGET = rhythm()


def test_with_no_gaps_seen_it_is_the_models_own_reload_cost_but_not_long():
    assert auto_hold_s(rhythm(load_s=3.0), TARGET, 1) == 4.0
    assert auto_hold_s(rhythm(load_s=300.0), TARGET, 1) == FIRST_HOLD_S


def test_callers_that_always_return_soon_are_waited_for():
    assert auto_hold_s(rhythm(2.0, 2.5, 3.0), TARGET, 1) == 3.0


def test_callers_that_rarely_return_soon_are_not_waited_for():
    assert auto_hold_s(rhythm(400.0, 300.0, 500.0), TARGET, 1) == 0.0


def test_one_late_return_among_many_does_not_make_others_wait_for_the_next_such():
    assert auto_hold_s(rhythm(500.0, *[2.0] * 20), TARGET, 1) == 2.0


def test_cheap_swaps_are_not_worth_waiting_for():
    cheap = rhythm(load_s=0.2, stop_s=0.1)
    assert auto_hold_s(rhythm(5.0, 5.0, load_s=0.2, stop_s=0.1), cheap, 1) == 0.0


def test_the_more_wait_the_shorter_the_hold():
    gaps = rhythm(10.0, 10.0, 10.0)
    assert auto_hold_s(gaps, TARGET, 1) == 10.0
    assert auto_hold_s(gaps, TARGET, 50) == 0.0


def test_what_callers_do_now_outweighs_what_they_did():
    assert auto_hold_s(rhythm(*[400.0] * 20, *[2.0] * 12), TARGET, 1) == 2.0


def test_only_the_first_request_after_falling_idle_tells_a_gap():
    made = Rhythm()
    made.was_asked(1.0)
    made.fell_idle(2.0)
    made.was_asked(5.0)
    made.was_asked(6.0)
    assert list(made.gaps_s) == [3.0]


def test_memory_is_bounded_and_costs_follow_slowly():
    made = rhythm(*[1.0] * 1000)
    assert len(made.gaps_s) == SAMPLES_MAX
    made.loaded(60.0)
    assert made.load_s == pytest.approx(39.0)
