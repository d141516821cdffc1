"""What memory an upstream's processes hold, and whether it is free again. Who measures it: gpu.py."""

import asyncio
import logging
from collections.abc import AsyncIterator, Awaitable, Callable, Collection, Iterable, Mapping
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from typing import Protocol

from llmswap.config.settings import MemorySettings
from llmswap.core.fleet import ModelId
from llmswap.runtime.stopping import unless
from llmswap.runtime.tree import Proc

log = logging.getLogger(__name__)

# How often memory that is stuck is looked at again, at least.
STUCK_LOOK_S = 1.0
# How often one that loads is looked at.
LOADING_LOOK_S = 2.0
_REASON_CHARS = 300


@dataclass(frozen=True, slots=True)
class Held:
    """Device memory that processes hold at one moment.

    Attributes:
        total_bytes: Over all devices; None if it cannot be measured.
        reason: Why it cannot be measured, in a line.
        by_device: The same by device, and `unclaimed` what no living process accounts for: for the watch itself, who
            needs them to know whether the memory of the dead is gone.
        born: Start time of each process that holds some, in clock ticks from boot: its pid may be given away again.
    """

    total_bytes: int | None
    reason: str = ""
    by_device: Mapping[str, int] = field(default_factory=dict)
    unclaimed: Mapping[str, int] = field(default_factory=dict)
    born: Mapping[int, int] = field(default_factory=dict)


@dataclass(frozen=True, slots=True)
class Freed:
    """Whether device memory is free again.

    Attributes:
        ok: None if nobody can tell.
        left_bytes: What is still held of it; None if nobody can tell.
        reason: If not ok, one line: who holds it (with the pid), or why nobody can tell.
    """

    ok: bool | None
    left_bytes: int | None = None
    reason: str = ""


class MemoryWatch(Protocol):
    """Measures memory of processes. Nothing of it raises, and everything answers within its own time limits."""

    async def held(self, pids: Collection[int]) -> Held:
        """Measure the device memory of these processes now."""

    async def freed(self, pids: Collection[int], before: Held, most_left_bytes: int, cap_s: float) -> Freed:
        """Wait until no more than `most_left_bytes` of `before` are held, at most for `cap_s`. Looks at once first.

        The processes live on after a sleep, and are dead after a stop: then what they held may linger without a pid.
        """

    async def host_bytes(self, pids: Collection[int]) -> int | None:
        """Measure the host memory of these processes; None if it cannot be measured."""

    async def lacks_host_memory(self, take_bytes: int) -> str | None:
        """Say why the host has no room for a wake that takes back so much device memory; None if it has, or may.

        Matters most where device memory is host memory.
        """


class Unwatched:
    """A MemoryWatch that can tell nothing."""

    _REASON = "device memory is not watched"

    async def held(self, pids: Collection[int]) -> Held:
        """Say that it cannot be measured."""
        del pids
        return Held(None, self._REASON)

    async def freed(self, pids: Collection[int], before: Held, most_left_bytes: int, cap_s: float) -> Freed:
        """Say that nobody can tell."""
        del pids, before, most_left_bytes, cap_s
        return Freed(None, None, self._REASON)

    async def host_bytes(self, pids: Collection[int]) -> int | None:
        """Give None."""
        del pids
        return None

    async def lacks_host_memory(self, take_bytes: int) -> str | None:
        """Give None."""
        del take_bytes
        return None


