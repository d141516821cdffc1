"""How much memory process trees hold, and whether it is free again: the MemoryWatch of `freeing.py`, by measurement.

Device memory is followed by our own pids, never by totals: another program that grows meanwhile neither makes us wait
nor is counted as ours. What a dead process held may stay used for a while without a pid; that shows as growth of what
nobody claims, and is waited for, too.
"""

import asyncio
import os
import time
from collections.abc import Callable, Collection, Mapping
from dataclasses import dataclass

from llmswap.runtime import host
from llmswap.runtime.freeing import Freed, Held
from llmswap.runtime.gpu import Gpu, GpuWatch, Sample
from llmswap.runtime.tree import describe, is_descendant, look_up

# How often it is looked at: soon at first, because most of it is free at once.
POLL_S = 0.1
_FIRST_POLL_S = 0.01
# Where it cannot be measured, what has exited gets this long; drivers need half a second to one and a half.
BLIND_S = 1.5
# Contexts and page tables of others come and go: growth that nobody claims counts from here on.
TOLERANCE_BYTES = 64 << 20
# Where no process is listed and yet more than this is used, the driver hides somebody.
RESERVE_BYTES = 2 << 30
# What a wake must leave the host.
HOST_RESERVE_BYTES = 512 << 20
_NAMED_MAX = 3
_GIB = 1 << 30


@dataclass(frozen=True, slots=True)
class _Rest:
    """What is still held on one GPU; by a process, or by none that can be seen."""

    gpu: int
    uuid: str
    pid: int | None
    bytes: int

    def __str__(self) -> str:
        holder = "nobody who can be seen: the driver has not given it back" if self.pid is None else describe(self.pid)
        return f"{self.bytes / _GIB:.1f} GiB of GPU {self.gpu} held by {holder}"


class DeviceMemory:
    """Measures processes on the GPUs and on this host.

    Args:
        host_bytes: Measures the host memory of processes, blocking; None if none of them can be read.
        host_free_bytes: Tells how much memory the host can still give, blocking.
    """

    def __init__(
        self,
        gpus: GpuWatch,
        *,
        host_bytes: Callable[[Collection[int]], int | None] = host.resident_bytes,
        host_free_bytes: Callable[[], int] = host.free_bytes,
    ) -> None:
        self._gpus = gpus
        self._host_bytes = host_bytes
        self._host_free_bytes = host_free_bytes
        self._lingering: dict[object, Mapping[str, int]] = {}  # what each wait still sees of the dead, by GPU
        self._shared: bool | None = None  # the hardware does not change while we run

    async def held(self, pids: Collection[int]) -> Held:
        """Measure the device memory of these processes now."""
        sample = await self._gpus.ask(fresh=True)
        by_device: dict[str, int] = {}
        for gpu in sample.gpus:
            mine = [used for pid, used in (gpu.by_pid or {}).items() if pid in pids]
            if None in mine:
                return Held(None, gpu.problem)
            if mine:
                by_device[gpu.uuid] = sum(used or 0 for used in mine)
        if not by_device and (reason := _doubt_of_nothing(sample, pids)):
            return Held(None, reason)
        # Of who holds nothing yet: on any of them, what it leaves behind may be found.
        theirs = by_device or {gpu.uuid for gpu in sample.gpus}
        unclaimed = {gpu.uuid: gpu.unclaimed_bytes for gpu in sample.gpus if gpu.uuid in theirs}
        # What others who are gone still hold is about to be given back, and must not hide what these will leave behind.
        known = {uuid: max(0, used - self._lingers_on(uuid)) for uuid, used in unclaimed.items() if used is not None}
        return Held(sum(by_device.values()), "", by_device, known, {pid: _born(pid) for pid in pids})

    async def freed(self, pids: Collection[int], before: Held, most_left_bytes: int, cap_s: float) -> Freed:
        """Wait until no more than `most_left_bytes` of `before` are held, at most for `cap_s`.

        Where it cannot be measured, or no longer, it waits for BLIND_S and says that nobody can tell. Who was never
        seen to hold any, and is dead, may have taken some in its last moment: that is not waited for any longer either.
        """
        wait = object()
        try:
            return await self._await_freed(wait, pids, before, most_left_bytes, cap_s)
        finally:
            self._lingering.pop(wait, None)

    def _lingers_on(self, uuid: str) -> int:
        return sum(seen.get(uuid, 0) for seen in self._lingering.values())

    async def _await_freed(
        self, wait: object, pids: Collection[int], before: Held, most_left_bytes: int, cap_s: float
    ) -> Freed:
        sure = bool(before.by_device) or before.total_bytes is None
        deadline_s = time.monotonic() + (cap_s if sure else min(cap_s, BLIND_S))
        blind_until_s: float | None = None
        pause_s = min(_FIRST_POLL_S, POLL_S)
        while True:
            sample = await self._gpus.ask()
            rest = _rest(sample, pids, before)
            parts = () if isinstance(rest, str) else rest
            self._lingering[wait] = {part.uuid: part.bytes for part in parts if part.pid is None}
            now_s = time.monotonic()
            if isinstance(rest, str):
                blind_until_s = blind_until_s or min(now_s + BLIND_S, deadline_s)
                if now_s >= blind_until_s or not sample.driver:
                    return Freed(None, None, rest)
            else:
                blind_until_s = None
                left_bytes = sum(part.bytes for part in rest)
                if left_bytes <= most_left_bytes:
                    return Freed(ok=True, left_bytes=left_bytes)
                if now_s >= deadline_s and not sure:
                    return Freed(None, None, "more is used than before it was started, but nobody saw it hold any")
                if now_s >= deadline_s:
                    worst = sorted(rest, key=lambda part: -part.bytes)[:_NAMED_MAX]
                    return Freed(ok=False, left_bytes=left_bytes, reason=", ".join(map(str, worst)))
            await asyncio.sleep(pause_s)
            pause_s = min(2 * pause_s, POLL_S)

    async def host_bytes(self, pids: Collection[int]) -> int | None:
        """Measure the host memory of these processes; None if it cannot be measured."""
        return self._host_bytes(pids)  # one small file of the kernel for each: less than a thread would cost

    async def lacks_host_memory(self, take_bytes: int) -> str | None:
        """Say why the host has no room for a wake that takes back so much device memory; None if it has, or may."""
        if not take_bytes or not await self._is_shared():
            return None  # what it wakes with lies in host memory already
        need = HOST_RESERVE_BYTES + take_bytes
        free = self._host_free_bytes()  # some small files of the kernel: less than a thread would cost
        return None if free >= need else f"{free / _GIB:.1f} GiB are free, {need / _GIB:.1f} GiB are needed"

    async def _is_shared(self) -> bool:
        """Whether device memory is host memory, as on GB10 and Jetson: then a GPU has no total of its own."""
        if self._shared is None:
            gpus = (await self._gpus.ask()).gpus
            if not gpus:
                return False
            self._shared = any(gpu.uuid and gpu.total_bytes is None for gpu in gpus)
        return self._shared


