"""Upstreams that do not start, die, or cannot be killed."""

import pytest

from tests.core.story import (
    Story,
    arrive,
    cancel,
    done,
    exited,
    failed,
    fleet,
    group,
    load,
    model,
    ready,
    stop_failed,
    stopped,
    tick,
    together,
    unload,
)


def test_a_failed_start_refuses_all_who_waited_and_says_why():
    story = Story(fleet("a"))
    story.all_at(0, arrive(1, "a"), arrive(2, "a"))
    assert story.at(1, failed("a", 1, "exited with code 1")) == ["reject 1 upstream_failed", "reject 2 upstream_failed"]
    assert "exited with code 1" in story.commands[0].detail
    assert story.commands[0].retry_after_s == 1
    assert story.states() == {"a": "failed"}


def test_a_start_that_timed_out_is_told_apart_from_one_that_failed():
    story = Story(fleet("a"))
    story.at(0, arrive(1, "a"))
    assert story.at(120, failed("a", 1, "not ready after 120 s", timed_out=True)) == ["reject 1 start_timeout"]
    assert story.at(120, arrive(2, "a")) == ["reject 2 backoff"]


def test_during_backoff_requests_are_refused_at_once_with_the_last_reason():
    story = Story(fleet("a"))
    story.all_at(0, arrive(1, "a"), failed("a", 1, "no such file"))
    assert story.at(0.25, arrive(2, "a")) == ["reject 2 backoff"]
    assert "no such file" in story.reject.detail
    assert story.reject.retry_after_s == 0.75
    assert story.upstream("a").retry_at_s == 1
    assert story.at(1, arrive(3, "a")) == ["start a#2"]
    assert story.upstream("a").retry_at_s is None


def test_backoff_doubles_up_to_a_minute_and_a_success_resets_it():
    story = Story(fleet("a"))
    now_s, waits = 0.0, []
    for generation in range(1, 9):
        story.all_at(now_s, arrive(generation, "a"), failed("a", generation))
        waits.append(story.upstream("a").retry_at_s - now_s)
        now_s += waits[-1]
    assert waits == [1, 2, 4, 8, 16, 32, 60, 60]
    story.all_at(now_s, arrive(9, "a"), ready("a", 9), done(9))
    assert story.upstream("a").failure is None
    story.all_at(now_s, exited("a", 9), stopped("a", 9), arrive(10, "a"), failed("a", 10))
    assert story.upstream("a").retry_at_s - now_s == 1


def test_an_unload_ends_the_backoff():
    story = Story(fleet("a"))
    story.all_at(0, arrive(1, "a"), failed("a", 1))
    assert story.at(0.1, unload("a")) == []
    view = story.upstream("a")
    assert (view.state, view.since_s, view.failure, view.retry_at_s) == ("stopped", 0.1, None, None)
    assert story.at(0.2, arrive(2, "a")) == ["start a#2"]


def test_a_load_order_during_backoff_is_dropped():
    story = Story(fleet("a"))
    story.all_at(0, load("a"), failed("a", 1))
    assert story.at(0.5, load("a")) == []
    assert story.at(5, tick) == []


def test_others_go_on_after_a_failed_start_and_the_evicted_one_may_come_back():
    story = Story(fleet("a", "b", "c"))
    story.all_at(0, arrive(1, "a"), ready("a", 1), done(1), arrive(2, "b"), arrive(3, "c"), stopped("a", 1))
    assert story.at(1, failed("b", 2)) == ["reject 2 upstream_failed", "start c#3"]
    story.all_at(2, ready("c", 3), done(3))
    assert story.at(3, arrive(4, "a")) == ["stop c#3 evict for a"]


def test_a_crash_closes_admission_at_once_and_the_next_life_begins_when_the_tree_is_gone():
    story = Story(fleet("a"))
    story.all_at(0, arrive(1, "a"), ready("a", 1))
    assert story.at(1, exited("a", 1)) == []
    assert story.states() == {"a": "stopping"}
    assert story.upstream("a").failure == "killed by signal 9"
    assert story.at(2, arrive(2, "a")) == []
    assert story.at(3, stopped("a", 1)) == ["start a#2"]
    assert story.at(4, ready("a", 2)) == ["dispatch 2 a#2"]


def test_requests_of_a_dead_life_neither_block_nor_leak_into_the_next():
    story = Story(fleet("a", "b"))
    story.all_at(0, arrive(1, "a"), arrive(2, "a"), ready("a", 1))
    story.all_at(1, exited("a", 1), done(1), stopped("a", 1), arrive(3, "a"), ready("a", 2))
    assert story.upstream("a").in_flight == 1
    story.all_at(2, done(2), arrive(4, "b"))
    assert story.upstream("a").in_flight == 1
    assert story.at(3, done(3)) == ["stop a#2 evict for b"]


def test_a_dead_lifes_requests_do_not_use_up_the_limit_of_the_next():
    story = Story(fleet(model("a", concurrency_limit=1)))
    story.all_at(0, arrive(1, "a"), ready("a", 1), exited("a", 1))
    assert story.all_at(1, arrive(2, "a"), stopped("a", 1), ready("a", 2)) == ["start a#2", "dispatch 2 a#2"]


