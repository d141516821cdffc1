"""The end: refuse, let finish, stop, force."""

from tests.core.story import Story, arrive, done, drain, failed, fleet, load, ready, reload, stopped, tick, together


def test_a_drain_refuses_who_waits_and_who_comes():
    story = Story(fleet("a", "b"))
    story.all_at(0, arrive(1, "a"), ready("a", 1), arrive(2, "b"))
    assert story.at(1, drain(31)) == ["reject 2 draining"]
    assert story.reject.retry_after_s == 30
    assert story.at(2, arrive(3, "a")) == ["reject 3 draining"]
    assert story.all_at(3, load("b")) == []


def test_a_drain_stops_the_idle_now_and_the_busy_when_they_are_done():
    story = Story(fleet("a", "b", groups=together("a", "b")))
    story.all_at(0, arrive(1, "a"), ready("a", 1), arrive(2, "b"), ready("b", 2), done(2))
    assert story.at(1, drain(31)) == ["stop b#2 shutdown"]
    assert story.at(2, done(1)) == ["stop a#1 shutdown"]
    assert story.all_at(3, stopped("b", 2), stopped("a", 1)) == []
    assert story.states() == {"a": "shutdown", "b": "shutdown"}
    assert story.scheduler.snapshot().draining


def test_a_drain_stops_a_start_at_once():
    story = Story(fleet("a"))
    story.at(0, arrive(1, "a"))
    assert story.at(1, drain(31)) == ["reject 1 draining", "stop a#1 shutdown"]
    assert story.at(2, failed("a", 1)) == []
    assert story.states() == {"a": "shutdown"}


def test_models_that_do_not_run_are_down_at_once():
    story = Story(fleet("a", "b"))
    story.all_at(0, arrive(1, "a"), failed("a", 1), drain(31))
    assert story.states() == {"a": "shutdown", "b": "shutdown"}


def test_at_the_deadline_everything_left_is_killed_once():
    story = Story(fleet("a", "b", groups=together("a", "b")))
    story.all_at(0, arrive(1, "a"), ready("a", 1), arrive(2, "b"), ready("b", 2), done(2))
    assert story.at(1, drain(31)) == ["stop b#2 shutdown"]
    assert story.deadline == 31
    assert story.at(31, tick) == ["stop a#1 shutdown force", "stop b#2 shutdown force"]
    assert story.deadline is None
    assert story.at(32, done(1)) == []


def test_a_second_drain_forces_now():
    story = Story(fleet("a"))
    story.all_at(0, arrive(1, "a"), ready("a", 1), drain(30))
    assert story.at(2, drain(2)) == ["stop a#1 shutdown force"]


def test_a_later_deadline_does_not_prolong_the_drain():
    story = Story(fleet("a"))
    story.all_at(0, arrive(1, "a"), ready("a", 1), drain(30), drain(99))
    assert story.deadline == 30


def test_a_reload_during_a_drain_is_ignored():
    story = Story(fleet("a"))
    story.all_at(0, arrive(1, "a"), ready("a", 1), drain(30))
    assert story.at(1, reload(fleet("b"))) == []
    assert story.states() == {"a": "ready"}


def test_a_swap_under_way_is_given_up_by_a_drain():
    story = Story(fleet("a", "b"))
    story.all_at(0, arrive(1, "a"), ready("a", 1), done(1), arrive(2, "b"))
    assert story.at(1, drain(31)) == ["reject 2 draining"]
    assert story.at(2, stopped("a", 1)) == []
    assert story.states() == {"a": "shutdown", "b": "shutdown"}
