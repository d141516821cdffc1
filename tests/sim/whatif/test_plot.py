"""Timelines, and the pictures of them."""

import xml.etree.ElementTree as ET

import pytest

from llmswap.core import events as ev
from llmswap.core.commands import Dispatch, Start, StartCause, Stop, StopCause
from llmswap.core.fleet import ModelId
from llmswap.core.step import Step
from llmswap.sim.whatif import scenario
from llmswap.sim.whatif.fleets import under_fair, under_fifo
from llmswap.sim.whatif.plot import COLOURS, MODEL_COLOURS, Panel, draw, ticks
from llmswap.sim.whatif.stage import play
from llmswap.sim.whatif.timeline import Camera, Doing, Span, WaitSeen
from tests.core.story import arrive, cancel, done, exited, ready, stopped

A, B = ModelId("a"), ModelId("b")
ONE, TWO = ev.Generation(1), ev.Generation(2)
SVG = "{http://www.w3.org/2000/svg}"


def seen(*steps, end_s, start_s=0.0):
    camera = Camera(start_s, (A, B))
    for step in steps:
        camera(step)
    return camera.timeline(end_s)


def served(request, model=A, generation=ONE):
    return Dispatch(ev.RequestId(request), model, generation)


LIFE = (
    Step(100, arrive(1, "a"), (Start(A, ONE, StartCause.REQUEST),)),
    Step(130, ready("a", 1), (served(1),)),
    Step(132, arrive(2, "a"), (served(2),)),
    Step(140, done(1), ()),
    Step(145, done(2), ()),
    Step(150, arrive(3, "b"), (Stop(A, ONE, StopCause.EVICT, B),)),
    Step(153, stopped("a", 1), ()),
    Step(160, cancel(3), ()),
)


def test_a_life_is_loading_then_serving_then_idle_then_stopping():
    told = seen(*LIFE, start_s=100.0, end_s=170.0)
    assert told.spans[A] == (
        Span(0, 30, Doing.LOADING),
        Span(30, 45, Doing.SERVING),
        Span(45, 50, Doing.IDLE),
        Span(50, 53, Doing.STOPPING),
    )
    assert told.waits == {A: (WaitSeen(0, 30, True), WaitSeen(32, 0, True)), B: (WaitSeen(50, 10, False),)}


def test_what_is_under_way_at_the_end_is_drawn_to_the_end():
    told = seen(Step(0, arrive(1, "a"), (Start(A, ONE, StartCause.REQUEST),)), end_s=9.0)
    assert told.spans[A] == (Span(0, 9, Doing.LOADING),)
    assert told.waits[A] == (WaitSeen(0, 9, False),)


def test_the_last_lease_of_a_life_that_is_over_does_not_make_the_next_one_idle():
    told = seen(
        Step(0, arrive(1, "a"), (served(1),)),
        Step(1, exited("a", 1), ()),
        Step(2, stopped("a", 1), ()),
        Step(3, arrive(2, "a"), (Start(A, TWO, StartCause.REQUEST),)),
        Step(5, ready("a", 2), (served(2, generation=TWO),)),
        Step(6, done(1), ()),
        Step(9, done(2), ()),
        end_s=10.0,
    )
    assert Span(5, 9, Doing.SERVING) in told.spans[A]


@pytest.fixture(scope="module")
def day():
    """Two policies over a day of the busiest scenario for a picture."""
    workload = scenario.load("opencode_fanout").workload
    panels = []
    for label, fleet in (("fifo", under_fifo(workload.fleet)), ("fair", under_fair(workload.fleet))):
        camera = Camera(0.0, tuple(fleet.models))
        play(workload, fleet, 1, 86400.0, observers=(camera,))
        panels.append(Panel(label, "some note", camera.timeline(86400.0), 120.0 if label == "fair" else None))
    return panels


def test_a_picture_is_svg_and_says_what_it_shows(day):
    text = draw("opencode_fanout", day)
    root = ET.fromstring(text)
    assert root.tag == f"{SVG}svg"
    said = [element.text for element in root.iter(f"{SVG}text")]
    models = [str(model) for model in day[0].timeline.spans]
    for expected in ("opencode_fanout", "fifo", "fair", "some note", *Doing, *models, "maxWait", "wait, s"):
        assert expected in said, expected
    assert "time since the beginning, h" in said
    assert {"0", "24"} <= set(said)


def test_every_doing_and_every_model_has_a_colour_of_its_own(day):
    assert len({*COLOURS.values(), *MODEL_COLOURS}) == len(COLOURS) + len(MODEL_COLOURS)
    text = draw("opencode_fanout", day)
    assert all(f'fill="{colour}" d=' in text for colour in COLOURS.values())
    assert all(f'stroke="{colour}"' in text for colour in MODEL_COLOURS[:3])


def test_a_day_is_less_than_2_mb(day):
    assert len(draw("opencode_fanout", day * 5).encode()) < 2_000_000


def test_names_cannot_break_the_picture():
    told = seen(Step(0, ev.RequestArrived(ev.RequestId(1), ModelId("<b>&\"'"), "me"), ()), end_s=5.0)
    root = ET.fromstring(draw("<script>", [Panel("a & b", "<i>", told)]))
    assert "<b>&\"'" in [element.text for element in root.iter(f"{SVG}text")]


def test_a_run_without_anything_in_it_is_drawn_empty():
    ET.fromstring(draw("nothing", [Panel("fifo", "", seen(end_s=0.0))]))


@pytest.mark.parametrize(
    ("most", "expected"),
    [
        (60, [0, 5, 10, 15, 20, 25, 30, 35, 40, 45, 50, 55, 60]),
        (1, [0, 0.1, 0.2, 0.3, 0.4, 0.5, 0.6, 0.7, 0.8, 0.9, 1]),
    ],
)
def test_ticks_are_round_numbers(most, expected):
    assert ticks(most, 12) == pytest.approx(expected)


@pytest.mark.parametrize(("bound_s", "drawn"), [(20.0, True), (80.0, True), (120.0, False)])
def test_a_bound_far_above_all_waits_is_told_instead_of_drawn(bound_s, drawn):
    text = draw("run", [Panel("fair", "", seen(*LIFE, start_s=100.0, end_s=170.0), bound_s)])
    assert (f"<title>maxWait: {bound_s:g} s</title>" in text) is drawn
    assert (f">maxWait is {bound_s:g} s<" in text) is not drawn