def test_waiters_of_another_model_get_the_place_of_a_crashed_one():
    story = Story(fleet("a", "b"))
    story.all_at(0, arrive(1, "a"), ready("a", 1), arrive(2, "b"))
    assert story.at(1, exited("a", 1)) == []
    assert story.at(2, stopped("a", 1)) == ["start b#2"]


@pytest.mark.parametrize("outcome", [ready, failed, exited, stopped, stop_failed])
def test_outcomes_of_an_old_generation_change_nothing(outcome):
    story = Story(fleet("a"))
    story.all_at(0, arrive(1, "a"), ready("a", 1), done(1), unload("a"), stopped("a", 1), arrive(2, "a"))
    before = story.scheduler.snapshot()
    assert story.at(0, outcome("a", 1)) == []
    assert story.scheduler.snapshot() == before


@pytest.mark.parametrize("outcome", [ready, failed, exited, stopped, stop_failed])
def test_outcomes_that_come_twice_change_nothing(outcome):
    story = Story(fleet("a"))
    story.all_at(0, arrive(1, "a"), ready("a", 1), done(1), unload("a"), stopped("a", 1))
    before = story.scheduler.snapshot()
    assert story.at(0, outcome("a", 1)) == []
    assert story.scheduler.snapshot() == before


def test_what_cannot_be_stopped_keeps_its_memory_and_conflicting_requests_are_refused():
    story = Story(fleet("a", "b"))
    story.all_at(0, arrive(1, "a"), ready("a", 1), done(1), arrive(2, "b"))
    assert story.at(30, stop_failed("a", 1)) == ["reject 2 stuck"]
    assert story.reject.detail == "b cannot be started: a cannot be stopped: still there after SIGKILL"
    assert story.upstream("a").stuck
    assert story.all_at(31, arrive(3, "b"), arrive(4, "a")) == ["reject 3 stuck", "reject 4 stuck"]


def test_a_stuck_upstream_that_goes_after_all_makes_room_again():
    story = Story(fleet("a", "b"))
    story.all_at(0, arrive(1, "a"), ready("a", 1), done(1), arrive(2, "b"), stop_failed("a", 1), stopped("a", 1))
    assert not story.upstream("a").stuck
    assert story.at(1, arrive(3, "b")) == ["start b#2"]


def test_a_stuck_upstream_does_not_concern_models_that_live_beside_it():
    story = Story(fleet("a", "b", "c", groups=together("a", "b")))
    story.all_at(0, arrive(1, "a"), ready("a", 1), done(1), unload("a"), stop_failed("a", 1))
    assert story.all_at(1, arrive(2, "b"), ready("b", 2)) == ["start b#2", "dispatch 2 b#2"]


def test_a_ready_upstream_serves_although_one_it_would_evict_is_stuck():
    story = Story(fleet("a", "b", groups=[group("alone", "a"), group("guest", "b", exclusive=False)]))
    story.all_at(0, arrive(1, "a"), ready("a", 1), done(1), arrive(2, "b"), ready("b", 2), done(2))
    story.all_at(1, unload("b"), stop_failed("b", 2))
    assert story.at(2, arrive(3, "a")) == ["dispatch 3 a#1"]


def test_who_waits_for_the_stuck_upstream_itself_is_refused():
    story = Story(fleet("a"))
    story.all_at(0, arrive(1, "a"), ready("a", 1), done(1), unload("a"), arrive(2, "a"))
    assert story.at(30, stop_failed("a", 1)) == ["reject 2 stuck"]
    assert story.reject.detail == "a cannot be started: it cannot be stopped: still there after SIGKILL"


def test_a_start_under_way_goes_on_when_another_upstream_gets_stuck():
    story = Story(fleet("a", "b", groups=together("a", "b")))
    story.all_at(0, arrive(1, "a"), ready("a", 1), done(1), unload("a"), arrive(2, "b"))
    assert story.at(1, stop_failed("a", 1)) == []
    assert story.at(2, ready("b", 2)) == ["dispatch 2 b#2"]


def test_a_crash_of_the_busy_one_lets_the_rest_of_an_eviction_begin_at_once():
    story = Story(fleet("a", "b", "c", groups=together("a", "b")))
    story.all_at(0, arrive(1, "a"), ready("a", 1), arrive(2, "b"), ready("b", 2), done(2), arrive(3, "c"))
    assert story.at(1, exited("a", 1)) == ["stop b#2 evict for c"]
    assert story.at(2, stopped("b", 2)) == []
    assert story.at(3, stopped("a", 1)) == ["start c#3"]


def test_only_the_swap_that_waits_for_a_stuck_upstream_is_given_up():
    story = Story(fleet("a", "b", "c", groups=together("a", "c")))
    story.all_at(0, arrive(1, "a"), ready("a", 1), done(1), arrive(2, "b"), arrive(3, "b"), cancel(3))
    assert story.at(1, stop_failed("a", 1)) == ["reject 2 stuck"]
    assert story.at(2, arrive(4, "c")) == ["start c#2"]
