"""What the fake was asked, in order: what tests assert against. Bounded; the oldest calls are forgotten first."""

from collections import deque
from dataclasses import asdict, dataclass

CALLS_MAX = 2000


@dataclass(slots=True)
class Call:
    """One request received.

    Attributes:
        at_s: Seconds since the process started.
        path: Raw path and query, as received.
        headers: Name and value of every header, in order, as received.
        peer: The client's port: which connection it came on.
        reused: The connection had served a call before.
        running: Requests running when it came.
        body_bytes: Bytes of body read.
        status: Of the response; None as long as there is none.
        outcome: open, done, client_gone, or cut (a fault ended it).
        tokens: Tokens sent.
    """

    at_s: float
    method: str
    path: str
    headers: list[tuple[str, str]]
    peer: int
    phase: str
    running: int
    seq: int = 0
    reused: bool = False
    body_bytes: int = 0
    status: int | None = None
    outcome: str = "open"
    tokens: int = 0
    ended_s: float | None = None


class Journal:
    """The last calls."""

    def __init__(self) -> None:
        self._calls: deque[Call] = deque(maxlen=CALLS_MAX)
        self.count = 0

    def note(self, call: Call) -> Call:
        """Add a call; it gets its number here."""
        self.count += 1
        call.seq = self.count
        call.reused = any(earlier.peer == call.peer for earlier in self._calls)
        self._calls.append(call)
        return call

    def clear(self) -> None:
        """Forget the calls; their numbers go on."""
        self._calls.clear()

    def show(self) -> dict[str, object]:
        """Give everything as JSON values."""
        return {"count": self.count, "calls": [asdict(call) for call in self._calls]}
