"""How the vLLM persona falls asleep and wakes: levels, tags, memory, and what is lost. It knows no HTTP.

A call that succeeds proves little, as with the real engine: a second sleep, an unknown tag and a wake of what is awake
all succeed and change nothing.
"""

import asyncio
import time

from llmswap.fake_upstream.engine import Engine, Phase
from llmswap.fake_upstream.ledger import OutOfMemory
from llmswap.fake_upstream.say import say

MEMORY_TAGS = frozenset({"weights", "kv_cache"})
GAUGE = {0: "", 1: "weights_offloaded", 2: "discard_all"}


class SleepFailed(Exception):
    """The engine answered a sleep or wake with an error."""


class Sleeper:
    """The sleep of one engine.

    Attributes:
        level: Of the current sleep; None while awake.
        asleep: Tags that are asleep.
    """

    def __init__(self, engine: Engine) -> None:
        self.engine = engine
        self.level: int | None = None
        self.asleep: set[str] = set()
        self._slept_before = False
        self._one_at_a_time = asyncio.Lock()

    async def sleep(self, level: int, mode: str) -> None:
        """Fall asleep.

        Args:
            level: 0 stops scheduling, 1 moves the weights to the host, 2 drops them.
            mode: abort ends what is in flight, wait lets it finish, keep freezes it until the wake.

        Raises:
            SleepFailed: By a fault.
        """
        engine = self.engine
        if engine.faults.fires("sleep_hang"):
            await asyncio.Event().wait()
        if engine.faults.fires("sleep_500"):
            raise SleepFailed("simulated failure of sleep")
        async with self._one_at_a_time:
            if self.level is not None:
                say("WARNING: executor is already sleeping.")
                engine.metrics.sleep_state = GAUGE[level]  # the real gauge believes the request, too
                return
            began_s = time.monotonic()
            await self._quiet(mode)
            await self._drop(level)
            engine.phase = Phase.SLEEPING
            self.level = level
            engine.metrics.sleep_state = GAUGE[level]
            self._report("sleep", "It took %.6f seconds to fall asleep.", began_s)

    async def _quiet(self, mode: str) -> None:
        engine = self.engine
        engine.gate.clear()
        if mode == "wait":
            await engine.idle.wait()
        engine.scheduling.clear()
        if mode == "abort":
            engine.abort_all()
            await engine.idle.wait()

    async def _drop(self, level: int) -> None:
        engine, knobs = self.engine, self.engine.knobs
        if level == 0:
            self.asleep = {"scheduling"}
            return
        seconds = knobs.sleep_l1_s if level == 1 else knobs.sleep_l2_s
        if level == 1 and not self._slept_before:
            self._slept_before = True
            seconds += knobs.first_sleep_extra_s
        await engine.spend(seconds)
        self.asleep = set(MEMORY_TAGS)
        engine.cache.clear()
        engine.weights_lost = level == 2
        left_gib = knobs.gpu_l1_gib if level == 1 else knobs.gpu_l2_gib
        if engine.faults.fires("sleep_partial_free"):
            left_gib += (knobs.gpu_ready_gib - left_gib) / 2
        engine.hold_gpu(left_gib)
        engine.host_gib = knobs.host_l1_gib if level == 1 else 0.0

    async def wake(self, tags: frozenset[str]) -> None:
        """Wake these tags; none means all.

        Raises:
            SleepFailed: By a fault, or the GPU has no room.
        """
        engine = self.engine
        if engine.faults.fires("wake_hang"):
            await asyncio.Event().wait()
        if engine.faults.fires("wake_500"):
            raise SleepFailed("simulated failure of wake_up")
        if engine.faults.fires("wake_oom"):
            raise SleepFailed("CUDA out of memory.")
        if engine.faults.fires("wake_200_still_asleep"):
            return
        async with self._one_at_a_time:
            due = (tags or frozenset(self.asleep)) & self.asleep
            if self.level is None or not due:
                say("WARNING: nothing of %s is asleep.", sorted(tags) or "everything")
                return
            began_s = time.monotonic()
            await self._restore(due)
            if not self.asleep:
                self._rise()
            self._report("wake", f"It took %.6f seconds to wake up tags {sorted(due)}.", began_s)

    async def _restore(self, due: frozenset[str]) -> None:
        engine, knobs = self.engine, self.engine.knobs
        held = engine.held_gib
        if "weights" in due:
            held += engine.options.weights_gib
        if not self.asleep - due:
            held = knobs.gpu_ready_gib
        elif "kv_cache" in due:
            held += knobs.gpu_ready_gib - engine.options.weights_gib - knobs.gpu_l1_gib
        try:
            engine.hold_gpu(min(held, knobs.gpu_ready_gib) if due & MEMORY_TAGS else engine.held_gib)
        except OutOfMemory as error:
            raise SleepFailed(f"CUDA out of memory. {error.free_gib:.2f} GiB is free.") from error
        if "weights" in due and self.level == 1:
            await engine.spend(knobs.wake_l1_s)
        self.asleep -= due

    def _rise(self) -> None:
        engine = self.engine
        engine.garbage = engine.faults.fires("wake_garbage") is not None
        engine.doomed = engine.faults.fires("wake_then_die") is not None
        engine.cold_wake = self.level != 0
        engine.host_gib = 0.0
        engine.phase = Phase.READY
        engine.metrics.sleep_state = "awake"
        self.level = None
        engine.scheduling.set()
        engine.gate.set()

    async def reload_weights(self) -> None:
        """Read the weights again, as is due after level 2.

        Raises:
            SleepFailed: They have no memory yet.
        """
        if "weights" in self.asleep:
            raise SleepFailed("cannot reload weights: their memory is asleep")
        await self.engine.spend(self.engine.knobs.wake_l2_s)
        self.engine.weights_lost = False

    def _report(self, operation: str, line: str, began_s: float) -> None:
        took_s = time.monotonic() - began_s
        self.engine.metrics.sleeps[operation].observe(took_s)
        say(line, took_s)
