"""I16 for the rest that sleepers keep: a start that lacked memory is not tried again beside those nobody needed."""

from collections.abc import Mapping

from llmswap.core import events as ev
from llmswap.core.fleet import ModelId
from llmswap.core.states import State
from llmswap.sim.fold import Fold, Life


class Residues:
    """Remembers, for each model whose start lacked memory and that is still wanted, who slept unwanted then."""

    def __init__(self) -> None:
        self._beside: dict[ModelId, dict[ModelId, int]] = {}

    def note(self, event: ev.Event, fold: Fold) -> None:
        """Take note of what happened, before what is decided on it."""
        if isinstance(event, ev.StartFailed) and event.out_of_memory and event.model in fold.lives:
            spare = {model: life.generation for model, life in fold.lives.items() if _is_spare(life)}
            self._beside.setdefault(event.model, spare)
        for model in tuple(self._beside):
            life = fold.lives.get(model)
            if life is None or not _is_wanted(life) or life.state is State.READY:
                del self._beside[model]
                continue
            lives, beside = fold.lives, self._beside[model]
            self._beside[model] = {other: known for other, known in beside.items() if _still(lives.get(other), known)}

    def left(self, model: ModelId, alive: Mapping[ModelId, ev.Generation]) -> list[ModelId]:
        """Name those who sleep on beside a model that is started after its start lacked memory."""
        beside = self._beside.get(model, {})
        return [other for other, generation in beside.items() if alive.get(other) == generation]


def _is_wanted(life: Life) -> bool:
    return bool(life.waiting) or life.load


def _is_spare(life: Life) -> bool:
    return life.state is State.ASLEEP and not _is_wanted(life)


def _still(life: Life | None, generation: int) -> bool:
    """Whether it is the same life, nobody has wanted it since, and it can be stopped."""
    return life is not None and life.generation == generation and not _is_wanted(life) and not life.stuck
