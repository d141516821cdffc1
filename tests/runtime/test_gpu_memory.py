"""Is it free again? What processes hold, what the dead leave behind, and what is not ours to wait for."""

import asyncio
import os
import subprocess
import sys
import time
from collections.abc import Callable
from dataclasses import dataclass, field

import pytest

from llmswap.runtime import memory
from llmswap.runtime.freeing import Held
from llmswap.runtime.gpu import Gpu, GpuWatch, Sample
from llmswap.runtime.host import resident_bytes
from llmswap.runtime.memory import DeviceMemory
from llmswap.runtime.nvml import NvmlReader
from llmswap.runtime.tree import look_up
from tests.runtime.fake_nvml import GIB, GPU_IS_LOST, Card, FakeNvml
from tests.runtime.rig import until

TENTH = 2 * GIB  # of the 20 GiB that the tests hold


@dataclass
class Box:
    """GPUs whose driver reports what is set here; the driver's own reserve is half a GiB of each."""

    cards: dict[str, dict[int, int | None]] = field(default_factory=lambda: {"GPU-a": {}})
    unclaimed: dict[str, int] = field(default_factory=dict)
    sample: Sample | None = None
    looks: int = 0
    on_look: Callable[[int], None] = lambda looks: None

    def __call__(self) -> Sample:
        self.looks += 1
        self.on_look(self.looks)
        return self.sample or Sample(tuple(self._gpu(*card) for card in enumerate(self.cards.items())))

    def _gpu(self, index: int, card: tuple[str, dict[int, int | None]]) -> Gpu:
        uuid, by_pid = card
        used = sum(used or 0 for used in by_pid.values()) + GIB // 2 + self.unclaimed.get(uuid, 0)
        withheld = "the driver does not say how much each process uses" if None in by_pid.values() else ""
        return Gpu(index, uuid, total_bytes=80 * GIB, used_bytes=used, by_pid=dict(by_pid), problem=withheld)


@pytest.fixture(autouse=True)
def _quick(monkeypatch) -> None:
    monkeypatch.setattr(memory, "POLL_S", 0.005)
    monkeypatch.setattr(memory, "BLIND_S", 0.1)


@pytest.fixture
def box():
    return Box()


@pytest.fixture
def watch(box):
    gpus = GpuWatch(box)
    yield DeviceMemory(gpus)
    gpus.close()


@pytest.fixture
def spawn():
    """Starts processes that do nothing, each in a session of its own; `end` kills and reaps one."""
    started: list[subprocess.Popen] = []

    def start() -> int:
        started.append(subprocess.Popen([sys.executable, "-c", "import time; time.sleep(60)"]))
        return started[-1].pid

    def end(pid: int) -> None:
        (process,) = [process for process in started if process.pid == pid]
        process.kill()
        process.wait()

    start.end = end
    yield start
    for process in started:
        process.kill()
        process.wait()


