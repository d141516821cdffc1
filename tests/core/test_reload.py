"""A new fleet while the old one runs: who is unchanged is not touched, the others drain."""

from tests.core.story import (
    Story,
    arrive,
    done,
    failed,
    fleet,
    group,
    load,
    model,
    ready,
    reload,
    stopped,
    tick,
    together,
)

V2 = "2"


def test_an_unchanged_model_keeps_its_life_and_its_line():
    story = Story(fleet("a", "b"))
    story.all_at(0, arrive(1, "a"), ready("a", 1), arrive(2, "b"))
    assert story.at(1, reload(fleet("a", "b", "c"))) == []
    assert story.at(2, arrive(3, "a")) == ["dispatch 3 a#1"]
    assert story.all_at(3, done(1), done(3)) == ["stop a#1 evict for b"]


def test_a_changed_model_drains_then_stops_then_starts_anew_for_who_waits():
    story = Story(fleet("a"))
    story.all_at(0, arrive(1, "a"), ready("a", 1))
    assert story.at(1, reload(fleet(model("a", V2)))) == []
    assert story.at(2, arrive(2, "a")) == []
    assert story.at(3, done(1)) == ["stop a#1 reload"]
    assert story.at(4, stopped("a", 1)) == ["start a#2"]
    assert story.at(5, ready("a", 2)) == ["dispatch 2 a#2"]


def test_an_idle_changed_model_stops_at_once_and_stays_down_until_it_is_wanted():
    story = Story(fleet("a"))
    story.all_at(0, arrive(1, "a"), ready("a", 1), done(1))
    assert story.at(1, reload(fleet(model("a", V2)))) == ["stop a#1 reload"]
    assert story.at(2, stopped("a", 1)) == []


def test_a_change_taken_back_before_the_stop_spares_the_upstream():
    story = Story(fleet("a"))
    story.all_at(0, arrive(1, "a"), ready("a", 1), reload(fleet(model("a", V2))), arrive(2, "a"))
    assert story.at(1, reload(fleet("a"))) == ["dispatch 2 a#1"]


def test_a_model_that_changes_while_it_starts_starts_again():
    story = Story(fleet("a"))
    story.at(0, arrive(1, "a"))
    assert story.at(1, reload(fleet(model("a", V2)))) == ["stop a#1 reload"]
    assert story.all_at(2, ready("a", 1)) == []
    assert story.at(3, stopped("a", 1)) == ["start a#2"]


def test_a_removed_model_finishes_its_requests_and_vanishes():
    story = Story(fleet("a", "b"))
    story.all_at(0, arrive(1, "a"), ready("a", 1))
    assert story.at(1, reload(fleet("b"))) == []
    assert story.states() == {"b": "stopped", "a": "ready"}
    assert story.at(2, done(1)) == ["stop a#1 reload"]
    assert story.at(3, stopped("a", 1)) == []
    assert story.states() == {"b": "stopped"}


def test_requests_for_a_removed_model_are_refused():
    story = Story(fleet("a", "b"))
    story.all_at(0, arrive(1, "a"), ready("a", 1), arrive(2, "b"))
    assert story.at(1, reload(fleet("a"))) == ["reject 2 model_removed"]
    assert story.at(2, arrive(3, "b")) == ["reject 3 model_removed"]


def test_requests_for_a_removed_model_that_still_drains_are_refused():
    story = Story(fleet("a"))
    story.all_at(0, arrive(1, "a"), ready("a", 1), reload(fleet()))
    assert story.at(1, arrive(2, "a")) == ["reject 2 model_removed"]


def test_a_load_order_for_a_removed_model_that_still_drains_is_forgotten():
    story = Story(fleet("a"))
    story.all_at(0, arrive(1, "a"), ready("a", 1), reload(fleet()), load("a"))
    assert story.all_at(1, done(1), stopped("a", 1), reload(fleet("a")), tick) == ["stop a#1 reload"]


def test_a_removed_model_that_drains_still_keeps_others_out():
    story = Story(fleet("a", "b"))
    story.all_at(0, arrive(1, "a"), ready("a", 1), reload(fleet("b")))
    assert story.at(1, arrive(2, "b")) == []
    assert story.at(2, done(1)) == ["stop a#1 reload"]
    assert story.at(3, stopped("a", 1)) == ["start b#2"]


