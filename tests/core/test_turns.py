"""Whose turn it is while nobody is due: the oldest waiter's, whatever the models are called or however listed."""

from dataclasses import replace

import pytest

from llmswap.core.fleet import Scheduling
from tests.core.story import Story, arrive, done, fleet, model, ready


@pytest.mark.parametrize("use", Scheduling)
@pytest.mark.parametrize(("early", "late"), [("a", "z"), ("z", "a")])
def test_the_model_that_was_asked_for_first_goes_first(use, early, late):
    story = Story(replace(fleet(model("a"), model("busy"), model("z")), scheduling=use))
    story.all_at(0, arrive(1, "busy"), ready("busy", 1))
    story.at(1, arrive(2, early))
    story.at(2, arrive(3, late))
    assert story.at(40, done(1)) == [f"stop busy#1 evict for {early}"]


@pytest.mark.parametrize("use", Scheduling)
def test_priority_goes_before_age_while_nobody_is_due(use):
    story = Story(replace(fleet(model("a"), model("b"), model("c", priority=1)), scheduling=use))
    story.all_at(0, arrive(1, "a"), ready("a", 1))
    story.all_at(1, arrive(2, "b"), arrive(3, "c"))
    assert story.at(40, done(1)) == ["stop a#1 evict for c"]
