"""The ledger as a monitoring library would show it: bytes by GPU and by process. For a fake NVML, and for a look.

`python -m llmswap.fake_upstream.gpus PATH` prints it as JSON; a running fake gives the same at `GET /_fake/gpus`.
"""

import json
import sys
import time
from collections.abc import Mapping
from dataclasses import asdict, dataclass
from pathlib import Path

from llmswap.fake_upstream.book import Book, Refusal, opened
from llmswap.fake_upstream.ledger import birth

GIB = 1024**3


@dataclass(frozen=True, slots=True)
class Gpu:
    """One GPU.

    Attributes:
        used_bytes: Held and lingering, by the living and the dead.
        by_pid: What each living process uses, what lingers of it included. The memory of a dead process is in
            `used_bytes` alone while it lingers, so that whoever watches pids only believes it free too early.
        peak_bytes: The most that was ever used at once.
        peak_of: Who used it then, bytes by name.
    """

    index: int
    total_bytes: int
    used_bytes: int
    by_pid: Mapping[int, int]
    peak_bytes: int
    peak_of: Mapping[str, int]


@dataclass(frozen=True, slots=True)
class Machine:
    """All GPUs of one ledger.

    Attributes:
        host_by_pid: Host memory, in bytes, that each process pins for a sleeping engine.
        refused: How often memory was wanted that was not there: each was a failed start or wake.
        refusals: The last of them.
    """

    gpus: tuple[Gpu, ...]
    host_by_pid: Mapping[int, int]
    refused: int
    refusals: tuple[Refusal, ...]

    def of(self, pid: int) -> int:
        """Sum what one process uses of all GPUs, in bytes."""
        return sum(gpu.by_pid.get(pid, 0) for gpu in self.gpus)


def read(path: Path) -> Machine:
    """Read a ledger. A file that is not there yet is a machine without GPUs.

    Raises:
        LedgerStuck: Its lock is not to be had.
    """
    if not path.exists():
        return Machine((), {}, 0, ())
    with opened(path, lambda book: book.settle(time.monotonic(), birth)) as book:
        return machine_of(book)


def machine_of(book: Book) -> Machine:
    """Show a book."""
    gpus = []
    for index, page in sorted(book.gpus.items()):
        by_pid: dict[int, int] = {}
        for entry in book.on(index):
            if birth(entry.pid) == entry.born:
                by_pid[entry.pid] = by_pid.get(entry.pid, 0) + _bytes(entry.gib)
        peak_of = {name: _bytes(gib) for name, gib in page.peak_of.items()}
        used = _bytes(book.used_gib(index))
        gpus.append(Gpu(index, _bytes(page.total_gib), used, by_pid, _bytes(page.peak_gib), peak_of))
    host = {entry.pid: _bytes(entry.host_gib) for entry in book.entries if entry.host_gib}
    return Machine(tuple(gpus), host, book.refused, tuple(book.refusals))


def _bytes(gib: float) -> int:
    return round(gib * GIB)


if __name__ == "__main__":
    sys.stdout.write(json.dumps(asdict(read(Path(sys.argv[1]))), indent=2) + "\n")
