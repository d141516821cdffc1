"""What is remembered of a tree's memory. How it is measured: test_gpu_memory.py."""

from collections.abc import Collection

from llmswap.runtime.freeing import Footprint, Freed, Held, Unwatched
from llmswap.runtime.tree import Proc

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
    assert not await footprint.renew()
    await footprint.measure([LEADER])
    assert (footprint.held_bytes, footprint.unknown) == (0, "out of order")
    assert (await footprint.freed(4, 1.0)).ok is False


async def test_who_is_known_is_measured_anew_without_looking_for_them():
    watch = Scripted(40, 41)
    footprint = Footprint(watch)
    await footprint.measure([LEADER, WORKER])
    assert await footprint.renew()
    assert footprint.held_bytes == 41
    assert watch.asked == [{11, 12}, {11, 12}]


async def test_a_tree_that_held_nothing_is_free_without_asking():
    footprint = Footprint(Scripted(0))
    await footprint.measure([LEADER])
    assert await footprint.freed(0, 1.0) == Freed(ok=True, left_bytes=0)
