"""What NVML tells of a GPU beside its memory: each reading by itself, so that one that fails takes no other with it.

Only cheap ones: `nvmlDeviceGetPcieThroughput` would block for 20 ms each way, the byte counters behind it do not.
"""
# ruff: noqa: N802, N815, D102  the Protocols spell NVIDIA's names, and NVIDIA's manual says what they do

from collections.abc import Callable, Sequence
from typing import Protocol, TypeVar

from llmswap.runtime.gpu import Maker, Vitals

T = TypeVar("T")
Handle = object

# Fixed by NVML's C interface.
_SENSOR_GPU = 0
_CLOCKS = {"sm": 1, "memory": 2}
_ECC_VOLATILE = 0
_ECC_KINDS = {"corrected": 0, "uncorrected": 1}
_FIELD_MEMORY_TEMPERATURE, _FIELD_PCIE_TX, _FIELD_PCIE_RX = 82, 197, 198
_FIELD_TYPES = ("dVal", "uiVal", "ulVal", "ullVal", "sllVal", "siVal", "usVal")
_REASONS = {"sw_power_cap": 0x4, "hw_slowdown": 0x8, "hw_thermal": 0x40, "sw_thermal": 0x20, "power_brake": 0x80}
_ROWS = ("corrected", "uncorrected", "pending", "failed")
_ARCHITECTURES = {
    **dict(enumerate(("Kepler", "Maxwell", "Pascal", "Volta", "Turing", "Ampere", "Ada Lovelace", "Hopper"), 2)),
    10: "Blackwell",
    13: "Rubin",
}


class _Rates(Protocol):
    gpu: int


class _FieldValue(Protocol):
    nvmlReturn: int
    valueType: int
    value: object


class Sensors(Protocol):
    """What we read of the module `pynvml`. Each may raise anything, or be missing in an old binding."""

    def nvmlSystemGetDriverVersion(self) -> str: ...
    def nvmlSystemGetCudaDriverVersion_v2(self) -> int: ...
    def nvmlDeviceGetArchitecture(self, handle: Handle, /) -> int: ...
    def nvmlDeviceGetUtilizationRates(self, handle: Handle, /) -> _Rates: ...
    def nvmlDeviceGetPowerUsage(self, handle: Handle, /) -> int: ...
    def nvmlDeviceGetEnforcedPowerLimit(self, handle: Handle, /) -> int: ...
    def nvmlDeviceGetTotalEnergyConsumption(self, handle: Handle, /) -> int: ...
    def nvmlDeviceGetTemperatureV(self, handle: Handle, sensor: int, /) -> int: ...
    def nvmlDeviceGetTemperature(self, handle: Handle, sensor: int, /) -> int: ...
    def nvmlDeviceGetClockInfo(self, handle: Handle, clock: int, /) -> int: ...
    def nvmlDeviceGetCurrentClocksEventReasons(self, handle: Handle, /) -> int: ...
    def nvmlDeviceGetCurrentClocksThrottleReasons(self, handle: Handle, /) -> int: ...
    def nvmlDeviceGetFieldValues(self, handle: Handle, fields: Sequence[int], /) -> Sequence[_FieldValue]: ...
    def nvmlDeviceGetTotalEccErrors(self, handle: Handle, kind: int, counter: int, /) -> int: ...
    def nvmlDeviceGetRemappedRows(self, handle: Handle, /) -> Sequence[int]: ...
    def nvmlDeviceGetFanSpeed(self, handle: Handle, /) -> int: ...


def read_maker(nvml: Sensors, handle: Handle, name: str) -> Maker:
    """Read what does not change."""
    cuda = _told(lambda: int(nvml.nvmlSystemGetCudaDriverVersion_v2()))
    chip = _told(lambda: nvml.nvmlDeviceGetArchitecture(handle))
    _, mig, profile = name.rpartition(" MIG ")
    return Maker(
        driver=_told(nvml.nvmlSystemGetDriverVersion) or "",
        cuda="" if cuda is None else f"{cuda // 1000}.{cuda % 1000 // 10}",
        architecture=_ARCHITECTURES.get(chip or 0, ""),
        profile=profile if mig else "",
    )


