"""The frames of the demo's view, and its scenery."""

import random

import pytest
from hypothesis import given
from hypothesis import strategies as st

from llmswap.config.load import load
from llmswap.core.snapshot import Snapshot, UpstreamView
from llmswap.core.states import State
from llmswap.demo.clients import Ask, Client, curl
from llmswap.demo.screen import Scene, frame, wants_colour
from llmswap.demo.stage import CAST, write_config
from llmswap.demo.story import Story


def scene(*, happened=30, states=("ready", "starting", "stopped"), waiting=2):
    views = {
        part.model: UpstreamView(part.model, State(state), 1, in_flight=1, waiting=waiting, since_s=90.0)
        for part, state in zip(CAST, states, strict=True)
    }
    story = Story()
    for number in range(happened):
        story.add("load", f"thing {number}")
    client = Client("batch", "coder", "http://x", 1.0, random.Random(1), story.add)
    client.asks += [Ask("coder", began_s=97.0), Ask("coder", began_s=98.0), Ask("small-chat", 95.0, 96.0, tokens=7)]
    idle = Client("chat user", "coder", "http://x", 1.0, random.Random(1), story.add)
    return Scene(
        title="title",
        plot="plot",
        now_s=100.0,
        snapshot=Snapshot(views, (), draining=False),
        story=story,
        clients=[client, idle],
        held={"small-chat": 4.0, "coder": 15.0},
        tips=("Try it", *curl("http://127.0.0.1:8080", "coder").splitlines()),
    )


def text(rows):
    return ["".join(piece for _, piece in row) for row in rows]


@given(width=st.integers(40, 300), height=st.integers(5, 80), happened=st.integers(0, 60))
def test_a_frame_fits_its_window(width, height, happened):
    rows = text(frame(scene(happened=happened), width, height))
    assert len(rows) <= height
    assert max(map(len, rows)) < width


def test_a_frame_tells_states_memory_clients_and_the_last_events():
    rows = text(frame(scene(), 100, 40))
    table = {row.split()[0]: row for row in rows if row}
    assert table["small-chat"].split() == ["small-chat", "\u25cf", "ready", "10.0s", "1", "2", "0", "4", "GiB"]
    assert "starting" in table["coder"]
    assert table["GPU"].endswith("19 of 24 GiB")
    assert table["batch"].endswith("2 x waits for coder, 3.0 s   reads from small-chat, 7 tokens   ")
    assert "thinks" in next(row for row in rows if row.startswith("chat user"))
    events = [row.split()[-1] for row in rows if "thing" in row]
    assert events == [str(number) for number in range(30)][-len(events) :]


def test_a_small_window_keeps_the_events_and_drops_the_tips():
    rows = text(frame(scene(), 80, 20))
    assert any("thing 29" in row for row in rows)
    assert not any("Try it" in row for row in rows)


@pytest.mark.parametrize(("set_to", "wanted"), [("", True), ("1", False)])
def test_no_color_is_obeyed(set_to, wanted, monkeypatch):
    monkeypatch.setenv("TERM", "xterm")
    monkeypatch.setenv("NO_COLOR", set_to)
    assert wants_colour() is wanted


def test_the_scenery_is_a_config_without_warnings(tmp_path):
    loaded = load(write_config(tmp_path, 0.1, tmp_path / "j.jsonl"), None, {})
    assert list(loaded.fleet.models) == [part.model for part in CAST]
    assert not loaded.warnings
    assert {group.name for group in loaded.fleet.groups} >= {"together", "alone"}
