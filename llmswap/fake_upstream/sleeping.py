"""How the vLLM persona falls asleep and wakes: levels, modes, tags, and what is lost. It knows no HTTP.

A call that succeeds proves little, as with the real engine: a second sleep, an unknown tag and a wake of what is awake
all succeed and change nothing.
"""

from llmswap.fake_upstream.dozing import Dozer, SleepFailed, strike
from llmswap.fake_upstream.engine import Engine, Phase
from llmswap.fake_upstream.journal import Operation
from llmswap.fake_upstream.say import say

MEMORY_TAGS = frozenset({"weights", "kv_cache"})
GAUGE = {0: "", 1: "weights_offloaded", 2: "discard_all"}
PAUSED = "generation is paused"


class Sleeper(Dozer):
    """The sleep of one engine.

    Attributes:
        level: Of the current sleep; None while awake.
        paused: By `pause`: new requests are refused, and memory may be released.
    """

    def __init__(self, engine: Engine) -> None:
        super().__init__(engine)
        self.level: int | None = None
        self.paused = False
        self._slept_before = False

    @property
    def is_sleeping(self) -> bool:
        """What /is_sleeping says: also true when only scheduling stopped, and after a partial wake."""
        return self.paused or bool(self.asleep)

    def _well(self) -> None:
        if self.engine.phase is Phase.DEAD:
            raise SleepFailed("EngineCore encountered an issue. See stack trace (above) for the root cause.")

    async def sleep(self, level: int, mode: str) -> None:
        """Fall asleep.

        Args:
            level: 0 stops scheduling, 1 moves the weights to the host, 2 drops them.
            mode: abort ends what is in flight, wait lets it finish, keep freezes it until the wake.

        Raises:
            SleepFailed: By a fault, or the engine is dead.
        """
        self._well()
        await strike(self.engine.faults, "sleep")
        if not self.engine.faults.fires("sleep_200_awake"):
            await self.see_through(lambda: self._sleep(level, mode))

    async def _sleep(self, level: int, mode: str) -> None:
        engine = self.engine
        if self.level is not None:
            say("WARNING: executor is already sleeping.")
            engine.metrics.sleep_state = GAUGE[level]  # the real gauge believes the request, too
            return
        if engine.options.old and engine.busy and level > 0:
            engine.collapse("CUDA error: an illegal memory access was encountered")  # vllm#15483
            return
        detail = f"level {level}" if engine.options.old else f"level {level}, mode {mode}"
        with engine.operation("sleep", detail) as noted:
            engine.phase = Phase.FALLING_ASLEEP
            await engine.quiet(mode, noted)
            await self._drop(level)
            engine.phase = Phase.SLEEPING
            self.level = level
            engine.metrics.sleep_state = GAUGE[level]
        self._report(noted, "It took %.6f seconds to fall asleep.")
        self.fell_asleep(lambda: self.level is not None)

    async def _drop(self, level: int) -> None:
        engine, knobs = self.engine, self.engine.knobs
        if level == 0:
            self.asleep = {"scheduling"}
            return
        frees = engine.options.can_free
        seconds = knobs.sleep_l1_s if level == 1 else knobs.sleep_l2_s
        if level == 1 and not self._slept_before:
            self._slept_before = True
            seconds += knobs.first_sleep_extra_s
        await engine.spend(seconds if frees else 0.0)
        engine.cache.clear()
        engine.weights_lost = engine.weights_lost or (level == 2 and frees)
        self.residue_gib = knobs.gpu_l1_gib if level == 1 else knobs.gpu_l2_gib
        before_gib = engine.held_gib
        self.lay_down(MEMORY_TAGS, knobs.host_l1_gib if level == 1 and frees else 0.0)
        freed_gib = before_gib - engine.held_gib
        say("Sleep mode freed %.2f GiB memory, %.2f GiB memory is still in use.", freed_gib, engine.held_gib)

    async def wake(self, tags: frozenset[str]) -> None:
        """Wake these tags; none means all.

        Raises:
            SleepFailed: By a fault, or the GPU has no room, or the engine is dead.
        """
        self._well()
        await strike(self.engine.faults, "wake")
        if not self.engine.faults.fires("wake_200_still_asleep"):
            await self.see_through(lambda: self._wake(tags))

    async def _wake(self, tags: frozenset[str]) -> None:
        engine = self.engine
        due = (tags or frozenset(self.asleep)) & self.asleep
        if not due:
            say("WARNING: nothing of %s is asleep.", sorted(tags) or "everything")
            return
        with engine.operation("wake", "tags " + ", ".join(sorted(due))) as noted:
            before, engine.phase = engine.phase, Phase.WAKING
            try:
                self.take_up(frozenset(due))
            except SleepFailed:
                engine.phase = before
                raise
            if "weights" in due and self.level == 1 and engine.options.can_free:
                await engine.spend(engine.knobs.wake_l1_s)
            engine.phase = before
            if not self.asleep and self.level is not None:
                self._rise()
        self._report(noted, f"It took %.6f seconds to wake up tags {sorted(due)}.")

    def _rise(self) -> None:
        engine = self.engine
        self.rise()
        engine.cold_wake = self.level != 0
        engine.metrics.sleep_state = "awake"
        self.level, self.paused = None, False
        engine.rise()

    async def reload_weights(self) -> None:
        """Read the weights again, as is due after level 2.

        Raises:
            SleepFailed: They have no memory yet, or by a fault.
        """
        self._well()
        await strike(self.engine.faults, "reload")
        if "weights" in self.asleep:
            raise SleepFailed("cannot reload weights: their memory is asleep")
        await self.see_through(self._reload)

    async def _reload(self) -> None:
        with self.engine.operation("reload"):
            await self.engine.spend(self.engine.knobs.wake_l2_s)
            self.engine.weights_lost = False

    async def pause(self, mode: str) -> None:
        """Stop serving, but stay in memory. New requests are refused, not parked.

        Raises:
            SleepFailed: The engine is dead.
        """
        self._well()
        if self.level is None and not self.paused:
            await self.see_through(lambda: self._pause(mode))

    async def _pause(self, mode: str) -> None:
        engine = self.engine
        with engine.operation("pause", f"mode {mode}") as noted:
            engine.phase, engine.turned_away = Phase.PAUSED, PAUSED
            await engine.quiet(mode, noted)
            self.paused = True

    async def resume(self) -> None:
        """Serve again after `pause`.

        Raises:
            SleepFailed: The KV cache is still released, or the engine is dead.
        """
        self._well()
        if self.asleep:
            raise SleepFailed("the KV cache is released: wake it up first")
        if self.paused:
            with self.engine.operation("resume"):
                self.paused = False
                self.engine.rise()

    async def release_kv_cache(self) -> None:
        """Free the KV cache alone, the weights stay.

        Raises:
            SleepFailed: It is not paused, or not idle.
        """
        self._well()
        if not self.paused or self.engine.busy:
            raise SleepFailed("release_kv_cache_memory needs a completed pause with no requests")
        engine = self.engine
        with engine.operation("release_kv_cache_memory") as noted:
            engine.cache.clear()
            engine.metrics.sleep_state = ""
            self.lay_down(frozenset({"kv_cache"}), 0.0)
        self._report(noted, "It took %.6f seconds to release the KV cache.")

    def _report(self, noted: Operation, line: str) -> None:
        took_s = (noted.ended_s or noted.began_s) - noted.began_s
        self.engine.metrics.sleeps[noted.kind].observe(took_s)
        say(line, took_s)