def read_vitals(nvml: Sensors, handle: Handle) -> Vitals:
    """Read what the driver tells; what fails is left out."""
    temperature_c, pcie_bytes = _fields(nvml, handle)
    gpu_c = _told(lambda: float(nvml.nvmlDeviceGetTemperatureV(handle, _SENSOR_GPU)))
    if gpu_c is None:  # drivers before 565
        gpu_c = _told(lambda: float(nvml.nvmlDeviceGetTemperature(handle, _SENSOR_GPU)))

    def clock(which: int) -> float | None:
        return _told(lambda: nvml.nvmlDeviceGetClockInfo(handle, which) * 1e6)

    def ecc(kind: int) -> int | None:
        return _told(lambda: int(nvml.nvmlDeviceGetTotalEccErrors(handle, kind, _ECC_VOLATILE)))

    rows = _told(lambda: dict(zip(_ROWS, map(int, nvml.nvmlDeviceGetRemappedRows(handle)), strict=True)))
    return Vitals(
        utilization=_told(lambda: nvml.nvmlDeviceGetUtilizationRates(handle).gpu / 100),
        power_w=_told(lambda: nvml.nvmlDeviceGetPowerUsage(handle) / 1000),
        power_limit_w=_told(lambda: nvml.nvmlDeviceGetEnforcedPowerLimit(handle) / 1000),
        energy_j=_told(lambda: nvml.nvmlDeviceGetTotalEnergyConsumption(handle) / 1000),
        temperatures_c=_known({"gpu": gpu_c, "memory": temperature_c}),
        clocks_hz=_known({name: clock(which) for name, which in _CLOCKS.items()}),
        throttled=_throttled(nvml, handle),
        pcie_bytes=pcie_bytes,
        ecc_errors=_known({name: ecc(kind) for name, kind in _ECC_KINDS.items()}),
        remapped_rows=rows or {},
        fan_ratio=_told(lambda: nvml.nvmlDeviceGetFanSpeed(handle) / 100),
    )


def _throttled(nvml: Sensors, handle: Handle) -> dict[str, bool]:
    active = _told(lambda: int(nvml.nvmlDeviceGetCurrentClocksEventReasons(handle)))
    if active is None:  # the name before driver 535
        active = _told(lambda: int(nvml.nvmlDeviceGetCurrentClocksThrottleReasons(handle)))
    return {} if active is None else {reason: bool(active & bit) for reason, bit in _REASONS.items()}


def _fields(nvml: Sensors, handle: Handle) -> tuple[float | None, dict[str, int]]:
    """Read the memory's temperature and the PCIe counters, in one call."""
    asked = (_FIELD_MEMORY_TEMPERATURE, _FIELD_PCIE_TX, _FIELD_PCIE_RX)
    values = _told(lambda: [_value(field) for field in nvml.nvmlDeviceGetFieldValues(handle, list(asked))])
    if values is None or len(values) != len(asked):
        return None, {}
    memory_c, tx, rx = values
    counters = {"tx": tx, "rx": rx}
    # A chip without such a sensor may say 0.
    return memory_c or None, {way: int(value) for way, value in counters.items() if value is not None}


def _value(field: _FieldValue) -> float | None:
    if field.nvmlReturn != 0 or not 0 <= field.valueType < len(_FIELD_TYPES):
        return None
    value: float | None = getattr(field.value, _FIELD_TYPES[field.valueType])
    return value


def _known(values: dict[str, T | None]) -> dict[str, T]:
    return {name: value for name, value in values.items() if value is not None}


def _told(call: Callable[[], T]) -> T | None:
    """Call; None if it fails, in whatever way. That a GPU is lost shows at its memory, which is read first."""
    try:
        return call()
    except Exception:  # noqa: BLE001  errors of NVML, functions that a binding lacks, values that are None
        return None
