"""What memory an upstream's processes hold, and whether it is free again. Who measures it: gpu.py."""

from collections.abc import Collection, Mapping
from dataclasses import dataclass, field
from typing import Protocol


@dataclass(frozen=True, slots=True)
class Held:
    """Device memory that processes hold at one moment.

    Attributes:
        total_bytes: Over all devices; None if it cannot be measured.
        reason: Why it cannot be measured, in a line.
        by_device: The same by device, and `unclaimed` what no living process accounts for: for the watch itself, who
            needs them to know whether the memory of the dead is gone.
    """

    total_bytes: int | None
    reason: str = ""
    by_device: Mapping[str, int] = field(default_factory=dict)
    unclaimed: Mapping[str, int] = field(default_factory=dict)


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
