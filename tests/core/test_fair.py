"""The `fair` policy: bound, priority, hold and waiting room, as transcripts."""

from dataclasses import replace

import pytest

from llmswap.core.fleet import Fleet, Scheduling
from tests.core.story import Story, arrive, cancel, done, fleet, group, model, ready, stopped, tick


def fair(*models, **overrides) -> Fleet:
    """Make a fleet of models that exclude one another; fixed holds of 10 s and bounds of 60 s unless said."""
    changed = [replace(each, **{"hold_s": 10.0, "max_wait_s": 60.0, **overrides}) for each in models]
    made = fleet(*changed)
    return replace(made, scheduling=Scheduling.FAIR)


def serving_a(*models, **overrides) -> Story:
    """Tell the story up to the moment, 10 s, at which `a` has served request 1 and fallen idle."""
    story = Story(fair(*(models or (model("a"), model("b"))), **overrides))
    assert story.at(0, arrive(1, "a")) == ["start a#1"]
    assert story.at(5, ready("a", 1)) == ["dispatch 1 a#1"]
    assert story.at(10, done(1)) == []
    return story


def test_an_idle_resident_is_held_for_its_callers_and_then_goes():
    story = serving_a()
    assert story.at(12, arrive(2, "b")) == []
    assert story.deadline == 20
    assert story.at(20, tick) == ["stop a#1 evict for b"]


def test_a_request_for_the_resident_starts_the_hold_anew():
    story = serving_a()
    story.at(12, arrive(2, "b"))
    assert story.at(15, arrive(3, "a")) == ["dispatch 3 a#1"]
    story.at(18, done(3))
    assert story.at(20, tick) == []
    assert story.at(28, tick) == ["stop a#1 evict for b"]


def test_requests_for_other_models_do_not_prolong_the_hold():
    story = serving_a(model("a"), model("b"), model("c"))
    story.all_at(12, arrive(2, "b"))
    story.all_at(19, arrive(3, "b"), arrive(4, "c"))
    assert story.at(20, tick) == ["stop a#1 evict for b"]


def test_a_waiting_model_of_higher_priority_ends_the_hold_at_once():
    story = serving_a(model("a"), model("b", priority=1))
    assert story.at(12, arrive(2, "b")) == ["stop a#1 evict for b"]


def test_nobody_is_held_when_nobody_waits_and_a_long_idle_one_goes_at_once():
    story = serving_a()
    assert story.at(25, arrive(2, "b")) == ["stop a#1 evict for b"]


def test_a_due_waiter_closes_admission_to_who_is_in_its_way_until_it_is_served():
    story = serving_a(max_wait_s=30.0)
    story.at(11, arrive(2, "a"))
    story.at(12, arrive(3, "b"))
    assert story.at(40, arrive(4, "a")) == ["dispatch 4 a#1"], "b is not due yet"
    assert story.at(42, tick) == []
    assert story.at(43, arrive(5, "a")) == [], "b is due: a takes nobody any more"
    assert story.at(44, done(2)) == []
    assert story.at(45, done(4)) == ["stop a#1 evict for b"]
    assert story.at(46, stopped("a", 1)) == ["start b#2"]
    assert story.at(50, ready("b", 2)) == ["dispatch 3 b#2"]
    assert story.at(51, done(3)) == [], "b is held, but for a only until it is due"
    assert story.at(61, tick) == ["stop b#2 evict for a"]


def test_who_is_due_ends_a_hold():
    story = serving_a(hold_s=1000.0)
    story.at(12, arrive(2, "b"))
    assert story.deadline <= 72
    assert story.at(71, tick) == []
    assert story.at(72, tick) == ["stop a#1 evict for b"]


def test_among_the_due_the_oldest_goes_first_whatever_the_priorities():
    story = serving_a(model("a"), model("b"), model("c", priority=5), hold_s=0.0)
    story.at(11, arrive(2, "a"))
    story.at(12, arrive(3, "b"))
    story.at(13, arrive(4, "c"))
    story.at(73, tick)
    assert story.at(80, done(2)) == ["stop a#1 evict for b"]


def test_before_anybody_is_due_the_higher_priority_goes_first():
    story = serving_a(model("a"), model("b"), model("c", priority=5), hold_s=0.0)
    story.at(11, arrive(2, "a"))
    story.at(12, arrive(3, "b"))
    story.at(13, arrive(4, "c"))
    assert story.at(20, done(2)) == ["stop a#1 evict for c"]


def test_the_limit_counts_those_served_and_the_rest_waits_in_the_waiting_room():
    story = Story(fair(model("a", concurrency_limit=2), queue_limit=2))
    story.all_at(0, arrive(1, "a"), arrive(2, "a"))
    assert story.at(5, ready("a", 1)) == ["dispatch 1 a#1", "dispatch 2 a#1"]
    assert story.all_at(6, arrive(3, "a"), arrive(4, "a")) == []
    assert story.at(7, arrive(5, "a")) == ["reject 5 over_limit"]
    assert story.at(8, done(1)) == ["dispatch 3 a#1"]
    assert story.at(9, arrive(6, "a")) == []


def test_the_room_of_all_models_together_is_bounded_too():
    story = Story(replace(fair(model("a", concurrency_limit=1)), queue_max=1))
    story.at(0, arrive(1, "a"))
    story.at(5, ready("a", 1))
    assert story.at(6, arrive(2, "a")) == []
    assert story.at(7, arrive(3, "a")) == ["reject 3 queue_full"]
    assert story.at(8, done(1)) == ["dispatch 2 a#1"]