async def test_what_a_tree_holds_is_summed_over_its_processes_and_gpus(box, watch, spawn) -> None:
    one, two, stranger = spawn(), spawn(), spawn()
    box.cards = {"GPU-a": {one: 3 * GIB, two: GIB, stranger: 9 * GIB}, "GPU-b": {two: 5 * GIB}, "GPU-c": {}}
    held = await watch.held({one, two})
    assert (held.total_bytes, held.reason) == (9 * GIB, "")
    assert held.by_device == {"GPU-a": 4 * GIB, "GPU-b": 5 * GIB}
    assert held.unclaimed == {"GPU-a": GIB // 2, "GPU-b": GIB // 2}


async def test_a_stopped_tree_is_free_when_its_pids_are_gone(box, watch, spawn) -> None:
    pid = spawn()
    box.cards["GPU-a"][pid] = 20 * GIB
    before = await watch.held({pid})
    spawn.end(pid)
    waiting = asyncio.create_task(watch.freed({pid}, before, TENTH, 10))
    looks = box.looks
    await until(lambda: box.looks > looks + 3, "some looks")
    assert not waiting.done()  # the process is dead, but the driver still lists it
    del box.cards["GPU-a"][pid]
    freed = await waiting
    assert (freed.ok, freed.left_bytes) == (True, 0)


async def test_who_was_never_seen_to_hold_any_is_waited_for_while_more_is_used_than_before_it(box, watch) -> None:
    before = await watch.held(())
    assert (before.total_bytes, before.unclaimed) == (0, {"GPU-a": GIB // 2})
    looks = box.looks
    assert (await watch.freed((), before, 0, 10)).ok is True
    assert box.looks == looks + 1  # it left nothing, so nobody waits
    box.unclaimed["GPU-a"] = 20 * GIB
    waiting = asyncio.create_task(watch.freed((), before, 0, 10))
    await until(lambda: box.looks > looks + 3, "some looks")
    assert not waiting.done()
    box.unclaimed["GPU-a"] = 0
    assert (await waiting).ok is True
    box.unclaimed["GPU-a"] = 20 * GIB  # perhaps it was somebody else's: it is given no more time than in the dark
    freed = await watch.freed((), before, 0, 10)
    assert (freed.ok, freed.reason) == (None, "more is used than before it was started, but nobody saw it hold any")


async def test_memory_that_lingers_without_a_pid_is_waited_for(box, watch, spawn) -> None:
    pid = spawn()
    box.cards["GPU-a"][pid] = 20 * GIB
    before = await watch.held({pid})
    spawn.end(pid)
    del box.cards["GPU-a"][pid]
    box.unclaimed["GPU-a"] = 20 * GIB
    waiting = asyncio.create_task(watch.freed({pid}, before, TENTH, 10))
    looks = box.looks
    await until(lambda: box.looks > looks + 3, "some looks")
    assert not waiting.done()
    box.unclaimed["GPU-a"] = GIB
    freed = await waiting
    assert (freed.ok, freed.left_bytes) == (True, GIB)


async def test_stuck_memory_is_named_with_its_holder(box, watch, spawn) -> None:
    pid = spawn()
    box.cards["GPU-a"][pid] = 20 * GIB
    before = await watch.held({pid})
    began_s = time.monotonic()
    freed = await watch.freed({pid}, before, TENTH, 0.1)
    assert 0.1 <= time.monotonic() - began_s < 2
    assert (freed.ok, freed.left_bytes) == (False, 20 * GIB)
    assert freed.reason.startswith(f"20.0 GiB of GPU 0 held by pid {pid} (")
    assert "time.sleep(60)" in freed.reason


async def test_stuck_memory_of_the_dead_is_named_as_far_as_known(box, watch, spawn) -> None:
    pid = spawn()
    box.cards["GPU-a"][pid] = 20 * GIB
    before = await watch.held({pid})
    spawn.end(pid)
    del box.cards["GPU-a"][pid]
    box.unclaimed["GPU-a"] = 15 * GIB
    freed = await watch.freed({pid}, before, TENTH, 0.05)
    assert (freed.ok, freed.left_bytes) == (False, 15 * GIB)
    assert freed.reason.startswith("15.0 GiB of GPU 0 held by nobody who can be seen")


async def test_a_dead_process_that_the_driver_still_lists_is_named_by_pid(box, watch, spawn) -> None:
    pid = spawn()
    box.cards["GPU-a"][pid] = 20 * GIB
    before = await watch.held({pid})
    spawn.end(pid)
    freed = await watch.freed({pid}, before, TENTH, 0.05)
    assert freed.ok is False
    assert freed.reason == f"20.0 GiB of GPU 0 held by pid {pid}"


async def test_a_foreign_program_that_takes_the_memory_at_once_is_not_waited_for(box, watch, spawn) -> None:
    pid, stranger = spawn(), spawn()
    box.cards["GPU-a"] = {pid: 20 * GIB, stranger: GIB}
    before = await watch.held({pid})
    spawn.end(pid)
    box.cards["GPU-a"] = {stranger: 60 * GIB}
    freed = await watch.freed({pid}, before, TENTH, 10)
    assert (freed.ok, freed.left_bytes) == (True, 0)


async def test_no_more_is_waited_for_than_was_held(box, watch, spawn) -> None:
    """A program in another container grows without a pid that we could see; it is not ours beyond what we held."""
    pid = spawn()
    box.cards["GPU-a"][pid] = GIB
    before = await watch.held({pid})
    spawn.end(pid)
    del box.cards["GPU-a"][pid]
    box.unclaimed["GPU-a"] = 50 * GIB
    freed = await watch.freed({pid}, before, GIB // 10, 0.05)
    assert (freed.ok, freed.left_bytes) == (False, GIB)


async def test_a_little_more_of_what_nobody_claims_is_no_rest_of_ours(box, watch, spawn) -> None:
    pid = spawn()
    box.cards["GPU-a"][pid] = GIB // 4
    before = await watch.held({pid})
    spawn.end(pid)
    del box.cards["GPU-a"][pid]
    box.unclaimed["GPU-a"] = 60 << 20
    assert (await watch.freed({pid}, before, 0, 10)).ok is True


async def test_each_gpu_of_a_tree_is_looked_at(box, watch, spawn) -> None:
    one, two = spawn(), spawn()
    box.cards = {"GPU-a": {one: 10 * GIB}, "GPU-b": {two: 10 * GIB}}
    before = await watch.held({one, two})
    spawn.end(one)
    spawn.end(two)
    box.cards = {"GPU-a": {}, "GPU-b": {two: 10 * GIB}}
    freed = await watch.freed({one, two}, before, TENTH, 0.05)
    assert (freed.ok, freed.left_bytes) == (False, 10 * GIB)
    assert "GPU 1" in freed.reason


async def test_a_sleeper_is_free_when_its_own_bytes_have_fallen(box, watch, spawn) -> None:
    pid = spawn()
    box.cards["GPU-a"][pid] = 20 * GIB
    before = await watch.held({pid})
    waiting = asyncio.create_task(watch.freed({pid}, before, TENTH, 10))
    looks = box.looks
    await until(lambda: box.looks > looks + 2, "some looks")
    assert not waiting.done()
    box.cards["GPU-a"][pid] = 2 * GIB
    box.unclaimed["GPU-a"] = 18 * GIB  # somebody else: what lingers of a living process counts under its pid
    freed = await waiting
    assert (freed.ok, freed.left_bytes) == (True, 2 * GIB)


async def test_a_pid_that_was_given_away_is_a_stranger(box, watch, spawn) -> None:
    pid = spawn()
    box.cards["GPU-a"][pid] = 20 * GIB
    held = await watch.held({pid})
    before = Held(held.total_bytes, "", held.by_device, held.unclaimed, {pid: held.born[pid] - 1})
    assert (await watch.freed({pid}, before, TENTH, 10)).ok is True


async def test_nothing_held_is_free_at_once(box, watch, spawn) -> None:
    pid = spawn()
    before = await watch.held({pid})
    assert (before.total_bytes, before.reason) == (0, "")
    assert (await watch.freed({pid}, before, 0, 10)).ok is True


async def test_neighbours_of_ours_and_older_programs_are_no_reason_for_doubt(box, watch, spawn) -> None:
    ours, tree = spawn(), spawn()
    box.cards["GPU-a"] = {ours: 20 * GIB, os.getppid(): GIB}
    held = await watch.held({tree})
    assert (held.total_bytes, held.reason) == (0, "")


async def test_pids_of_another_namespace_are_a_reason(box, watch, spawn) -> None:
    """The driver names processes of the host, and we are in a container: none of these pids is known here."""
    pid = spawn()
    box.cards["GPU-a"] = {2**22 + 5: 20 * GIB}
    held = await watch.held({pid})
    assert held.total_bytes is None
    assert "container" in held.reason
    spawn.end(pid)
    began_s = time.monotonic()
    freed = await watch.freed({pid}, held, 0, 10)
    assert 0.1 <= time.monotonic() - began_s < 2  # what has exited gets a moment
    assert (freed.ok, freed.left_bytes, freed.reason) == (None, None, held.reason)


async def test_a_container_that_the_command_started_is_a_reason(box, watch, spawn, monkeypatch) -> None:
    """`docker run` holds nothing: its container's processes are no children of ours, but younger than the client."""
    client = spawn()
    clients_start = look_up(client)
    assert clients_start is not None
    await until(lambda: time.clock_gettime(time.CLOCK_BOOTTIME) * 100 > clients_start.started + 2, "a later tick")
    monkeypatch.setattr(memory, "is_descendant", lambda proc, ancestor: False)
    box.cards["GPU-a"] = {spawn(): 20 * GIB}
    held = await watch.held({client})
    assert held.total_bytes is None
    assert "container" in held.reason


async def test_a_driver_that_hides_everybody_is_a_reason(box, watch, spawn) -> None:
    box.unclaimed["GPU-a"] = 20 * GIB
    held = await watch.held({spawn()})
    assert held.total_bytes is None
    assert "no process at all" in held.reason


async def test_unknown_shares_are_a_reason(box, watch, spawn) -> None:
    pid = spawn()
    box.cards["GPU-a"] = {pid: None}
    held = await watch.held({pid})
    assert (held.total_bytes, held.reason) == (None, "the driver does not say how much each process uses")


async def test_without_a_driver_nobody_is_kept_waiting(box, watch, spawn) -> None:
    box.sample = Sample(problem="no NVIDIA driver here", driver=False)
    pid = spawn()
    held = await watch.held({pid})
    assert (held.total_bytes, held.reason) == (None, "no NVIDIA driver here")
    freed = await watch.freed({pid}, held, 0, 10)
    assert box.looks == 2
    assert (freed.ok, freed.reason) == (None, "no NVIDIA driver here")


async def test_a_driver_that_goes_away_while_waited_for_is_given_a_moment(box, watch, spawn) -> None:
    pid = spawn()
    box.cards["GPU-a"][pid] = 20 * GIB
    before = await watch.held({pid})
    box.sample = Sample(problem="NVML: GPU is lost")
    began_s = time.monotonic()
    freed = await watch.freed({pid}, before, TENTH, 10)
    assert 0.1 <= time.monotonic() - began_s < 2
    assert (freed.ok, freed.reason) == (None, "NVML: GPU is lost")


async def test_a_driver_that_comes_back_is_believed(box, watch, spawn) -> None:
    pid = spawn()
    box.cards["GPU-a"][pid] = 20 * GIB
    before = await watch.held({pid})
    lost, began = Sample(problem="NVML: GPU is lost"), box.looks

    def look(looks: int) -> None:
        box.sample = lost if (looks - began) % 2 else None
        if looks > began + 60:  # longer than anybody waits for a driver that stays away
            box.sample, box.cards["GPU-a"] = None, {}

    box.on_look = look
    freed = await watch.freed({pid}, before, TENTH, 10)
    assert (freed.ok, freed.left_bytes) == (True, 0)


async def test_a_lost_gpu_is_named(spawn) -> None:
    pid = spawn()
    lost, well = Card("GPU-a", used=20 * GIB, compute={pid: 20 * GIB}), Card("GPU-b")
    gpus = GpuWatch(NvmlReader(lambda: FakeNvml(lost, well)))
    watch = DeviceMemory(gpus)
    before = await watch.held({pid})
    assert before.total_bytes == 20 * GIB
    lost.fails["*"] = GPU_IS_LOST
    freed = await watch.freed({pid}, before, TENTH, 10)
    assert (freed.ok, freed.reason) == (None, "GPU 0: NVML: error 15")
    gpus.close()


async def test_memory_that_the_gpu_shares_with_the_host_is_followed_by_pid(spawn) -> None:
    pid = spawn()
    card = Card("GPU-a", compute={pid: 20 * GIB}, fails={"nvmlDeviceGetMemoryInfo": 3})
    gpus = GpuWatch(NvmlReader(lambda: FakeNvml(card)))
    watch = DeviceMemory(gpus, host_free_bytes=lambda: 10 * GIB)
    before = await watch.held({pid})
    assert before.total_bytes == 20 * GIB
    spawn.end(pid)
    card.compute.clear()
    assert (await watch.freed({pid}, before, TENTH, 10)).ok is True
    assert await watch.lacks_host_memory(9 * GIB) is None
    assert await watch.lacks_host_memory(10 * GIB) == "10.0 GiB are free, 10.5 GiB are needed"
    gpus.close()


async def test_a_gpu_with_memory_of_its_own_leaves_the_host_alone(box) -> None:
    gpus = GpuWatch(box)
    assert await DeviceMemory(gpus, host_free_bytes=lambda: 0).lacks_host_memory(60 * GIB) is None
    gpus.close()


async def test_what_one_of_the_dead_gives_back_does_not_hide_what_another_leaves_behind(spawn) -> None:
    first, second = spawn(), spawn()
    card = Card("GPU-a", compute={first: 20 * GIB, second: 20 * GIB}, used=40 * GIB)
    gpus = GpuWatch(NvmlReader(lambda: FakeNvml(card)))
    watch = DeviceMemory(gpus)
    first_held = await watch.held({first})
    spawn.end(first)
    del card.compute[first]  # its 20 GiB linger on
    waiting = asyncio.create_task(watch.freed({first}, first_held, TENTH, 30))
    await until(lambda: watch._lingers_on("GPU-a") > 0, "the wait sees them")
    second_held = await watch.held({second})
    spawn.end(second)
    card.compute.clear()
    card.used = 20 * GIB  # the first is given back just as the second begins to linger
    freed = await watch.freed({second}, second_held, TENTH, 0.2)
    assert (freed.ok, freed.left_bytes) == (False, 20 * GIB)
    card.used = 0
    assert (await watch.freed({second}, second_held, TENTH, 5)).ok is True
    assert (await waiting).ok is True
    gpus.close()


async def test_host_memory_of_a_tree_is_summed(watch, spawn) -> None:
    one, two = spawn(), spawn()
    await until(lambda: resident_bytes([one, two]) > 1 << 20, "two processes with some memory")  # they begin with none
    assert await watch.host_bytes({one, two}) > 1 << 20
    spawn.end(one)
    spawn.end(two)
    assert await watch.host_bytes({one, two}) is None
