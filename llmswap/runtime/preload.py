"""Preload: which models are loaded at start, in which order, and how each fared. Decides nothing: it asks."""

import asyncio
import logging
import time
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from itertools import groupby

from llmswap.core.events import LoadRequested
from llmswap.core.eviction import LONERS
from llmswap.core.fleet import Fleet, Group, ModelId, Router
from llmswap.core.matrix import Matrix
from llmswap.core.snapshot import Snapshot
from llmswap.core.states import State
from llmswap.runtime.loop import RunLoop

log = logging.getLogger(__name__)

_COMING = frozenset({State.STARTING, State.WAKING})


@dataclass(frozen=True, slots=True)
class Batch:
    """Neighbours in the list that are loaded together.

    Attributes:
        at_once: In parallel; otherwise one after the other, because each would evict the one before.
    """

    models: tuple[ModelId, ...]
    at_once: bool


@dataclass(frozen=True, slots=True)
class Preloaded:
    """How it went for one model.

    Attributes:
        took_s: From the order to its end.
        failure: Why it is not ready; None if it is, as its readiness probe said.
    """

    model: ModelId
    took_s: float
    failure: str | None = None


def batches(models: Iterable[ModelId], fleet: Fleet) -> tuple[Batch, ...]:
    """Cut the list into batches, without changing its order.

    With groups, neighbours of one group are a batch: A1 A2 B1 A3 makes {A1 A2} {B1} {A3}. With a matrix, neighbours are
    one for as long as the matrix allows all of them together.
    """
    if fleet.router is Router.MATRIX:
        assert fleet.matrix is not None, "the matrix router needs a matrix"
        allows = Matrix(fleet.matrix, fleet.models).allows
        return tuple(Batch(run, at_once=True) for run in _runs(models, allows))
    groups = {model: group for group in fleet.groups for model in group.members}

    def group_of(model: ModelId) -> Group:
        return groups.get(model, LONERS)

    return tuple(Batch(tuple(run), at_once=not group.swap) for group, run in groupby(models, group_of))


def _runs(models: Iterable[ModelId], allows: Callable[[Sequence[ModelId]], bool]) -> Iterator[tuple[ModelId, ...]]:
    run: tuple[ModelId, ...] = ()
    for model in models:
        if run and not allows((*run, model)):
            yield run
            run = ()
        run = (*run, model)
    if run:
        yield run


class Preload:
    """Loads models at start, batch by batch.

    Args:
        models: Whom, in order.
        limits_s: How long to wait for each; after that the next batch begins, and it may still come up.

    Attributes:
        outcomes: How each fared, as they ended.
    """

    def __init__(
        self, loop: RunLoop, fleet: Fleet, models: Sequence[ModelId], limits_s: Mapping[ModelId, float]
    ) -> None:
        self._loop = loop
        self._batches = batches(models, fleet)
        self._count = len(models)
        self._limits_s = limits_s
        self.outcomes: list[Preloaded] = []

    async def run(self) -> None:
        """Load them all; one that fails holds up nobody."""
        for batch in self._batches:
            names = ", ".join(batch.models)
            log.info("preload: loading %s%s", names, " at once" if batch.at_once and len(batch.models) > 1 else "")
            if batch.at_once:
                async with asyncio.TaskGroup() as loading:
                    for model in batch.models:
                        loading.create_task(self._load(model))
            else:
                for model in batch.models:
                    await self._load(model)

    async def _load(self, model: ModelId) -> None:
        began_s = time.monotonic()
        self._loop.post(LoadRequested(model))
        limit_s = self._limits_s[model]
        in_time = await self._loop.wait_for(partial(_settled, model), limit_s)
        failure = _failure(model, self._loop.snapshot())
        if failure is not None and not in_time:
            failure = f"not ready after {limit_s:g} s: {failure}"
        self._tell(Preloaded(model, time.monotonic() - began_s, failure))

    def _tell(self, outcome: Preloaded) -> None:
        self.outcomes.append(outcome)
        place, took = f"{len(self.outcomes)}/{self._count}", f"{outcome.took_s:.1f} s"
        if outcome.failure is None:
            log.info("preload %s: %s ready in %s", place, outcome.model, took, extra={"preloaded": outcome})
        else:
            log.warning(
                "preload %s: %s failed after %s: %s",
                place,
                outcome.model,
                took,
                outcome.failure,
                extra={"preloaded": outcome},
            )


def _settled(model: ModelId, snapshot: Snapshot) -> bool:
    """Whether it is up, or nobody means to bring it up any more: failed, unloaded, removed, shut down."""
    view = snapshot.upstreams.get(model)
    return view is None or view.state is State.READY or not (view.wanted or view.state in _COMING)


def _failure(model: ModelId, snapshot: Snapshot) -> str | None:
    view = snapshot.upstreams.get(model)
    if view is None:
        return "it was removed from the config"
    return None if view.state is State.READY else view.failure or f"it is {view.state}"
