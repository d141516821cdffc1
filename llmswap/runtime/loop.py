"""The run loop: the scheduler's only caller in production, and the only place that reads the clock for it.

`post` runs to completion: the event is handled, the Step published, its commands performed, and only then the next
event taken. There is no task and no queue to fall behind; performers must not block and must not raise.
"""

import asyncio
import logging
import time
from collections import deque
from collections.abc import Callable, Mapping, Sequence
from typing import Any, Protocol

from llmswap.core.commands import Command, Dispatch, Reject
from llmswap.core.events import (
    DeadlineReached,
    Event,
    RequestArrived,
    RequestCancelled,
    RequestFinished,
    RequestId,
)
from llmswap.core.explanation import Decision, Wait
from llmswap.core.snapshot import Snapshot
from llmswap.core.step import Observer, Step

log = logging.getLogger(__name__)

_OF_REQUESTS = frozenset((RequestArrived, RequestCancelled, RequestFinished))
_TO_REQUESTS = frozenset((Dispatch, Reject))

Perform = Callable[[Any], None]


class Decider(Protocol):
    """What the loop needs of a scheduler."""

    def handle(self, now_s: float, event: Event) -> Sequence[Command]:
        """Take an event, return the commands that follow."""

    def next_deadline_s(self) -> float | None:
        """When to come back with DeadlineReached if nothing else happens."""

    def snapshot(self) -> Snapshot:
        """Give a frozen picture."""

    def queue_position(self, request: RequestId) -> int | None:
        """Give the 1-based place of a waiting request over the whole queue."""

    def waits(self, requests_each: int) -> tuple[Wait, ...]:
        """Say for every model that is waited for why, and show up to so many of those who wait."""

    def decisions(self) -> tuple[Decision, ...]:
        """Give the last decisions, the oldest first."""


class RunLoop:
    """Feeds events to the scheduler and commands to their performers.

    Args:
        scheduler: Decides.
        on_fatal: Called once if the scheduler, or a performer, raises: its state can no longer be trusted. The
            caller stops all upstreams and exits with code 70. Events posted after that are dropped.
    """

    def __init__(self, scheduler: Decider, on_fatal: Callable[[BaseException], None]) -> None:
        self._scheduler = scheduler
        self._on_fatal = on_fatal
        self._performers: dict[type[Any], Perform] = {}
        self._observers: list[Observer] = []
        self._of_all: list[Observer] = []
        self._inbox: deque[Event] = deque()
        self._running = False
        self._timer: asyncio.TimerHandle | None = None
        self._waits: list[tuple[Callable[[Snapshot], bool], asyncio.Future[bool]]] = []
        self.dead: BaseException | None = None

    def performs(self, performers: Mapping[type[Any], Perform]) -> None:
        """Say who carries out which command type."""
        self._performers.update(performers)

    def observe(self, observer: Observer, *, requests: bool = True) -> None:
        """Show later Steps to an observer.

        Args:
            observer: Sees them in the order in which they happen, after the observers before it.
            requests: Also those, the most by far, in which requests come, go and are let in, and nothing is done to
                any upstream.
        """
        self._observers = [*self._observers, observer]
        if requests:
            self._of_all = [*self._of_all, observer]

    def _unobserve(self, observer: Observer) -> None:
        self._observers = [other for other in self._observers if other is not observer]
        self._of_all = [other for other in self._of_all if other is not observer]

    def post(self, event: Event) -> None:
        """Hand in an event. Handled before this returns, unless called from within a performer or an observer."""
        self._inbox.append(event)
        if self._running or self.dead is not None:
            return
        self._running = True
        try:
            while self._inbox:
                self._turn(self._inbox.popleft())
        except Exception as error:  # noqa: BLE001  a broken scheduler is fatal, whatever broke it
            self._die(error)
            return
        finally:
            self._running = False
        self._arm()
        self._wake()

    def _turn(self, event: Event) -> None:
        now_s = time.monotonic()
        commands = self._scheduler.handle(now_s, event)
        observers = self._of_all if _only_of_requests(event, commands) else self._observers
        if observers:
            step = Step(now_s, event, commands)
            for observer in observers:
                try:
                    observer(step)
                except Exception:
                    self._unobserve(observer)
                    log.exception("an observer raised and was removed: %r", observer)
        for command in commands:
            self._performers[type(command)](command)

    def _arm(self) -> None:
        deadline_s = self._scheduler.next_deadline_s()
        if self._timer is not None:
            if deadline_s is not None and self._timer.when() == deadline_s:
                return
            self._timer.cancel()
            self._timer = None
        if deadline_s is not None:
            self._timer = asyncio.get_running_loop().call_at(deadline_s, self._deadline)

    def _deadline(self) -> None:
        self._timer = None
        self.post(DeadlineReached())

    def _die(self, error: BaseException) -> None:
        log.critical("the scheduler failed and can no longer be trusted", exc_info=error)
        self.dead = error
        self._inbox.clear()
        if self._timer is not None:
            self._timer.cancel()
        for _, future in self._waits:
            if not future.done():
                future.set_result(False)
        self._on_fatal(error)

    def snapshot(self) -> Snapshot:
        """Give a frozen picture of the scheduler."""
        return self._scheduler.snapshot()

    def queue_position(self, request: RequestId) -> int | None:
        """Give the 1-based place of a waiting request over the whole queue; None if it does not wait."""
        return self._scheduler.queue_position(request)

    def waits(self, requests_each: int) -> tuple[Wait, ...]:
        """Say for every model that is waited for why, and show up to so many of those who wait."""
        return self._scheduler.waits(requests_each)

    def decisions(self) -> tuple[Decision, ...]:
        """Give the last decisions, the oldest first."""
        return self._scheduler.decisions()

    async def wait_for(self, predicate: Callable[[Snapshot], bool], timeout_s: float) -> bool:
        """Wait until the predicate holds after some step.

        Returns:
            False if the time ran out first, or the scheduler failed.
        """
        if predicate(self.snapshot()):
            return True
        if self.dead is not None:
            return False
        future: asyncio.Future[bool] = asyncio.get_running_loop().create_future()
        entry = (predicate, future)
        self._waits.append(entry)
        try:
            async with asyncio.timeout(timeout_s):
                return await future
        except TimeoutError:
            return False
        finally:
            self._waits.remove(entry)

    def _wake(self) -> None:
        if not self._waits:
            return
        snapshot = self.snapshot()
        for predicate, future in self._waits:
            if not future.done() and predicate(snapshot):
                future.set_result(True)


def _only_of_requests(event: Event, commands: Sequence[Command]) -> bool:
    return type(event) in _OF_REQUESTS and _TO_REQUESTS.issuperset(map(type, commands))
