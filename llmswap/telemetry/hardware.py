"""GPUs, the host and what upstreams take of them, as metrics: read off the sampler's last look, which is frozen.

A scrape asks neither a driver nor the kernel. What is not known is not there: never 0 for want of an answer.
"""

import time
from collections.abc import Callable, Iterator, Mapping

from llmswap.runtime.gpu import Gpu
from llmswap.runtime.machine import Machine
from llmswap.telemetry import llamaswap, names
from llmswap.telemetry.cells import Frozen, Numbers, place
from llmswap.telemetry.names import Metric

# A look that old is no longer shown: the sampler looks every 2 s, and a driver that hangs is given up after 2 s.
STALE_S = 30.0

Row = tuple[Metric, tuple[str, ...], float | None]


class Hardware:
    """The families of the sampler's last look.

    Args:
        latest: Gives it; None while nobody looks, and then there are no families.
        compat: Whether llama-swap's gauges are wanted, too; asked at each scrape.
        clock: Monotonic time.
    """

    def __init__(
        self,
        latest: Callable[[], Machine | None],
        compat: Callable[[], bool] = bool,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        self._latest = latest
        self._compat = compat
        self._clock = clock
        self._shown: tuple[Machine | None, bool, list[Frozen]] = None, False, []

    def freeze(self) -> list[Frozen]:
        """Give all families that have something to say; the same list as long as nobody has looked again."""
        machine = self._latest()
        if machine is None:
            return []
        if self._clock() - machine.at_s > STALE_S:
            return _families([(names.GPU_POLL_SUCCESS, (), 0.0)])
        compat = self._compat()
        if self._shown[0] is not machine or self._shown[1] is not compat:
            own = [*_families(_rows(machine)), *_polls(machine)]
            self._shown = machine, compat, [*own, *llamaswap.families(machine)] if compat else own
        return self._shown[2]


def _families(rows: Iterator[Row] | list[Row]) -> list[Frozen]:
    """Gather rows by family, in the order of the first row of each; those without a value are left out."""
    found: dict[str, Frozen] = {}
    for metric, labels, value in rows:
        if value is not None:
            family = found.setdefault(metric.name, Frozen(metric, []))
            family.cells.append(Numbers(place(metric.labels, labels), float(value)))
    return list(found.values())


def _rows(machine: Machine) -> Iterator[Row]:
    for gpu in machine.gpus:
        yield from _gpu(gpu)
        yield names.GPU_MEMORY_UNATTRIBUTED, (gpu.label,), machine.unattributed.get(gpu.label)
    for xid in machine.xids or ():
        yield names.GPU_XID_ERRORS, (xid.gpu, str(xid.code)), xid.count
        yield names.GPU_XID_LAST, (xid.gpu, str(xid.code)), xid.last
    yield names.GPU_POLL_SUCCESS, (), float(not machine.problem)
    yield names.GPU_POLL_TIME, (), machine.polled_at
    yield names.HOST_MEMORY_TOTAL, (), machine.memory_total_bytes
    yield names.HOST_MEMORY_AVAILABLE, (), machine.memory_available_bytes
    for model, use in machine.models.items():
        yield names.MODEL_PROCESSES, (model,), use.processes
        yield names.MODEL_CPU, (model,), use.cpu_s
        yield from _each(names.MODEL_HOST_MEMORY, model, use.host_bytes)
        yield from _each(names.MODEL_GPU_MEMORY, model, use.device.by_gpu)
        if use.device.by_gpu:
            yield names.MODEL_GPU_ESTIMATED, (model,), float(use.device.estimated)


def _gpu(gpu: Gpu) -> Iterator[Row]:
    label, maker = gpu.label, gpu.maker
    identity = (label, gpu.uuid, gpu.name, maker.driver, maker.cuda, maker.profile or "off")
    yield names.GPU_INFO, identity, 1.0
    yield names.GPU_MEMORY_USED, (label,), gpu.used_bytes
    yield names.GPU_MEMORY_TOTAL, (label,), gpu.total_bytes
    if (vitals := gpu.vitals) is None:
        return
    yield names.GPU_UTILIZATION, (label,), vitals.utilization
    yield names.GPU_POWER, (label,), vitals.power_w
    yield names.GPU_POWER_LIMIT, (label,), vitals.power_limit_w
    yield names.GPU_ENERGY, (label,), vitals.energy_j
    yield from _each(names.GPU_TEMPERATURE, label, vitals.temperatures_c)
    yield from _each(names.GPU_CLOCK, label, vitals.clocks_hz)
    yield from _each(names.GPU_THROTTLED, label, vitals.throttled)
    yield from _each(names.GPU_PCIE, label, vitals.pcie_bytes)
    yield from _each(names.GPU_ECC_ERRORS, label, vitals.ecc_errors)
    yield from _each(names.GPU_REMAPPED_ROWS, label, vitals.remapped_rows)


def _each(metric: Metric, first: str, values: Mapping[str, float]) -> Iterator[Row]:
    return ((metric, (first, second), value) for second, value in values.items())


def _polls(machine: Machine) -> list[Frozen]:
    polls = machine.polls
    if not any(polls.counts):
        return []
    return [Frozen(names.GPU_POLL_DURATION, [Numbers("", polls.sum_s, polls.counts)])]
