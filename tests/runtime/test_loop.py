"""The run loop: one event at a time, observers before performers, a broken part is fatal."""

import asyncio
from collections.abc import Sequence
from typing import Any

from llmswap.core.commands import Command, Dispatch, Reject, RejectReason, Stop, StopCause
from llmswap.core.events import (
    DeadlineReached,
    DrainRequested,
    Event,
    Generation,
    RequestArrived,
    RequestCancelled,
    RequestFinished,
    RequestId,
)
from llmswap.core.fleet import ModelId
from llmswap.core.snapshot import Snapshot
from llmswap.core.step import Step
from llmswap.runtime.loop import RunLoop

ARRIVED = RequestArrived(RequestId(1), ModelId("m"))
CANCELLED = RequestCancelled(RequestId(1))
REJECT = Reject(RequestId(1), RejectReason.OVER_LIMIT, "full")


class Script:
    """A scheduler that answers from a script and keeps what it was asked."""

    def __init__(self, answers: dict[Event, Sequence[Command]] | None = None) -> None:
        self.answers = answers or {}
        self.seen: list[Event] = []
        self.deadline_s: float | None = None
        self.draining = False

    def handle(self, now_s: float, event: Event) -> Sequence[Command]:
        self.seen.append(event)
        if isinstance(event, DeadlineReached):
            self.deadline_s = None
        return self.answers.get(event, ())

    def next_deadline_s(self) -> float | None:
        return self.deadline_s

    def snapshot(self) -> Snapshot:
        return Snapshot(upstreams={}, swaps=(), draining=self.draining)

    def queue_position(self, request: RequestId) -> int | None:
        return None


def no_fatal(error: BaseException) -> None:
    raise error


async def test_observers_see_a_step_before_its_commands_are_performed() -> None:
    order: list[Any] = []
    loop = RunLoop(Script({ARRIVED: [REJECT]}), no_fatal)
    loop.performs({Reject: order.append})
    loop.observe(lambda step: order.append(step.event))

    loop.post(ARRIVED)

    assert order == [ARRIVED, REJECT]


async def test_an_event_posted_by_a_performer_is_taken_after_the_running_one() -> None:
    script = Script({ARRIVED: [REJECT, REJECT]})
    loop = RunLoop(script, no_fatal)
    seen_during: list[int] = []

    def perform(command: Reject) -> None:
        loop.post(CANCELLED)
        seen_during.append(len(script.seen))

    loop.performs({Reject: perform})
    loop.post(ARRIVED)

    assert seen_during == [1, 1]
    assert script.seen == [ARRIVED, CANCELLED, CANCELLED]


async def test_an_observer_that_raises_is_removed_and_the_rest_goes_on(caplog: Any) -> None:
    loop = RunLoop(Script(), no_fatal)
    seen: list[Step] = []

    def broken(step: Step) -> None:
        raise ValueError("observer bug")

    loop.observe(broken)
    loop.observe(seen.append)
    loop.post(ARRIVED)
    loop.post(CANCELLED)

    assert [step.event for step in seen] == [ARRIVED, CANCELLED]
    assert caplog.text.count("an observer raised and was removed") == 1


async def test_who_watches_upstreams_only_is_spared_steps_that_are_of_requests_and_nothing_else() -> None:
    dispatch = Dispatch(RequestId(1), ModelId("m"), Generation(1))
    stop = Stop(ModelId("m"), Generation(1), StopCause.SHUTDOWN, None)
    finished, arrived = RequestFinished(RequestId(1)), RequestArrived(RequestId(2), ModelId("n"))
    drain = DrainRequested(0.0)
    loop = RunLoop(Script({ARRIVED: [dispatch], finished: [REJECT, dispatch], arrived: [stop]}), no_fatal)
    loop.performs(dict.fromkeys((Dispatch, Reject, Stop), lambda _: None))
    of_all, of_upstreams = [], []
    loop.observe(lambda step: of_upstreams.append(step.event), requests=False)
    loop.observe(lambda step: of_all.append(step.event))

    for event in (ARRIVED, finished, CANCELLED, arrived, drain):
        loop.post(event)

    assert of_all == [ARRIVED, finished, CANCELLED, arrived, drain]
    assert of_upstreams == [arrived, drain]


async def test_a_scheduler_that_raises_is_fatal_once_and_later_events_are_dropped() -> None:
    script = Script()
    died: list[BaseException] = []
    loop = RunLoop(script, died.append)
    loop.performs({})
    script.answers = {ARRIVED: [REJECT]}  # nobody performs Reject: KeyError

    loop.post(ARRIVED)
    loop.post(CANCELLED)

    assert len(died) == 1
    assert isinstance(loop.dead, KeyError)
    assert script.seen == [ARRIVED]


async def test_a_deadline_comes_back_as_an_event() -> None:
    script = Script()
    loop = RunLoop(script, no_fatal)
    reached = asyncio.Event()
    loop.observe(lambda step: reached.set() if isinstance(step.event, DeadlineReached) else None)
    script.deadline_s = asyncio.get_running_loop().time() + 0.01

    loop.post(ARRIVED)
    await asyncio.wait_for(reached.wait(), 2)

    assert script.seen == [ARRIVED, DeadlineReached()]


async def test_wait_for_returns_when_a_step_makes_the_predicate_true() -> None:
    script = Script()
    loop = RunLoop(script, no_fatal)
    waiting = asyncio.ensure_future(loop.wait_for(lambda now: now.draining, 2))
    await asyncio.sleep(0)
    assert not waiting.done()

    script.draining = True
    loop.post(ARRIVED)

    assert await waiting is True


async def test_wait_for_gives_up_after_its_time() -> None:
    assert await RunLoop(Script(), no_fatal).wait_for(lambda now: now.draining, 0.01) is False


async def test_wait_for_ends_without_success_when_the_scheduler_fails() -> None:
    """Whoever waits must go on: it may be the one that stops all upstreams."""
    script = Script({ARRIVED: [REJECT]})
    loop = RunLoop(script, lambda error: None)
    waiting = asyncio.ensure_future(loop.wait_for(lambda now: now.draining, 2))
    await asyncio.sleep(0)

    loop.post(ARRIVED)  # nobody performs Reject

    assert await waiting is False
    assert await loop.wait_for(lambda now: now.draining, 2) is False
