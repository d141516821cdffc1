"""Looks at the machine every two seconds, away from the event loop, and publishes what it saw as one frozen value."""

import asyncio
import logging
import re
import time
from collections import deque
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace

import psutil

from llmswap.config.settings import PerformanceSettings
from llmswap.core.fleet import ModelId
from llmswap.core.snapshot import Snapshot, UpstreamView
from llmswap.core.states import RESIDENT
from llmswap.runtime.attribution import attribute, unattributed
from llmswap.runtime.drivers import Drivers
from llmswap.runtime.gpu import Gpu, GpuWatch, Sample
from llmswap.runtime.load import Load, LoadMeter
from llmswap.runtime.machine import Machine, ModelUse, Polls
from llmswap.runtime.upkeep import CpuBook, Upkeep, look

log = logging.getLogger(__name__)

EVERY_S = 2.0
# llama-swap's, and how much of it is kept.
HISTORY_EVERY_S = 5.0
HISTORY_S = 3600.0


@dataclass(frozen=True, slots=True)
class Moment:
    """One sample of the history that `/api/performance` shows.

    Attributes:
        gpus: Those that could be read.
    """

    load: Load
    gpus: tuple[Gpu, ...]


class Sampler:
    """Samples GPUs, upstreams' processes and the host. What it cannot read is absent; it never raises.

    Args:
        drivers: Asked for vitals, too.
        leader: Gives the pid of a model's process; None if it has none.
        settings: Asked at each look, so that a reload can switch it off and on.
    """

    def __init__(
        self,
        drivers: Drivers,
        snapshot: Callable[[], Snapshot],
        leader: Callable[[ModelId], int | None],
        settings: Callable[[], PerformanceSettings] = PerformanceSettings,
    ) -> None:
        self._snapshot = snapshot
        self._leader = leader
        self._settings = settings
        self._xids = drivers.xids
        self._amd = drivers.amd
        self._watches = [drivers.gpus]
        self._amd_watch = GpuWatch(self._amd)
        if self._amd.present:
            self._watches.append(self._amd_watch)
        self._latest: Machine | None = None
        self._before: dict[str, int] = {}  # used bytes when no model was up
        self._cpu = CpuBook()
        self._meter: LoadMeter | None = None
        self._load_due_s = 0.0
        self._history: deque[Moment] = deque()
        self._said = ""

    def latest(self) -> Machine | None:
        """Give what was seen last; None before the first look, and while it is switched off."""
        return self._latest

    def gpus(self) -> tuple[Gpu, ...]:
        """Give the GPUs that can hold models, as seen last: instances, not what is cut into them."""
        machine = self._latest
        return () if machine is None else tuple(gpu for gpu in machine.gpus if not gpu.is_board)

    def history(self) -> tuple[Moment, ...]:
        """Give the last hour, the oldest first. A copy."""
        return tuple(self._history)

    async def run(self) -> None:
        """Look for ever. A look that fails is logged, and the next one is tried."""
        while True:
            began_s = time.monotonic()
            if self._settings().disabled:
                self._latest = self._meter = None
                self._history.clear()
            else:
                try:
                    await self.look()
                except Exception:
                    self._latest = None
                    log.exception("looking at the machine failed")
            await asyncio.sleep(max(0.1, began_s + EVERY_S - time.monotonic()))

    def close(self) -> None:
        """Let the threads end that it has begun."""
        self._amd_watch.close()
        if self._xids is not None:
            self._xids.close()

    async def look(self) -> None:
        """Look once, and publish it."""
        upstreams = self._snapshot().upstreams
        leaders = {model: pid for model in upstreams if (pid := self._leader(model)) is not None}
        trees, load = await asyncio.to_thread(self._look_at_host, leaders)
        self._amd.pids = frozenset(pid for tree in trees.values() for pid in tree.pids)
        samples = await asyncio.gather(*(watch.ask(full=True) for watch in self._watches))
        machine = await asyncio.to_thread(self._compose, upstreams, trees, samples, load)
        if self._settings().disabled:
            return
        if load is not None:
            self._remember(Moment(load, machine.gpus))
        if self._xids is not None and samples[0].gpus:
            self._xids.start()
        self._say(machine.problem)
        self._latest = machine

    def _look_at_host(self, leaders: Mapping[ModelId, int]) -> tuple[dict[ModelId, Upkeep], Load | None]:
        now_s = time.monotonic()
        load = None
        if self._meter is None:  # a CPU's share needs two looks
            self._meter, self._load_due_s = LoadMeter(), now_s + self._history_every_s()
        elif now_s >= self._load_due_s:
            load, self._load_due_s = self._meter.look(time.time()), now_s + self._history_every_s()
        return look(leaders), load

    def _compose(
        self,
        upstreams: Mapping[ModelId, UpstreamView],
        trees: Mapping[ModelId, Upkeep],
        samples: Sequence[Sample],
        load: Load | None,
    ) -> Machine:
        gpus = [gpu for sample in samples for gpu in sample.gpus if gpu.uuid]
        awake = [model for model, view in upstreams.items() if view.state in RESIDENT]
        if not awake and not trees:
            self._before |= {gpu.label: gpu.used_bytes for gpu in gpus if gpu.used_bytes is not None}
        for model, tree in trees.items():
            self._cpu.note(model, upstreams[model].generation, tree.cpu_s)
        self._cpu.keep(upstreams.keys())
        shares = attribute(gpus, trees, awake, self._before)
        models = {model: ModelUse(cpu_s=self._cpu.total_s(model)) for model in upstreams}
        for model, tree in trees.items():
            models[model] = replace(
                models[model], processes=len(tree.pids), host_bytes=tree.host_bytes, device=shares[model]
            )
        rest = {gpu.label: unattributed(gpu, shares) for gpu in gpus}
        last = self._latest or Machine(0.0)
        problem = _problem(samples)
        memory = psutil.virtual_memory()
        return Machine(
            at_s=time.monotonic(),
            gpus=(*gpus, *(board for sample in samples for board in sample.boards)),
            problem=problem,
            polled_at=last.polled_at if problem else time.time(),
            polls=self._polls(last.polls, samples),
            models=models,
            unattributed={label: used for label, used in rest.items() if used is not None},
            xids=None if self._xids is None else self._xids.seen(),
            memory_total_bytes=memory.total,
            memory_available_bytes=memory.available,
            load=load or last.load,
        )

    @staticmethod
    def _polls(polls: Polls, samples: Sequence[Sample]) -> Polls:
        """Count the poll, if there was anybody to ask."""
        asked = [sample.took_s for sample in samples if sample.driver]
        return polls.plus(max(asked)) if asked else polls

    def _history_every_s(self) -> float:
        return self._settings().every_s or HISTORY_EVERY_S

    def _remember(self, moment: Moment) -> None:
        self._history.append(moment)
        while len(self._history) > max(1, int(HISTORY_S / self._history_every_s())):
            self._history.popleft()

    def _say(self, problem: str) -> None:
        """Log why GPUs cannot be read when that begins, changes and ends: one line each."""
        said = re.sub(r"for \d+ s", "for some time", problem)
        if said and said != self._said:
            had_some = self._latest is not None and self._latest.gpus
            log.log(logging.WARNING if had_some else logging.INFO, "no GPU metrics: %s", said)
        elif self._said and not said:
            log.info("the GPUs can be read")
        self._said = said


def _problem(samples: Sequence[Sample]) -> str:
    """Say why a poll failed. A vendor whose driver is not there is no failure, unless that leaves nobody."""
    found = [sample.problem for sample in samples if sample.problem and sample.driver]
    found += [gpu.problem for sample in samples for gpu in sample.gpus if not gpu.uuid]
    if not found and not any(sample.gpus for sample in samples):
        found = [sample.problem for sample in samples]
    return "; ".join(filter(None, found))
