"""Worlds on several cores: the same worlds, and a failure still says how to replay it."""

from concurrent.futures import ThreadPoolExecutor

import pytest

from llmswap.core.scheduler import Scheduler
from llmswap.sim import soak as room
from llmswap.sim.run import run_world, run_worlds
from llmswap.sim.soak import SoakFailed, soak


def test_many_processes_find_what_one_finds(monkeypatch):
    monkeypatch.setattr(room, "CHUNK", 20)
    told = []
    report = soak(range(5, 45), fair=True, jobs=2, progress=told.append)
    assert report == run_worlds(range(5, 45), fair=True)
    assert told == [20, 40]


def test_a_failure_in_a_worker_names_its_seed(monkeypatch):
    class Mute(Scheduler):
        def handle(self, now_s, event):
            super().handle(now_s, event)
            return []

    # A thread, so that the worker sees what is planted here.
    monkeypatch.setattr(room, "ProcessPoolExecutor", lambda jobs, mp_context: ThreadPoolExecutor(jobs))
    monkeypatch.setattr(room, "run_worlds", lambda seeds, *, fair: run_world(seeds[0], Mute, fair=fair))
    with pytest.raises(SoakFailed, match=r"replay: python -m llmswap\.sim --fair --seed 3 --verbose"):
        soak(range(3, 5), fair=True, jobs=1, progress=lambda _: None)
