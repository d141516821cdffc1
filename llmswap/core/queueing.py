"""Who is next: one line per model, ordered among models by priority, then by age. Pure bookkeeping."""

from collections import OrderedDict
from collections.abc import Iterable
from typing import NamedTuple, Protocol

from llmswap.core.events import RequestId


class Waiter(NamedTuple):
    """A place in a line.

    Attributes:
        turn: Counts arrivals over all models; the smaller came first.
    """

    arrived_s: float
    turn: int


class Line:
    """Those who wait for one model, first come first served.

    Leaving from the middle costs as little as from the front, so no event's cost grows with the number waiting.
    """

    def __init__(self) -> None:
        self._waiters: OrderedDict[RequestId, Waiter] = OrderedDict()

    def __len__(self) -> int:
        return len(self._waiters)

    def join(self, request: RequestId, waiter: Waiter) -> None:
        """Stand at the end."""
        assert request not in self._waiters, f"request {request} waits twice"
        self._waiters[request] = waiter

    def leave(self, request: RequestId) -> None:
        """Step out of the line, wherever one stands."""
        del self._waiters[request]

    def pop(self) -> RequestId:
        """Take the first one out."""
        return self._waiters.popitem(last=False)[0]

    @property
    def first(self) -> Waiter | None:
        """Who is next."""
        return next(iter(self._waiters.values()), None)

    def before(self, turn: int) -> int:
        """Count those who came before that turn."""
        count = 0
        for waiter in self._waiters.values():
            if waiter.turn >= turn:
                break
            count += 1
        return count

    def turn_of(self, request: RequestId) -> int:
        """Give a waiting request's turn."""
        return self._waiters[request].turn


class Queued(Protocol):
    """What the order among models depends on."""

    line: Line

    @property
    def priority(self) -> int:
        """Higher goes first."""


def position(request: RequestId, own: Queued, others: Iterable[Queued]) -> int:
    """Give the 1-based place of a waiting request among all that wait."""
    turn = own.line.turn_of(request)
    ahead = own.line.before(turn)
    for other in others:
        if other.priority > own.priority:
            ahead += len(other.line)
        elif other.priority == own.priority:
            ahead += other.line.before(turn)
    return ahead + 1
