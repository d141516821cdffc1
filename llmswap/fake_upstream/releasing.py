"""How the SGLang persona releases and resumes its memory, and what kills it. It knows no HTTP.

Unlike vLLM it guards nothing: releasing while busy, resuming what was not released, and serving on released memory end
the whole process.
"""

from llmswap.fake_upstream.dozing import Dozer, SleepFailed, strike
from llmswap.fake_upstream.engine import Engine, Phase

TAGS = frozenset({"weights", "kv_cache", "cuda_graph"})
GRAPHS_GIB_MAX = 0.5
BUSY = "AssertionError: release_memory_occupation while requests are at work"
NO_MEMORY = "CUDA error: an illegal memory access was encountered"


class Releaser(Dozer):
    """The memory of one engine.

    Attributes:
        paused: Generation is paused; new requests wait.
    """

    def __init__(self, engine: Engine) -> None:
        super().__init__(engine)
        self.paused = False

    def shares(self) -> dict[str, float]:
        """Split what can be freed among the tags, in GiB of each GPU."""
        shares = super().shares()
        graphs = min(GRAPHS_GIB_MAX, shares["kv_cache"])
        return {**shares, "kv_cache": shares["kv_cache"] - graphs, "cuda_graph": graphs}

    def _settle(self) -> None:
        """Put the engine where paused and released leave it. Unpaused, a request on released memory is the end."""
        engine = self.engine
        engine.trap = NO_MEMORY if self.asleep and engine.options.can_free else ""
        if self.asleep:
            engine.phase = Phase.SLEEPING
        else:
            engine.phase = Phase.PAUSED if self.paused else Phase.READY

    async def release(self, tags: frozenset[str]) -> None:
        """Release these tags; none means all. Kills the process if it is busy.

        Raises:
            SleepFailed: By a fault.
        """
        await strike(self.engine.faults, "sleep")
        if not self.engine.faults.fires("sleep_200_awake"):
            await self.see_through(lambda: self._release(tags or TAGS))

    async def _release(self, tags: frozenset[str]) -> None:
        engine, knobs = self.engine, self.engine.knobs
        if engine.busy or engine.faults.fires("release_busy_assert"):
            engine.die(BUSY)
        with engine.operation("sleep", "tags " + ", ".join(sorted(tags))):
            engine.phase = Phase.FALLING_ASLEEP
            engine.trap = NO_MEMORY if engine.options.can_free else ""
            backed = engine.options.weights_backup
            if "weights" in tags and engine.options.can_free:
                await engine.spend(knobs.sleep_l1_s if backed else knobs.sleep_l2_s)
                engine.weights_lost = engine.weights_lost or not backed
            if "kv_cache" in tags:
                engine.cache.clear()
            kept_gib = knobs.host_l1_gib if backed and "weights" in self.asleep | tags else 0.0
            self.lay_down(tags & TAGS, kept_gib)
            self._settle()
        self.fell_asleep(lambda: bool(self.asleep))

    async def resume(self, tags: frozenset[str]) -> None:
        """Take these tags back; none means all. Kills the process if one was not released, or has no room.

        Raises:
            SleepFailed: By a fault.
        """
        await strike(self.engine.faults, "wake")
        if not self.engine.faults.fires("wake_200_still_asleep"):
            await self.see_through(lambda: self._resume(tags or TAGS))

    async def _resume(self, tags: frozenset[str]) -> None:
        engine = self.engine
        if missing := tags - self.asleep:
            engine.die(f"KeyError: {min(missing)!r}")
        with engine.operation("wake", "tags " + ", ".join(sorted(tags))):
            engine.phase = Phase.WAKING
            try:
                self.take_up(tags)
            except SleepFailed as error:
                engine.die(str(error))
            if "weights" in tags and engine.options.weights_backup:
                await engine.spend(engine.knobs.wake_l1_s)
            if not self.asleep:
                self.rise()
                engine.cold_wake = True
            self._settle()

    async def update_weights(self) -> None:
        """Read the weights from disk, as is due after they were released without a backup.

        Raises:
            SleepFailed: They have no memory, or by a fault.
        """
        await strike(self.engine.faults, "reload")
        if "weights" in self.asleep:
            raise SleepFailed("the memory of the weights is released", 400)
        await self.see_through(self._update_weights)

    async def _update_weights(self) -> None:
        with self.engine.operation("reload"):
            await self.engine.spend(self.engine.knobs.wake_l2_s)
            self.engine.weights_lost = False

    async def pause(self, mode: str) -> None:
        """Pause generation: abort ends what is in flight, retract and in_place freeze it. New requests wait."""
        await self.see_through(lambda: self._pause(mode))

    async def _pause(self, mode: str) -> None:
        with self.engine.operation("pause", f"mode {mode}") as noted:
            self.paused = True
            await self.engine.quiet(mode, noted)
            self._settle()

    def carry_on(self) -> None:
        """Continue after `pause`. Whoever waited is served, or runs into released memory."""
        with self.engine.operation("resume"):
            self.paused = False
            self._settle()
            self.engine.scheduling.set()
            self.engine.gate.set()
