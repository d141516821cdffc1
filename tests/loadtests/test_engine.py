"""How callers act: turns, calls at once and in the background, further tries, the end. Needs gevent, as Locust does."""

from itertools import count

import pytest

from loadtests import scenario
from loadtests.samples import Ending
from loadtests.script import cast
from tests.loadtests.runs import sample

pytestmark = pytest.mark.real

PLAY = """
about: a test
run: {minutes: 1, scale: 1}
models: {m: {load: 1}, n: {load: 1}}
callers: {c: {first: [STEPS]}}
samples: 1
thresholds: {done: {least: 1}}
"""
TICK_S = 0.002


def acted(steps, endings=(), *, closing=lambda: False, takes_s=0.0, real_s=TICK_S):
    """Play a caller through; gives what was asked, in order, as (model, call, attempt, last, how many were open)."""
    import gevent

    from loadtests.engine import AGAIN, Player

    asked, told, open_ = [], iter(endings), count()
    now = [0]

    def ask(actor, call, number, attempt, last):
        now[0] += 1
        asked.append((call.model, number, attempt, last, now[0]))
        gevent.sleep(takes_s * (5 if call.model == "m" else 1))
        now[0] -= 1
        ending = next(told, Ending.DONE)
        return sample(ending, at_s=float(next(open_)), last=last or ending not in AGAIN)

    play = scenario.loads(PLAY.replace("STEPS", steps), "small.yaml")
    Player(cast(play, 1)[0], real_s, ask, closing).play()
    assert now == [0], "a play is over when nothing of it is open"
    return asked


def test_a_turn_ends_with_its_last_answer_and_calls_at_once_are_open_together():
    asked = acted("{model: m, takes: 1, burst: 3}, {model: n, takes: 1}", takes_s=0.01)
    assert [(model, open_) for model, _, _, _, open_ in asked] == [("m", 1), ("m", 2), ("m", 3), ("n", 1)]


def test_nobody_waits_for_a_call_in_the_background_but_it_is_part_of_the_play():
    asked = acted("{model: m, takes: 1, background: true}, {model: n, takes: 1}", takes_s=0.01)
    assert [(model, open_) for model, _, _, _, open_ in asked] == [("m", 1), ("n", 2)]


@pytest.mark.parametrize("trouble", [Ending.REFUSED, Ending.FAILED, Ending.CUT, Ending.GAVE_UP])
def test_a_call_is_tried_again_until_it_is_answered(trouble):
    asked = acted("{model: m, takes: 1, retry: [1, 1, 1]}", [trouble, trouble])
    assert [(number, attempt, last) for _, number, attempt, last, _ in asked] == [
        (1, 1, False),
        (1, 2, False),
        (1, 3, False),
    ]


def test_the_last_try_is_the_last_whatever_becomes_of_it():
    asked = acted("{model: m, takes: 1, retry: [1]}, {model: n, takes: 1}", [Ending.CUT] * 2)
    assert [(model, attempt, last) for model, _, attempt, last, _ in asked] == [
        ("m", 1, False),
        ("m", 2, True),
        ("n", 1, True),
    ]


@pytest.mark.parametrize("ending", [Ending.DONE, Ending.LEFT, Ending.MISSING])
def test_what_went_as_it_should_is_not_tried_again(ending):
    assert len(acted("{model: m, takes: 1, retry: [1, 1]}", [ending])) == 1


def test_when_the_time_is_up_nothing_new_is_begun_and_nothing_tried_again():
    calls = count()
    closed = acted(
        "{model: m, takes: 1, retry: [1, 1]}, {model: n, takes: 1}", [Ending.CUT] * 3, closing=lambda: next(calls) > 1
    )
    assert [(model, attempt) for model, _, attempt, _, _ in closed] == [("m", 1)]