class Footprint:
    """The device memory of one process tree: what it held when last seen, and whether that is gone.

    Attributes:
        most_bytes: The most that it was seen to hold once it was up.
    """

    def __init__(self, watch: MemoryWatch) -> None:
        self._watch = watch
        self._pids: frozenset[int] = frozenset()
        self._held = Held(None, "it was not measured yet")
        self._awake: tuple[frozenset[int], Held] | None = None
        # The same while it loads. Kept apart: an engine that is not up yet has not brought up all of its processes.
        self._early_pids: frozenset[int] = frozenset()
        self._early: Held | None = None
        self.most_bytes = 0

    @property
    def held_bytes(self) -> int:
        """What it held when last measured; 0 if it never could be."""
        return self._last[1].total_bytes or 0

    @property
    def _last(self) -> tuple[frozenset[int], Held]:
        if self._pids or self._early is None:
            return self._pids, self._held
        return self._early_pids, self._early

    @asynccontextmanager
    async def loading(self, members: Callable[[], Awaitable[Iterable[Proc]]]) -> AsyncIterator[None]:
        """While inside, look from time to time: one that dies before it is up leaves what nobody else has measured.

        Args:
            members: Looks who is in the tree.
        """
        looking = asyncio.create_task(self._look_early(members))
        try:
            yield
        finally:
            looking.cancel()
            await asyncio.gather(looking, return_exceptions=True)

    async def _look_early(self, members: Callable[[], Awaitable[Iterable[Proc]]]) -> None:
        self._early = await self._watch.held(())  # what is used before it takes any
        while self._early.total_bytes is not None:
            await asyncio.sleep(LOADING_LOOK_S)
            pids = frozenset(proc.pid for proc in await members())
            if pids:
                held = await self._watch.held(pids)
                if held.total_bytes:
                    self._early_pids, self._early = pids, held

    @property
    def unknown(self) -> str:
        """Why nobody can tell what it holds; empty if it was measured."""
        return self._held.reason if self._held.total_bytes is None else ""

    async def measure(self, members: Iterable[Proc], *, awake: bool = False) -> None:
        """Take note of what its living members hold. What cannot be measured now stays as it was seen last.

        Args:
            members: All of the tree.
            awake: They hold what they need to serve.
        """
        pids = frozenset(proc.pid for proc in members)
        if not pids:  # it dies just now, and what it held is what is waited for
            return
        held = await self._watch.held(pids)
        if held.total_bytes is not None or self._held.total_bytes is None:
            self._pids, self._held = pids, held
            self.most_bytes = max(self.most_bytes, held.total_bytes or 0)
            if awake and held.total_bytes != 0:  # who holds nothing yet may take some for its first request
                self._awake = pids, held

    def recall_awake(self) -> bool:
        """Take what was held when last seen awake for what is held now. False if it was never seen to hold any."""
        if self._awake is not None:
            self._pids, self._held = self._awake
        return self._awake is not None

    async def freed(self, most_left_bytes: int, cap_s: float) -> Freed:
        """Wait until no more than so much of what was measured last is held, at most for `cap_s`."""
        pids, held = self._last
        if held.total_bytes == 0 and held is not self._early:  # who was up and held nothing has not begun to since
            return Freed(ok=True, left_bytes=0)
        return await self._watch.freed(pids, held, most_left_bytes, cap_s)

    async def host_bytes(self) -> int | None:
        """Measure the host memory of those who were measured last; None if it cannot be measured."""
        return await self._watch.host_bytes(self._pids)

    async def lacks_host_memory(self, take_bytes: int) -> str | None:
        """Say why the host has no room to take back so much device memory; None if it has, or nobody can tell."""
        return await self._watch.lacks_host_memory(take_bytes)


async def until_freed(  # noqa: PLR0913, PLR0917
    footprint: Footprint,
    model: ModelId,
    memory: Callable[[], MemorySettings],
    is_last: Callable[[], bool],
    hurry: "asyncio.Future[None]",
    on_stuck: Callable[[str], None],
) -> Freed | None:
    """Wait until the device memory of a tree that is gone is free; or for what is to be done if it stays.

    Args:
        footprint: Of the tree.
        model: Whose it was, for the log.
        memory: Gives the settings in force.
        is_last: Whether nothing will be started any more, so that it concerns nobody.
        hurry: Cuts it short.
        on_stuck: Told once, with who holds it, when the cap has passed.

    Returns:
        How it went in the end; None if it was cut short.
    """
    told = False
    while not is_last():
        settings = memory()
        left = int((1 - settings.freed_share) * footprint.held_bytes)
        cap_s = max(settings.cap_s, STUCK_LOOK_S) if told else settings.cap_s
        freed = await unless(footprint.freed(left, cap_s), hurry)
        if freed is None or freed.ok is not False:
            return freed
        reason = f"its device memory is not free: {freed.reason}"[:_REASON_CHARS]
        if settings.start_anyway:
            log.warning("%s: %s; going on as configured", model, reason)
            return freed
        if not told:
            told = True
            on_stuck(reason)
    return None
