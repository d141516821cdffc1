"""Reads GPUs through NVML, blocking. Who may wait for that, and for how long: `gpu.py`.

The functions bear NVIDIA's names; the numbers of its errors are fixed by its C interface.
"""
# ruff: noqa: N802, N815, D102  the Protocol spells NVIDIA's names, and NVIDIA's manual says what they do

import contextlib
import importlib
import time
from collections.abc import Callable, Iterator, Sequence
from dataclasses import replace
from enum import IntEnum
from typing import ParamSpec, Protocol, TypeVar, cast

from llmswap.runtime.gpu import Gpu, Maker, Sample
from llmswap.runtime.nvml_sensors import Handle, Sensors, read_maker, read_vitals
from llmswap.runtime.xids import Events

P = ParamSpec("P")
T = TypeVar("T")

# A GPU that fell off its bus, or a driver being replaced: try again soon, then less and less often.
RETRY_S = 1.0
RETRY_MOST_S = 60.0


class Code(IntEnum):
    """Errors of NVML that mean something to us."""

    NOT_SUPPORTED = 3
    NO_PERMISSION = 4
    NOT_FOUND = 6
    DRIVER_NOT_LOADED = 9
    LIBRARY_NOT_FOUND = 12
    FUNCTION_NOT_FOUND = 13
    LIBRARY_MISMATCH = 18


_WITHHELD = {Code.NOT_SUPPORTED, Code.NO_PERMISSION, Code.NOT_FOUND, Code.FUNCTION_NOT_FOUND}
_NO_DRIVER = {Code.LIBRARY_NOT_FOUND, Code.DRIVER_NOT_LOADED}
_HINTS = {
    Code.LIBRARY_NOT_FOUND: "no NVIDIA driver here (libnvidia-ml.so.1 is missing)",
    Code.DRIVER_NOT_LOADED: "the NVIDIA driver is not loaded",
    Code.LIBRARY_MISMATCH: "the NVIDIA driver was replaced while its old kernel module runs: reboot, or reload it",
}


class _Memory(Protocol):
    total: int
    used: int


class _Process(Protocol):
    pid: int
    usedGpuMemory: int | None


class Nvml(Sensors, Events, Protocol):
    """What we use of the module `pynvml`. Each function may raise NVMLError, which has a `value`."""

    NVMLError: type[Exception]

    def nvmlInit(self) -> None: ...
    def nvmlShutdown(self) -> None: ...
    def nvmlDeviceGetCount(self) -> int: ...
    def nvmlDeviceGetHandleByIndex(self, index: int, /) -> Handle: ...
    def nvmlDeviceGetUUID(self, handle: Handle, /) -> str: ...
    def nvmlDeviceGetName(self, handle: Handle, /) -> str: ...
    def nvmlDeviceGetMigMode(self, handle: Handle, /) -> Sequence[int]: ...
    def nvmlDeviceGetMaxMigDeviceCount(self, handle: Handle, /) -> int: ...
    def nvmlDeviceGetMigDeviceHandleByIndex(self, handle: Handle, index: int, /) -> Handle: ...
    def nvmlDeviceGetMemoryInfo(self, handle: Handle, /) -> _Memory: ...
    def nvmlDeviceGetComputeRunningProcesses_v3(self, handle: Handle, /) -> Sequence[_Process]: ...
    def nvmlDeviceGetComputeRunningProcesses_v2(self, handle: Handle, /) -> Sequence[_Process]: ...
    def nvmlDeviceGetGraphicsRunningProcesses_v3(self, handle: Handle, /) -> Sequence[_Process]: ...
    def nvmlDeviceGetGraphicsRunningProcesses_v2(self, handle: Handle, /) -> Sequence[_Process]: ...


def _pynvml() -> Nvml:
    return cast("Nvml", importlib.import_module("pynvml"))


