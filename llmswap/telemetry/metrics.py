"""Prometheus metrics: folded from Steps and requests, read off scheduler and machine, written out when asked for."""

import asyncio
import logging
import time
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, field

from prometheus_client import CollectorRegistry, ProcessCollector
from prometheus_client.exposition import CONTENT_TYPE_PLAIN_0_0_4, choose_encoder, generate_latest
from prometheus_client.openmetrics import exposition as openmetrics_text

from llmswap.config.settings import Loaded
from llmswap.core.events import RequestId
from llmswap.core.fleet import ModelId
from llmswap.core.snapshot import Snapshot
from llmswap.core.states import State
from llmswap.core.step import Step
from llmswap.runtime.footprints import Seen
from llmswap.runtime.gpu import Gpu
from llmswap.runtime.observing import HeaderFields, Phase, RequestRecord
from llmswap.telemetry import exposition
from llmswap.telemetry.cells import Catalogue, Columns, Frozen
from llmswap.telemetry.fold import Counts, Fold
from llmswap.telemetry.gpu_phases import GpuPhases
from llmswap.telemetry.lives import Life, Waiter
from llmswap.telemetry.model_facts import Facts, facts_of
from llmswap.telemetry.model_metrics import ModelMetrics
from llmswap.telemetry.names import COLD, WAKE1, WAKE2
from llmswap.telemetry.proxy_metrics import Losses, ProxyMetrics
from llmswap.telemetry.queue_metrics import QueueMetrics
from llmswap.telemetry.request_metrics import RequestMetrics
from llmswap.telemetry.swap_metrics import SwapMetrics

log = logging.getLogger(__name__)

# An exposition is given out again for so many times what it took to make, and no longer than that: scraping, however
# often, takes a twentieth of one core at most.
CACHE_TIMES = 20.0
CACHE_MAX_S = 1.0
SLICE_S = 0.00025  # a small answer takes a few turns of the event loop, and each may wait for so much
COMPLAIN_EVERY_S = 60.0
OPENMETRICS_TYPE = "application/openmetrics-text; version=1.0.0; charset=utf-8"
_MODEL_LABELS = ("model", "to_model", "from_model")


@dataclass(frozen=True, slots=True)
class Sources:
    """Who is asked at a scrape, on the event loop: each must answer at once.

    Attributes:
        learned: What each model was seen to hold in each state.
        gpus: The GPUs as last seen.
        hardware: More families, of the machine.
        losses: What did not get where it should.
        swap_trace: The trace of the last swap to a model; empty if there is none.
    """

    learned: Callable[[], Mapping[ModelId, Mapping[State, Seen]]] = dict
    gpus: Callable[[], Sequence[Gpu]] = tuple
    hardware: Callable[[], Iterable[Frozen]] = tuple
    losses: Losses = field(default_factory=Losses)
    swap_trace: Callable[[ModelId], str] = lambda _: ""


@dataclass(frozen=True, slots=True)
class _Written:
    """An exposition, and when it is too old."""

    body: bytes
    until_s: float


