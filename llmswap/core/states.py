"""The states of an upstream and the moves between them. Everything about legal moves lives in this file."""

from enum import StrEnum


class State(StrEnum):
    """Where an upstream's life stands. The strings are llama-swap's and appear in the API, metrics and journal."""

    STOPPED = "stopped"
    STARTING = "starting"
    READY = "ready"
    STOPPING = "stopping"
    FAILED = "failed"  # the last start failed; no memory is held; starts again when its backoff is over
    SHUTDOWN = "shutdown"  # final: llmswap is going down


TRANSITIONS: frozenset[tuple[State, State]] = frozenset(
    {
        (State.STOPPED, State.STARTING),
        (State.STOPPED, State.SHUTDOWN),
        (State.STARTING, State.READY),
        (State.STARTING, State.FAILED),
        (State.STARTING, State.STOPPING),
        (State.READY, State.STOPPING),
        (State.STOPPING, State.STOPPED),
        (State.STOPPING, State.SHUTDOWN),
        (State.FAILED, State.STARTING),
        (State.FAILED, State.STOPPED),
        (State.FAILED, State.SHUTDOWN),
    }
)

# States in which an upstream holds, or may hold, memory.
HOLDING: frozenset[State] = frozenset({State.STARTING, State.READY, State.STOPPING})


def move(old: State, new: State) -> State:
    """Return `new` if the table allows the move.

    Raises:
        AssertionError: The move is not in TRANSITIONS. That is a bug here, never bad input.
    """
    assert (old, new) in TRANSITIONS, f"illegal transition {old} -> {new}"
    return new
