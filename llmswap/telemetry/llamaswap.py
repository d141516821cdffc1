"""llama-swap's own gauges, under its names and labels, so that dashboards made for it go on working."""

from collections.abc import Iterator

from llmswap.runtime.gpu import Gpu
from llmswap.runtime.load import Load
from llmswap.runtime.machine import Machine
from llmswap.telemetry.cells import Frozen, Numbers, place
from llmswap.telemetry.names import Kind, Metric

CPU = Metric("llamaswap_cpu_util_percent", "CPU utilization per core (0-100)", ("core",))
MEMORY_TOTAL = Metric("llamaswap_memory_total_bytes", "Total memory in bytes")
MEMORY_USED = Metric("llamaswap_memory_used_bytes", "Used memory in bytes")
MEMORY_FREE = Metric("llamaswap_memory_free_bytes", "Free memory in bytes")
SWAP_TOTAL = Metric("llamaswap_swap_total_bytes", "Total swap in bytes")
SWAP_USED = Metric("llamaswap_swap_used_bytes", "Used swap in bytes")
LOAD_AVERAGE = Metric("llamaswap_load_average", "Load average", ("interval",))
NETWORK = Metric(
    "llamaswap_network_bytes_total", "Total network bytes transferred", ("interface", "direction"), Kind.COUNTER
)
_OF = ("id", "name", "uuid")
GPU_TEMPERATURE = Metric("llamaswap_gpu_temperature_celsius", "GPU temperature in Celsius", _OF)
GPU_VRAM_TEMPERATURE = Metric("llamaswap_gpu_vram_temperature_celsius", "GPU VRAM temperature in Celsius", _OF)
GPU_UTIL = Metric("llamaswap_gpu_util_percent", "GPU utilization percent (0-100)", _OF)
GPU_MEMORY_UTIL = Metric("llamaswap_gpu_memory_util_percent", "GPU memory utilization percent (0-100)", _OF)
GPU_MEMORY_USED = Metric("llamaswap_gpu_memory_used_bytes", "GPU memory used in bytes", _OF)
GPU_MEMORY_TOTAL = Metric("llamaswap_gpu_memory_total_bytes", "GPU memory total in bytes", _OF)
GPU_FAN = Metric("llamaswap_gpu_fan_speed_percent", "GPU fan speed percent (0-100)", _OF)
GPU_POWER = Metric("llamaswap_gpu_power_draw_watts", "GPU power draw in watts", _OF)


def families(machine: Machine) -> list[Frozen]:
    """Give them, as of the last sample of `performance.every`; nothing before the first."""
    if machine.load is None:
        return []
    found = [*_host(machine.load)]
    rows: dict[str, Frozen] = {}
    for number, gpu in enumerate(machine.gpus):
        labels = place(_OF, (str(number), gpu.name, gpu.uuid))
        for metric, value in _gpu(gpu):
            if value is not None:
                rows.setdefault(metric.name, Frozen(metric, [])).cells.append(Numbers(labels, float(value)))
    return [*found, *rows.values()]


def _host(load: Load) -> Iterator[Frozen]:
    yield Frozen(CPU, [Numbers(place(CPU.labels, (str(core),)), used) for core, used in enumerate(load.cpu_percent)])
    yield Frozen(MEMORY_TOTAL, [Numbers("", load.memory_total_bytes)])
    yield Frozen(MEMORY_USED, [Numbers("", load.memory_used_bytes)])
    yield Frozen(MEMORY_FREE, [Numbers("", load.memory_free_bytes)])
    yield Frozen(SWAP_TOTAL, [Numbers("", load.swap_total_bytes)])
    yield Frozen(SWAP_USED, [Numbers("", load.swap_used_bytes)])
    intervals = zip(("1m", "5m", "15m"), load.averages, strict=True)
    yield Frozen(LOAD_AVERAGE, [Numbers(place(LOAD_AVERAGE.labels, (of,)), value) for of, value in intervals])
    if load.network:
        ways = [
            (name, way, value)
            for name, *both in load.network
            for way, value in zip(("recv", "sent"), both, strict=True)
        ]
        yield Frozen(NETWORK, [Numbers(place(NETWORK.labels, (name, way)), float(value)) for name, way, value in ways])


def _gpu(gpu: Gpu) -> Iterator[tuple[Metric, float | None]]:
    if gpu.used_bytes is not None and gpu.total_bytes:
        yield GPU_MEMORY_UTIL, 100 * gpu.used_bytes / gpu.total_bytes
    yield GPU_MEMORY_USED, gpu.used_bytes
    yield GPU_MEMORY_TOTAL, gpu.total_bytes
    if (vitals := gpu.vitals) is not None:
        yield GPU_TEMPERATURE, vitals.temperatures_c.get("gpu")
        yield GPU_VRAM_TEMPERATURE, vitals.temperatures_c.get("memory")
        yield GPU_UTIL, None if vitals.utilization is None else 100 * vitals.utilization
        yield GPU_FAN, None if vitals.fan_ratio is None else 100 * vitals.fan_ratio
        yield GPU_POWER, vitals.power_w
