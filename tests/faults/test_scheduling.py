"""Fault rows that the pure core decides: requests that meet a stop, long requests, unloads, ttl, reloads."""

from random import Random

from llmswap.core.fleet import MatrixRules
from tests.core.story import (
    Story,
    arrive,
    cancel,
    done,
    exited,
    fleet,
    model,
    ready,
    reload,
    stop_failed,
    stopped,
    tick,
    together,
    unload,
)


def test_F036_an_unkillable_upstream_keeps_its_memory_and_its_rivals_are_refused():
    story = Story(fleet("a", "b"))
    story.all_at(0, arrive(1, "a"), ready("a", 1), done(1), arrive(2, "b"))
    assert story.at(30, stop_failed("a", 1)) == ["reject 2 stuck"]
    assert story.all_at(60, arrive(3, "b"), tick) == ["reject 3 stuck"]
    assert story.upstream("a").stuck
    assert story.states() == {"a": "stopping", "b": "stopped"}


def test_F037_a_stop_while_starting_leaves_one_error_and_no_ghost():
    story = Story(fleet("a"))
    story.at(0, arrive(1, "a"))
    assert story.at(1, unload("a")) == ["reject 1 unloaded", "stop a#1 unload"]
    assert story.at(2, ready("a", 1)) == []
    assert story.at(3, stopped("a", 1)) == []
    assert story.states() == {"a": "stopped"}


def test_F038_a_request_that_arrives_during_a_stop_waits_and_is_served_by_the_next_life():
    """In a thousand orders of events: whatever stops it, and however many arrive before, during and after."""
    for seed in range(1000):
        rng = Random(seed)
        story = Story(fleet(model("a", idle_ttl_s=5, concurrency_limit=1000), "b"))
        story.all_at(0, arrive(0, "a"), ready("a", 1), done(0))
        ways = [tick, unload("a"), exited("a", 1), reload(fleet(model("a", "2", concurrency_limit=1000), "b"))]
        story.at(5, rng.choice(ways))
        assert story.states()["a"] == "stopping"
        ways_of_the_past = [ready("a", 1), exited("a", 1), tick]
        inside = [arrive(number, "a") for number in range(1, rng.randint(2, 6))]
        events = [*inside, *rng.sample(ways_of_the_past, 2)]
        rng.shuffle(events)
        assert story.all_at(6, *events) == []
        assert story.at(7, stopped("a", 1)) == ["start a#2"]
        served = story.at(8, ready("a", 2))
        assert sorted(served) == [f"dispatch {number} a#2" for number in range(1, len(inside) + 1)], seed


def test_F058_the_only_waiter_leaves_during_the_load_and_the_load_finishes():
    story = Story(fleet("a"))
    story.all_at(0, arrive(1, "a"))
    assert story.at(1, cancel(1)) == []
    assert story.at(2, ready("a", 1)) == []
    assert story.at(3, arrive(2, "a")) == ["dispatch 2 a#1"]


def test_F064_a_long_request_is_never_cut_for_another_model():
    story = Story(fleet("a", model("b", queue_timeout_s=600)))
    story.all_at(0, arrive(1, "a"), ready("a", 1))
    assert story.at(60, arrive(2, "b")) == []
    told = []
    while story.deadline is not None and story.deadline <= 1200:
        told += story.at(story.deadline, tick)
    assert told == ["reject 2 queue_timeout"]
    assert story.reject.retry_after_s is not None
    assert story.upstream("a").in_flight == 1
    story.at(1190, arrive(3, "b"))
    assert story.at(1200, done(1)) == ["stop a#1 evict for b"]


def test_F067_an_unload_during_a_load_gives_one_error_and_the_late_result_changes_nothing():
    story = Story(fleet("a"))
    story.all_at(0, arrive(1, "a"), arrive(2, "a"))
    assert story.at(1, unload("a")) == ["reject 1 unloaded", "reject 2 unloaded", "stop a#1 unload"]
    assert story.all_at(2, stopped("a", 1), arrive(3, "a")) == ["start a#2"]
    assert story.at(3, ready("a", 1)) == []
    assert story.states() == {"a": "starting"}
    assert story.at(4, ready("a", 2)) == ["dispatch 3 a#2"]


def test_F068_an_unload_of_a_stubborn_model_does_not_hold_up_others():
    story = Story(fleet("a", "b", groups=together("a", "b")))
    story.all_at(0, arrive(1, "a"), ready("a", 1), unload("a"))
    assert story.at(1, arrive(2, "b")) == ["start b#2"]
    assert story.at(2, ready("b", 2)) == ["dispatch 2 b#2"]
    assert story.states() == {"a": "stopping", "b": "ready"}


def test_F069_a_request_that_meets_the_ttl_is_served():
    """Ten thousand times around the very moment: on this life if it came first, on the next if it came second."""
    rng = Random(69)
    for _ in range(10_000):
        story = Story(fleet(model("a", idle_ttl_s=5)))
        story.all_at(0, arrive(1, "a"), ready("a", 1), done(1))
        moment_s = 5 + rng.choice((-1e-9, 0.0, 0.0, 1e-9))
        request_first = rng.random() < 0.5
        first, second = (arrive(2, "a"), tick) if request_first else (tick, arrive(2, "a"))
        told = story.all_at(moment_s, first, second)
        if told == ["stop a#1 ttl"]:
            told += story.all_at(6, stopped("a", 1), ready("a", 2))
            assert told == ["stop a#1 ttl", "start a#2", "dispatch 2 a#2"]
        else:
            assert told == ["dispatch 2 a#1"]
            assert request_first or moment_s < 5


def test_F076_a_reload_in_the_middle_of_a_swap_keeps_the_waiters():
    story = Story(fleet("a", "b"))
    story.all_at(0, arrive(1, "a"), ready("a", 1), done(1), arrive(2, "b"))
    assert story.at(1, reload(fleet("a", "b", "c", matrix=MatrixRules({}, {"s": "a | b | c"})))) == []
    assert story.at(2, stopped("a", 1)) == ["start b#2"]
    assert story.at(3, ready("b", 2)) == ["dispatch 2 b#2"]


def test_F080_a_removed_model_finishes_what_it_serves_then_stops():
    story = Story(fleet("a", "b"))
    story.all_at(0, arrive(1, "a"), ready("a", 1))
    assert story.at(1, reload(fleet("b"))) == []
    assert story.at(2, done(1)) == ["stop a#1 reload"]
