"""The memory of a machine's GPUs, shared by several fakes through a file: who holds how much, and who is refused.

Memory that is given back stays counted for the release lag, as drivers do it, and so does what a process held that died
without giving it back. The file is `book.py`'s; `gpus.py` reads it as a monitoring library would.
"""

import os
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field, replace
from pathlib import Path

from llmswap.fake_upstream.book import Book, Entry, Page, Refusal, opened


class OutOfMemory(Exception):
    """A GPU has less free memory than wanted."""

    def __init__(self, gpu: int, free_gib: float, wanted_gib: float, total_gib: float) -> None:
        super().__init__(
            f"Free memory on device cuda:{gpu} ({free_gib:.2f}/{total_gib:.2f} GiB) on startup is less than desired "
            f"GPU memory ({wanted_gib:.2f} GiB). CUDA out of memory."
        )
        self.free_gib = free_gib


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
    """Whose memory it is.

    Attributes:
        pids: GPU -> the process that holds memory there: ours, a worker's, or a grandchild's that is to outlive us.
    """

    name: str = ""
    pids: Mapping[int, int] = field(default_factory=lambda: {0: os.getpid()})


class Ledger:
    """The view of one holder on the shared file.

    Args:
        path: The shared file; made if missing.
        total_gib: The size of each GPU.
        lag_s: Real seconds that given-back memory stays counted.
    """

    clock: Callable[[], float] = staticmethod(time.monotonic)
    birth_of: Callable[[int], int] = staticmethod(birth)

    def __init__(self, path: Path, total_gib: float, lag_s: float, holder: Holder) -> None:
        self.path, self.total_gib, self.lag_s, self.holder = path, total_gib, lag_s, holder

    def hold(self, gib: float, *, host_gib: float = 0.0, lag_s: float | None = None) -> None:
        """Hold exactly this much of each GPU from now on; what was held beyond it lingers.

        Args:
            gib: Of each GPU of the holder.
            host_gib: Host memory to report beside it, once.
            lag_s: How long it lingers, if not as long as usual.

        Raises:
            OutOfMemory: There is less free than the growth. Nothing is changed, but the refusal is noted.
        """
        with opened(self.path, self._settle) as book:
            shortage = self._shortage(book, gib)
            if shortage is None:
                for gpu, pid in self.holder.pids.items():
                    self._linger(book, gpu, pid, gib, self.lag_s if lag_s is None else lag_s)
                    if gib > 0 or host_gib > 0:
                        mine = Entry(pid, self.birth_of(pid), self.holder.name, gib, gpu=gpu, lag_s=self.lag_s)
                        book.entries.append(replace(mine, host_gib=host_gib))
                        host_gib = 0.0
        if shortage is not None:
            raise shortage

    def _shortage(self, book: Book, gib: float) -> OutOfMemory | None:
        for gpu, pid in self.holder.pids.items():
            book.gpus.setdefault(gpu, Page(self.total_gib)).total_gib = self.total_gib
            held = sum(entry.gib for entry in book.on(gpu) if entry.pid == pid and entry.until_s is None)
            free = self.total_gib - book.used_gib(gpu) + held
            if gib > held and gib > free + 1e-9:
                book.refuse(Refusal(self.clock(), gpu, pid, self.holder.name, gib, free))
                return OutOfMemory(gpu, free, gib, self.total_gib)
        return None

    def _linger(self, book: Book, gpu: int, pid: int, gib: float, lag_s: float) -> None:
        """Take out what is held; what of it is beyond `gib` lingers."""
        mine = [entry for entry in book.on(gpu) if entry.pid == pid and entry.until_s is None]
        surplus = sum(entry.gib for entry in mine) - gib
        for entry in mine:
            book.entries.remove(entry)
        if surplus > 0 and lag_s > 0:
            until_s = self.clock() + lag_s
            book.entries.append(Entry(pid, self.birth_of(pid), self.holder.name, surplus, until_s, gpu))

    def release(self) -> None:
        """Give everything back."""
        self.hold(0.0)

    def book(self) -> Book:
        """Show everything in the file, as of now."""
        with opened(self.path, self._settle) as book:
            return book

    def entries(self) -> list[Entry]:
        """Show what is held and what lingers, by all processes."""
        return self.book().entries

    def used_gib(self) -> float:
        """Sum what is held and what lingers on this holder's first GPU."""
        return self.book().used_gib(next(iter(self.holder.pids)))

    def _settle(self, book: Book) -> None:
        book.settle(self.clock(), self.birth_of)
