"""The simulated engine: its life (booting, ready, sleeping, dead), its slots, its clock. It knows no HTTP."""

import asyncio
import time
from collections import deque
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from enum import StrEnum

from llmswap.fake_upstream.faults import Faults
from llmswap.fake_upstream.knobs import Knobs
from llmswap.fake_upstream.ledger import Ledger, OutOfMemory
from llmswap.fake_upstream.metrics import Metrics
from llmswap.fake_upstream.options import Options
from llmswap.fake_upstream.say import say
from llmswap.fake_upstream.tokens import PrefixCache


class Phase(StrEnum):
    """Where the engine's life stands."""

    BOOTING = "booting"
    READY = "ready"
    SLEEPING = "sleeping"
    DEAD = "dead"


class BootFailed(Exception):
    """The engine cannot start; the process exits with 1."""


class Refused(Exception):
    """A request is refused by the engine's state."""

    def __init__(self, status: int, message: str) -> None:
        super().__init__(message)
        self.status = status


class Engine:
    """One engine.

    Attributes:
        boot_phase: The phase of the boot that is running.
        garbage: Answers are nonsense.
        weights_lost: They are nonsense until the weights are reloaded.
        cold_wake: The next first token is the first after a wake, and slow.
        gate: Set while new requests may pass.
        scheduling: Set while tokens may flow.
        idle: Set while nothing runs or queues.
        held_gib: GPU memory held now, with or without a ledger.
        doomed: The process dies at the next request.
        aborts: Counts how often everything in flight was told to end.
    """

    def __init__(self, options: Options, knobs: Knobs, faults: Faults, ledger: Ledger | None) -> None:
        self.options, self.knobs, self.faults, self.ledger = options, knobs, faults, ledger
        self.phase = Phase.BOOTING
        self.boot_phase = ""
        self.garbage = False
        self.weights_lost = False
        self.cold_wake = False
        self.gate = asyncio.Event()
        self.scheduling = asyncio.Event()
        self.idle = asyncio.Event()
        self.idle.set()
        self.held_gib = 0.0
        self.host_gib = 0.0
        self.aborts = 0
        self.running = 0
        self.waiting: deque[asyncio.Future[None]] = deque()
        self.parked = 0
        self.doomed = False
        self.metrics = Metrics()
        self.cache = PrefixCache()
        self._born = time.monotonic()
        self._pauses: set[asyncio.Future[None]] = set()

    def age_s(self) -> float:
        """Give real seconds since start."""
        return time.monotonic() - self._born

    async def spend(self, seconds: float) -> None:
        """Let simulated time pass."""
        await asyncio.sleep(seconds * self.knobs.time_scale)

    async def boot(self) -> None:
        """Go through the boot phases.

        Raises:
            BootFailed: A fault says so, or the GPU has no room.
        """
        crash = self.faults.fires("crash_at_start")
        for phase, seconds in self.options.boot_s.items():
            self.boot_phase = phase
            if phase == "weights":
                self._claim_gpu()
                say("Starting to load model %s...", self.options.models[0])
            await self.spend(seconds)
            if crash and crash.word("weights") == phase:
                raise BootFailed(f"simulated crash in phase {phase}")
            if phase == "weights":
                say(
                    "Loading safetensors checkpoint shards: 100%% Completed | Loading weights took %.2f seconds",
                    seconds,
                )
        if self.faults.fires("never_ready"):
            self.boot_phase = "never_ready"
            await asyncio.Event().wait()
        self.boot_phase = ""
        self.phase = Phase.READY
        self.scheduling.set()
        self.gate.set()
        say("Application startup complete.")

    def _claim_gpu(self) -> None:
        wanted = self.knobs.gpu_ready_gib
        if self.faults.fires("start_oom"):
            raise BootFailed(str(OutOfMemory(0.5, wanted, self.options.gpu_total_gib)))
        try:
            self.hold_gpu(wanted)
        except OutOfMemory as error:
            raise BootFailed(str(error)) from error

    def hold_gpu(self, gib: float) -> None:
        """Hold this much of the GPU from now on.

        Raises:
            OutOfMemory: There is not so much.
        """
        if self.ledger is not None:
            self.ledger.hold(gib)
        self.held_gib = gib

    @asynccontextmanager
    async def slot(self) -> AsyncIterator[None]:
        """Wait for the engine to be awake and for a free place among the running, and hold it.

        Raises:
            Refused: The engine will not take it.
        """
        await self._pass_gate()
        self.idle.clear()
        if self.running >= self.knobs.max_num_seqs or self.waiting:
            turn = asyncio.get_running_loop().create_future()
            self.waiting.append(turn)
            try:
                await turn
            except asyncio.CancelledError:
                if turn.done() and not turn.cancelled():
                    self._free()
                else:
                    self.waiting.remove(turn)
                    self._note_idle()
                raise
        else:
            self.running += 1
        try:
            yield
        finally:
            self._free()

    def _free(self) -> None:
        self.running -= 1
        while self.waiting and self.running < self.knobs.max_num_seqs:
            turn = self.waiting.popleft()
            if not turn.cancelled():
                self.running += 1
                turn.set_result(None)
        self._note_idle()

    def _note_idle(self) -> None:
        if not self.running and not self.waiting:
            self.idle.set()

    async def _pass_gate(self) -> None:
        if self.phase is Phase.DEAD:
            raise Refused(500, "EngineCore encountered an issue. See stack trace (above) for the root cause.")
        if self.gate.is_set():
            return
        if self.options.asleep_requests == "503":
            raise Refused(503, "the engine is asleep")
        if self.options.asleep_requests == "crash":
            self.phase = Phase.DEAD
            raise Refused(500, "CUDA error: an illegal memory access was encountered")
        self.parked += 1
        try:
            await self.gate.wait()
        finally:
            self.parked -= 1

    async def pause_until(self, due: float) -> None:
        """Sleep to a moment of the event loop's clock, or until `abort_all`."""
        loop = asyncio.get_running_loop()
        pause = loop.create_future()
        timer = loop.call_at(due, _wake, pause)
        self._pauses.add(pause)
        try:
            await pause
        finally:
            self._pauses.discard(pause)
            timer.cancel()

    def abort_all(self) -> None:
        """End everything in flight."""
        self.aborts += 1
        for pause in self._pauses:
            _wake(pause)


def _wake(pause: "asyncio.Future[None]") -> None:
    if not pause.done():
        pause.set_result(None)