class Metrics:
    """An Observer of Steps, a RequestObserver and a PhaseObserver that counts, and the exposition of what it counted.

    Args:
        loaded: The config in force.
        snapshot: Gives the scheduler's picture; asked at each scrape.
        sources: Who else is.
        callers: Classes of callers beside `_other`: those with a configured key.
        clock: Monotonic time, that of Steps.
    """

    def __init__(
        self,
        loaded: Loaded,
        snapshot: Callable[[], Snapshot],
        sources: Sources | None = None,
        callers: Iterable[str] = (),
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        self._snapshot = snapshot
        self._sources = sources = sources or Sources()
        self._clock = clock
        now_s = clock()
        self._catalogue = catalogue = Catalogue()
        self._requests = RequestMetrics(catalogue, self.life, clock)
        self._queue = QueueMetrics(catalogue)
        self._swaps = SwapMetrics(catalogue, sources.swap_trace)
        self._models = ModelMetrics(catalogue, sources.learned, sources.gpus)
        self._phases = GpuPhases(catalogue, now_s)
        self._proxy = ProxyMetrics(catalogue, sources.losses)
        self._facts: Mapping[ModelId, Facts] = {}
        counts = Counts(self._queue, self._swaps, self._models)
        self._fold = Fold(loaded.fleet, now_s, self._kind_of_wake, counts)
        self._complained_s = -COMPLAIN_EVERY_S
        self._process = CollectorRegistry()
        ProcessCollector(registry=self._process)
        self._written: dict[bool, _Written] = {}
        self._writing: dict[bool, asyncio.Future[bytes]] = {}
        self.configured(loaded, callers)

    def configured(self, loaded: Loaded, callers: Iterable[str] = ()) -> None:
        """Take note of a good config: children at 0 for its models, those of removed models dropped."""
        fleet, callers = loaded.fleet, tuple(callers)
        for model in self._facts.keys() - fleet.models.keys():
            self._catalogue.forget(model, _MODEL_LABELS)
        facts = facts_of({model: loaded.settings.models.get(model) for model in fleet.models})
        self._facts = facts
        kinds = {
            model.id: (COLD, self._kind_of_wake(model.id)) if model.sleeps else (COLD,)
            for model in fleet.models.values()
        }
        self._queue.configured(fleet)
        self._swaps.configured(fleet, kinds, callers)
        self._phases.configured(callers)
        self._models.configured(facts)
        self._requests.configured(kinds)
        self._proxy.configured(len(fleet.models))

    def config_rejected(self) -> None:
        """Take note that a reload failed and the old config serves on."""
        self._proxy.config_rejected()

    def life(self, model: ModelId) -> Life | None:
        """Give what is remembered of a model (History)."""
        return self._fold.lives.get(model)

    def waiter(self, request: RequestId) -> Waiter | None:
        """Give who is in line (History)."""
        return self._fold.waiter(request)

    def _kind_of_wake(self, model: ModelId) -> str:
        facts = self._facts.get(model)
        return WAKE2 if facts is not None and facts.sleep_level == "2" else WAKE1

    # Watching ---------------------------------------------------------------------------------------------------------

    def __call__(self, step: Step) -> None:
        """Fold one step. One that cannot be understood is logged and counted; what follows is counted all the same."""
        try:
            self._fold.step(step)
        except Exception as error:  # noqa: BLE001  to be removed as an observer would end all metrics
            self._failed("a step", error)
            self._fold.trust(self._snapshot().upstreams.values(), step.at_s)
        fold = self._fold
        if fold.moved:
            fold.moved = fold.turned = False
            self._phases.moved(step.at_s, fold.lives.values())
        elif fold.turned:
            fold.turned = False
            self._phases.turn(step.at_s)

    def _failed(self, what: str, error: Exception) -> None:
        self._proxy.errors.value += 1
        now_s = time.monotonic()
        if now_s - self._complained_s >= COMPLAIN_EVERY_S:
            self._complained_s = now_s
            pause_s = COMPLAIN_EVERY_S
            log.error("metrics could not count %s; not said again for %g s", what, pause_s, exc_info=error)

    def waits(self, record: RequestRecord) -> None:
        """Learn who it is that waits."""
        waiter = None if record.request is None else self.waiter(record.request)
        if waiter is not None:
            waiter.caller_class, waiter.trace_id = record.caller_class, record.trace_id

    def sends(self, record: RequestRecord) -> HeaderFields:
        """Give nothing to send."""
        del record
        return ()

    def ended(self, record: RequestRecord) -> None:
        """Count a request."""
        try:
            self._requests.ended(record)
        except Exception as error:  # noqa: BLE001  the next one may be another matter
            self._failed("a request", error)

    def phase(self, phase: Phase) -> None:
        """Count what was done to an upstream."""
        self._models.phase(phase)
        self._swaps.phase(phase, self._fold.lives.get(phase.model))

    async def watch_the_loop(self) -> None:
        """Measure for ever how late the event loop runs what is due."""
        await self._proxy.watch_the_loop()

    # Exposition -------------------------------------------------------------------------------------------------------

    def freeze(self) -> list[Frozen | Columns]:
        """Give every family as of now. For the event loop's thread only."""
        now_s, snapshot = self._clock(), self._snapshot()
        views = snapshot.upstreams.values()
        lives = self._fold.lives
        self._phases.turn(now_s)
        self._phases.known([gpu.label for gpu in self._sources.gpus()], self._models.places())
        self._queue.read(views, now_s)
        self._swaps.read(snapshot.swaps, now_s)
        self._models.read(views, lives.values(), now_s)
        self._models.read_fit()
        self._requests.read(self._facts)
        self._proxy.read()
        return [*self._catalogue.freeze(), *self._sources.hardware()]

    async def render(self, accept: str = "") -> tuple[bytes, str]:
        """Give the exposition: body, content type (OpenMetrics if `accept` asks for it).

        Scrapes at the same time share one, and so do those that come soon after it.
        """
        openmetrics = choose_encoder(accept)[1].startswith("application/openmetrics-text")
        written = self._written.get(openmetrics)
        if written is None or written.until_s <= time.monotonic():
            writing = self._writing.get(openmetrics)
            if writing is None:
                writing = self._writing[openmetrics] = asyncio.ensure_future(self._write(openmetrics=openmetrics))
                writing.add_done_callback(lambda _: self._writing.pop(openmetrics))
            body = await asyncio.shield(writing)
        else:
            body = written.body
        return body, OPENMETRICS_TYPE if openmetrics else CONTENT_TYPE_PLAIN_0_0_4

    async def _write(self, *, openmetrics: bool) -> bytes:
        """Write on the event loop, SLICE_S at a time: a thread would have the interpreter to itself for longer."""
        began_s = turn_s = time.monotonic()
        text, longest_s = [], 0.0
        for piece in exposition.pieces(self.freeze(), openmetrics=openmetrics):
            text.append(piece)
            held_s = time.monotonic() - turn_s
            if held_s >= SLICE_S:
                longest_s = max(longest_s, held_s)
                await asyncio.sleep(0)
                turn_s = time.monotonic()
        encode = openmetrics_text.generate_latest if openmetrics else generate_latest
        body = "".join(text).encode() + encode(self._process)
        now_s = time.monotonic()
        self._proxy.holds.observe(max(longest_s, now_s - turn_s))
        self._proxy.renders.observe(now_s - began_s)
        keep_s = min(CACHE_MAX_S, CACHE_TIMES * (now_s - began_s))
        self._written[openmetrics] = _Written(body, began_s + keep_s)
        return body
