"""Thousands of random worlds, with every invariant checked on every step.

`LLMSWAP_SEED=N pytest tests/sim/test_worlds.py` replays one world; `python -m llmswap.sim --seed N --verbose` tells it.
"""

import os

import pytest

from llmswap.core.commands import RejectReason, StartCause, StopCause
from llmswap.core.scheduler import Scheduler
from llmswap.sim.run import run_world, run_worlds
from llmswap.sim.world import World

WORLDS = 500  # .ci/run adds 2,000 under each scheduler, `make soak` 10,000
CHUNK = 125


@pytest.mark.parametrize("first", range(0, WORLDS, CHUNK))
def test_random_worlds_keep_every_invariant(first):
    seeds = [int(os.environ["LLMSWAP_SEED"])] if "LLMSWAP_SEED" in os.environ else range(first, first + CHUNK)
    assert run_worlds(seeds).worlds == len(seeds)


@pytest.mark.parametrize("first", range(0, WORLDS, CHUNK))
def test_random_worlds_keep_every_invariant_under_fair(first):
    assert run_worlds(range(first, first + CHUNK), fair=True).worlds == CHUNK


def test_the_worlds_are_varied_enough_to_mean_something():
    seen = run_worlds(range(600)).counts
    kinds = [f"Reject {reason}" for reason in RejectReason]
    kinds += [f"Start {cause}" for cause in StartCause] + [f"Stop {cause}" for cause in StopCause]
    kinds += ["StartFailed", "UpstreamExited", "StopFailed", "RequestCancelled", "FleetReloaded", "DrainRequested"]
    assert [kind for kind in kinds if seen[kind] < 10] == []


def test_a_seed_tells_the_same_story_every_time():
    assert told(11) == told(11)
    assert told(11) != told(12)


@pytest.mark.parametrize("seed", range(20))
def test_only_time_differences_matter(seed):
    """I18: whatever the clock shows at the beginning, the same decisions follow at the same distances."""
    early, late = told(seed), told(seed, start_s=2.0**24)
    assert [commands for _, commands in early] == [commands for _, commands in late]
    assert [at_s + 2.0**24 for at_s, _ in early] == [at_s for at_s, _ in late]


def told(seed, start_s=0.0):
    world = World(seed, Scheduler, start_s)
    world.run()
    return [(step.at_s, [strip(command) for command in step.commands]) for step in world.steps]


def strip(command):
    """Leave out texts and seconds, which round differently."""
    return type(command).__name__, command.request if hasattr(command, "request") else (
        command.model,
        command.generation,
    )


def test_a_failure_names_its_seed_and_how_to_replay_it():
    class Mute(Scheduler):
        def handle(self, now_s, event):
            super().handle(now_s, event)
            return []

    with pytest.raises(AssertionError) as caught:
        run_world(3, Mute)
    assert "seed 3, step" in str(caught.value)
    assert "--seed 3 --verbose" in str(caught.value)
    assert "RequestArrived" in str(caught.value)
