"""What upstreams take of the host: processes, memory by kind, CPU time. Reads /proc: call it in a thread.

Never `smaps`: it takes 11 ms per GiB, most of a second for a model asleep in host memory.
"""

import os
import re
from collections.abc import Collection, Mapping
from dataclasses import dataclass, field
from pathlib import Path

from llmswap.core.fleet import ModelId
from llmswap.runtime.tree import families

_PROC = Path("/proc")
_KIB = 1024
_TICKS = os.sysconf("SC_CLK_TCK")
_KINDS = {"RssAnon": "anon", "RssShmem": "shmem", "RssFile": "file"}
_LINES = re.compile(r"^(RssAnon|RssShmem|RssFile|NSpid):\s*(.*)$", re.MULTILINE)


@dataclass(frozen=True, slots=True)
class Upkeep:
    """One upstream's process tree.

    Attributes:
        pids: As this host sees them.
        aliases: What those in containers are called there: (number in some namespace, our pid), our own view left out.
        host_bytes: By kind: anon, shmem, file. Pages that several processes share count once for each: an upper bound.
        cpu_s: Of its processes, and of their children that have ended.
    """

    pids: Collection[int]
    aliases: Collection[tuple[int, int]] = ()
    host_bytes: Mapping[str, int] = field(default_factory=dict)
    cpu_s: float = 0.0


def look(leaders: Mapping[ModelId, int], proc: Path = _PROC) -> dict[ModelId, Upkeep]:
    """Read the trees of those leaders that live."""
    found = families(leaders.values()) if leaders else {}
    return {model: measure(found[pid], proc) for model, pid in leaders.items() if pid in found}


def measure(pids: Collection[int], proc: Path = _PROC) -> Upkeep:
    """Read these processes; one that ends meanwhile is left out."""
    seen, aliases = set(), set()
    host_bytes = dict.fromkeys(_KINDS.values(), 0)
    ticks = 0
    for pid in pids:
        try:
            status = (proc / str(pid) / "status").read_text(errors="replace")
            stat = (proc / str(pid) / "stat").read_bytes()
        except OSError:
            continue
        seen.add(pid)
        for key, value in _LINES.findall(status):
            if key == "NSpid":
                aliases |= {(int(number), pid) for number in value.split()[1:]}
            else:
                host_bytes[_KINDS[key]] += int(value.split()[0]) * _KIB
        # utime, stime, and the same of children that were waited for.
        ticks += sum(map(int, stat[stat.rindex(b")") + 2 :].split()[11:15]))
    return Upkeep(frozenset(seen), frozenset(aliases), host_bytes, ticks / _TICKS)


class CpuBook:
    """Adds up a model's CPU time over all its lives: it never falls, and each life begins where the last one ended."""

    def __init__(self) -> None:
        self._past: dict[ModelId, float] = {}
        self._now: dict[ModelId, tuple[int, float]] = {}

    def note(self, model: ModelId, generation: int, cpu_s: float) -> None:
        """Take down what the model's present life has used."""
        life, known_s = self._now.get(model, (generation, 0.0))
        if life != generation:
            self._past[model] = self._past.get(model, 0.0) + known_s
            known_s = 0.0
        # A process that ends and is nobody's child takes its time with it.
        self._now[model] = generation, max(known_s, cpu_s)

    def keep(self, models: Collection[ModelId]) -> None:
        """Forget all other models."""
        for book in (self._past, self._now):
            for model in book.keys() - models:
                del book[model]

    def total_s(self, model: ModelId) -> float:
        """Sum a model's lives."""
        return self._past.get(model, 0.0) + self._now.get(model, (0, 0.0))[1]
