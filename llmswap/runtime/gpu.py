"""What the GPUs hold, asked of the driver in a thread of its own, so that a hung driver holds up nobody.

How a driver is read: `nvml.py`. What follows from it: `memory.py`.
"""

import asyncio
import contextlib
import queue
import threading
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass

# Asking takes milliseconds; a driver that needs longer is being reset, or stuck.
ANSWER_LIMIT_S = 2.0


@dataclass(frozen=True, slots=True)
class Gpu:
    """One GPU, or one MIG instance of one. What the driver does not tell is None.

    Attributes:
        index: As `nvidia-smi` counts them; the instances of a GPU share its index.
        used_bytes: By everybody, the driver's own reserve included.
        by_pid: What each process uses; None for one whose share the driver keeps to itself.
        problem: Why something is missing, in a line.
    """

    index: int
    uuid: str = ""
    name: str = ""
    mig: bool = False
    total_bytes: int | None = None
    used_bytes: int | None = None
    by_pid: Mapping[int, int | None] | None = None
    problem: str = ""

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
    """

    gpus: tuple[Gpu, ...] = ()
    problem: str = ""
    driver: bool = True


Reader = Callable[[], Sample]


@dataclass(frozen=True, slots=True)
class _Call:
    began_s: float
    loop: asyncio.AbstractEventLoop
    answer: asyncio.Future[Sample]


class GpuWatch:
    """Asks a reader, one call at a time; whoever asks meanwhile shares it. Never raises.

    A call that takes longer than the limit is given up, but not repeated: until it returns, everybody is told at once
    that the driver hangs, and no second thread gets stuck.

    Args:
        read: Blocking; may take for ever. Whatever it raises becomes a sample's problem.
        limit_s: How long an asker waits.
    """

    def __init__(self, read: Reader, limit_s: float = ANSWER_LIMIT_S) -> None:
        self._read = read
        self._limit_s = limit_s
        self._calls: queue.SimpleQueue[_Call | None] = queue.SimpleQueue()
        self._thread: threading.Thread | None = None
        self._under_way: _Call | None = None

    async def ask(self) -> Sample:
        """Give a sample that was begun at most `limit_s` ago, or a reason why there is none."""
        call = self._under_way or self._begin()
        left_s = call.began_s + self._limit_s - time.monotonic()
        if left_s > 0:
            await asyncio.wait([call.answer], timeout=left_s)
        if call.answer.done():
            return call.answer.result()
        return Sample(problem=f"the GPU driver has not answered for {time.monotonic() - call.began_s:.0f} s")

    def close(self) -> None:
        """Let the thread end, when its call returns. A stuck one is a daemon: it does not keep the program alive."""
        self._calls.put(None)

    def _begin(self) -> _Call:
        loop = asyncio.get_running_loop()
        call = self._under_way = _Call(time.monotonic(), loop, loop.create_future())
        if self._thread is None:
            self._thread = threading.Thread(target=self._answer, name="gpu", daemon=True)
            self._thread.start()
        self._calls.put(call)
        return call

    def _answer(self) -> None:
        while (call := self._calls.get()) is not None:
            try:
                sample = self._read()
            except Exception as error:  # noqa: BLE001  a vendor's binding may raise anything, and no asker may see it
                sample = Sample(problem=f"cannot ask the GPU driver: {type(error).__name__}: {error}")
            with contextlib.suppress(RuntimeError):  # the event loop is closed: nobody waits any more
                call.loop.call_soon_threadsafe(self._answered, call, sample)

    def _answered(self, call: _Call, sample: Sample) -> None:
        self._under_way = None
        call.answer.set_result(sample)
