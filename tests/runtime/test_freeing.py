"""What is remembered of a tree's memory. How it is measured: test_gpu_memory.py."""

import asyncio
from collections.abc import Collection

from llmswap.runtime import freeing
from llmswap.runtime.freeing import Footprint, Freed, Held, Unwatched
from llmswap.runtime.tree import Proc
from tests.runtime.rig import until

LEADER, WORKER = (Proc(pid, 1, 1, 1, 1, zombie=False) for pid in (11, 12))


class Scripted(Unwatched):
    """Holds what the test says, and remembers who was asked for."""

    def __init__(self, *held: int | None) -> None:
        self.script = list(held)
        self.asked: list[Collection[int]] = []

    async def held(self, pids: Collection[int]) -> Held:
        self.asked.append(pids)
        return Held(self.script.pop(0), "out of order")

    async def freed(self, pids: Collection[int], before: Held, most_left_bytes: int, cap_s: float) -> Freed:
        return Freed(ok=False, left_bytes=before.total_bytes, reason=str(sorted(pids)))


async def test_a_tree_that_is_dying_leaves_what_was_seen_of_it():
    watch = Scripted(40)
    footprint = Footprint(watch)
    await footprint.measure([LEADER, WORKER])
    await footprint.measure([])
    assert footprint.held_bytes == 40
    assert await footprint.freed(4, 1.0) == Freed(ok=False, left_bytes=40, reason="[11, 12]")


async def test_a_driver_that_fails_later_leaves_what_was_seen_before():
    footprint = Footprint(Scripted(40, None))
    await footprint.measure([LEADER])
    await footprint.measure([LEADER, WORKER])
    assert (footprint.held_bytes, footprint.unknown) == (40, "")


async def test_what_was_never_measured_is_unknown_and_left_to_the_watch():
    footprint = Footprint(Scripted(None))
    assert footprint.unknown == "it was not measured yet"
    assert not footprint.recall_awake()
    await footprint.measure([LEADER])
    assert (footprint.held_bytes, footprint.unknown) == (0, "out of order")
    assert (await footprint.freed(4, 1.0)).ok is False


async def test_what_was_held_awake_is_recalled_after_looks_at_the_sleeper():
    footprint = Footprint(Scripted(40, 1))
    await footprint.measure([LEADER, WORKER], awake=True)
    await footprint.measure([LEADER])
    assert footprint.held_bytes == 1
    assert footprint.recall_awake()
    assert footprint.held_bytes == 40
    assert (await footprint.freed(4, 1.0)).reason == "[11, 12]"


async def test_who_held_nothing_awake_may_have_taken_some_since():
    footprint = Footprint(Scripted(0))
    await footprint.measure([LEADER], awake=True)
    assert not footprint.recall_awake()


async def test_without_a_driver_there_is_nothing_to_look_at_again():
    footprint = Footprint(Scripted(None))
    await footprint.measure([LEADER], awake=True)
    assert footprint.recall_awake()


async def test_what_was_held_asleep_is_not_taken_for_what_is_held_awake():
    footprint = Footprint(Scripted(1))
    await footprint.measure([LEADER])
    assert not footprint.recall_awake()


async def test_a_tree_that_held_nothing_is_free_without_asking():
    footprint = Footprint(Scripted(0))
    await footprint.measure([LEADER])
    assert await footprint.freed(0, 1.0) == Freed(ok=True, left_bytes=0)


async def test_who_dies_while_it_loads_leaves_what_was_seen_of_it_then(monkeypatch):
    monkeypatch.setattr(freeing, "LOADING_LOOK_S", 0.0)
    watch = Scripted(0, 0, 7, None)
    footprint = Footprint(watch)

    async def members() -> list[Proc]:
        return [LEADER, WORKER]

    async with footprint.loading(members):
        await until(lambda: not watch.script, "all looks")
    assert watch.asked[:2] == [(), {11, 12}]
    assert footprint.held_bytes == 7
    assert (await footprint.freed(0, 1.0)).reason == "[11, 12]"
    watch.script = [40]
    await footprint.measure([LEADER])  # it is up after all
    assert footprint.held_bytes == 40
    assert (await footprint.freed(4, 1.0)).reason == "[11]"


async def test_who_dies_before_it_was_seen_to_hold_any_is_left_to_the_watch(monkeypatch):
    monkeypatch.setattr(freeing, "LOADING_LOOK_S", 60.0)
    watch = Scripted(0)
    footprint = Footprint(watch)
    async with footprint.loading(list):
        await until(lambda: not watch.script, "the first look")
    assert (await footprint.freed(0, 1.0)).ok is False


async def test_without_a_driver_nobody_looks_while_it_loads(monkeypatch):
    monkeypatch.setattr(freeing, "LOADING_LOOK_S", 0.0)
    watch = Scripted(None, 5)
    async with Footprint(watch).loading(list):
        await until(lambda: watch.asked, "the first look")
        for _ in range(20):
            await asyncio.sleep(0)
    assert watch.script == [5]
