"""Who is next: one line per model, ordered among models by priority, then by age. Pure bookkeeping."""

from collections import OrderedDict
from collections.abc import Iterable
from itertools import islice
from typing import NamedTuple, Protocol

from llmswap.core.events import RequestId, SwapClass


class Waiter(NamedTuple):
    """A place in a line.

    Attributes:
        turn: Counts arrivals over all models; the smaller came first.
    """

    arrived_s: float
    turn: int
    caller: str = ""


class Line:
    """Those who wait for one model, first come first served.

    Leaving from the middle costs as little as from the front, so no event's cost grows with the number waiting.

    Attributes:
        choosy: Those in it who shall not cause a swap, or only if nobody else is up, in the order of the line.
    """

    def __init__(self) -> None:
        self._waiters: OrderedDict[RequestId, Waiter] = OrderedDict()
        self.choosy: dict[RequestId, SwapClass] = {}

    def __len__(self) -> int:
        return len(self._waiters)

    def join(self, request: RequestId, waiter: Waiter, swap_class: SwapClass = SwapClass.MAY_SWAP) -> None:
        """Stand at the end."""
        assert request not in self._waiters, f"request {request} waits twice"
        self._waiters[request] = waiter
        if swap_class is not SwapClass.MAY_SWAP:
            self.choosy[request] = swap_class

    def leave(self, request: RequestId) -> Waiter:
        """Step out of the line, wherever one stands."""
        self.choosy.pop(request, None)
        return self._waiters.pop(request)

    def pop(self) -> tuple[RequestId, Waiter]:
        """Take the first one out."""
        request, waiter = self._waiters.popitem(last=False)
        self.choosy.pop(request, None)
        return request, waiter

    def head(self, count: int) -> list[tuple[RequestId, Waiter]]:
        """Show the first few."""
        return list(islice(self._waiters.items(), count))

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
