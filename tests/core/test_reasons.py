"""What the scheduler says of its reasons: why somebody waits, until when about, and why somebody had to go."""

from dataclasses import replace

from llmswap.core import events as ev
from llmswap.core.commands import Start
from llmswap.core.explanation import Obstacle, Rule, Verb, Why
from llmswap.core.fleet import ModelId, Scheduling
from tests.core.story import Story, arrive, cancel, done, failed, fleet, load, model, ready, stopped, tick, unload


def fair(*models, **overrides):
    changed = [replace(each, **{"hold_s": 10.0, "max_wait_s": 60.0, **overrides}) for each in models]
    return replace(fleet(*changed), scheduling=Scheduling.FAIR)


def serving_a(*models, **overrides) -> Story:
    """`a` took 5 s to load, 5 s to answer, and is idle since 10 s."""
    story = Story(fair(*(models or (model("a"), model("b"))), **overrides))
    story.all_at(0, arrive(1, "a"))
    story.all_at(5, ready("a", 1))
    story.all_at(10, done(1))
    return story


def why(story, name="b"):
    (obstacle,) = [wait.obstacle for wait in story.scheduler.waits(9) if wait.model == name]
    return obstacle


def ready_in_s(story, name):
    ready_at_s = next(wait.ready_at_s for wait in story.scheduler.waits(0) if wait.model == name)
    return None if ready_at_s is None else ready_at_s - story.scheduler._books.now_s


def test_each_stage_of_a_swap_is_named():
    story = serving_a()
    story.at(12, arrive(2, "b"))
    assert why(story) == Obstacle(Why.HELD, ("a",), 20.0)
    story.at(13, arrive(3, "a"))
    assert why(story) == Obstacle(Why.BUSY, ("a",))
    story.at(18, done(3))
    story.at(28, tick)
    assert why(story) == Obstacle(Why.STOPPING, ("a",))
    story.at(30, stopped("a", 1))
    assert why(story) == Obstacle(Why.STARTING)
    story.at(40, ready("b", 2))
    assert story.scheduler.waits(9) == ()


def test_who_waits_is_shown_with_caller_and_arrival_as_many_as_asked_for():
    story = serving_a()
    for number in range(2, 7):
        story.at(10 + number, ev.RequestArrived(ev.RequestId(number), ModelId("b"), caller=f"agent {number}"))
    (wait,) = story.scheduler.waits(2)
    assert [(each.request, each.caller, each.arrived_s) for each in wait.requests] == [
        (2, "agent 2", 12),
        (3, "agent 3", 13),
    ]
    assert wait.waiting == 5
    assert not wait.due


def test_a_used_up_limit_is_named():
    story = Story(fair(model("a", concurrency_limit=1)))
    story.all_at(0, arrive(1, "a"))
    story.all_at(5, ready("a", 1), arrive(2, "a"))
    assert why(story, "a") == Obstacle(Why.LIMIT)


def test_who_stands_back_for_a_due_model_is_told_for_whom():
    story = serving_a(max_wait_s=30.0)
    story.all_at(11, arrive(2, "a"), arrive(3, "b"))
    story.at(41, tick)
    story.at(43, arrive(4, "a"))
    assert why(story, "a") == Obstacle(Why.YIELDING, ("b",))
    (first, _) = story.scheduler.waits(0)
    assert (first.model, first.due) == ("b", True)


def test_a_swap_that_collides_is_named():
    story = Story(fair(model("a"), model("b"), model("c")))
    story.all_at(0, arrive(1, "a"), arrive(2, "b"))
    assert why(story) == Obstacle(Why.SWAP, ("a",))


def test_estimates_are_made_of_what_loads_stops_and_answers_took():
    story = serving_a()
    story.at(12, arrive(2, "b"))
    assert ready_in_s(story, "b") is None, "b never came up yet"
    story.at(20, tick)
    story.at(22, stopped("a", 1))
    story.at(52, ready("b", 2))
    story.at(60, done(2))
    story.at(61, arrive(3, "a"))
    assert ready_in_s(story, "a") == (70 - 61) + 5.0, "the rest of b's hold, a's load; b was never stopped yet"
    story.at(62, arrive(4, "b"))
    assert ready_in_s(story, "a") == 8.0 + 5.0, "b's answer, a's load"
    story.at(70, done(4))
    story.at(80, tick)
    assert ready_in_s(story, "a") == 5.0
    story.at(81, stopped("b", 2))
    story.at(83, arrive(5, "b"))
    assert ready_in_s(story, "a") == 3.0, "2 s of its load are over"


