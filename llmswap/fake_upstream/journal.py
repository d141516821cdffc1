"""What the fake was asked, and what its engine went through, in order: what tests assert against.

Bounded; the oldest are forgotten first. All times are seconds since the process started; `born_s` is when that was, on
the machine's monotonic clock, so that the journals of several fakes can be laid side by side.
"""

from collections import deque
from dataclasses import asdict, dataclass

CALLS_MAX = 2000
OPERATIONS_MAX = 1000
AWAKE = ("booting", "ready")


@dataclass(slots=True)
class Call:
    """One request received.

    Attributes:
        at_s: When it came.
        path: Raw path and query, as received.
        headers: Name and value of every header, in order, as received.
        peer: The client's port: which connection it came on.
        reused: The connection had served a call before.
        phase: Of the engine when it came.
        running, waiting: Requests at work and queued when it came; `waiting` counts those parked by a sleep, too.
        handed: Phase of the engine when the request was handed to it, after its body was read; empty if it never was.
        asleep: It is work for the engine and found it neither ready nor booting, when it came or was handed over.
        body_bytes: Bytes of body read.
        status: Of the response; None as long as there is none.
        outcome: open, done, client_gone, or cut (a fault ended it).
        tokens: Tokens sent.
        first_s: When the first of them was made; None before, and for what makes none.
    """

    at_s: float
    method: str
    path: str
    headers: list[tuple[str, str]]
    peer: int
    phase: str
    running: int
    waiting: int = 0
    seq: int = 0
    reused: bool = False
    handed: str = ""
    asleep: bool = False
    body_bytes: int = 0
    status: int | None = None
    outcome: str = "open"
    tokens: int = 0
    first_s: float | None = None
    ended_s: float | None = None


@dataclass(slots=True)
class Operation:
    """One change of the engine's life, as the engine saw it.

    Attributes:
        kind: boot, sleep, wake, reload, pause, resume, release_kv_cache_memory.
        detail: Level and mode, or tags.
        began_s, ended_s: When; `ended_s` is None while it runs.
        quiet_s: How long of that it waited for requests in flight to end.
        running, waiting: Requests at work and queued when it began.
        gpu_before_gib, gpu_after_gib: Held on each GPU.
        result: Empty while it runs, then ok, or why not.
    """

    kind: str
    detail: str
    began_s: float
    running: int
    waiting: int
    gpu_before_gib: float
    ended_s: float | None = None
    quiet_s: float = 0.0
    gpu_after_gib: float = 0.0
    result: str = ""


class Journal:
    """The last calls and operations.

    Attributes:
        count: Calls ever.
        asleep_requests: Calls with `asleep`, ever. A proxy that never sends to a sleeping engine leaves this at 0.
    """

    def __init__(self, born_s: float = 0.0) -> None:
        self._calls: deque[Call] = deque(maxlen=CALLS_MAX)
        self._operations: deque[Operation] = deque(maxlen=OPERATIONS_MAX)
        self.born_s = born_s
        self.count = 0
        self.asleep_requests = 0

    def note(self, call: Call) -> Call:
        """Add a call; it gets its number here."""
        self.count += 1
        call.seq = self.count
        call.reused = any(earlier.peer == call.peer for earlier in self._calls)
        self._calls.append(call)
        return call

    def hand(self, call: Call, phase: str) -> None:
        """Note that a call is work for the engine, and which phase that is in now."""
        call.handed = phase
        if not call.asleep and (call.phase not in AWAKE or phase not in AWAKE):
            call.asleep = True
            self.asleep_requests += 1

    def begin(self, operation: Operation) -> Operation:
        """Add an operation that begins."""
        self._operations.append(operation)
        return operation

    def under_way(self, kind: str) -> int:
        """Count the operations of a kind that have begun and not ended."""
        return sum(operation.kind == kind and operation.ended_s is None for operation in self._operations)

    def clear(self) -> None:
        """Forget everything but the numbering of calls."""
        self._calls.clear()
        self._operations.clear()
        self.asleep_requests = 0

    def show(self) -> dict[str, object]:
        """Give everything as JSON values."""
        return {
            "born_s": self.born_s,
            "count": self.count,
            "asleep_requests": self.asleep_requests,
            "calls": [asdict(call) for call in self._calls],
            "operations": [asdict(operation) for operation in self._operations],
        }
