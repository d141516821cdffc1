"""What every second of a GPU went into, and who asked for those that were lost to swapping."""

from collections.abc import Iterable, Mapping, Sequence

from llmswap.core.fleet import ModelId
from llmswap.core.states import State
from llmswap.telemetry import names
from llmswap.telemetry.cells import Catalogue, Cell
from llmswap.telemetry.lives import Life, Swap
from llmswap.telemetry.names import NOBODY

ONLY_GPU = "0"  # what it is called as long as nobody knows of any
_MOVING = frozenset({State.STARTING, State.WAKING, State.STOPPING, State.SLEEP_PENDING})
_SERVING, _SWAPPING, _IDLE, _EMPTY = names.GPU_PHASES


class GpuPhases:
    """Keeps the time of each GPU. Of several things at once the first of serving, swapping, idle, empty counts.

    A model is taken to be on every GPU until it was seen to hold memory on some.

    Args:
        now_s: Monotonic time at which it begins.
    """

    def __init__(self, catalogue: Catalogue, now_s: float) -> None:
        self._phases = catalogue.family(names.GPU_PHASE)
        self._lost = catalogue.family(names.SWAP_LOST_BY_CALLER)
        self._gpus: dict[str, dict[str, Cell]] = {}
        self._now: dict[str, tuple[str, Swap | None]] = {}
        self._places: Mapping[ModelId, frozenset[str]] = {}
        self._active: list[Life] = []  # those that hold memory, or may
        self._at_s = now_s
        self.known((ONLY_GPU,))

    def configured(self, callers: Iterable[str]) -> None:
        """Have the cells of these classes of callers."""
        for caller in (*callers, names.OTHER_CALLER, NOBODY):
            self._lost.cell(caller)

    def known(self, gpus: Sequence[str], places: Mapping[ModelId, frozenset[str]] | None = None) -> None:
        """Take note of which GPUs there are, and which models are on which. None of them is ever forgotten."""
        for gpu in gpus or (ONLY_GPU,):
            if gpu not in self._gpus:
                self._gpus[gpu] = {phase: self._phases.cell(gpu, phase) for phase in names.GPU_PHASES}
                self._now[gpu] = _EMPTY, None
        self._places = self._places if places is None else places

    def moved(self, at_s: float, lives: Iterable[Life]) -> None:
        """Note the time up to now; from now on models stand elsewhere."""
        self._active = [life for life in lives if life.state in _MOVING or life.state is State.READY]
        self.turn(at_s)

    def turn(self, at_s: float) -> None:
        """Note the time up to now; from now on others of the same models may be busy."""
        passed_s = at_s - self._at_s
        if passed_s > 0:
            self._spend(passed_s)
            self._at_s = at_s
        for gpu in self._gpus:
            self._now[gpu] = _phase(
                [life for life in self._active if gpu in self._places.get(life.model.id, self._gpus)]
            )

    def _spend(self, passed_s: float) -> None:
        for gpu, (phase, swap) in self._now.items():
            self._gpus[gpu][phase].value += passed_s
            if phase is _SWAPPING:
                asked_by = None if swap is None else swap.asked_by
                self._lost.cell(NOBODY if asked_by is None else asked_by.caller_class).value += passed_s


def _phase(here: list[Life]) -> tuple[str, Swap | None]:
    for life in here:
        if life.in_flight and life.state is State.READY:
            return _SERVING, None
    moving = [life for life in here if life.state in _MOVING]
    if moving:
        swaps = [_swap_of(life) for life in moving]
        return _SWAPPING, min(
            (swap for swap in swaps if swap is not None), key=lambda swap: swap.decided_s, default=None
        )
    return (_IDLE if here else _EMPTY), None


def _swap_of(life: Life) -> Swap | None:
    """Give the swap that a model's move is part of; None if it moves for itself."""
    return life.swap if life.state in {State.STARTING, State.WAKING} else life.leaves_for
