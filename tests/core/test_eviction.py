"""llama-swap's group rule, and the matrix as a rule of the scheduler."""

import pytest

from llmswap.core.eviction import rules_of
from llmswap.core.fleet import MatrixRules
from tests.core.story import Story, arrive, done, exited, fleet, group, ready, stopped, unload


@pytest.mark.parametrize(
    ("groups", "evicts"),
    [
        ([group("g", "x", "y")], True),
        ([group("g", "x", "y", swap=False)], False),
        ([group("g", "x", "y", swap=False, exclusive=False)], False),
        ([group("g", "x"), group("h", "y")], True),
        ([group("g", "x", exclusive=False), group("h", "y")], False),
        ([group("g", "x"), group("h", "y", persistent=True)], False),
        ([group("g", "x"), group("h", "y", exclusive=False)], True),
        ([group("g", "x", "y", persistent=True)], True),
        ([group("g", "x")], True),
        ([], True),
    ],
)
def test_the_group_rule_decides_pair_by_pair(groups, evicts):
    rules = rules_of(fleet("x", "y", groups=groups), {})
    assert (rules.evictions("x", ["y"], ready=False) == ("y",)) is evicts


def test_a_request_to_a_ready_exclusive_model_evicts_a_guest_first():
    story = Story(fleet("a", "b", groups=[group("alone", "a"), group("guest", "b", exclusive=False)]))
    story.all_at(0, arrive(1, "a"), ready("a", 1), arrive(2, "b"), ready("b", 2))
    assert story.at(1, arrive(3, "a")) == []
    assert story.at(2, done(2)) == ["stop b#2 evict for a"]
    assert story.at(3, arrive(4, "b")) == []
    assert story.at(4, stopped("b", 2)) == ["dispatch 3 a#1", "start b#3"]


def test_a_ready_model_that_crashes_while_it_waits_for_its_guest_to_go_starts_again():
    story = Story(fleet("a", "b", groups=[group("alone", "a"), group("guest", "b", exclusive=False)]))
    story.all_at(0, arrive(1, "a"), ready("a", 1), done(1), arrive(2, "b"), ready("b", 2), done(2))
    assert story.at(1, arrive(3, "a")) == ["stop b#2 evict for a"]
    assert story.all_at(2, exited("a", 1), stopped("b", 2)) == []
    assert story.at(3, stopped("a", 1)) == ["start a#3"]


def test_a_swap_waits_for_all_it_evicts():
    side = [group("side", "a", "b", swap=False), group("big", "c")]
    story = Story(fleet("a", "b", "c", groups=side))
    story.all_at(0, arrive(1, "a"), ready("a", 1), done(1), arrive(2, "b"), ready("b", 2), done(2))
    assert story.at(1, arrive(3, "c")) == ["stop a#1 evict for c", "stop b#2 evict for c"]
    assert story.at(2, stopped("b", 2)) == []
    assert story.at(3, stopped("a", 1)) == ["start c#3"]
    assert story.commands[0].evicted == ("a", "b")


def test_an_unload_during_an_eviction_leaves_the_rest_of_the_swap_alone():
    story = Story(fleet("a", "b"))
    story.all_at(0, arrive(1, "a"), ready("a", 1), done(1), arrive(2, "b"))
    assert story.at(1, unload("a")) == []
    assert story.at(2, stopped("a", 1)) == ["start b#2"]


MATRIX = MatrixRules({}, {"pair": "a & b", "other": "a & c"})


def test_the_matrix_lets_a_set_live_together_and_evicts_the_rest():
    story = Story(fleet("a", "b", "c", matrix=MATRIX))
    assert story.all_at(0, arrive(1, "a"), arrive(2, "b")) == ["start a#1", "start b#2"]
    story.all_at(1, ready("a", 1), ready("b", 2), done(1), done(2))
    assert story.at(2, arrive(3, "c")) == ["stop b#2 evict for c"]


def test_the_matrix_evicts_nobody_for_a_ready_model():
    story = Story(fleet("a", "b", "c", matrix=MATRIX))
    story.all_at(0, arrive(1, "a"), ready("a", 1), arrive(2, "b"), ready("b", 2))
    assert story.at(1, arrive(3, "a")) == ["dispatch 3 a#1"]


def test_the_matrix_waits_for_a_busy_model_outside_the_set():
    story = Story(fleet("a", "b", "c", matrix=MATRIX))
    story.all_at(0, arrive(1, "b"), ready("b", 1))
    assert story.at(1, arrive(2, "c")) == []
    assert story.at(2, done(1)) == ["stop b#1 evict for c"]


def test_a_model_that_is_being_evicted_does_not_come_back_before_the_swap_is_over():
    guests = [group("guests", "a", "b", swap=False, exclusive=False), group("big", "c")]
    story = Story(fleet("a", "b", "c", groups=guests))
    story.all_at(0, arrive(1, "a"), ready("a", 1), done(1), arrive(2, "b"), ready("b", 2), done(2))
    story.all_at(1, arrive(3, "c"), stopped("a", 1))
    assert story.at(2, arrive(4, "a")) == []
    assert story.at(3, stopped("b", 2)) == ["start c#3"]
    assert story.at(4, ready("c", 3)) == ["dispatch 3 c#3", "start a#4"]
