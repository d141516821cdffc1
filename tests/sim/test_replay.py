"""`llmswap replay`: what was recorded comes out again, or the first step that does not is named."""

import os
import pty
import subprocess
import sys
from dataclasses import replace
from pathlib import Path

import pytest

from llmswap.cli import main
from llmswap.core import events as ev
from llmswap.core.commands import Dispatch, Start
from llmswap.core.fleet import Fleet, Group, Model, ModelId, Router
from llmswap.core.scheduler import Scheduler
from llmswap.core.step import Step
from llmswap.journal.codec import VERSION, Header, encode_header, encode_step
from llmswap.sim.replay import changes
from llmswap.sim.world import World

A, B = ModelId("a"), ModelId("b")
CONFIG = "models:\n  a: {cmd: 'x ${PORT}'}\n  b: {cmd: 'x ${PORT}'}\n"


def header(fleet, step=0, run="run"):
    return encode_header(Header(VERSION, "1.2.3", run, step, 0.0, 0.0, fleet))


def fleet(**limits):
    return Fleet({name: Model(name, **limits) for name in (A, B)}, {"a": A, "b": B}, (Group("(default)", (A, B)),))


def decided(fleet, events):
    """Give the lines of what the scheduler makes of the events, one second apart."""
    scheduler = Scheduler(fleet)
    return [encode_step(Step(float(at), event, scheduler.handle(float(at), event))) for at, event in enumerate(events)]


def a_swap():
    """Give events: a is asked for, serves, and goes for b."""
    one, two = ev.Generation(1), ev.Generation(2)
    return [
        ev.RequestArrived(ev.RequestId(1), A),
        ev.UpstreamReady(A, one),
        ev.RequestArrived(ev.RequestId(2), B),
        ev.RequestFinished(ev.RequestId(1)),
        ev.UpstreamStopped(A, one),
        ev.UpstreamReady(B, two),
        ev.RequestFinished(ev.RequestId(2)),
    ]


@pytest.fixture
def path(tmp_path):
    return tmp_path / "journal.jsonl"


@pytest.fixture
def replayed(path, capsys):
    """Write a journal and replay it: gives the exit code, what was said and what was complained about."""

    def replayed(*lines, flags=()):
        path.write_bytes(b"".join(lines))
        code = main(["replay", str(path), *flags])
        said = capsys.readouterr()
        return code, said.out, said.err

    return replayed


@pytest.mark.parametrize("fair", [False, True], ids=["fifo", "fair"])
def test_simulated_worlds_replay_byte_for_byte(replayed, fair):
    lines, count = [], 0
    for seed in range(60):
        fleets = []

        def make(fleet, start_s, fleets=fleets):
            fleets.append(fleet)
            return Scheduler(fleet, start_s)

        world = World(seed, make, fair=fair)
        world.run()
        lines += [header(fleets[0], run=str(seed)), *map(encode_step, world.steps)]
        count += len(world.steps)
    code, said, _ = replayed(*lines)
    assert code == 0, said
    assert sum(int(line.split()[0]) for line in said.splitlines() if "byte for byte" in line) == count > 3000


def test_the_first_step_that_differs_is_named_with_those_before_it(replayed, path):
    lines = decided(fleet(), a_swap())
    recorded = lines[4].replace(b'"evicted":["a"]', b'"evicted":["b"]')
    assert recorded != lines[4]
    lines[4], now = recorded, lines[4]
    code, said, _ = replayed(header(fleet()), *lines)
    assert code == 1
    assert "  4 steps came out as recorded" in said
    assert f"step 4, 4.000 s into the run, differs ({path}:6)" in said
    assert [line.strip() for line in said.splitlines()[-5:]] == [
        *(f"before:   {line.decode().strip()}" for line in lines[1:4]),
        f"recorded: {recorded.decode().strip()}",
        f"now:      {now.decode().strip()}",
    ]


def test_another_config_says_what_differs_and_where_it_decides_otherwise(replayed, tmp_path):
    config = tmp_path / "config.yaml"
    config.write_text(CONFIG + "groups: {both: {swap: false, members: [a, b]}}\n")
    code, said, _ = replayed(header(fleet(priority=7)), *decided(fleet(), a_swap()), flags=("--config", str(config)))
    assert code == 1
    assert "differs: a: priority, max_wait_s, fingerprint" in said
    assert "differs: groups of the fleet" in said
    assert "step 2, 2.000 s into the run, differs" in said, "b need not wait for a"


