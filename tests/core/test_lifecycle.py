"""What an operator orders and what time brings: load, unload, idle ttl."""

from tests.core.story import Story, arrive, done, exited, failed, fleet, load, model, ready, stopped, tick, unload


def test_a_load_order_starts_a_model_with_nobody_waiting():
    story = Story(fleet("a"))
    assert story.at(0, load("a")) == ["start a#1 load"]
    assert story.at(1, ready("a", 1)) == []
    assert story.all_at(2, load("a"), tick) == []


def test_a_load_order_waits_its_turn_like_a_request():
    story = Story(fleet("a", "b", "c"))
    story.all_at(0, arrive(1, "a"), ready("a", 1), load("b"), arrive(2, "c"))
    assert story.at(1, done(1)) == ["stop a#1 evict for b"]
    assert story.at(2, stopped("a", 1)) == ["start b#2 load"]
    assert story.at(3, ready("b", 2)) == ["stop b#2 evict for c"]


def test_a_load_order_is_forgotten_when_the_start_fails():
    story = Story(fleet("a", "b"))
    story.all_at(0, load("a"), failed("a", 1))
    assert story.at(100, tick) == []
    assert story.at(100, arrive(1, "b")) == ["start b#2"]


def test_a_load_order_does_not_wait_for_ever():
    story = Story(fleet("a", model("b", queue_timeout_s=30)))
    story.all_at(0, arrive(1, "a"), ready("a", 1), load("b"))
    assert story.deadline == 30
    story.at(30, tick)
    assert story.at(31, done(1)) == []


def test_an_unload_stops_at_once_even_a_busy_upstream():
    story = Story(fleet("a"))
    story.all_at(0, arrive(1, "a"), ready("a", 1))
    assert story.at(1, unload("a")) == ["stop a#1 unload"]
    assert story.all_at(2, done(1), stopped("a", 1)) == []


def test_an_unload_refuses_those_who_wait_for_that_model_only():
    story = Story(fleet("a", "b", "c"))
    story.all_at(0, arrive(1, "a"), arrive(2, "b"), arrive(3, "c"))
    assert story.at(1, unload("a", "b")) == ["reject 1 unloaded", "reject 2 unloaded", "stop a#1 unload"]
    assert story.at(2, stopped("a", 1)) == ["start c#2"]


def test_an_unload_of_all_names_nobody():
    story = Story(fleet("a", "b"))
    story.all_at(0, arrive(1, "a"), arrive(2, "b"))
    assert story.at(1, unload()) == ["reject 1 unloaded", "reject 2 unloaded", "stop a#1 unload"]


def test_an_unload_of_an_unknown_model_changes_nothing():
    story = Story(fleet("a"))
    story.all_at(0, arrive(1, "a"), ready("a", 1))
    assert story.at(1, unload("gone")) == []


def test_a_request_right_after_an_unload_waits_for_the_stop_and_starts_afresh():
    story = Story(fleet("a"))
    story.all_at(0, arrive(1, "a"), ready("a", 1), done(1), unload("a"))
    assert story.at(1, arrive(2, "a")) == []
    assert story.at(2, stopped("a", 1)) == ["start a#2"]
    assert story.at(3, ready("a", 2)) == ["dispatch 2 a#2"]


def test_a_start_that_fails_just_when_it_is_unloaded_counts_as_stopped():
    story = Story(fleet("a"))
    story.all_at(0, arrive(1, "a"), unload("a"), arrive(2, "a"))
    assert story.at(1, failed("a", 1)) == ["start a#2"]
    assert story.upstream("a").retry_at_s is None


def test_a_start_that_succeeds_just_when_it_is_unloaded_serves_nobody():
    story = Story(fleet("a"))
    story.all_at(0, arrive(1, "a"), unload("a"), arrive(2, "a"))
    assert story.at(1, ready("a", 1)) == []
    assert story.states() == {"a": "stopping"}


def test_an_idle_upstream_is_stopped_when_its_ttl_is_over():
    story = Story(fleet(model("a", idle_ttl_s=10)))
    story.all_at(0, arrive(1, "a"), ready("a", 1))
    story.at(5, done(1))
    assert story.deadline == 15
    assert story.at(15, tick) == ["stop a#1 ttl"]
    assert story.at(16, stopped("a", 1)) == []


def test_the_ttl_counts_from_readiness_if_nobody_was_served():
    story = Story(fleet(model("a", idle_ttl_s=10)))
    story.all_at(0, load("a"))
    story.at(7, ready("a", 1))
    assert story.deadline == 17


def test_a_long_request_holds_off_the_ttl_and_a_full_ttl_follows_it():
    story = Story(fleet(model("a", idle_ttl_s=10, queue_timeout_s=600)))
    story.all_at(0, arrive(1, "a"), ready("a", 1))
    assert story.at(500, tick) == []
    story.at(501, done(1))
    assert story.deadline <= 511
    assert story.at(510, tick) == []
    assert story.at(511, tick) == ["stop a#1 ttl"]


def test_the_ttl_counts_from_the_end_of_the_last_of_several_requests():
    story = Story(fleet(model("a", idle_ttl_s=10)))
    story.all_at(0, arrive(1, "a"), arrive(2, "a"), ready("a", 1), done(1))
    assert story.at(10, tick) == []
    story.at(12, done(2))
    assert story.upstream("a").idle_since_s == 12
    assert story.at(22, tick) == ["stop a#1 ttl"]


def test_a_request_that_arrives_when_the_ttl_is_over_wins():
    story = Story(fleet(model("a", idle_ttl_s=10)))
    story.all_at(0, arrive(1, "a"), ready("a", 1), done(1))
    assert story.at(10, arrive(2, "a")) == ["dispatch 2 a#1"]
    assert story.at(10, tick) == []


def test_without_a_ttl_an_idle_upstream_stays():
    story = Story(fleet("a"))
    story.all_at(0, arrive(1, "a"), ready("a", 1), done(1))
    story.at(1e6, tick)
    assert story.states() == {"a": "ready"}


def test_a_model_waits_for_one_that_its_ttl_stops():
    story = Story(fleet(model("a", idle_ttl_s=10), "b"))
    story.all_at(0, arrive(1, "a"), ready("a", 1), done(1))
    assert story.at(10, tick) == ["stop a#1 ttl"]
    assert story.at(11, arrive(2, "b")) == []
    assert story.at(12, stopped("a", 1)) == ["start b#2"]


def test_a_hot_model_leaves_no_trail_of_alarms():
    story = Story(fleet(model("a", idle_ttl_s=1000)))
    story.all_at(0, arrive(0, "a"), ready("a", 1), done(0))
    for number in range(1, 500):
        story.all_at(number / 10, arrive(number, "a"), done(number))
    assert len(story.scheduler._books._alarms) <= 2


def test_a_crash_while_idle_ends_the_ttl():
    story = Story(fleet(model("a", idle_ttl_s=10)))
    story.all_at(0, arrive(1, "a"), ready("a", 1), done(1), exited("a", 1), stopped("a", 1))
    assert story.at(10, tick) == []