def test_a_swap_tells_its_rule_whom_it_evicts_whom_it_leaves_and_what_else_could_have_been_done():
    story = serving_a(model("a"), model("b"), model("c"), hold_s=0.0)
    story.at(11, arrive(2, "a"))
    story.at(12, ev.RequestArrived(ev.RequestId(3), ModelId("b"), caller="agent"))
    story.at(13, arrive(4, "c"))
    story.at(20, done(2))
    decision = story.scheduler.decisions()[-1]
    assert (decision.verb, decision.model, decision.rule) == (Verb.SWAP, "b", Rule.AGE)
    assert (decision.evicted, decision.kept, decision.caller) == (("a",), (), "agent")
    assert (decision.waiting, decision.waited_s) == (1, 8.0)
    (alternative,) = decision.alternatives
    assert (alternative.model, alternative.obstacle, alternative.waited_s) == ("c", Obstacle(Why.LATER), 7.0)
    story.at(21, stopped("a", 1))
    (start,) = [command for command in story.commands if isinstance(command, Start)]
    assert start.caller == "agent"


def test_the_bound_and_priority_are_named_as_rules():
    due = serving_a(model("a"), model("b"), model("c"), hold_s=1000.0)
    due.all_at(12, arrive(2, "b"), arrive(3, "c"))
    due.at(72, tick)
    assert due.scheduler.decisions()[-1].rule is Rule.BOUND
    urgent = serving_a(model("a"), model("b"), model("c", priority=1), hold_s=0.0)
    urgent.all_at(11, arrive(2, "a"), arrive(3, "b"), arrive(4, "c"))
    urgent.at(20, done(2))
    assert urgent.scheduler.decisions()[-1].rule is Rule.PRIORITY


def test_a_hold_is_noted_once_for_each_idle_spell_and_claimant():
    story = serving_a()
    story.all_at(12, arrive(2, "b"), arrive(3, "b"))
    story.at(13, cancel(3))
    holds = [decision for decision in story.scheduler.decisions() if decision.verb is Verb.HOLD]
    assert [(hold.model, hold.wanted_by, hold.until_s) for hold in holds] == [("a", "b", 20.0)]


def test_a_stop_for_nobody_tells_its_rule():
    story = Story(fair(model("a", idle_ttl_s=5.0), model("b")))
    story.all_at(0, arrive(1, "a"), ready("a", 1), done(1))
    story.at(5, tick)
    story.all_at(6, stopped("a", 1), load("b"), ready("b", 2), unload("b"))
    told = [(decision.verb, decision.model, decision.rule) for decision in story.scheduler.decisions()]
    assert told == [
        (Verb.SWAP, "a", Rule.ALONE),
        (Verb.STOP, "a", Rule.TTL),
        (Verb.SWAP, "b", Rule.ORDER),
        (Verb.STOP, "b", Rule.ORDER),
    ]


def test_only_the_last_hundred_decisions_are_kept():
    story = Story(fair(model("a")))
    for life in range(1, 121):
        story.all_at(life, load("a"), ready("a", life), unload("a"), stopped("a", life))
    assert len(story.scheduler.decisions()) == 100


def test_over_the_queue_limit_retry_after_is_the_estimate_of_a_place():
    story = Story(fair(model("a", concurrency_limit=1), queue_limit=2))
    story.at(0, arrive(1, "a"))
    story.at(5, ready("a", 1))
    story.at(9, arrive(2, "a"))
    story.at(9, done(1))
    story.all_at(9, arrive(3, "a"), arrive(4, "a"))
    assert story.at(9, arrive(5, "a")) == ["reject 5 over_limit"]
    assert story.reject.retry_after_s == 3 * 4.0, "an answer takes 4 s: the one being given, and two who wait"


def test_a_failed_start_is_no_reason_to_wait():
    story = Story(fair(model("a")))
    story.at(0, arrive(1, "a"))
    story.at(1, failed("a", 1))
    assert story.scheduler.waits(9) == ()
