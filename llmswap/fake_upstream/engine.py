"""The simulated engine: its life (booting, ready, sleeping, dead), its slots, its clock. It knows no HTTP.

How it falls asleep and wakes differs by persona: `sleeping.py`, `releasing.py`, `idling.py`.
"""

import asyncio
import os
import signal
import time
from collections import deque
from collections.abc import AsyncIterator, Callable, Iterator
from contextlib import asynccontextmanager, contextmanager
from enum import StrEnum
from typing import NoReturn

from llmswap.fake_upstream.faults import Faults
from llmswap.fake_upstream.journal import Journal, Operation
from llmswap.fake_upstream.knobs import Knobs
from llmswap.fake_upstream.ledger import Ledger, OutOfMemory
from llmswap.fake_upstream.metrics import Metrics
from llmswap.fake_upstream.options import Options
from llmswap.fake_upstream.say import say
from llmswap.fake_upstream.spawned import since_spawn_s
from llmswap.fake_upstream.tokens import PrefixCache


class Phase(StrEnum):
    """Where the engine's life stands."""

    BOOTING = "booting"
    READY = "ready"
    PAUSED = "paused"
    FALLING_ASLEEP = "falling_asleep"
    SLEEPING = "sleeping"
    WAKING = "waking"
    DEAD = "dead"

    @property
    def well(self) -> bool:
        """Whether health checks succeed: also asleep, as with the engines."""
        return self not in (Phase.BOOTING, Phase.DEAD)


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
        gate: Set while new requests may pass; the others are parked.
        turned_away: Why new requests are refused with 503 at the gate instead; empty if they are not.
        trap: What the next request dies of, and the process with it; empty if it does not.
        scheduling: Set while tokens may flow.
        idle: Set while nothing runs or queues.
        held_gib: Memory held now on each GPU, with or without a ledger.
        doomed: The process dies at the next request.
        on_ready: Called whenever it becomes ready.
        aborts: Counts how often everything in flight was told to end.
    """

    def __init__(self, options: Options, knobs: Knobs, faults: Faults, ledger: Ledger | None, journal: Journal) -> None:
        self.options, self.knobs, self.faults = options, knobs, faults
        self.ledger, self.journal = ledger, journal
        self.phase = Phase.BOOTING
        self.boot_phase = ""
        self.garbage = False
        self.weights_lost = False
        self.cold_wake = False
        self.gate = asyncio.Event()
        self.turned_away = ""
        self.trap = ""
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
        self.on_ready: Callable[[], None] | None = None
        self.metrics = Metrics()
        self.cache = PrefixCache()
        self._pauses: set[asyncio.Future[None]] = set()

    def age_s(self) -> float:
        """Give real seconds since start."""
        return time.monotonic() - self.journal.born_s

    @property
    def queued(self) -> int:
        """Requests that wait, for a place or for a wake."""
        return len(self.waiting) + self.parked

    @property
    def busy(self) -> bool:
        """Whether anything is at work or in the engine's queue."""
        return bool(self.running or self.waiting)

    async def spend(self, seconds: float) -> None:
        """Let simulated time pass."""
        await asyncio.sleep(seconds * self.knobs.time_scale)

    @contextmanager
    def operation(self, kind: str, detail: str = "") -> Iterator[Operation]:
        """Journal an operation from here to the end of the block, however that ends."""
        noted = self.journal.begin(
            Operation(kind, detail, self.age_s(), self.running, self.queued, self.held_gib)
        )  # fmt: skip
        try:
            yield noted
            noted.result = "ok"
        except BaseException as error:
            noted.result = str(error) or type(error).__name__
            raise
        finally:
            noted.ended_s, noted.gpu_after_gib = self.age_s(), self.held_gib

    async def boot(self) -> None:
        """Go through the boot phases, and be ready.

        Raises:
            BootFailed: A fault says so, or the GPU has no room.
        """
        with self.operation("boot"):
            await self.load()
            self.rise()
        say("Application startup complete.")

    async def load(self) -> None:
        """Go through the boot phases; a router has nothing to load yet.

        Raises:
            BootFailed: A fault says so, or the GPU has no room.
        """
        if self.options.router:
            return
        crash = self.faults.fires("crash_at_start")
        ahead_s = since_spawn_s() if self.options.boot_since_spawn else 0.0
        for phase, seconds in self.options.boot_s.items():
            self.boot_phase = phase
            if phase == "weights":
                self._claim_gpu()
                say("Starting to load model %s...", self.options.models[0])
            takes_s = seconds * self.knobs.time_scale
            await asyncio.sleep(max(0.0, takes_s - ahead_s))
            ahead_s = max(0.0, ahead_s - takes_s)
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

    def rise(self) -> None:
        """Be ready: let requests pass and tokens flow."""
        self.phase = Phase.READY
        self.turned_away = ""
        self.scheduling.set()
        self.gate.set()
        if self.on_ready:
            self.on_ready()

    def _claim_gpu(self) -> None:
        wanted = self.knobs.gpu_ready_gib
        if self.faults.fires("start_oom"):
            raise BootFailed(str(OutOfMemory(self.options.gpus[0], 0.5, wanted, self.options.gpu_total_gib)))
        try:
            self.hold_gpu(wanted)
        except OutOfMemory as error:
            raise BootFailed(str(error)) from error

    def hold_gpu(self, gib: float, host_gib: float = 0.0) -> None:
        """Hold this much of each GPU from now on, and so much pinned host memory.

        Raises:
            OutOfMemory: There is not so much.
        """
        if self.ledger is not None:
            stuck = self.faults.fires("memory_stuck") if gib < self.held_gib else None
            lag_s = stuck.number() * self.knobs.time_scale if stuck else None
            self.ledger.hold(gib, host_gib=host_gib, lag_s=lag_s)
        self.held_gib, self.host_gib = gib, host_gib

    async def quiet(self, mode: str, noted: Operation) -> None:
        """Let no new request pass, and deal with those in flight.

        Args:
            mode: abort ends them, wait lets them finish, any other freezes them.
            noted: The operation that this is part of.
        """
        began_s = self.age_s()
        self.gate.clear()
        if mode == "wait":
            await self.idle.wait()
        self.scheduling.clear()
        if mode == "abort":
            self.abort_all()
            await self.idle.wait()
        noted.quiet_s = self.age_s() - began_s

    def collapse(self, reason: str) -> None:
        """Let the engine die while its HTTP server lives on: its memory is free, requests get 500."""
        say("ERROR: EngineCore died: %s", reason)
        self.phase = Phase.DEAD
        self.hold_gpu(0.0)
        self.abort_all()
        self.scheduling.set()
        self.gate.set()

    def die(self, reason: str) -> NoReturn:
        """Kill the whole process, at once."""
        say("ERROR: Scheduler hit an exception: Traceback (most recent call last):\n%s", reason)
        os.kill(os.getpid(), signal.SIGKILL)
        raise SystemExit(137)  # not reached

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
        while not self.gate.is_set():
            if self.turned_away:
                raise Refused(503, self.turned_away)
            if self.options.asleep_requests == "503":
                raise Refused(503, "the engine is asleep")
            if self.options.asleep_requests == "crash":
                self.collapse("CUDA error: an illegal memory access was encountered")
            await self._park()
        if self.phase is Phase.DEAD:
            raise Refused(500, "EngineCore encountered an issue. See stack trace (above) for the root cause.")
        if self.trap:
            self.die(self.trap)

    async def _park(self) -> None:
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
