"""Requests that shall not cause a swap: substitutes, refusals, and who may wait, as transcripts."""

from dataclasses import replace

import pytest

from llmswap.core import events as ev
from llmswap.core.explanation import Verb
from llmswap.core.fleet import ModelId, Scheduling
from tests.core.story import Story, arrive, cancel, done, exited, fleet, model, ready, reload, stopped, together

NEVER, WARM = ev.SwapClass.NEVER_SWAP, ev.SwapClass.PREFER_WARM


def ask(request, name, swap_class):
    return ev.RequestArrived(ev.RequestId(request), ModelId(name), swap_class=swap_class)


def big(**traits):
    return model("big", substitutes=(ModelId("mid"), ModelId("small")), **traits)


@pytest.fixture(params=[Scheduling.FIFO, Scheduling.FAIR])
def use(request):
    return request.param


def tell(use, *models, groups=()):
    return Story(replace(fleet(*models, groups=groups), scheduling=use))


def serving_small(use) -> Story:
    story = tell(use, big(), model("mid"), model("small"))
    story.all_at(0, arrive(1, "small"), ready("small", 1), done(1))
    return story


def test_who_may_not_swap_is_refused_at_once_and_nothing_is_started(use):
    story = tell(use, model("a"))
    assert story.at(0, ask(1, "a", NEVER)) == ["reject 1 would_swap"]
    assert story.states() == {"a": "stopped"}


def test_who_may_not_swap_is_served_if_the_model_is_up(use):
    story = tell(use, model("a"))
    story.all_at(0, arrive(1, "a"), ready("a", 1))
    assert story.at(1, ask(2, "a", NEVER)) == ["dispatch 2 a#1"]


@pytest.mark.parametrize("swap_class", [NEVER, WARM])
def test_the_first_substitute_that_is_up_serves(use, swap_class):
    story = serving_small(use)
    assert story.at(10, ask(2, "big", swap_class)) == ["dispatch 2 small#1"]
    assert story.at(11, done(2)) == []
    assert story.upstream("small").in_flight == 0


def test_who_would_rather_not_swap_swaps_if_no_substitute_is_up(use):
    story = tell(use, big(), model("mid"), model("small"))
    assert story.at(0, ask(1, "big", WARM)) == ["start big#1"]


def test_an_ordinary_request_never_goes_to_a_substitute(use):
    story = serving_small(use)
    assert story.at(600, arrive(2, "big")) == ["stop small#1 evict for big"]


def test_a_substitute_whose_limit_is_used_up_is_no_substitute(use):
    story = tell(use, big(), model("small", concurrency_limit=1))
    story.all_at(0, arrive(1, "small"), ready("small", 1))
    assert story.at(1, ask(2, "big", NEVER)) == ["reject 2 would_swap"]


def test_a_substitute_that_is_being_started_is_no_substitute(use):
    story = tell(use, big(), model("small"))
    story.at(0, arrive(1, "small"))
    assert story.at(1, ask(2, "big", NEVER)) == ["reject 2 would_swap"]


def test_who_may_not_swap_joins_a_start_that_others_caused(use):
    story = tell(use, model("a"))
    story.at(0, arrive(1, "a"))
    assert story.at(1, ask(2, "a", NEVER)) == []
    assert story.at(5, ready("a", 1)) == ["dispatch 1 a#1", "dispatch 2 a#1"]


def test_who_may_not_swap_does_not_keep_alive_a_swap_that_has_not_begun(use):
    story = tell(use, model("a"), model("b"))
    story.all_at(0, arrive(1, "b"), ready("b", 1), done(1))
    assert story.at(600, arrive(2, "a")) == ["stop b#1 evict for a"]
    assert story.at(601, ask(3, "a", NEVER)) == ["reject 3 would_swap"]
    assert story.at(602, cancel(2)) == []
    assert story.at(603, stopped("b", 1)) == []


def test_who_may_not_swap_waits_for_a_place_at_a_model_that_is_up_and_is_refused_when_it_leaves():
    story = tell(Scheduling.FAIR, model("a", concurrency_limit=1), model("b"))
    story.all_at(0, arrive(1, "a"), ready("a", 1))
    assert story.at(1, ask(2, "a", NEVER)) == []
    assert story.at(2, exited("a", 1)) == ["reject 2 would_swap"]


def test_who_waits_at_a_model_that_retires_is_refused_not_restarted():
    story = tell(Scheduling.FAIR, model("a", concurrency_limit=1))
    story.all_at(0, arrive(1, "a"), ready("a", 1), ask(2, "a", NEVER))
    changed = replace(fleet(model("a", "2")), scheduling=Scheduling.FAIR)
    assert story.at(1, reload(changed)) == ["reject 2 would_swap"]


def test_a_refusal_says_when_the_model_could_be_up_once_that_is_known():
    story = tell(Scheduling.FIFO, model("a"), model("b"))
    story.at(0, ask(1, "a", NEVER))
    assert story.reject.retry_after_s == 5.0, "nothing is known yet"
    story.at(10, arrive(2, "a"))
    story.all_at(40, ready("a", 1), done(2), arrive(3, "b"))
    story.at(41, stopped("a", 1))
    story.all_at(60, ready("b", 2), done(3))
    story.at(61, ask(4, "a", NEVER))
    assert story.reject.retry_after_s == 30.0, "what a's load took"


def test_a_substitute_that_lives_beside_the_model_serves_too(use):
    story = tell(use, big(), model("small"), groups=together("big", "small"))
    story.all_at(0, arrive(1, "small"), ready("small", 1), done(1))
    assert story.at(1, ask(2, "big", WARM)) == ["dispatch 2 small#1"]


def test_who_causes_no_swap_leaves_no_note_that_somebody_was_kept_from_it():
    story = tell(Scheduling.FAIR, big(), model("mid"), model("small"))
    story.at(0, arrive(1, "small"))
    story.all_at(30, ready("small", 1), done(1))
    assert story.at(31, ask(2, "big", WARM)) == ["dispatch 2 small#1"]
    story.at(32, done(2))
    assert story.at(33, ask(3, "mid", NEVER)) == ["reject 3 would_swap"]
    assert [decision.verb for decision in story.scheduler.decisions()] == [Verb.SWAP]
