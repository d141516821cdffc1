"""One GPU's memory, shared by several fakes through a file. Every change happens under a lock on `PATH.lock`.

Memory that is given back stays counted for the release lag, as drivers do it. What a process held that died without
giving it back is reclaimed by whoever looks next.
"""

import fcntl
import json
import os
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import asdict, dataclass, field
from pathlib import Path


class OutOfMemory(Exception):
    """The GPU has less free memory than wanted."""

    def __init__(self, free_gib: float, wanted_gib: float, total_gib: float) -> None:
        super().__init__(
            f"Free memory on device cuda:0 ({free_gib:.2f}/{total_gib:.2f} GiB) on startup is less than desired GPU "
            f"memory ({wanted_gib:.2f} GiB). CUDA out of memory."
        )
        self.free_gib = free_gib


@dataclass(frozen=True, slots=True)
class Entry:
    """Memory of one process.

    Attributes:
        born: Start time of the process in clock ticks after boot; tells a reused pid from the one meant.
        until_s: Monotonic time when given-back memory is free; None while it is held.
    """

    pid: int
    born: int
    name: str
    gib: float
    until_s: float | None = None


def birth(pid: int) -> int:
    """Give the start time of a live process in clock ticks; 0 if it is gone or a zombie."""
    try:
        stat = Path(f"/proc/{pid}/stat").read_text()
    except OSError:
        return 0
    after_name = stat.rpartition(")")[2].split()
    return 0 if after_name[0] in "ZX" else int(after_name[19])


@dataclass(frozen=True, slots=True)
class Holder:
    """Whose memory it is: ours, or a grandchild's if that is to outlive us."""

    name: str = ""
    pid: int = field(default_factory=os.getpid)


class Ledger:
    """The view of one holder on the shared file.

    Args:
        path: The shared file; made if missing.
        lag_s: Real seconds that given-back memory stays counted.
    """

    clock: Callable[[], float] = staticmethod(time.monotonic)
    birth_of: Callable[[int], int] = staticmethod(birth)

    def __init__(self, path: Path, total_gib: float, lag_s: float, holder: Holder) -> None:
        self.path, self.total_gib, self.lag_s = path, total_gib, lag_s
        self.name, self.pid = holder.name, holder.pid

    def hold(self, gib: float) -> None:
        """Hold exactly this much from now on; what was held beyond it lingers for the lag.

        Raises:
            OutOfMemory: There is less free than the growth. Nothing is changed.
        """
        with self._locked() as entries:
            mine = [e for e in entries if e.pid == self.pid and e.until_s is None]
            held = sum(e.gib for e in mine)
            free = self.total_gib - sum(e.gib for e in entries)
            if gib - held > free + 1e-9:
                raise OutOfMemory(free + held, gib, self.total_gib)
            for entry in mine:
                entries.remove(entry)
            born = self.birth_of(self.pid)
            if gib > 0:
                entries.append(Entry(self.pid, born, self.name, gib))
            if held > gib and self.lag_s > 0:
                entries.append(Entry(self.pid, born, self.name, held - gib, self.clock() + self.lag_s))

    def release(self) -> None:
        """Give everything back."""
        self.hold(0.0)

    def entries(self) -> list[Entry]:
        """Show what is held and what lingers, by all processes."""
        with self._locked() as entries:
            return list(entries)

    def used_gib(self) -> float:
        """Sum what is held and what lingers."""
        return sum(entry.gib for entry in self.entries())

    @contextmanager
    def _locked(self) -> Iterator[list[Entry]]:
        """Lock, read, drop what is over; write back on a clean exit.

        A new file replaces the old one at once, so that a process killed here leaves one of the two, whole.
        """
        with self.path.with_name(self.path.name + ".lock").open("w") as lock:
            fcntl.flock(lock, fcntl.LOCK_EX)
            entries = [entry for entry in self._read() if self._counts(entry)]
            yield entries
            draft = self.path.with_name(self.path.name + ".new")
            draft.write_text(json.dumps([asdict(entry) for entry in entries]))
            draft.replace(self.path)

    def _read(self) -> list[Entry]:
        try:
            return [Entry(**row) for row in json.loads(self.path.read_text())]
        except FileNotFoundError:
            return []

    def _counts(self, entry: Entry) -> bool:
        if entry.until_s is not None:
            return self.clock() < entry.until_s
        return self.birth_of(entry.pid) == entry.born != 0
