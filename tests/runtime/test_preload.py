"""Preload: what is loaded together, in which order, and that only a model that is verifiably up counts as loaded."""

import asyncio
import logging
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

import pytest

from llmswap.core.commands import Start, Stop
from llmswap.core.events import FleetReloaded, StartFailed, UnloadRequested, UpstreamReady, UpstreamStopped
from llmswap.core.fleet import Fleet, Group, MatrixRules, Model, ModelId, Router
from llmswap.core.scheduler import Scheduler
from llmswap.core.states import State
from llmswap.runtime.loop import RunLoop
from llmswap.runtime.preload import Batch, Preload, batches
from tests.runtime.rig import until


def ids(names: str) -> tuple[ModelId, ...]:
    return tuple(map(ModelId, names.split()))


def grouped(**groups: tuple[str, bool]) -> Fleet:
    """Give a fleet of groups: name -> members and whether they swap."""
    made = tuple(Group(name, ids(members), swap, exclusive=False) for name, (members, swap) in groups.items())
    models = {model: Model(model) for group in made for model in group.members}
    return Fleet(models, {str(model): model for model in models}, made)


def matrix(models: str, **sets: str) -> Fleet:
    known = {model: Model(model) for model in ids(models)}
    return Fleet(known, {str(model): model for model in known}, matrix=MatrixRules({}, sets), router=Router.MATRIX)


class Bench:
    """A scheduler whose starts end when a test says so."""

    def __init__(self, fleet: Fleet) -> None:
        self.loop = RunLoop(Scheduler(fleet), self._fatal)
        self.starting: dict[ModelId, Start] = {}
        self.order: list[str] = []
        self.loop.performs({Start: self._start, Stop: self._stop})

    @staticmethod
    def _fatal(error: BaseException) -> None:
        raise error

    def _start(self, command: Start) -> None:
        self.starting[command.model] = command
        self.order.append(command.model)

    def _stop(self, command: Stop) -> None:
        self.starting.pop(command.model, None)
        self.loop.post(UpstreamStopped(command.model, command.generation))

    def ready(self, *models: str) -> None:
        for model in ids(" ".join(models)):
            self.loop.post(UpstreamReady(model, self.starting.pop(model).generation))

    def fail(self, model: str, reason: str) -> None:
        self.loop.post(StartFailed(ModelId(model), self.starting.pop(ModelId(model)).generation, reason))

    async def begun(self, *models: str) -> None:
        """Wait until exactly these are being started."""
        await until(lambda: self.starting.keys() == set(models), f"{models} begin; {list(self.starting)} did")

    def state(self, model: str) -> State:
        return self.loop.snapshot().upstreams[ModelId(model)].state


@asynccontextmanager
async def preloading(fleet: Fleet, models: str, limit_s: float = 10.0) -> AsyncIterator[tuple[Bench, Preload]]:
    bench = Bench(fleet)
    preload = Preload(bench.loop, fleet, ids(models), dict.fromkeys(ids(models), limit_s))
    running = asyncio.create_task(preload.run())
    try:
        yield bench, preload
        await asyncio.wait_for(running, 5)
    finally:
        running.cancel()
        await asyncio.gather(running, return_exceptions=True)


def outcomes(preload: Preload) -> list[tuple[str, str | None]]:
    return [(str(outcome.model), outcome.failure) for outcome in preload.outcomes]


def cut(models: str, fleet: Fleet) -> list[tuple[str, bool]]:
    return [(" ".join(batch.models), batch.at_once) for batch in batches(ids(models), fleet)]


def test_only_neighbours_of_a_group_are_a_batch_and_the_order_is_kept() -> None:
    fleet = grouped(a=("A1 A2 A3", False), b=("B1", True))
    assert cut("A1 A2 B1 A3", fleet) == [("A1 A2", True), ("B1", False), ("A3", True)]
    assert batches((), fleet) == ()


def test_models_of_no_group_share_the_default_group_which_swaps() -> None:
    fleet = Fleet({model: Model(model) for model in ids("x y")}, {})
    assert batches(ids("x y"), fleet) == (Batch(ids("x y"), at_once=False),)


def test_with_a_matrix_neighbours_are_a_batch_as_long_as_all_of_them_may_live_together() -> None:
    fleet = matrix("a b c d", one="a & b", two="b & c & d")
    assert cut("a b c d", fleet) == [("a b", True), ("c d", True)]
    assert cut("a c b d", fleet) == [("a", True), ("c b d", True)]