def test_a_removed_model_that_drains_keeps_the_rule_of_its_group():
    story = Story(fleet("a", "b", groups=together("a", "b")))
    story.all_at(0, arrive(1, "a"), ready("a", 1), reload(fleet("b", groups=together("b"))))
    assert story.at(1, arrive(2, "b")) == ["start b#2"]


def test_a_model_that_comes_back_cannot_be_confused_with_its_former_self():
    story = Story(fleet("a"))
    story.all_at(0, arrive(1, "a"), ready("a", 1), reload(fleet()), done(1), stopped("a", 1), reload(fleet("a")))
    assert story.at(1, arrive(2, "a")) == ["start a#2"]
    assert story.all_at(2, ready("a", 1), failed("a", 1)) == []


def test_a_reload_in_the_middle_of_a_swap_keeps_the_waiters_and_applies_the_new_rules():
    story = Story(fleet("a", "b"))
    story.all_at(0, arrive(1, "a"), ready("a", 1), done(1), arrive(2, "b"))
    assert story.at(1, reload(fleet("a", "b", groups=together("a", "b")))) == ["start b#2"]


def test_a_reload_while_a_victim_stops_goes_on_waiting_for_it():
    story = Story(fleet("a", "b"))
    story.all_at(0, arrive(1, "a"), ready("a", 1), done(1), arrive(2, "b"))
    assert story.at(1, reload(fleet("a", "b", "c"))) == []
    assert story.at(2, stopped("a", 1)) == ["start b#2"]


def test_a_changed_model_loses_its_backoff():
    story = Story(fleet("a"))
    story.all_at(0, arrive(1, "a"), failed("a", 1), reload(fleet(model("a", V2))))
    assert story.at(0.1, arrive(2, "a")) == ["start a#2"]


def test_an_unchanged_model_keeps_its_backoff():
    story = Story(fleet("a"))
    story.all_at(0, arrive(1, "a"), failed("a", 1), reload(fleet("a", "b")))
    assert story.at(0.1, arrive(2, "a")) == ["reject 2 backoff"]


def test_new_limits_apply_to_the_new_life():
    story = Story(fleet("a"))
    story.all_at(0, arrive(1, "a"), arrive(2, "a"), reload(fleet(model("a", V2, concurrency_limit=1))))
    story.all_at(1, stopped("a", 1))
    assert story.at(2, ready("a", 2)) == ["dispatch 1 a#2"]
    assert story.at(3, done(1)) == ["dispatch 2 a#2"]


def test_new_groups_apply_from_then_on():
    story = Story(fleet("a", "b", groups=together("a", "b")))
    story.all_at(0, arrive(1, "a"), ready("a", 1), done(1))
    story.at(1, reload(fleet("a", "b", groups=[group("one", "a", "b")])))
    assert story.at(2, arrive(2, "b")) == ["stop a#1 evict for b"]


def test_new_groups_free_who_waits_already():
    story = Story(fleet("a", "b"))
    story.all_at(0, arrive(1, "a"), ready("a", 1), arrive(2, "b"))
    assert story.at(1, reload(fleet("a", "b", groups=together("a", "b")))) == ["start b#2"]


def test_an_alarm_of_a_models_former_self_does_not_drown_its_own():
    story = Story(fleet("x", model("a", queue_timeout_s=600)))
    story.all_at(0, arrive(1, "x"), ready("x", 1), arrive(2, "a"), reload(fleet("x")))
    story.all_at(1, done(1), reload(fleet("x", model("a", idle_ttl_s=9))))
    story.all_at(590, arrive(3, "a"), stopped("x", 1), ready("a", 2), done(3))
    assert story.at(601, tick) == ["stop a#2 ttl"]


def test_a_removed_models_load_order_is_forgotten():
    story = Story(fleet("a", "b"))
    story.all_at(0, arrive(1, "a"), ready("a", 1), load("b"), reload(fleet("a")))
    assert story.all_at(1, done(1), reload(fleet("a", "b")), tick) == []
