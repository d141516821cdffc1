"""Carries out Start, Stop, Sleep and Wake: one life per upstream, each in its own task; decides nothing."""

import asyncio
import logging
from collections.abc import Callable, Collection, Iterable, Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any

from llmswap.config.settings import Launch, MemorySettings
from llmswap.core.commands import Sleep, Start, Stop, StopCause, Wake
from llmswap.core.events import Event, Generation
from llmswap.core.fleet import ModelId
from llmswap.runtime.freeing import MemoryWatch, Unwatched
from llmswap.runtime.life import House, Life
from llmswap.runtime.logbook import LogBook
from llmswap.runtime.observing import PhaseObserver, StartEnviron
from llmswap.runtime.orphans import Registry
from llmswap.runtime.phases import untold
from llmswap.runtime.reaper import Reaper
from llmswap.runtime.tree import Proc

log = logging.getLogger(__name__)

# Killing takes milliseconds; what is still there after this will not go.
CLOSE_TIMEOUT_S = 5.0


class Supervisor:
    """Runs the upstreams.

    Args:
        launches: How to start each model.
        post: Takes the outcomes.
        instance: Unique to this life of llmswap; letters, digits, `-` and `_`.
        state_dir: Where to keep note of our processes for a next life; None for nowhere.
        watch: Measures memory; None if nobody does.
        memory: When memory is free again.
        on_fatal: Told if a life's task raises, which is a bug: its upstream's state is unknown then.
        phase: Told of what is done to upstreams.
        environ: Gives variables for a start beside the configured ones, which win. No restart is made for them.
    """

    def __init__(  # noqa: PLR0913
        self,
        launches: Mapping[ModelId, Launch],
        post: Callable[[Event], None],
        logs: LogBook,
        *,
        instance: str,
        state_dir: Path | None,
        watch: MemoryWatch | None = None,
        memory: MemorySettings | None = None,
        on_fatal: Callable[[BaseException], None] | None = None,
        phase: PhaseObserver = untold,
        environ: StartEnviron = lambda _model, _generation: {},
    ) -> None:
        self._launches = launches
        self._lives: dict[ModelId, Life] = {}
        self._held_before: dict[ModelId, tuple[Launch, int]] = {}  # the most, by who was launched so
        self._tasks: set[asyncio.Task[None]] = set()
        self._registry = Registry(state_dir, instance)
        self._reaper = Reaper(self._own_pids)
        self._on_fatal = on_fatal
        self._memory = memory or MemorySettings()
        self._house = House(
            post,
            logs,
            instance,
            self._reserved,
            self._record,
            self._over,
            watch or Unwatched(),
            lambda: self._memory,
            phase,
            environ,
        )

    def performers(self) -> dict[type[Any], Callable[[Any], None]]:
        """Give the performers for `RunLoop.performs`."""
        return {Start: self._start, Stop: self._stop, Sleep: self._sleep, Wake: self._wake}

    def configure(self, launches: Mapping[ModelId, Launch], memory: MemorySettings | None = None) -> None:
        """Start upstreams this way from now on; running ones keep theirs. Call before posting FleetReloaded.

        When memory counts as free again is the same for all of them, from now on; None leaves that as it was.
        """
        self._launches = launches
        self._memory = memory or self._memory

    def base_url(self, model: ModelId, generation: Generation) -> str:
        """Give the address of a ready upstream, without a trailing slash."""
        life = self._lives[model]
        assert life.generation == generation, f"{model}: generation {generation} is not running"
        return life.base_url

    def pid(self, model: ModelId) -> int | None:
        """Give the pid of a model's running leader."""
        life = self._lives.get(model)
        return None if life is None else life.pid

    async def reclaim_orphans(self) -> None:
        """Begin: adopt strays from now on, and end what an earlier llmswap of this state directory left running."""
        self._reaper.open()
        self._registry.open()
        ended = await self._registry.reclaim()
        if ended:
            log.warning("ended %d processes of an earlier llmswap", ended)

    async def close(self) -> None:
        """Kill whatever is left, for at most CLOSE_TIMEOUT_S."""
        for life in self._lives.values():
            life.stop(force=True)
        if self._tasks:
            await asyncio.wait(self._tasks, timeout=CLOSE_TIMEOUT_S)
        for task in self._tasks:
            task.cancel()
        await asyncio.gather(*self._tasks, return_exceptions=True)
        self._registry.close()
        self._reaper.close()

    def _start(self, command: Start) -> None:
        assert command.model not in self._lives, f"{command.model} is running already"
        launch = self._launches[command.model]
        like, most_bytes = self._held_before.get(command.model, (launch, 0))
        alike = replace(like, port=launch.port) == launch
        life = Life(launch, command.generation, self._house, most_bytes if alike else 0)
        self._lives[command.model] = life
        self._tasks.add(life.task)
        life.task.add_done_callback(self._done)

    def _stop(self, command: Stop) -> None:
        if life := self._meant(command):
            life.stop(force=command.force, last=command.cause is StopCause.SHUTDOWN)

    def _sleep(self, command: Sleep) -> None:
        if life := self._meant(command):
            life.sleep()

    def _wake(self, command: Wake) -> None:
        if life := self._meant(command):
            life.wake()

    def _meant(self, command: Stop | Sleep | Wake) -> Life | None:
        """Give the life that a command means; none if that is over, which its last event tells."""
        life = self._lives.get(command.model)
        return life if life is not None and life.generation == command.generation else None

    def _done(self, task: asyncio.Task[None]) -> None:
        self._tasks.discard(task)
        if not task.cancelled() and (error := task.exception()) is not None:
            log.critical("the task of %s failed", task.get_name(), exc_info=error)
            if self._on_fatal is not None:
                self._on_fatal(error)

    def _over(self, life: Life) -> None:
        del self._lives[life.model]
        if life.footprint.most_bytes:
            self._held_before[life.model] = life.launched, life.footprint.most_bytes
        self._registry.forget(life.tag)

    def _record(self, life: Life, members: Iterable[Proc]) -> None:
        self._registry.record(life.tag, life.port, members)

    def _reserved(self, asking: Life) -> Collection[int]:
        return {life.port for life in self._lives.values() if life is not asking and life.port is not None}

    def _own_pids(self) -> Collection[int]:
        return {pid for life in self._lives.values() for pid in life.children}
