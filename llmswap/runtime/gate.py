"""Requests at the gate: each gets one place in the scheduler's books and gives it back exactly once.

The data plane asks once (`enter`), waits for its lease, moves bytes, and leaves the `with` block. Whatever happens
inside, leaving posts exactly one RequestCancelled or RequestFinished.
"""

import asyncio
import itertools
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass

from llmswap.core.commands import Dispatch, Reject, RejectReason
from llmswap.core.events import Generation, RequestArrived, RequestCancelled, RequestFinished, RequestId, SwapClass
from llmswap.core.fleet import ModelId
from llmswap.core.states import State
from llmswap.runtime.loop import RunLoop

_ADDRESSED = frozenset({State.READY, State.SLEEP_PENDING, State.ASLEEP, State.WAKING})


class Refused(Exception):
    """The scheduler refused the request; `reject` says why."""

    def __init__(self, reject: Reject) -> None:
        super().__init__(reject.detail)
        self.reject = reject


@dataclass(frozen=True, slots=True)
class Lease:
    """The right to use one upstream for one request, until the `with` block of its ticket is left.

    Attributes:
        base_url: Where the upstream listens, without a trailing slash.
        model: Who serves: the model that was asked for, or one of its substitutes.
        waited_s: From arrival to dispatch.
        swap_s: How long of that a swap to the model was under way; None if it was up when the request came.
    """

    request: RequestId
    model: ModelId
    generation: Generation
    base_url: str
    waited_s: float
    swap_s: float | None = None


class Ticket:
    """A request's place: waiting, refused, or dispatched."""

    def __init__(self, request: RequestId, model: ModelId) -> None:
        self.request = request
        self.model = model
        self.arrived_s = time.monotonic()
        self.dispatched = False
        self._answer: Lease | Reject | None = None
        self._future: asyncio.Future[None] | None = None

    @property
    def waiting(self) -> bool:
        """Whether the scheduler has not answered yet."""
        return self._answer is None

    @property
    def refused(self) -> Reject | None:
        """The refusal, if that was the answer."""
        return self._answer if isinstance(self._answer, Reject) else None

    def settle(self, answer: Lease | Reject) -> None:
        """Take the scheduler's answer. Called by the gate, once."""
        assert self._answer is None, f"request {self.request} was answered twice"
        self._answer = answer
        self.dispatched = isinstance(answer, Lease)
        if self._future is not None and not self._future.done():
            self._future.set_result(None)

    async def lease(self) -> Lease:
        """Wait for the answer. Bounded by the scheduler's queue timeout.

        Raises:
            Refused: The scheduler said no.
        """
        if self._answer is None:
            self._future = asyncio.get_running_loop().create_future()
            await self._future
        assert self._answer is not None
        if isinstance(self._answer, Reject):
            raise Refused(self._answer)
        return self._answer


class Gate:
    """Performs Dispatch and Reject.

    Args:
        base_url: Gives the address of a model's upstream of that generation.
    """

    def __init__(self, loop: RunLoop, base_url: Callable[[ModelId, Generation], str]) -> None:
        self._loop = loop
        self._base_url = base_url
        self._numbers = itertools.count(1)
        self._tickets: dict[RequestId, Ticket] = {}
        self._closed = ""
        loop.performs({Dispatch: self._dispatch, Reject: self._reject})

    @property
    def occupants(self) -> int:
        """How many requests are inside: waiting or being served."""
        return len(self._tickets)

    @contextmanager
    def enter(self, model: ModelId, caller: str = "", swap_class: SwapClass = SwapClass.MAY_SWAP) -> Iterator[Ticket]:
        """Bring a caller's request for a model to the scheduler, for as long as the block lasts."""
        ticket = Ticket(RequestId(next(self._numbers)), model)
        self._tickets[ticket.request] = ticket
        self._loop.post(RequestArrived(ticket.request, model, caller, swap_class))
        if self._closed:
            self._turn_away(ticket)
        try:
            yield ticket
        finally:
            del self._tickets[ticket.request]
            if ticket.dispatched:
                self._loop.post(RequestFinished(ticket.request))
            elif ticket.waiting:
                self._loop.post(RequestCancelled(ticket.request))

    def close(self, why: str) -> None:
        """Refuse everybody who waits, and whoever comes: there is no scheduler any more that would."""
        self._closed = why
        for ticket in self._tickets.values():
            self._turn_away(ticket)

    def _turn_away(self, ticket: Ticket) -> None:
        if ticket.waiting:
            ticket.settle(Reject(ticket.request, RejectReason.DRAINING, self._closed))

    def ready_url(self, model: ModelId) -> str | None:
        """Give the address of a model that is ready at this moment, with no lease; None if it is not.

        For what deliberately counts for nothing: the upstream may be stopped under it at any time.
        """
        view = self._loop.snapshot().upstreams.get(model)
        return self._base_url(model, view.generation) if view and view.state is State.READY else None

    def shown_url(self, model: ModelId) -> str | None:
        """Give the address of a model that is up, awake or not, to be read by people: nothing may be sent there."""
        view = self._loop.snapshot().upstreams.get(model)
        return self._base_url(model, view.generation) if view and view.state in _ADDRESSED else None

    def _dispatch(self, command: Dispatch) -> None:
        ticket = self._tickets[command.request]
        url = self._base_url(command.model, command.generation)
        waited_s = time.monotonic() - ticket.arrived_s
        ticket.settle(Lease(command.request, command.model, command.generation, url, waited_s, command.swap_s))

    def _reject(self, command: Reject) -> None:
        self._tickets[command.request].settle(command)
