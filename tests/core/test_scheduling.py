"""Who is served, who waits, who must go: requests against the default rule, where every model excludes every other."""

import pytest

from tests.core.story import Story, arrive, cancel, done, failed, fleet, model, ready, stopped, tick, together, unload


def test_a_cold_model_is_started_once_and_serves_all_who_joined():
    story = Story(fleet("a"))
    assert story.at(0, arrive(1, "a")) == ["start a#1"]
    assert story.all_at(1, arrive(2, "a"), arrive(3, "a")) == []
    assert story.at(2, ready("a", 1)) == ["dispatch 1 a#1", "dispatch 2 a#1", "dispatch 3 a#1"]
    assert story.at(3, arrive(4, "a")) == ["dispatch 4 a#1"]


def test_the_next_model_starts_only_when_the_memory_of_the_last_is_free():
    story = Story(fleet("a", "b"))
    story.all_at(0, arrive(1, "a"), ready("a", 1), done(1))
    assert story.at(1, arrive(2, "b")) == ["stop a#1 evict for b"]
    assert story.at(2, arrive(3, "b")) == []
    assert story.at(3, stopped("a", 1)) == ["start b#2"]
    assert story.commands[0].evicted == ("a",)
    assert story.at(4, ready("b", 2)) == ["dispatch 2 b#2", "dispatch 3 b#2"]


def test_a_busy_upstream_is_evicted_only_when_its_last_request_ended():
    story = Story(fleet("a", "b"))
    story.all_at(0, arrive(1, "a"), arrive(2, "a"), ready("a", 1))
    assert story.at(1, arrive(3, "b")) == []
    assert story.at(2, done(1)) == []
    assert story.at(3, done(2)) == ["stop a#1 evict for b"]


def test_a_ready_model_serves_at_once_whoever_waits():
    story = Story(fleet("a", "b"))
    story.all_at(0, arrive(1, "a"), ready("a", 1), arrive(2, "b"))
    assert story.at(1, arrive(3, "a")) == ["dispatch 3 a#1"]


def test_waiting_requests_are_served_model_by_model():
    story = Story(fleet("a", "b", "c"))
    asked = story.all_at(0, *(arrive(number, name) for number, name in enumerate("abcabc")))
    assert asked == ["start a#1"]
    assert story.at(1, ready("a", 1)) == ["dispatch 0 a#1", "dispatch 3 a#1"]
    assert story.all_at(2, done(0), done(3)) == ["stop a#1 evict for b"]
    assert story.all_at(3, stopped("a", 1), ready("b", 2)) == ["start b#2", "dispatch 1 b#2", "dispatch 4 b#2"]
    assert story.all_at(4, done(1), done(4)) == ["stop b#2 evict for c"]
    assert story.all_at(5, stopped("b", 2), ready("c", 3)) == ["start c#3", "dispatch 2 c#3", "dispatch 5 c#3"]


def test_a_swap_that_waits_for_who_stops_anyway_is_on_since_it_was_decided():
    story = Story(fleet("a", "b"))
    story.all_at(0, arrive(1, "b"), ready("b", 1), done(1), arrive(2, "a"), stopped("b", 1), ready("a", 2), done(2))
    assert story.at(900, unload("a")) == ["stop a#2 unload"]
    assert story.at(901, arrive(3, "b")) == []
    (swap,) = story.scheduler.snapshot().swaps
    assert (swap.target, swap.waiting_for, swap.since_s) == ("b", ("a",), 901)


def test_those_who_waited_for_a_swap_are_served_before_a_higher_priority_evicts_it():
    story = Story(fleet("a", model("b", priority=9)))
    assert story.all_at(0, arrive(1, "a"), arrive(2, "b")) == ["start a#1"]
    assert story.at(1, ready("a", 1)) == ["dispatch 1 a#1"]
    assert story.at(2, done(1)) == ["stop a#1 evict for b"]


def test_a_swap_that_lost_its_last_waiter_before_its_start_is_given_up():
    story = Story(fleet("a", "b"))
    story.all_at(0, arrive(1, "a"), ready("a", 1), done(1), arrive(2, "b"))
    assert story.scheduler.snapshot().swaps[0].waiting_for == ("a",)
    assert story.at(1, cancel(2)) == []
    assert story.scheduler.snapshot().swaps == ()
    assert story.at(2, stopped("a", 1)) == []


def test_a_start_that_was_ordered_goes_on_without_waiters():
    story = Story(fleet("a"))
    story.all_at(0, arrive(1, "a"), cancel(1))
    assert story.states() == {"a": "starting"}
    assert story.all_at(1, arrive(2, "a"), cancel(2)) == []
    assert story.at(2, ready("a", 1)) == []
    assert story.at(3, arrive(3, "a")) == ["dispatch 3 a#1"]


def test_a_cancelled_request_is_never_dispatched():
    story = Story(fleet("a"))
    story.all_at(0, arrive(1, "a"), arrive(2, "a"), arrive(3, "a"), cancel(2))
    assert story.at(1, ready("a", 1)) == ["dispatch 1 a#1", "dispatch 3 a#1"]


