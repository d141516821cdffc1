"""llama-server's router mode: several models behind one port, loaded and unloaded by name. It knows no HTTP.

The real one runs a child process for each; here one engine does all the work, and a loaded model is memory that it
holds. A model that is asked for is loaded; if too many are, the least recently used idle one is unloaded for it.
"""

import asyncio
from collections.abc import AsyncIterator, Coroutine
from contextlib import asynccontextmanager
from dataclasses import dataclass
from typing import Any

from llmswap.fake_upstream.engine import Engine, Refused


@dataclass(slots=True)
class Child:
    """One model.

    Attributes:
        status: unloaded, loading or loaded.
        failed: Its last load failed.
        used: Number of its last use, among all uses.
        change: The load or unload under way.
    """

    name: str
    status: str = "unloaded"
    failed: bool = False
    at_work: int = 0
    used: int = 0
    change: "asyncio.Task[None] | None" = None


class Router:
    """The models of one router, and their memory."""

    def __init__(self, engine: Engine) -> None:
        self.engine = engine
        self.children = {name: Child(name) for name in engine.options.models}
        self._uses = 0
        self._moved = asyncio.Condition()

    @asynccontextmanager
    async def task(self, name: str) -> AsyncIterator[None]:
        """Hold a model loaded for one task; load it first if that is allowed.

        Raises:
            Refused: It is not loaded, or cannot be.
        """
        child = self.children[name]
        while child.status != "loaded":
            if child.change is None and not self.engine.options.autoload:
                raise Refused(400, f"model {name} is not loaded")
            await asyncio.wait({child.change or self.load(name)})
            if child.failed:
                raise Refused(500, f"model {name} failed to load")
        self._uses += 1
        child.used = self._uses
        child.at_work += 1
        try:
            yield
        finally:
            child.at_work -= 1
            async with self._moved:
                self._moved.notify_all()

    def load(self, name: str) -> "asyncio.Task[None]":
        """Begin to load a model."""
        child = self.children[name]
        child.failed = False
        return self._begin(child, self._load(child))

    def unload(self, name: str) -> None:
        """Begin to unload a model. One that is still loading is killed."""
        child = self.children[name]
        if child.status == "loading" and child.change is not None:
            child.change.cancel()
        elif child.status == "loaded" and child.change is None:
            self._begin(child, self._unload(child))

    async def close(self) -> None:
        """End what is under way."""
        under_way = [child.change for child in self.children.values() if child.change]
        for task in under_way:
            task.cancel()
        await asyncio.gather(*under_way, return_exceptions=True)

    def _begin(self, child: Child, change: Coroutine[Any, Any, None]) -> "asyncio.Task[None]":
        def over(task: "asyncio.Task[None]") -> None:
            child.change = None
            child.failed = task.cancelled() or task.exception() is not None

        child.change = asyncio.create_task(change)
        child.change.add_done_callback(over)
        return child.change

    async def _load(self, child: Child) -> None:
        engine = self.engine
        async with self._moved:
            await self._moved.wait_for(lambda: not self._full() or self._idle())
            if self._full():
                victim = min(self._idle(), key=lambda other: other.used)
                with engine.operation("sleep", f"unload {victim.name}"):
                    await self._leave(victim)
            child.status = "loading"
        try:
            with engine.operation("wake", f"load {child.name}"):
                self._hold()
                await engine.spend(sum(engine.options.boot_s.values()))
                child.status = "loaded"
        finally:
            if child.status != "loaded":
                child.status = "unloaded"
                self._hold()
            async with self._moved:
                self._moved.notify_all()

    async def _unload(self, child: Child) -> None:
        with self.engine.operation("sleep", f"unload {child.name}"):
            async with self._moved:
                await self._moved.wait_for(lambda: not child.at_work)
                await self._leave(child)
                self._moved.notify_all()

    async def _leave(self, child: Child) -> None:
        await self.engine.spend(self.engine.knobs.sigterm_delay_s)
        child.status = "unloaded"
        self._hold()

    def _full(self) -> bool:
        most = self.engine.options.models_max
        return most > 0 and sum(child.status != "unloaded" for child in self.children.values()) >= most

    def _idle(self) -> list[Child]:
        return [
            child
            for child in self.children.values()
            if child.status == "loaded" and not child.at_work and child.change is None
        ]

    def _hold(self) -> None:
        held = sum(child.status != "unloaded" for child in self.children.values())
        self.engine.hold_gpu(held * self.engine.knobs.gpu_ready_gib)