def _born(pid: int) -> int:
    proc = look_up(pid)
    return 0 if proc is None else proc.started


def _is_same(pid: int, before: Held) -> bool:
    """Whether a pid still means who it meant then, dead or alive; it may have been given away since."""
    proc = look_up(pid)
    return proc is None or before.born.get(pid, proc.started) == proc.started


def _is_dead(pid: int, before: Held) -> bool:
    proc = look_up(pid)
    return proc is None or proc.zombie or not _is_same(pid, before)


def _rest(sample: Sample, pids: Collection[int], before: Held) -> list[_Rest] | str:
    """Find what is left of it, or say why nobody can tell."""
    if before.total_bytes is None:
        return before.reason
    seen = {gpu.uuid: gpu for gpu in sample.gpus}
    any_dead = any(_is_dead(pid, before) for pid in before.born)
    rest = []
    if not before.by_device:  # what it took in its last moment, nobody has seen it hold
        for uuid in before.unclaimed.keys() & seen.keys():
            rest += _lingering(seen[uuid], before.unclaimed[uuid], seen[uuid].used_bytes or 0)
    for uuid, held_bytes in before.by_device.items():
        gpu = seen.get(uuid)
        if gpu is None:
            problems = [sample.problem, *(gpu.problem for gpu in sample.gpus)]
            return next(filter(None, problems), f"{uuid} is gone")
        claims = {pid: used for pid, used in (gpu.by_pid or {}).items() if pid in pids and _is_same(pid, before)}
        if gpu.by_pid is None or None in claims.values():
            return gpu.problem
        rest += [_Rest(gpu.index, uuid, pid, used) for pid, used in claims.items() if used]
        if any_dead:
            missing_bytes = held_bytes - sum(used or 0 for used in claims.values())
            rest += _lingering(gpu, before.unclaimed.get(uuid), missing_bytes)
    return rest


def _lingering(gpu: Gpu, unclaimed_before: int | None, missing_bytes: int) -> list[_Rest]:
    """Find what the dead held and the driver still counts. Whatever else nobody claims is not ours to wait for."""
    if gpu.unclaimed_bytes is None or unclaimed_before is None:
        return []
    growth = gpu.unclaimed_bytes - unclaimed_before
    if growth <= TOLERANCE_BYTES or missing_bytes <= 0:
        return []
    return [_Rest(gpu.index, gpu.uuid, None, min(growth, missing_bytes))]


def _doubt_of_nothing(sample: Sample, pids: Collection[int]) -> str:
    """Say why these processes may hold device memory although none is listed; empty if they hold none."""
    if not sample.gpus:
        return sample.problem
    if not pids:  # nobody is there yet
        return next((gpu.problem for gpu in sample.gpus if gpu.unclaimed_bytes is None), "")
    return doubt(sample.gpus, pids)


def doubt(gpus: Collection[Gpu], pids: Collection[int]) -> str:
    """Say why processes that no GPU lists may hold device memory after all; empty if they hold none.

    The driver may know them by other pids (we are in a container), or theirs are others (`docker run` is only the
    client of its container). Whoever is older than all of them, or comes from us, is surely none of them.
    """
    withheld = [gpu.problem for gpu in gpus if gpu.by_pid is None]
    if withheld:
        return withheld[0]
    listed = {pid for gpu in gpus for pid in gpu.by_pid or {}}
    oldest = min((born for pid in pids if (born := _born(pid))), default=0)
    strangers = [pid for pid in listed if not _is_elsewhere(pid, oldest)]
    if strangers:
        return (
            f"the driver lists none of its processes, but {len(strangers)} that may be its own under other pids: "
            "it runs in a container, or llmswap does"
        )
    if not listed and any((gpu.used_bytes or 0) > RESERVE_BYTES for gpu in gpus):
        return "the driver lists no process at all, though memory is used: llmswap runs in a container without hostPID"
    return ""


def _is_elsewhere(pid: int, oldest: int) -> bool:
    proc = look_up(pid)
    return proc is not None and (proc.started < oldest or is_descendant(proc, os.getpid()))