class NvmlReader:
    """A `gpu.Reader` for NVIDIA's driver. To be called by one thread at a time.

    What a driver withholds (no permission in a container, not supported with MIG or unified memory) is None, with the
    reason. When a GPU is lost or the driver goes away, NVML is opened anew, backing off from RETRY_S to RETRY_MOST_S;
    the GPUs that still answer are read meanwhile.

    Args:
        load: Gives the module; called once.
    """

    def __init__(self, load: Callable[[], Nvml] = _pynvml, clock: Callable[[], float] = time.monotonic) -> None:
        self._load = load
        self._clock = clock
        self._module: Nvml | None = None
        self._open = False
        self._lost = False
        self._refused: Sample | None = None
        self._again_s: float | None = 0.0  # when to open it anew; None while all is well
        self._pause_s = RETRY_S
        self._makers: dict[str, Maker] = {}

    def module(self) -> Nvml:
        """Give the binding, loaded when it is first needed."""
        self._module = self._module or self._load()
        return self._module

    @property
    def well(self) -> bool:
        """Whether NVML is open and nothing is wrong with it: only then may others keep it open. From any thread."""
        return self._open and self._again_s is None

    def __call__(self) -> Sample:
        """Read the memory of all GPUs."""
        return self._sample(full=False)

    def fully(self) -> Sample:
        """Read their vitals, too."""
        return self._sample(full=True)

    def _sample(self, *, full: bool) -> Sample:
        nvml = self.module()
        try:
            if self._again_s is not None and self._clock() >= self._again_s:
                self._renew(nvml)
            if self._refused is not None:
                return self._refused
            self._lost = False
            boards: list[Gpu] | None = [] if full else None
            gpus = [gpu for index in range(nvml.nvmlDeviceGetCount()) for gpu in self._read(nvml, index, boards)]
        except nvml.NVMLError as error:
            self._refused = Sample(problem=_said(error), driver=_code(error) not in _NO_DRIVER)
            self._try_later()
            return self._refused
        if self._lost:
            self._try_later()
        else:
            self._again_s, self._pause_s = None, RETRY_S
        if not gpus:
            return Sample(problem="the NVIDIA driver sees no GPU", driver=False)
        return Sample(tuple(gpus), boards=tuple(boards or ()))

    def _renew(self, nvml: Nvml) -> None:
        self._again_s = self._refused = None
        if self._open:
            self._open = False
            self._makers.clear()
            with contextlib.suppress(nvml.NVMLError):  # what is lost may not even close
                nvml.nvmlShutdown()
        nvml.nvmlInit()
        self._open = True

    def _try_later(self) -> None:
        if self._again_s is None:
            self._again_s = self._clock() + self._pause_s
            self._pause_s = min(RETRY_MOST_S, self._pause_s * 2)

    def _read(self, nvml: Nvml, index: int, boards: list[Gpu] | None) -> Iterator[Gpu]:
        """Give a GPU, or its instances; then the GPU itself goes to `boards`. No vitals if that is None."""
        try:
            handle = nvml.nvmlDeviceGetHandleByIndex(index)
            mode = self._told(nvml.nvmlDeviceGetMigMode, handle)
            if mode is not None and mode[0]:
                if boards is not None:
                    boards.append(self._board(nvml, index, handle))
                yield from self._instances(nvml, index, handle, full=boards is not None)
            else:
                yield self._one(nvml, index, handle, full=boards is not None)
        except nvml.NVMLError as error:
            self._lost = self._lost or _code(error) not in _WITHHELD
            yield Gpu(index, problem=f"GPU {index}: {_said(error)}")

    def _board(self, nvml: Nvml, index: int, handle: Handle) -> Gpu:
        uuid, name = nvml.nvmlDeviceGetUUID(handle), self._told(nvml.nvmlDeviceGetName, handle) or ""
        maker = replace(self._maker(nvml, handle, uuid, name), profile="on")
        return Gpu(index, uuid, name, maker=maker, vitals=read_vitals(nvml, handle))

    def _maker(self, nvml: Nvml, handle: Handle, uuid: str, name: str) -> Maker:
        if uuid not in self._makers:
            self._makers[uuid] = read_maker(nvml, handle, name)
        return self._makers[uuid]

    def _instances(self, nvml: Nvml, index: int, handle: Handle, *, full: bool) -> Iterator[Gpu]:
        seen = False
        for number in range(self._told(nvml.nvmlDeviceGetMaxMigDeviceCount, handle) or 0):
            instance = self._told(nvml.nvmlDeviceGetMigDeviceHandleByIndex, handle, number)
            if instance is not None:
                seen = True
                yield self._one(nvml, index, instance, number, full=full)
        if not seen:
            yield Gpu(index, problem=f"GPU {index}: MIG is on, and none of its instances can be seen from here")

    def _one(self, nvml: Nvml, index: int, handle: Handle, instance: int | None = None, *, full: bool) -> Gpu:
        uuid = nvml.nvmlDeviceGetUUID(handle)
        name = self._told(nvml.nvmlDeviceGetName, handle) or ""
        memory = self._told(nvml.nvmlDeviceGetMemoryInfo, handle)
        by_pid = self._by_pid(nvml, handle)
        problem = ""
        if by_pid is None:
            problem = f"GPU {index}: the driver does not say which processes use it"
        elif None in by_pid.values():
            problem = f"GPU {index}: the driver does not say how much each process uses"
        return Gpu(
            index,
            uuid,
            name,
            instance is not None,
            None if memory is None else memory.total,
            None if memory is None else memory.used,
            by_pid,
            problem,
            instance,
            self._maker(nvml, handle, uuid, name) if full else Maker(),
            read_vitals(nvml, handle) if full and instance is None else None,  # an instance has none of its own
        )

    def _by_pid(self, nvml: Nvml, handle: Handle) -> dict[int, int | None] | None:
        # Drivers before 510 know the second version only.
        compute = self._told(nvml.nvmlDeviceGetComputeRunningProcesses_v3, handle)
        if compute is None:
            compute = self._told(nvml.nvmlDeviceGetComputeRunningProcesses_v2, handle)
        graphics = self._told(nvml.nvmlDeviceGetGraphicsRunningProcesses_v3, handle)
        if graphics is None:
            graphics = self._told(nvml.nvmlDeviceGetGraphicsRunningProcesses_v2, handle)
        if compute is None:
            return None
        by_pid: dict[int, int | None] = {}
        for process in [*compute, *(graphics or ())]:
            # One that does both is in both lists, each time with all it uses.
            known, told = by_pid.get(process.pid), process.usedGpuMemory
            by_pid[process.pid] = told if known is None else max(known, told or 0)
        return by_pid

    def _told(self, call: Callable[P, T], *args: P.args, **kwargs: P.kwargs) -> T | None:
        """Call; None if the driver withholds the answer, for good."""
        assert self._module is not None
        try:
            return call(*args, **kwargs)
        except self._module.NVMLError as error:
            if _code(error) in _WITHHELD:
                return None
            raise


def _code(error: Exception) -> int:
    return int(getattr(error, "value", 0))


def _said(error: Exception) -> str:
    return next((hint for code, hint in _HINTS.items() if code == _code(error)), f"NVML: {error}")
