"""Models: where each stands, how long it has been there, what it is known to need and whether that is free now."""

import time
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass

from llmswap.core.fleet import ModelId
from llmswap.core.snapshot import UpstreamView
from llmswap.core.states import State
from llmswap.runtime.footprints import Seen
from llmswap.runtime.gpu import Gpu
from llmswap.runtime.observing import Phase, PhaseKind
from llmswap.telemetry import names
from llmswap.telemetry.cells import Catalogue, Cell
from llmswap.telemetry.lives import Life, Residency
from llmswap.telemetry.model_facts import Facts

# As the help text of the code has them: a panel's colours depend on it.
CODES = dict(zip(State, map(float, range(len(State))), strict=True))


@dataclass(frozen=True, slots=True)
class _Board:
    """The cells of one model's state."""

    in_flight: Cell
    now: dict[State, Cell]
    code: Cell
    seconds: dict[State, Cell]
    used: Cell


class ModelMetrics:
    """Counts residencies and exits, and reads off states.

    Args:
        learned: Gives what each model was seen to hold in each state.
        gpus: Gives the GPUs as last seen; empty if nobody looks.
    """

    def __init__(
        self,
        catalogue: Catalogue,
        learned: Callable[[], Mapping[ModelId, Mapping[State, Seen]]],
        gpus: Callable[[], Sequence[Gpu]],
    ) -> None:
        self._learned = learned
        self._gpus = gpus
        self._info = catalogue.family(names.MODEL_INFO)
        self._in_flight = catalogue.family(names.IN_FLIGHT)
        self._state = catalogue.family(names.MODEL_STATE)
        self._code = catalogue.family(names.MODEL_STATE_CODE)
        self._seconds = catalogue.family(names.MODEL_STATE_SECONDS)
        self._used = catalogue.family(names.MODEL_LAST_USED)
        self._estimates = catalogue.family(names.MODEL_LOAD_ESTIMATE)
        self._exits = catalogue.family(names.MODEL_EXITS)
        self._checks = catalogue.family(names.HEALTH_CHECKS)
        self._residencies = catalogue.histogram(names.RESIDENCY)
        self._residency_requests = catalogue.histogram(names.RESIDENCY_REQUESTS)
        self._learned_gpu = catalogue.family(names.MODEL_LEARNED_GPU)
        self._learned_host = catalogue.family(names.MODEL_LEARNED_HOST)
        self._fits = catalogue.family(names.MODEL_FITS)
        self._headroom = catalogue.family(names.MODEL_FIT_HEADROOM)
        self._boards: dict[ModelId, _Board] = {}

    def configured(self, facts: Mapping[ModelId, Facts]) -> None:
        """Take over the models of a config; what is gone from it has been forgotten by the catalogue."""
        self._info.clear()
        for model, fact in facts.items():
            self._info.set(1.0, model, *fact)
            self._residencies.cell(model)
            self._residency_requests.cell(model)
            for reason in names.EXIT_REASONS:
                self._exits.cell(model, reason)
            for result in names.HEALTH_RESULTS:
                self._checks.cell(model, result)
        self._boards = {model: self._boards.get(model) or self._board(model) for model in facts}

    def _board(self, model: ModelId) -> _Board:
        return _Board(
            self._in_flight.cell(model),
            {state: self._state.cell(model, state) for state in State},
            self._code.cell(model),
            {state: self._seconds.cell(model, state) for state in State},
            self._used.cell(model),
        )

    def residency_over(self, model: ModelId, residency: Residency, at_s: float) -> None:
        """Count the end of a residency."""
        if model in self._boards:
            self._residencies.cell(model).observe(at_s - residency.began_s)
            self._residency_requests.cell(model).observe(residency.dispatched)

    def exited(self, model: ModelId, reason: str) -> None:
        """Count the end of an upstream."""
        if model in self._boards:
            self._exits.cell(model, reason).value += 1

    def phase(self, phase: Phase) -> None:
        """Count the probes of a wait for a good one: the last, if it came to that."""
        if phase.kind is PhaseKind.HEALTH_WAIT and phase.model in self._boards:
            good = int(bool(phase.probes) and not phase.error)
            self._checks.cell(phase.model, "ok").value += good
            self._checks.cell(phase.model, "fail").value += phase.probes - good

    def read(self, views: Iterable[UpstreamView], lives: Iterable[Life], now_s: float) -> None:
        """Read off states, and how long they lasted."""
        for view in views:
            board = self._boards.get(view.model)
            if board is not None:
                board.in_flight.value = view.in_flight
                board.code.value = CODES[view.state]
                for state, cell in board.now.items():
                    cell.value = float(state is view.state)
        wall_s = time.time() - now_s
        for life in lives:
            board = self._boards.get(life.model.id)
            if board is not None:
                for state, cell in board.seconds.items():
                    cell.value = life.spent_s(state, now_s)
                board.used.value = 0.0 if life.last_used_s is None else life.last_used_s + wall_s
                for kind, load_s in life.loads_s.items():
                    self._estimates.set(load_s, life.model.id, kind)

    def places(self) -> dict[ModelId, frozenset[str]]:
        """Tell which GPUs each model was seen on when it was ready, as far as it was."""
        labels = {gpu.uuid: gpu.label for gpu in self._gpus()}
        found = {}
        for model, states in self._learned().items():
            seen = states.get(State.READY)
            on = frozenset(labels[uuid] for uuid in (seen.by_gpu if seen else ()) if uuid in labels)
            if on:
                found[model] = on
        return found

    def read_fit(self) -> None:
        """Read off what models were seen to need, and what is free of it now."""
        gpus = {gpu.uuid: gpu for gpu in self._gpus()}
        for family in (self._learned_gpu, self._learned_host, self._fits, self._headroom):
            family.clear()
        for model, states in self._learned().items():
            if model not in self._boards:
                continue
            for state, seen in states.items():
                for uuid, most_bytes in seen.by_gpu_most.items():
                    label = gpus[uuid].label if uuid in gpus else uuid
                    self._learned_gpu.set(most_bytes, model, state, label)
                if seen.host_most_bytes is not None:
                    self._learned_host.set(seen.host_most_bytes, model, state)
            self._read_headroom(model, states.get(State.READY), states, gpus)

    def _read_headroom(
        self, model: ModelId, ready: Seen | None, states: Mapping[State, Seen], gpus: Mapping[str, Gpu]
    ) -> None:
        """Compare the free memory with what it lacks of it: all, or for one that is up nothing."""
        free = {
            uuid: gpu.total_bytes - gpu.used_bytes
            for uuid, gpu in gpus.items()
            if gpu.total_bytes is not None and gpu.used_bytes is not None
        }
        if ready is None or not ready.by_gpu_most or not ready.by_gpu_most.keys() <= free.keys():
            return
        held = self._held(model, states)
        rooms = {uuid: free[uuid] + held.get(uuid, 0) - most for uuid, most in ready.by_gpu_most.items()}
        self._fits.set(float(all(room >= 0 for room in rooms.values())), model)
        for uuid, room in rooms.items():
            self._headroom.set(room, model, gpus[uuid].label)

    def _held(self, model: ModelId, states: Mapping[State, Seen]) -> Mapping[str, int]:
        """Give what it holds itself now, which would not have to be free."""
        board = self._boards[model]
        for state in (State.READY, State.ASLEEP):
            if board.now[state].value and state in states:
                return states[state].by_gpu
        return {}
