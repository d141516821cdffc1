"""What the GPUs hold, asked of the driver in a thread of its own, so that a hung driver holds up nobody.

How a driver is read: `nvml.py`. What follows from it: `memory.py`.
"""

import asyncio
import contextlib
import queue
import threading
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field, replace

# Asking takes milliseconds; a driver that needs longer is being reset, or stuck.
ANSWER_LIMIT_S = 2.0


@dataclass(frozen=True, slots=True)
class Vitals:
    """How a GPU does. What the driver does not tell is None, or not in the mapping: never 0 for want of an answer.

    Attributes:
        utilization: Share of the time in which some kernel ran, 0 to 1; not how much of the chip it kept busy.
        energy_j: Since the driver was loaded.
        temperatures_c: By sensor: gpu, memory.
        clocks_hz: By clock: sm, memory.
        throttled: Whether each reason for lower clocks is in force: sw_power_cap, hw_slowdown, hw_thermal, sw_thermal,
            power_brake.
        pcie_bytes: By direction as the GPU sees it, tx or rx; since the driver was loaded.
        ecc_errors: corrected, uncorrected; since the driver was loaded.
        remapped_rows: corrected, uncorrected; and pending, failed: 1 if there is one such.
        fan_ratio: 0 to 1.
    """

    utilization: float | None = None
    power_w: float | None = None
    power_limit_w: float | None = None
    energy_j: float | None = None
    temperatures_c: Mapping[str, float] = field(default_factory=dict)
    clocks_hz: Mapping[str, float] = field(default_factory=dict)
    throttled: Mapping[str, bool] = field(default_factory=dict)
    pcie_bytes: Mapping[str, int] = field(default_factory=dict)
    ecc_errors: Mapping[str, int] = field(default_factory=dict)
    remapped_rows: Mapping[str, int] = field(default_factory=dict)
    fan_ratio: float | None = None


@dataclass(frozen=True, slots=True)
class Maker:
    """What does not change while a GPU is there. What the driver does not tell is empty.

    Attributes:
        cuda: The newest version of CUDA that the driver knows.
        profile: Of a MIG instance: `1g.10gb`.
    """

    vendor: str = "nvidia"
    driver: str = ""
    cuda: str = ""
    architecture: str = ""
    profile: str = ""


@dataclass(frozen=True, slots=True)
class Gpu:
    """One GPU, or one MIG instance of one. What the driver does not tell is None.

    Attributes:
        index: As `nvidia-smi` counts them; the instances of a GPU share its index.
        used_bytes: By everybody, the driver's own reserve included.
        by_pid: What each process uses; None for one whose share the driver keeps to itself.
        problem: Why something is missing, in a line.
        instance: Number of the MIG instance on its GPU.
        vitals: None where only the memory was asked for.
    """

    index: int
    uuid: str = ""
    name: str = ""
    mig: bool = False
    total_bytes: int | None = None
    used_bytes: int | None = None
    by_pid: Mapping[int, int | None] | None = None
    problem: str = ""
    instance: int | None = None
    maker: Maker = Maker()
    vitals: Vitals | None = None

    @property
    def is_board(self) -> bool:
        """Whether it is cut into instances, and has no memory but theirs."""
        return self.instance is None and bool(self.maker.profile)

    @property
    def label(self) -> str:
        """What it is called in metrics: `0`; `0:1` for an instance; `amd0` for another vendor's."""
        card = f"{self.index}" if self.maker.vendor == "nvidia" else f"{self.maker.vendor}{self.index}"
        return card if self.instance is None else f"{card}:{self.instance}"

    @property
    def unclaimed_bytes(self) -> int | None:
        """What is used by no process that can be seen: the driver, the dead, other containers. None if unknown."""
        if self.used_bytes is None or self.by_pid is None:
            return None
        claims = list(self.by_pid.values())
        return None if None in claims else self.used_bytes - sum(claim or 0 for claim in claims)


@dataclass(frozen=True, slots=True)
class Sample:
    """All GPUs at one moment.

    Attributes:
        problem: Why there are none, in a line.
        driver: There is a driver, whether or not it answers. Without one, nobody can hold device memory that we
            could wait for.
        boards: GPUs that are cut into instances: they have vitals, their instances have the memory.
        took_s: How long the driver needed; of a call that hangs, so far.
    """

    gpus: tuple[Gpu, ...] = ()
    problem: str = ""
    driver: bool = True
    boards: tuple[Gpu, ...] = ()
    took_s: float = field(default=0.0, compare=False)


Reader = Callable[[], Sample]


@dataclass(frozen=True, slots=True)
class _Call:
    began_s: float
    loop: asyncio.AbstractEventLoop
    answer: asyncio.Future[Sample]
    full: bool


class GpuWatch:
    """Asks a reader, one call at a time; whoever asks meanwhile shares it. Never raises.

    A call that takes longer than the limit is given up, but not repeated: until it returns, everybody is told at once
    that the driver hangs, and no second thread gets stuck.

    Args:
        read: Blocking; may take for ever. Whatever it raises becomes a sample's problem.
        limit_s: How long an asker waits.
        read_fully: As `read`, with vitals; by default the same.
    """

    def __init__(self, read: Reader, limit_s: float = ANSWER_LIMIT_S, read_fully: Reader | None = None) -> None:
        self._read = read
        self._read_fully = read_fully or read
        self._limit_s = limit_s
        self._calls: queue.SimpleQueue[_Call | None] = queue.SimpleQueue()
        self._thread: threading.Thread | None = None
        self._under_way: _Call | None = None

    async def ask(self, *, full: bool = False, fresh: bool = False) -> Sample:
        """Give a sample that was begun at most `limit_s` ago, or a reason why there is none.

        Args:
            full: With vitals; a few milliseconds per GPU more.
            fresh: Begun no earlier than now: one that is under way may not have seen what has just been taken.
        """
        asked_s = time.monotonic()
        while True:
            call = self._under_way or self._begin(full=full)
            left_s = call.began_s + self._limit_s - time.monotonic()
            if left_s > 0:
                await asyncio.wait([call.answer], timeout=left_s)
            if not call.answer.done():
                took_s = time.monotonic() - call.began_s
                return Sample(problem=f"the GPU driver has not answered for {took_s:.0f} s", took_s=took_s)
            if (call.full or not full) and (call.began_s >= asked_s or not fresh):
                return call.answer.result()

    def close(self) -> None:
        """Let the thread end, when its call returns. A stuck one is a daemon: it does not keep the program alive."""
        self._calls.put(None)

    def _begin(self, *, full: bool) -> _Call:
        loop = asyncio.get_running_loop()
        call = self._under_way = _Call(time.monotonic(), loop, loop.create_future(), full)
        if self._thread is None:
            self._thread = threading.Thread(target=self._answer, name="gpu", daemon=True)
            self._thread.start()
        self._calls.put(call)
        return call

    def _answer(self) -> None:
        while (call := self._calls.get()) is not None:
            began_s = time.perf_counter()
            try:
                sample = self._read_fully() if call.full else self._read()
            except Exception as error:  # noqa: BLE001  a vendor's binding may raise anything, and no asker may see it
                sample = Sample(problem=f"cannot ask the GPU driver: {type(error).__name__}: {error}")
            sample = replace(sample, took_s=time.perf_counter() - began_s)
            with contextlib.suppress(RuntimeError):  # the event loop is closed: nobody waits any more
                call.loop.call_soon_threadsafe(self._answered, call, sample)

    def _answered(self, call: _Call, sample: Sample) -> None:
        self._under_way = None
        call.answer.set_result(sample)