def test_the_given_config_stays_in_force_when_a_reload_was_recorded(replayed, tmp_path):
    config = tmp_path / "config.yaml"
    config.write_text(CONFIG)
    alone = replace(fleet(), models={A: Model(A)}, names={"a": A})
    events = [ev.FleetReloaded(alone), ev.RequestArrived(ev.RequestId(9), B)]
    code, said, _ = replayed(header(fleet()), *decided(fleet(), events), flags=("--config", str(config)))
    assert code == 1
    assert "step 1, 1.000 s into the run, differs" in said
    assert '"do":"start","model":"b"' in said.splitlines()[-1]


def test_a_scheduler_that_fails_is_a_difference(replayed):
    impossible = encode_step(Step(3.0, ev.RequestFinished(ev.RequestId(77)), []))
    code, said, _ = replayed(header(fleet()), *decided(fleet(), a_swap())[:2], impossible)
    assert code == 1
    assert "now:      KeyError: 77" in said


def test_each_run_is_replayed_by_itself(replayed):
    lines = decided(fleet(), a_swap())
    code, said, _ = replayed(header(fleet(), run="one"), *lines[:3], header(fleet(), run="two"), *lines)
    assert code == 0
    assert said.splitlines() == [
        "run one, recorded by llmswap 1.2.3",
        "  3 steps came out as recorded, byte for byte",
        "run two, recorded by llmswap 1.2.3",
        "  7 steps came out as recorded, byte for byte",
    ]


def test_without_its_beginning_a_run_cannot_be_replayed(replayed, path):
    lines = decided(fleet(), a_swap())
    code, said, complaint = replayed(header(fleet(), step=3), *lines[3:])
    assert code == 2
    assert "not replayed at all: its first 3 steps are missing: rotated away, or not recorded" in said
    assert complaint == f"llmswap: {path}: nothing could be replayed; `llmswap simulate` needs no beginning\n"
    code, said, _ = replayed(header(fleet(), step=3), *lines[3:], header(fleet(), run="two"), *lines)
    assert code == 0, "the second run could be"


def test_a_gap_ends_the_replay_of_its_run(replayed, path):
    lines = decided(fleet(), a_swap())
    code, said, _ = replayed(header(fleet()), *lines[:2], header(fleet(), step=4), *lines[4:])
    assert code == 0
    assert "  2 steps came out as recorded" in said
    assert f"not replayed any further: 2 steps before {path}:4 were not recorded" in said


def test_a_torn_end_is_said_and_no_difference(replayed, path):
    lines = decided(fleet(), a_swap())
    code, said, _ = replayed(header(fleet()), *lines[:2], lines[2][:-9])
    assert code == 0
    assert f"{path}:4 is cut off" in said


@pytest.mark.parametrize(
    ("text", "complaint"),
    [(b"models: {}\n", ":1: is not a journal: is not JSON"), (header(fleet()) + b"{\n{\n", ":2: is not JSON")],
)
def test_bad_input_is_said_with_its_place(replayed, path, text, complaint):
    code, _, said = replayed(text)
    assert code == 2
    assert said.startswith(f"llmswap: {path}{complaint}")


def test_a_journal_that_is_not_there_and_a_bad_config_are_bad_input(replayed, path, tmp_path, capsys):
    assert main(["replay", str(path)]) == 2
    assert "there is no such journal" in capsys.readouterr().err
    assert replayed(header(fleet()), flags=("--config", str(tmp_path / "none.yaml")))[0] == 2


def test_progress_is_shown_on_a_terminal_only(replayed, path):
    lines = decided(fleet(), [ev.DeadlineReached()] * 12_000)
    code, _, complaint = replayed(header(fleet()), *lines)
    assert (code, complaint) == (0, "")
    controller, terminal = pty.openpty()
    try:
        done = subprocess.run(
            [sys.executable, "-m", "llmswap", "replay", str(path)],
            stdout=subprocess.DEVNULL,
            stderr=terminal,
            cwd=Path(__file__).parents[2],
            timeout=30,
            check=False,
        )
        shown = os.read(controller, 4096).decode()
    finally:
        os.close(controller)
        os.close(terminal)
    assert done.returncode == 0
    assert [part.strip() for part in shown.split("\r") if part.strip()] == ["41%", "83%"]


def test_changes_between_fleets_are_told_by_field():
    old = fleet()
    new = replace(
        old, models={A: Model(A, priority=1, hold_s=2.0), ModelId("c"): Model(ModelId("c"))}, router=Router.MATRIX
    )
    assert changes(old, new) == [
        "b: not in the config",
        "c: not in the journal",
        "a: priority, hold_s",
        "router of the fleet",
    ]
    assert changes(old, old) == []


def test_what_a_swap_decides_is_what_these_tests_think():
    scheduler = Scheduler(fleet())
    made = [type(one) for at, event in enumerate(a_swap()) for one in scheduler.handle(float(at), event)]
    assert made.count(Start) == made.count(Dispatch) == 2
