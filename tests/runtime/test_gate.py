"""The gate: whatever happens inside the block, the scheduler hears of its end exactly once."""

import asyncio
from collections.abc import Sequence

import pytest

from llmswap.core.commands import Command, Dispatch, Reject, RejectReason
from llmswap.core.events import (
    Event,
    Generation,
    RequestArrived,
    RequestCancelled,
    RequestFinished,
    RequestId,
    UpstreamReady,
)
from llmswap.core.fleet import ModelId
from llmswap.core.snapshot import Snapshot
from llmswap.runtime.gate import Gate, Refused
from llmswap.runtime.loop import RunLoop

MODEL = ModelId("m")
READY = UpstreamReady(MODEL, Generation(1))


class Holding:
    """A scheduler that answers arrivals at once, or holds them until READY."""

    def __init__(self, answer: str) -> None:
        self.answer = answer
        self.seen: list[Event] = []
        self.held: list[RequestId] = []

    def handle(self, now_s: float, event: Event) -> Sequence[Command]:
        self.seen.append(event)
        match event:
            case RequestArrived(request=request) if self.answer == "dispatch":
                return [Dispatch(request, MODEL, Generation(1))]
            case RequestArrived(request=request) if self.answer == "reject":
                return [Reject(request, RejectReason.OVER_LIMIT, "full", 1.0)]
            case RequestArrived(request=request):
                self.held.append(request)
            case UpstreamReady():
                return [Dispatch(request, MODEL, Generation(1)) for request in self.held]
        return []

    def next_deadline_s(self) -> float | None:
        return None

    def snapshot(self) -> Snapshot:
        return Snapshot(upstreams={}, swaps=(), draining=False)

    def queue_position(self, request: RequestId) -> int | None:
        return None


def gate_over(answer: str) -> tuple[Gate, Holding, RunLoop]:
    def no_fatal(error: BaseException) -> None:
        raise error

    scheduler = Holding(answer)
    loop = RunLoop(scheduler, no_fatal)
    return Gate(loop, lambda model, generation: f"http://{model}/{generation}"), scheduler, loop


async def test_a_dispatched_request_gets_its_lease_without_waiting_and_finishes_once() -> None:
    gate, scheduler, _ = gate_over("dispatch")

    with gate.enter(MODEL) as ticket:
        lease = await ticket.lease()
        assert (lease.base_url, gate.occupants) == ("http://m/1", 1)

    assert [type(event) for event in scheduler.seen] == [RequestArrived, RequestFinished]
    assert gate.occupants == 0


async def test_an_error_inside_the_block_still_finishes_the_request() -> None:
    gate, scheduler, _ = gate_over("dispatch")

    with pytest.raises(ZeroDivisionError), gate.enter(MODEL):
        raise ZeroDivisionError

    assert scheduler.seen[-1] == RequestFinished(RequestId(1))


async def test_a_refused_request_is_known_as_such_at_once_and_posts_nothing_more() -> None:
    gate, scheduler, _ = gate_over("reject")

    with gate.enter(MODEL) as ticket:
        assert ticket.refused is not None
        with pytest.raises(Refused, match="full"):
            await ticket.lease()

    assert [type(event) for event in scheduler.seen] == [RequestArrived]


async def test_a_client_that_leaves_while_waiting_cancels() -> None:
    gate, scheduler, _ = gate_over("hold")

    async def wait() -> None:
        with gate.enter(MODEL) as ticket:
            await ticket.lease()

    waiting = asyncio.ensure_future(wait())
    await asyncio.sleep(0)
    waiting.cancel()
    with pytest.raises(asyncio.CancelledError):
        await waiting

    assert [type(event) for event in scheduler.seen] == [RequestArrived, RequestCancelled]


async def test_a_client_that_leaves_in_the_moment_of_dispatch_finishes_instead_of_cancelling() -> None:
    gate, scheduler, loop = gate_over("hold")

    async def wait() -> None:
        with gate.enter(MODEL) as ticket:
            await ticket.lease()

    waiting = asyncio.ensure_future(wait())
    await asyncio.sleep(0)
    loop.post(READY)  # dispatched, but the task has not run yet
    waiting.cancel()
    with pytest.raises(asyncio.CancelledError):
        await waiting

    assert [type(event) for event in scheduler.seen] == [RequestArrived, UpstreamReady, RequestFinished]
