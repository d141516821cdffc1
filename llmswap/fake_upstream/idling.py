"""llama-server's `--sleep-idle-seconds`: everything is freed after so long without work, the next task loads it again.

That load is a cold one, hidden in a request. It knows no HTTP.
"""

import asyncio
import os
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

from llmswap.fake_upstream.engine import Engine, Phase
from llmswap.fake_upstream.ledger import OutOfMemory
from llmswap.fake_upstream.say import say


class Idler:
    """The idle sleep of one engine."""

    def __init__(self, engine: Engine) -> None:
        self.engine = engine
        self.asleep = False
        self._at_work = 0
        self._timer: asyncio.TimerHandle | None = None
        self._one_at_a_time = asyncio.Lock()
        engine.on_ready = self.watch

    def watch(self) -> None:
        """Start counting the idle time, if it is to sleep at all."""
        engine = self.engine
        if engine.options.idle_sleep_s >= 0 and not self._at_work:
            seconds = engine.options.idle_sleep_s * engine.knobs.time_scale
            self._timer = asyncio.get_running_loop().call_later(seconds, self._sleep)

    @asynccontextmanager
    async def task(self) -> AsyncIterator[None]:
        """Hold it awake for one task, and wake it first."""
        self.close()
        self._at_work += 1
        try:
            async with self._one_at_a_time:
                if self.asleep:
                    await self._wake()
            yield
        finally:
            self._at_work -= 1
            self.watch()

    def _sleep(self) -> None:
        engine = self.engine
        with engine.operation("sleep", "idle"):
            self.asleep = True
            engine.phase = Phase.SLEEPING
            engine.cache.clear()
            engine.hold_gpu(0.0)
        say("server is entering sleeping state")

    async def _wake(self) -> None:
        engine = self.engine
        with engine.operation("wake", "task"):
            engine.phase = Phase.WAKING
            try:
                engine.hold_gpu(engine.knobs.gpu_ready_gib)
            except OutOfMemory as error:
                say("ERROR: failed to load the model: %s", error)
                os._exit(1)
            await engine.spend(sum(engine.options.boot_s.values()))
            engine.phase = Phase.READY
            self.asleep = False

    def close(self) -> None:
        """Stop counting."""
        if self._timer is not None:
            self._timer.cancel()
            self._timer = None
