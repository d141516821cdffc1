"""The states of an upstream and the moves between them. Everything about legal moves lives in this file."""

from enum import StrEnum


class State(StrEnum):
    """Where an upstream's life stands. The strings are llama-swap's and appear in the API, metrics and journal."""

    STOPPED = "stopped"
    STARTING = "starting"
    READY = "ready"
    STOPPING = "stopping"
    SLEEP_PENDING = "sleepPending"  # on its way to sleep
    ASLEEP = "asleep"  # the process is there, its device memory is free
    WAKING = "waking"
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
        (State.READY, State.SLEEP_PENDING),
        (State.SLEEP_PENDING, State.ASLEEP),
        (State.SLEEP_PENDING, State.STOPPING),
        (State.ASLEEP, State.WAKING),
        (State.ASLEEP, State.STOPPING),
        (State.WAKING, State.READY),
        (State.WAKING, State.STOPPING),
        (State.STOPPING, State.STOPPED),
        (State.STOPPING, State.SHUTDOWN),
        (State.FAILED, State.STARTING),
        (State.FAILED, State.STOPPED),
        (State.FAILED, State.SHUTDOWN),
    }
)

# States in which an upstream holds, or may hold, device memory: it is resident.
RESIDENT: frozenset[State] = frozenset({State.STARTING, State.READY, State.STOPPING, State.SLEEP_PENDING, State.WAKING})
# States in which an upstream has, or may have, a process.
HOLDING: frozenset[State] = RESIDENT | {State.ASLEEP}


def move(old: State, new: State) -> State:
    """Return `new` if the table allows the move.

    Raises:
        AssertionError: The move is not in TRANSITIONS. That is a bug here, never bad input.
    """
    assert (old, new) in TRANSITIONS, f"illegal transition {old} -> {new}"
    return new
