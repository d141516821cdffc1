"""The file behind the GPU ledger: its format, its lock, and what the passing of time and of processes does to it.

A few kilobytes of JSON. Who may hold how much is the business of `ledger.py`.
"""

import fcntl
import json
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import asdict, dataclass, field, replace
from pathlib import Path
from typing import Any, TextIO

LOCK_WAIT_S = 10.0
REFUSALS_MAX = 20


class LedgerStuck(Exception):
    """Somebody keeps the ledger's lock: most likely a process that was stopped (SIGSTOP) while it wrote."""


@dataclass(frozen=True, slots=True)
class Entry:
    """Memory of one process on one GPU.

    Attributes:
        born: Start time of the process in clock ticks after boot; tells a reused pid from the one meant.
        until_s: Monotonic time when given-back memory is free; None while it is held.
        lag_s: How long it stays counted once its process is found dead.
        host_gib: Host memory held beside it.
    """

    pid: int
    born: int
    name: str
    gib: float
    until_s: float | None = None
    gpu: int = 0
    lag_s: float = 0.0
    host_gib: float = 0.0


@dataclass(frozen=True, slots=True)
class Refusal:
    """Memory that was wanted and not there.

    Attributes:
        at_s: Monotonic time.
        free_gib: What was free for it, its own included.
    """

    at_s: float
    gpu: int
    pid: int
    name: str
    wanted_gib: float
    free_gib: float


@dataclass(slots=True)
class Page:
    """One GPU.

    Attributes:
        peak_gib: The most that was ever held and lingering at once.
        peak_of: Who held it then, GiB by name.
    """

    total_gib: float
    peak_gib: float = 0.0
    peak_of: dict[str, float] = field(default_factory=dict)


@dataclass(slots=True)
class Book:
    """Everything in the file.

    Attributes:
        refused: How often memory was refused, ever.
        refusals: The last of them.
    """

    gpus: dict[int, Page] = field(default_factory=dict)
    entries: list[Entry] = field(default_factory=list)
    refused: int = 0
    refusals: list[Refusal] = field(default_factory=list)

    def on(self, gpu: int) -> list[Entry]:
        """Find what is held or lingers on one GPU."""
        return [entry for entry in self.entries if entry.gpu == gpu]

    def used_gib(self, gpu: int) -> float:
        """Sum it."""
        return sum(entry.gib for entry in self.on(gpu))

    def refuse(self, refusal: Refusal) -> None:
        """Note that somebody did not get what it wanted."""
        self.refused += 1
        self.refusals = [*self.refusals, refusal][-REFUSALS_MAX:]

    def note_peaks(self) -> None:
        """Keep the high-water marks."""
        for gpu, page in self.gpus.items():
            used = self.used_gib(gpu)
            if used > page.peak_gib:
                page.peak_gib, page.peak_of = used, {}
                for entry in self.on(gpu):
                    page.peak_of[entry.name] = page.peak_of.get(entry.name, 0.0) + entry.gib

    def settle(self, now_s: float, birth_of: Callable[[int], int]) -> None:
        """Drop what is over; let the memory of the dead linger from the moment their death is seen."""
        kept = []
        for entry in self.entries:
            if entry.until_s is not None:
                kept += [entry] if now_s < entry.until_s else []
            elif birth_of(entry.pid) == entry.born != 0:
                kept.append(entry)
            elif entry.lag_s > 0:
                kept.append(replace(entry, until_s=now_s + entry.lag_s, host_gib=0.0))
        self.entries = kept

    def dump(self) -> str:
        """Write it as JSON."""
        return json.dumps(asdict(self))

    @classmethod
    def load(cls, text: str) -> "Book":
        """Read it."""
        raw: dict[str, Any] = json.loads(text)
        return cls(
            gpus={int(gpu): Page(**page) for gpu, page in raw["gpus"].items()},
            entries=[Entry(**entry) for entry in raw["entries"]],
            refused=raw["refused"],
            refusals=[Refusal(**refusal) for refusal in raw["refusals"]],
        )


@contextmanager
def opened(path: Path, settle: Callable[[Book], None]) -> Iterator[Book]:
    """Lock, read and settle the book; write it back on a clean exit if it has changed.

    A new file replaces the old one at once, so that a process killed here leaves one of the two, whole; and the kernel
    drops its lock.

    Raises:
        LedgerStuck: The lock is not to be had.
    """
    with path.with_name(path.name + ".lock").open("w") as lock:
        _lock(lock, path)
        before = path.read_text() if path.exists() else ""
        book = Book.load(before) if before else Book()
        settle(book)
        yield book
        book.note_peaks()
        after = book.dump()
        if after != before:
            draft = path.with_name(path.name + ".new")
            draft.write_text(after)
            draft.replace(path)


def _lock(lock: TextIO, path: Path) -> None:
    deadline_s = time.monotonic() + LOCK_WAIT_S
    while True:
        try:
            fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError as error:
            if time.monotonic() > deadline_s:
                raise LedgerStuck(f"{path}.lock was not to be had within {LOCK_WAIT_S:g} s") from error
            time.sleep(0.001)
        else:
            return
