"""How busy this host is, as llama-swap's dashboards show it."""

from collections.abc import Sequence
from dataclasses import dataclass

import psutil


@dataclass(frozen=True, slots=True)
class Load:
    """The host at one moment.

    Attributes:
        at: Unix time.
        cpu_percent: Of each logical CPU since the last look, 0 to 100.
        averages: Of the run queue over 1, 5 and 15 minutes.
        network: Interface, bytes received, bytes sent since it came up; loopback left out.
    """

    at: float
    cpu_percent: tuple[float, ...]
    memory_total_bytes: int
    memory_used_bytes: int
    memory_free_bytes: int
    swap_total_bytes: int
    swap_used_bytes: int
    averages: tuple[float, float, float]
    network: tuple[tuple[str, int, int], ...]


class LoadMeter:
    """Looks at the host, blocking, some milliseconds on one with many CPUs. psutil's own would count per thread."""

    def __init__(self) -> None:
        self._cpus = _spent()

    def look(self, at: float) -> Load:
        """Look now."""
        before, self._cpus = self._cpus, _spent()
        memory, swap = psutil.virtual_memory(), psutil.swap_memory()
        counters = psutil.net_io_counters(pernic=True)
        return Load(
            at,
            tuple(map(_busy_percent, before, self._cpus)),
            memory.total,
            memory.used,
            memory.free,
            swap.total,
            swap.used,
            psutil.getloadavg(),
            tuple((name, io.bytes_recv, io.bytes_sent) for name, io in counters.items() if name != "lo"),
        )


def _spent() -> Sequence[tuple[float, float]]:
    """Give (all, idle) seconds of each CPU. What guests spend is in `user` already."""
    return [
        (
            sum(cpu) - getattr(cpu, "guest", 0.0) - getattr(cpu, "guest_nice", 0.0),
            cpu.idle + getattr(cpu, "iowait", 0.0),
        )
        for cpu in psutil.cpu_times(percpu=True)
    ]


def _busy_percent(before: tuple[float, float], now: tuple[float, float]) -> float:
    total_s, idle_s = now[0] - before[0], now[1] - before[1]
    return min(100.0, max(0.0, 100 * (1 - idle_s / total_s))) if total_s > 0 else 0.0