async def test_a_batch_of_a_group_that_does_not_swap_loads_at_once_and_the_next_batch_after_it() -> None:
    async with preloading(grouped(a=("A1 A2 A3", False), b=("B1", True)), "A1 A2 B1 A3") as (bench, preload):
        await bench.begun("A1", "A2")
        bench.ready("A2")
        bench.ready("A1")
        await bench.begun("B1")
        bench.ready("B1")
        await bench.begun("A3")
        bench.ready("A3")
    assert outcomes(preload) == [("A2", None), ("A1", None), ("B1", None), ("A3", None)]


async def test_a_batch_of_a_swap_group_loads_one_by_one() -> None:
    async with preloading(grouped(a=("A1 A2", True)), "A1 A2") as (bench, preload):
        await bench.begun("A1")
        bench.ready("A1")
        await bench.begun("A2")
        bench.ready("A2")
    assert bench.order == ["A1", "A2"]
    assert outcomes(preload) == [("A1", None), ("A2", None)]
    assert bench.state("A1") is State.STOPPED


async def test_an_exclusive_batch_evicts_once_and_then_loads_at_once() -> None:
    groups = (Group("a", ids("A1 A2"), swap=False), Group("c", ids("C1 C2"), swap=False))
    fleet = Fleet({model: Model(model) for model in ids("A1 A2 C1 C2")}, {}, groups)
    async with preloading(fleet, "A1 A2 C1 C2") as (bench, preload):
        await bench.begun("A1", "A2")
        bench.ready("A1", "A2")
        await bench.begun("C1", "C2")
        bench.ready("C1", "C2")
    assert [failure for _, failure in outcomes(preload)] == [None] * 4
    assert (bench.state("A1"), bench.state("A2")) == (State.STOPPED, State.STOPPED)


async def test_a_model_that_fails_holds_up_nobody_and_its_reason_is_kept(caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level(logging.INFO, "llmswap.runtime.preload")
    async with preloading(grouped(a=("A1 A2", False), b=("B1", True)), "A1 A2 B1") as (bench, preload):
        await bench.begun("A1", "A2")
        bench.fail("A1", "exited with code 1 during start")
        assert bench.starting.keys() == {"A2"}
        bench.ready("A2")
        await bench.begun("B1")
        bench.ready("B1")
    assert outcomes(preload) == [("A1", "exited with code 1 during start"), ("A2", None), ("B1", None)]
    lines = [record.getMessage() for record in caplog.records]
    assert lines[0] == "preload: loading A1, A2 at once"
    assert lines[1].startswith("preload 1/3: A1 failed after ")
    assert lines[1].endswith(" s: exited with code 1 during start")
    assert lines[2].startswith("preload 2/3: A2 ready in ")
    assert [vars(record)["preloaded"] for record in caplog.records if "preloaded" in vars(record)] == preload.outcomes


async def test_a_start_that_never_ends_is_waited_for_no_longer_than_its_limit() -> None:
    async with preloading(grouped(a=("A1", False), b=("B1", True)), "A1 B1", limit_s=0.1) as (bench, preload):
        await bench.begun("A1", "B1")
        bench.ready("B1")
    assert outcomes(preload) == [("A1", "not ready after 0.1 s: it is starting"), ("B1", None)]


async def test_who_is_unloaded_or_removed_meanwhile_is_no_longer_waited_for() -> None:
    fleet = grouped(a=("A1 A2", False))
    async with preloading(fleet, "A1 A2") as (bench, preload):
        await bench.begun("A1", "A2")
        bench.loop.post(UnloadRequested(ids("A1")))
        bench.loop.post(FleetReloaded(grouped(a=("A1", False))))
    assert outcomes(preload) == [("A1", "it is stopped"), ("A2", "it was removed from the config")]


async def test_a_model_that_is_up_already_counts_at_once() -> None:
    fleet = grouped(a=("A1", False))
    bench = Bench(fleet)
    for _ in range(2):
        preload = Preload(bench.loop, fleet, ids("A1"), {ModelId("A1"): 5.0})
        running = asyncio.create_task(preload.run())
        if bench.state("A1") is not State.READY:
            await bench.begun("A1")
            bench.ready("A1")
        await asyncio.wait_for(running, 5)
        assert outcomes(preload) == [("A1", None)]
    assert bench.order == ["A1"]
