"""Simulated engines that sleep, run by a rig, on one GPU whose ledger is read as a driver would be."""

import asyncio
import time
from collections.abc import Callable, Collection
from contextlib import asynccontextmanager
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import aiohttp

from llmswap.config.settings import MemorySettings, Sleeping, SleepQuery, SleepStep
from llmswap.core.events import UpstreamAsleep, UpstreamReady
from llmswap.fake_upstream import gpus
from llmswap.runtime.freeing import Freed, Held, MemoryWatch
from tests.runtime.rig import Rig, supervised
from tests.stack import fake, until

QUERY = SleepQuery("/is_sleeping", "is_sleeping")
SLEEP_1 = SleepStep("/sleep?level=1&mode=wait")
SLEEP_2 = SleepStep("/sleep?level=2&mode=wait")
WAKE = SleepStep("/wake_up")
RELOAD = SleepStep("/collective_rpc", body='{"method":"reload_weights"}')
RESET = SleepStep("/reset_prefix_cache")
L1 = Sleeping(sleep=(SLEEP_1,), wake=(WAKE,), query=QUERY)
L2 = Sleeping(
    sleep=(SLEEP_2,),
    wake=(SleepStep("/wake_up?tags=weights"), RELOAD, SleepStep("/wake_up?tags=kv_cache")),
    query=QUERY,
    warmup=True,
)
SGLANG = Sleeping(
    sleep=(
        SleepStep("/pause_generation", body='{"mode":"abort"}'),
        SleepStep("/release_memory_occupation", body="{}"),
    ),
    wake=(
        SleepStep("/resume_memory_occupation", body="{}"),
        SleepStep("/continue_generation", body="{}"),
    ),
    warmup=True,
)
DEV = ("VLLM_SERVER_DEV_MODE=1",)


def impatient(how: Sleeping, timeout_s: float = 0.3) -> Sleeping:
    """The same, with a short time limit on every step."""
    steps = [tuple(replace(step, timeout_s=timeout_s) for step in steps) for steps in (how.sleep, how.wake)]
    return replace(how, sleep=steps[0], wake=steps[1])


class LedgerWatch:
    """Reads the ledger; `lack` is what it says of the host's memory, `seen` what it saw last,
    `looks` how often it looked."""

    def __init__(self, path: Path) -> None:
        self.path = path
        self.lack: str | None = None
        self.asked_for: list[int] = []
        self.seen: int | None = None
        self.looks = 0

    def used(self) -> int:
        """Bytes in use on the GPU, by the living and the dead."""
        return sum(gpu.used_bytes for gpu in gpus.read(self.path).gpus)

    async def held(self, pids: Collection[int]) -> Held:
        machine = gpus.read(self.path)
        self.looks += 1
        self.seen = sum(map(machine.of, pids))
        return Held(self.seen, unclaimed={"0": self._unclaimed(machine)})

    async def freed(self, pids: Collection[int], before: Held, most_left_bytes: int, cap_s: float) -> Freed:
        if before.total_bytes is None:
            return Freed(None, None, before.reason)
        deadline_s = time.monotonic() + cap_s
        while True:
            machine = gpus.read(self.path)
            left = sum(map(machine.of, pids)) + max(0, self._unclaimed(machine) - before.unclaimed["0"])
            if left <= most_left_bytes:
                return Freed(True, left)
            if time.monotonic() >= deadline_s:
                if not before.total_bytes:
                    return Freed(None, None, "nobody saw it hold any")
                return Freed(False, left, f"{left} bytes held by pid 4711")
            await asyncio.sleep(0.01)

    async def host_bytes(self, pids: Collection[int]) -> int | None:
        machine = gpus.read(self.path)
        return sum(machine.host_by_pid.get(pid, 0) for pid in pids)

    async def lacks_host_memory(self, take_bytes: int) -> str | None:
        if not take_bytes:
            return None
        self.asked_for.append(take_bytes)
        return self.lack

    @staticmethod
    def _unclaimed(machine: gpus.Machine) -> int:
        return sum(gpu.used_bytes - sum(gpu.by_pid.values()) for gpu in machine.gpus)


@dataclass
class Bed:
    """A rig and its GPU."""

    rig: Rig
    watch: LedgerWatch

    async def up(self, how: Sleeping | None, *flags: str, persona: str = "vllm", env: tuple[str, ...] = DEV, **launch):
        """Start an engine that can sleep this way, and wait until it is ready."""
        frees = {"vllm": "--enable-sleep-mode", "sglang": "--enable-memory-saver"}[persona]
        self.start(how, frees, *flags, persona=persona, env=env, **launch)
        await self.rig.next(UpstreamReady)

    def start(self, how: Sleeping | None, *flags: str, persona: str = "vllm", env: tuple[str, ...] = DEV, **launch):
        """Start it as bare as the flags say."""
        ledger = {"gpu_ledger": str(self.watch.path), "gpu_total": 200, "gpu_release_lag": 20}
        cmd = fake("m", *flags, persona=persona, time_scale=0.001, **ledger)
        self.rig.start(cmd, sleeping=how, env=env, **launch)

    async def asleep(self, how: Sleeping, *flags: str, **up: Any) -> UpstreamAsleep:
        """Bring one up and to sleep."""
        await self.up(how, *flags, **up)
        self.rig.sleep()
        return await self.rig.next(UpstreamAsleep)

    async def get(self, path: str) -> Any:
        """Ask the engine past llmswap."""
        async with aiohttp.ClientSession() as http, http.get(self.rig.url() + path) as response:
            return await response.json()

    async def calls(self) -> list[str]:
        """What the engine was asked, in order, but for readiness probes."""
        journal = await self.get("/_fake/journal")
        return [call["path"] for call in journal["calls"] if not call["path"].startswith(("/health", "/_fake"))]

    async def asked(self, enough: Callable[[list[str]], bool]) -> None:
        """Wait until the engine has been asked enough."""

        async def is_enough() -> bool:
            return enough(await self.calls())

        await until(is_enough, "the engine has been asked")

    async def operations(self) -> list[tuple[str, str]]:
        """What the engine went through after its boot: kind and result."""
        journal = await self.get("/_fake/journal")
        return [(entry["kind"], entry["result"]) for entry in journal["operations"] if entry["kind"] != "boot"]


@asynccontextmanager
async def bed(directory: Path, watch: MemoryWatch | None = None, **memory: Any):
    """Run a rig with a GPU that has room for what lingers; `memory` are MemorySettings."""
    ledger = LedgerWatch(directory / "gpus.json")
    settings = MemorySettings(**{"cap_s": 2.0, **memory})
    async with supervised(None, watch or ledger, settings) as rig:
        yield Bed(rig, ledger)