def test_a_newcomer_that_fits_now_still_yields_to_who_is_due_and_could_not_live_beside_it():
    story = serving_a(model("a"), model("b"), model("c"), max_wait_s=20.0)
    story.at(11, arrive(2, "a"))
    story.at(12, arrive(3, "b"))
    story.at(33, tick)
    assert story.at(34, arrive(4, "c")) == []
    assert story.at(40, done(2)) == ["stop a#1 evict for b"]


def test_a_model_whose_callers_return_soon_is_held_for_them_and_one_whose_do_not_is_not():
    quick, slow = rhythm_of(gap_s=2.0), rhythm_of(gap_s=300.0)
    assert quick.at(5000, arrive(99, "b")) == [], "held"
    assert slow.at(5000, arrive(99, "b")) == ["stop a#1 evict for b"]


def test_a_learnt_hold_stays_what_it_was_until_the_model_is_used_again():
    story = rhythm_of(gap_s=2.0)
    story.at(5000, arrive(99, "b"))
    held_until_s = story.scheduler.waits(0)[0].obstacle.until_s
    story.all_at(5001, arrive(100, "b"), arrive(101, "c"), arrive(102, "c"))
    assert [wait.obstacle.until_s for wait in story.scheduler.waits(0)] == [held_until_s] * 2
    assert story.at(held_until_s, tick) == ["stop a#1 evict for b"]


def test_a_resident_is_held_while_those_it_lives_with_are_asked_for_in_turn():
    """A chain of small models: each is idle while the next is asked, and the big one waits for the place of all."""
    groups = (group("small", "a", "b", swap=False), group("big", "c"))
    story = Story(replace(fair(model("a"), model("b"), model("c"), hold_s=None), groups=groups))
    story.all_at(0, arrive(1, "a"), arrive(2, "b"))
    story.all_at(30, ready("a", 1), ready("b", 2))
    now_s, request = 31.0, 2
    story.all_at(now_s, done(1), done(2))
    for _ in range(8):
        for name in ("a", "b"):
            now_s, request = now_s + (0.2 if name == "b" else 300.0), request + 1
            story.at(now_s, arrive(request, name))
            now_s += 1
            story.at(now_s, done(request))
    story.at(now_s + 300.0, arrive(50, "a"))
    story.at(now_s + 300.5, arrive(51, "c"))
    assert story.at(now_s + 301.0, done(50)) == [], "b will be asked for in a moment"


def test_a_learnt_hold_is_no_longer_than_twice_what_bringing_either_model_back_takes():
    """Quick loads, and a caller who comes in bursts half a minute apart."""
    story = Story(fair(model("a"), model("b"), hold_s=None))
    story.all_at(0, arrive(1, "a"), arrive(2, "b"))
    story.all_at(2, ready("a", 1))
    story.all_at(3, cancel(2), done(1))
    now_s = 2000.0
    for burst in range(10):
        now_s += 30.0
        requests = range(100 * burst + 100, 100 * burst + 150)
        story.all_at(now_s, *(arrive(request, "a") for request in requests))
        now_s += 1
        story.all_at(now_s, *(done(request) for request in requests))
    assert story.at(now_s + 1, arrive(99, "b")) == []
    (wait,) = story.scheduler.waits(0)
    assert wait.obstacle.until_s == now_s + 2 * 2.0


def rhythm_of(gap_s: float) -> Story:
    """Let `a` be called six times with a gap and answer in 1 s, the last time at 5000 s."""
    story = Story(fair(model("a"), model("b"), model("c"), hold_s=None))
    now_s = 5000.0 - 6 * gap_s - 6
    story.at(now_s - 40, arrive(0, "a"))
    story.at(now_s - 10, ready("a", 1))
    story.at(now_s, done(0))
    for number in range(1, 7):
        now_s += gap_s
        story.at(now_s, arrive(number, "a"))
        now_s += 1
        story.at(now_s, done(number))
    assert now_s == pytest.approx(5000.0)
    return story


@pytest.mark.parametrize("up_s", [0.0, 2.0**20], ids=["booted just now", "up for weeks"])
def test_how_much_a_box_gets_done_is_learned_from_its_first_event_on_whatever_the_clock_says(up_s):
    """One caller needs `a` and `b` in turn: to keep either would be for nothing."""
    story = Story(fair(model("a"), model("b"), hold_s=None, max_wait_s=120.0))

    def at(now_s, event):
        return story.at(up_s + now_s, event)

    assert at(0, arrive(1, "a")) == ["start a#1"]
    at(20, ready("a", 1))
    at(30, done(1))
    assert at(35, arrive(2, "b")) == []  # nothing is known of the callers yet
    assert at(40, tick) == ["stop a#1 evict for b"]
    assert at(41, stopped("a", 1)) == ["start b#2"]
    at(61, ready("b", 2))
    at(71, done(2))
    assert at(76, arrive(3, "a")) == []
    assert at(81, tick) == ["stop b#2 evict for a"]
    assert at(82, stopped("b", 2)) == ["start a#3"]
    at(102, ready("a", 3))
    at(112, done(3))
    assert at(117, arrive(4, "b")) == ["stop a#3 evict for b"]
