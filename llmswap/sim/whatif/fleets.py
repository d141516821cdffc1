"""The same models under another policy."""

from dataclasses import replace
from math import inf

from llmswap.core.fleet import Fleet, Scheduling

MAX_WAIT_S = 120.0
QUEUE_LIMIT = 1000


def under_fifo(fleet: Fleet) -> Fleet:
    """Put a fleet under llama-swap's rules."""
    return replace(fleet, scheduling=Scheduling.FIFO)


def under_fair(fleet: Fleet, *, max_wait_s: float | None = MAX_WAIT_S, hold_s: float | None = None) -> Fleet:
    """Put a fleet under `fair`.

    Args:
        fleet: What may run.
        max_wait_s: The bound; None for no bound.
        hold_s: For every model; None lets it be learnt.
    """
    bound_s = inf if max_wait_s is None else max_wait_s
    models = {
        model.id: replace(model, max_wait_s=bound_s, hold_s=hold_s, queue_limit=QUEUE_LIMIT)
        for model in fleet.models.values()
    }
    return replace(fleet, models=models, scheduling=Scheduling.FAIR)
