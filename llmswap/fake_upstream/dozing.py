"""What falling asleep and waking have in common for all personas: memory by tag, faults, seeing it through.

It knows no HTTP.
"""

import asyncio
import os
from collections.abc import Awaitable, Callable

from llmswap.fake_upstream.engine import Engine, Refused
from llmswap.fake_upstream.faults import Faults
from llmswap.fake_upstream.ledger import OutOfMemory

LAST_WORDS_S = 0.02  # real time, for an answer to leave before the process does


class SleepFailed(Refused):
    """The engine answers a sleep or wake with an error."""

    def __init__(self, message: str, status: int = 500) -> None:
        super().__init__(status, message)


async def strike(faults: Faults, kind: str) -> None:
    """Apply the faults of a kind of operation: sleep, wake or reload.

    Raises:
        SleepFailed: By a fault.
    """
    if faults.fires(f"{kind}_hang"):
        await asyncio.Event().wait()
    if faults.fires(f"{kind}_500"):
        raise SleepFailed(f"simulated failure of {kind}")


class Dozer:
    """The sleep of one engine.

    Attributes:
        asleep: Tags whose memory is away.
        residue_gib: What stays on the GPU with every tag away.
    """

    def __init__(self, engine: Engine) -> None:
        self.engine = engine
        self.asleep: set[str] = set()
        self.residue_gib = engine.knobs.gpu_l1_gib
        self._kept = 0.0  # share of what should be free that is not
        self._under_way: set[asyncio.Task[None]] = set()
        self._one_at_a_time = asyncio.Lock()

    async def see_through(self, operation: Callable[[], Awaitable[None]]) -> None:
        """Do it to its end, also when the client that asked for it leaves: the engines do not stop for that."""
        task = asyncio.create_task(self._in_turn(operation))
        self._under_way.add(task)
        task.add_done_callback(self._done)
        await asyncio.shield(task)

    async def _in_turn(self, operation: Callable[[], Awaitable[None]]) -> None:
        async with self._one_at_a_time:
            await operation()

    def _done(self, task: "asyncio.Task[None]") -> None:
        self._under_way.discard(task)
        if not task.cancelled():
            task.exception()  # whoever asked has had it, or has left

    async def close(self) -> None:
        """End what is under way."""
        for task in tuple(self._under_way):
            task.cancel()
        await asyncio.gather(*self._under_way, return_exceptions=True)

    def shares(self) -> dict[str, float]:
        """Split what can be freed among the tags, in GiB of each GPU."""
        knobs = self.engine.knobs
        free_gib = max(0.0, knobs.gpu_ready_gib - self.residue_gib)
        weights = min(knobs.gpu_weights_gib, free_gib)
        return {"weights": weights, "kv_cache": free_gib - weights}

    def _due_gib(self) -> float:
        ready_gib = self.engine.knobs.gpu_ready_gib
        shares = self.shares()
        if not self.asleep & shares.keys():
            return ready_gib
        held = sum(gib * (self._kept if tag in self.asleep else 1) for tag, gib in shares.items())
        return min(ready_gib, self.residue_gib) + held

    def lay_down(self, tags: frozenset[str], host_gib: float) -> None:
        """Free the memory of these tags: all, half or nothing of it."""
        engine = self.engine
        if not engine.options.can_free:
            self._kept = 1.0
        elif engine.faults.fires("sleep_partial_free"):
            self._kept = 0.5
        self.asleep |= tags
        engine.hold_gpu(self._due_gib(), host_gib)

    def take_up(self, tags: frozenset[str]) -> None:
        """Take back the memory of these tags.

        Raises:
            SleepFailed: By a fault, or it is not there.
        """
        engine, before = self.engine, set(self.asleep)
        if engine.faults.fires("wake_oom"):
            raise SleepFailed("CUDA out of memory.")
        leak = engine.faults.fires("wake_leak") is not None
        self.asleep -= tags
        wanted_gib = self._due_gib()
        try:
            engine.hold_gpu((engine.held_gib + wanted_gib) / 2 if leak else wanted_gib, engine.host_gib)
        except OutOfMemory as error:
            self.asleep = before
            raise SleepFailed(f"CUDA out of memory. {error.free_gib:.2f} GiB is free.") from error
        if leak:
            self.asleep = before
            raise SleepFailed("CUDA out of memory.")

    def rise(self) -> None:
        """Be awake: everything is back."""
        engine = self.engine
        self._kept = 0.0
        engine.garbage = engine.faults.fires("wake_garbage") is not None
        engine.doomed = engine.faults.fires("wake_then_die") is not None
        engine.hold_gpu(engine.held_gib)  # and no host memory

    def fell_asleep(self, still: Callable[[], bool]) -> None:
        """Apply the faults that strike a sleeper.

        Args:
            still: Says whether it sleeps.
        """
        faults, loop = self.engine.faults, asyncio.get_running_loop()

        def later(fault: str, strike: Callable[[], object]) -> None:
            if armed := faults.fires(fault):
                seconds = max(LAST_WORDS_S, armed.number() * self.engine.knobs.time_scale)
                loop.call_later(seconds, lambda: strike() if still() else None)

        later("die_asleep", lambda: os._exit(1))
        later("engine_dead_asleep", lambda: self.engine.collapse("simulated death while asleep"))


def exit_soon() -> None:
    """End the process once the answer has left."""
    asyncio.get_running_loop().call_later(LAST_WORDS_S, os._exit, 1)
