"""Served models that can sleep, and whose sleeping and waking end when a test says so."""

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import dataclass, field, replace
from typing import Any

from llmswap.config.settings import AccessSettings, Launch, MemorySettings, Sleeping, SleepStep
from llmswap.core.commands import Sleep, Wake
from llmswap.core.events import SleepRequested, UpstreamAsleep, UpstreamReady
from llmswap.core.fleet import ModelId
from llmswap.core.step import Step
from tests.proxy.front import Answer, Front, ask, front, loaded, model

STEPS = Sleeping((SleepStep("/sleep?level=1"),), (SleepStep("/wake_up"),))


@dataclass
class Beds:
    """The upstreams' sleeping, which ends when a test says so; `quick` ends it at once and well.

    Attributes:
        orders: To sleep, as the scheduler got them.
    """

    served: Front
    quick: bool = True
    sleeping: list[Sleep] = field(default_factory=list)
    waking: list[Wake] = field(default_factory=list)
    orders: list[SleepRequested] = field(default_factory=list)

    def watch(self, step: Step) -> None:
        if isinstance(step.event, SleepRequested):
            self.orders.append(step.event)

    def _sleep(self, command: Sleep) -> None:
        self.sleeping.append(command)
        if self.quick:
            self.fall_asleep()

    def _wake(self, command: Wake) -> None:
        self.waking.append(command)
        if self.quick:
            self.rise()

    def fall_asleep(self) -> None:
        command = self.sleeping.pop()
        self.served.context.loop.post(UpstreamAsleep(command.model, command.generation))

    def rise(self) -> None:
        command = self.waking.pop()
        self.served.context.loop.post(UpstreamReady(command.model, command.generation))

    async def order(self, verb: str, name: str = "m1", **headers: str) -> Answer:
        return await ask(self.served, "POST", f"/api/models/{verb}/{name}", headers)

    def ordering(self, verb: str, name: str = "m1") -> "asyncio.Task[Answer]":
        return asyncio.create_task(self.order(verb, name))

    def busy(self) -> Any:
        """Give a request that is being served for as long as the block lasts."""
        return self.served.context.gate.enter(ModelId("m1"))


def sleepy(name: str = "m1", **sleeping: Any) -> Any:
    launch = Launch(ModelId(name), "x", "http://localhost:${PORT}", port=5800, sleeping=replace(STEPS, **sleeping))
    return model(name, launch=launch, aliases=(f"{name}-alias",))


@asynccontextmanager
async def beds(
    *models: Any,
    sleepers_max: int | None = None,
    quick: bool = True,
    access: AccessSettings | None = None,
    **tiers: float,
) -> AsyncIterator[Beds]:
    config = loaded(*(models or (sleepy(), sleepy("m2"), model("awake"))), memory=MemorySettings(cap_s=0.1))
    can = {one.id: one.launch.sleeping is not None for one in config.settings.models.values()}
    known = {name: replace(entry, sleeps=can[name], **tiers) for name, entry in config.fleet.models.items()}
    config = replace(config, fleet=replace(config.fleet, models=known, sleepers_max=sleepers_max))
    async with front(config, access) as served:
        made = Beds(served, quick)
        served.context.loop.observe(made.watch)
        served.context.loop.performs({Sleep: made._sleep, Wake: made._wake})
        for name in known:
            served.load(name)
        yield made
