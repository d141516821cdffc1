"""What models are seen to hold: per state, last and most, and never of another state."""

import asyncio
import os
from collections.abc import Collection

import pytest

from llmswap.core.events import Generation, UpstreamAsleep
from llmswap.core.fleet import ModelId
from llmswap.core.snapshot import Snapshot, UpstreamView
from llmswap.core.states import State
from llmswap.core.step import Step
from llmswap.runtime.footprints import Footprints, Seen
from llmswap.runtime.freeing import Held, Unwatched
from tests.runtime.rig import until

A, B = ModelId("a"), ModelId("b")


class Watch(Unwatched):
    """Finds what is set here, whoever is asked for."""

    def __init__(self) -> None:
        self.now = Held(30, "", {"GPU-0": 10, "GPU-1": 20})
        self.host: int | None = 5
        self.asked: list[set[int]] = []
        self.gate = asyncio.Event()
        self.gate.set()

    async def held(self, pids: Collection[int]) -> Held:
        self.asked.append(set(pids))
        found = self.now
        await self.gate.wait()
        return found

    async def host_bytes(self, pids: Collection[int]) -> int | None:
        return self.host


class Stage:
    """Models in states, all of them with this process as their leader."""

    def __init__(self) -> None:
        self.watch = Watch()
        self.views: dict[ModelId, UpstreamView] = {}
        self.footprints = Footprints(self.watch, lambda: Snapshot(dict(self.views), (), False), lambda _: os.getpid())

    def put(self, model: ModelId, state: State, generation: int = 1, since_s: float = 0.0) -> None:
        self.views[model] = UpstreamView(model, state, Generation(generation), 0, 0, since_s)

    async def seen(self, model: ModelId, state: State) -> Seen:
        await self.footprints.look()
        return self.footprints.learned()[model][state]


@pytest.fixture
async def stage():
    return Stage()


async def test_keeps_the_last_and_the_most_per_gpu(stage) -> None:
    stage.put(A, State.READY)
    assert (await stage.seen(A, State.READY)).by_gpu == {"GPU-0": 10, "GPU-1": 20}
    assert os.getpid() in stage.watch.asked[0]
    stage.watch.now, stage.watch.host = Held(25, "", {"GPU-0": 25}), 3
    seen = await stage.seen(A, State.READY)
    assert (seen.by_gpu, seen.by_gpu_most) == ({"GPU-0": 25}, {"GPU-0": 25, "GPU-1": 20})
    assert (seen.host_bytes, seen.host_most_bytes) == (3, 5)


async def test_ready_and_asleep_are_kept_apart(stage) -> None:
    stage.put(A, State.READY)
    await stage.footprints.look()
    stage.put(A, State.ASLEEP, since_s=1.0)
    stage.watch.now, stage.watch.host = Held(1, "", {"GPU-0": 1}), 50
    await stage.footprints.look()
    learned = stage.footprints.learned()[A]
    assert learned[State.READY].by_gpu == {"GPU-0": 10, "GPU-1": 20}
    assert (learned[State.ASLEEP].by_gpu, learned[State.ASLEEP].host_bytes) == ({"GPU-0": 1}, 50)


async def test_what_cannot_be_measured_says_why_and_forgets_nothing(stage) -> None:
    stage.put(A, State.READY)
    await stage.footprints.look()
    stage.watch.now, stage.watch.host = Held(None, "the GPU driver has not answered for 3 s"), None
    seen = await stage.seen(A, State.READY)
    assert seen.problem == "the GPU driver has not answered for 3 s"
    assert (seen.by_gpu, seen.by_gpu_most["GPU-1"]) == ({"GPU-0": 10, "GPU-1": 20}, 20)
    assert (seen.host_bytes, seen.host_most_bytes) == (None, 5)


async def test_a_new_life_begins_anew(stage) -> None:
    stage.put(A, State.READY)
    await stage.footprints.look()
    stage.put(A, State.READY, generation=2)
    stage.watch.now = Held(3, "", {"GPU-0": 3})
    assert (await stage.seen(A, State.READY)).by_gpu_most == {"GPU-0": 3}


async def test_whoever_moves_meanwhile_is_not_noted(stage) -> None:
    stage.put(A, State.READY)
    stage.watch.gate.clear()
    looking = asyncio.create_task(stage.footprints.look())
    await until(lambda: stage.watch.asked, "the look")
    stage.put(A, State.SLEEP_PENDING, since_s=1.0)
    stage.watch.gate.set()
    await looking
    assert stage.footprints.learned() == {}


@pytest.mark.parametrize("state", [State.STARTING, State.STOPPING, State.SLEEP_PENDING, State.WAKING, State.STOPPED])
async def test_only_who_is_settled_is_looked_at(stage, state) -> None:
    stage.put(A, state)
    await stage.footprints.look()
    assert stage.watch.asked == []


async def test_models_that_left_the_fleet_are_forgotten(stage) -> None:
    stage.put(A, State.READY)
    stage.put(B, State.READY)
    await stage.footprints.look()
    assert set(stage.footprints.learned()) == {A, B}
    del stage.views[A]
    await stage.footprints.look()
    assert set(stage.footprints.learned()) == {B}


async def test_looks_as_soon_as_somebody_is_settled(stage) -> None:
    running = asyncio.create_task(stage.footprints.run())
    await until(lambda: stage.watch.asked == [set()], "the driver is awake")
    stage.put(A, State.ASLEEP)
    stage.footprints(Step(0.0, UpstreamAsleep(A, Generation(1)), ()))
    await until(lambda: A in stage.footprints.learned(), "the look", within_s=5)
    await asyncio.sleep(0.05)
    assert len(stage.watch.asked) == 2  # and then it rests
    running.cancel()
    await asyncio.gather(running, return_exceptions=True)


async def test_ends_when_told_to_in_the_very_moment_in_which_somebody_is_settled(stage) -> None:
    """Else it goes on for ever, and the program that waits for it with it."""
    model = ModelId("a")
    running = asyncio.create_task(stage.footprints.run())
    stage.put(model, State.READY)
    await until(lambda: model in stage.footprints.learned(), "it has looked")
    stage.footprints(Step(0.0, UpstreamAsleep(model, Generation(1), None), ()))
    await asyncio.sleep(0)  # what it waits for is done, and it does not know yet
    running.cancel()
    done, _ = await asyncio.wait({running}, timeout=2)
    assert done
    assert running.cancelled()