def test_cancelling_what_was_refused_or_is_served_changes_nothing():
    story = Story(fleet(model("a", concurrency_limit=1)))
    story.all_at(0, arrive(1, "a"), ready("a", 1), arrive(2, "a"))
    assert story.all_at(1, cancel(1), cancel(2), cancel(99)) == []
    assert story.upstream("a").in_flight == 1


def test_the_concurrency_limit_counts_those_who_wait_and_those_who_are_served():
    story = Story(fleet(model("a", concurrency_limit=2)))
    assert story.all_at(0, arrive(1, "a"), arrive(2, "a"), arrive(3, "a")) == ["start a#1", "reject 3 over_limit"]
    assert story.reject.retry_after_s == 1
    assert "limit is 2" in story.reject.detail
    story.at(1, ready("a", 1))
    assert story.at(2, arrive(4, "a")) == ["reject 4 over_limit"]
    assert story.all_at(3, done(1), arrive(5, "a")) == ["dispatch 5 a#1"]


def test_the_waiting_room_has_an_end_but_who_need_not_wait_is_served():
    story = Story(fleet("a", "b", "c", queue_max=2))
    story.all_at(0, arrive(1, "a"), ready("a", 1), arrive(2, "b"), arrive(3, "c"))
    assert story.at(1, arrive(4, "b")) == ["reject 4 queue_full"]
    assert story.at(2, arrive(5, "a")) == ["dispatch 5 a#1"]
    assert story.all_at(3, cancel(3), arrive(6, "b")) == []


def test_a_request_is_refused_when_it_waited_too_long():
    story = Story(fleet("a", model("b", queue_timeout_s=30)))
    story.all_at(0, arrive(1, "a"), ready("a", 1))
    story.all_at(5, arrive(2, "b"))
    story.all_at(6, arrive(3, "b"))
    assert story.deadline == 35
    assert story.at(35, tick) == ["reject 2 queue_timeout"]
    assert story.deadline == 36
    assert story.at(36.5, tick) == ["reject 3 queue_timeout"]
    assert story.at(37, done(1)) == []


def test_the_queue_timeout_also_holds_during_a_swap():
    story = Story(fleet(model("a", queue_timeout_s=30)))
    story.at(0, arrive(1, "a"))
    assert story.at(30, tick) == ["reject 1 queue_timeout"]
    assert story.at(31, ready("a", 1)) == []


def test_a_deadline_that_no_longer_matters_brings_nothing():
    story = Story(fleet(model("a", queue_timeout_s=30)))
    story.all_at(0, arrive(1, "a"), ready("a", 1))
    assert story.at(30, tick) == []
    assert story.deadline is None


def test_priority_orders_the_queue_and_age_breaks_ties():
    story = Story(fleet("x", model("b", priority=5), model("d", priority=1), model("c", priority=5)))
    story.all_at(0, arrive(0, "x"), ready("x", 1), arrive(1, "d"), arrive(2, "b"), arrive(3, "c"), arrive(4, "b"))
    assert [story.position(number) for number in (1, 2, 3, 4)] == [4, 1, 2, 3]
    assert story.position(0) is None
    assert story.at(1, done(0)) == ["stop x#1 evict for b"]
    assert [story.position(number) for number in (1, 2, 3, 4)] == [2, None, 1, None]


def test_positions_move_up_when_somebody_ahead_leaves():
    story = Story(fleet("x", "a", "b"))
    story.all_at(0, arrive(0, "x"), ready("x", 1), arrive(1, "a"), arrive(2, "b"), arrive(3, "a"))
    story.at(1, cancel(1))
    assert [story.position(number) for number in (1, 2, 3)] == [None, 1, 2]


def test_models_that_may_live_together_load_side_by_side():
    story = Story(fleet("a", "b", groups=together("a", "b")))
    assert story.all_at(0, arrive(1, "a"), arrive(2, "b")) == ["start a#1", "start b#2"]


def test_a_blocked_model_does_not_hold_up_those_behind_it():
    side = together("a", "c")
    story = Story(fleet("a", "b", "c", groups=side))
    story.all_at(0, arrive(1, "a"), ready("a", 1))
    assert story.all_at(1, arrive(2, "b"), arrive(3, "c")) == ["start c#2"]


def test_a_request_that_arrives_twice_is_a_bug():
    story = Story(fleet("a"))
    story.at(0, arrive(1, "a"))
    with pytest.raises(AssertionError, match="arrived twice"):
        story.at(0, arrive(1, "a"))


def test_time_never_runs_backwards():
    story = Story(fleet("a"))
    story.at(5, tick)
    with pytest.raises(AssertionError, match="backwards"):
        story.at(4, tick)


def test_an_outcome_that_the_state_does_not_allow_is_a_bug():
    story = Story(fleet("a"))
    story.all_at(0, arrive(1, "a"), ready("a", 1))
    with pytest.raises(AssertionError, match="illegal transition ready -> failed"):
        story.at(1, failed("a", 1))


def test_a_stop_nobody_ordered_is_a_bug():
    story = Story(fleet("a"))
    story.all_at(0, arrive(1, "a"), ready("a", 1))
    with pytest.raises(AssertionError, match="illegal transition ready -> stopped"):
        story.at(1, stopped("a", 1))
