"""The scheduler: takes one event, returns the commands that follow. The only mutator of the core's books.

Every event first changes the books, here, and then ends in one `drain`, in `decisions.py`: the only code that
dispatches, starts or stops.
"""

from collections.abc import Callable, Sequence
from typing import Any

from llmswap.core import events as ev
from llmswap.core import refusals
from llmswap.core.books import Books
from llmswap.core.commands import Command, StopCause
from llmswap.core.decisions import Decisions
from llmswap.core.explanation import Decision, Wait
from llmswap.core.fleet import Fleet
from llmswap.core.snapshot import Snapshot
from llmswap.core.states import State
from llmswap.core.upstreams import Upstream


class Scheduler:
    """Decides who is served, who is started and who must go.

    Args:
        fleet: What may run.
        now_s: When it is made; no event may carry an earlier time. None: with its first event, whatever the clock says.
    """

    def __init__(self, fleet: Fleet, now_s: float | None = None) -> None:
        self._books = Books(fleet, now_s)
        self._decisions = Decisions(self._books)
        self._take: dict[type[Any], Callable[[Any], None]] = {
            ev.RequestArrived: self._arrived,
            ev.RequestCancelled: self._cancelled,
            ev.RequestFinished: self._finished,
            ev.LoadRequested: self._load_requested,
            ev.UnloadRequested: self._unload_requested,
            ev.SleepRequested: self._sleep_requested,
            ev.FleetReloaded: self._reloaded,
            ev.DrainRequested: self._drain_requested,
            ev.UpstreamReady: self._became_ready,
            ev.StartFailed: self._start_failed,
            ev.UpstreamAsleep: self._fell_asleep,
            ev.SleepFailed: self._sleep_failed,
            ev.WakeFailed: self._wake_failed,
            ev.UpstreamExited: self._exited,
            ev.UpstreamStopped: self._stopped,
            ev.StopFailed: self._stop_failed,
            ev.DeadlineReached: lambda _: None,  # alarms that are due ring on every event
        }

    def handle(self, now_s: float, event: ev.Event) -> Sequence[Command]:
        """Take an event, return the commands that follow, in order."""
        books = self._books
        assert now_s >= books.now_s, f"time runs backwards: {now_s} after {books.now_s}"
        books.pass_to(now_s)
        books.ring()
        self._take[type(event)](event)
        self._decisions.drain()
        commands, books.commands = books.commands, []
        return commands

    def next_deadline_s(self) -> float | None:
        """When to come back with DeadlineReached if nothing else happens. May turn out to be early, never late."""
        books = self._books
        if books.drain_by_s is None:
            return books.next_alarm_s()
        return books.drain_by_s if books.drain_left_s() > 0 else None

    def snapshot(self) -> Snapshot:
        """Give a frozen picture. After a drain request all is down when every state is `shutdown`."""
        return self._books.snapshot()

    def queue_position(self, request: ev.RequestId) -> int | None:
        """Give the 1-based place of a waiting request over the whole queue.

        Returns:
            None if it does not wait, or its model is on its way already.
        """
        return self._books.queue_position(request)

    def waits(self, requests_each: int) -> tuple[Wait, ...]:
        """Say for every model that is waited for why, and show up to so many of those who wait."""
        return self._decisions.reasons.waits(requests_each)

    def decisions(self) -> tuple[Decision, ...]:
        """Give the last decisions, the oldest first."""
        return tuple(self._decisions.reasons.log)

    # Demand

    def _arrived(self, event: ev.RequestArrived) -> None:
        books, request = self._books, event.request
        assert request not in books.waiting, f"request {request} arrived twice"
        assert request not in books.leases, f"request {request} arrived twice"
        up = books.upstreams.get(event.model)
        if books.drain_by_s is not None:
            books.commands.append(refusals.draining(request, books.drain_left_s()))
        elif up is None or up.removed:
            books.commands.append(refusals.model_removed(request, event.model))
        elif (limit := self._decisions.policy.limit_reached(up)) is not None:
            books.commands.append(refusals.over_limit(request, up, limit, self._decisions.reasons.place_in_s(up)))
        elif len(books.waiting) >= books.fleet.queue_max and not self._decisions.serves_now(up):
            place_in_s = self._decisions.reasons.place_in_s(up)
            books.commands.append(refusals.queue_full(request, books.fleet.queue_max, place_in_s))
        else:
            books.join(request, up, event.caller, event.swap_class)

    def _cancelled(self, event: ev.RequestCancelled) -> None:
        # A request that is being served or was refused is past cancelling: its lease, or nothing, ends it.
        self._books.cancel(event.request)

    def _load_requested(self, event: ev.LoadRequested) -> None:
        books = self._books
        up = books.upstreams.get(event.model)
        if books.drain_by_s is None and up is not None and not (up.removed or up.admits or up.load):
            books.wish(up)

    def _unload_requested(self, event: ev.UnloadRequested) -> None:
        books = self._books
        for model in event.models or tuple(books.upstreams):
            up = books.upstreams.get(model)
            if up is not None:
                self._dismiss(up)

    def _dismiss(self, up: Upstream) -> None:
        self._books.send_away(up, lambda request: refusals.unloaded(request, up))
        up.pardon(self._books.now_s)
        up.dismissed = up.holding

    def _sleep_requested(self, event: ev.SleepRequested) -> None:
        up = self._books.upstreams.get(event.model)
        if self._books.drain_by_s is None and up is not None and up.state is State.READY and up.can_sleep:
            up.sleep_by_s = event.deadline_s
            self._books.touch(up)

    def _reloaded(self, event: ev.FleetReloaded) -> None:
        if self._books.drain_by_s is None:  # a shutdown is final
            self._books.reload(event.fleet)
            self._decisions.adopt_policy()

    def _drain_requested(self, event: ev.DrainRequested) -> None:
        books = self._books
        if books.drain_by_s is not None:
            books.drain_by_s = min(books.drain_by_s, event.deadline_s)
            return
        books.drain_by_s = event.deadline_s
        for up in tuple(books.wanted.values()):
            books.send_away(up, lambda request: refusals.draining(request, books.drain_left_s()))

    # Outcomes

    def _finished(self, event: ev.RequestFinished) -> None:
        books = self._books
        up, generation, since_s = books.leases.pop(event.request)
        up.rhythm.served(books.now_s - since_s, books.now_s)
        if generation != up.generation or not up.holding:
            return  # of a life that is over; its count went with it
        up.in_flight -= 1
        assert up.in_flight >= 0, f"{up.id}: more requests finished than were dispatched"
        books.touch(up)
        if up.in_flight == 0:
            books.everyone = True  # whoever waits to evict it may do so now
            if up.state is State.READY:
                up.idle_since_s = books.now_s
                up.rhythm.fell_idle(books.now_s)

    def _became_ready(self, event: ev.UpstreamReady) -> None:
        books = self._books
        up = books.alive(event.model, event.generation)
        if up is None or up.state not in (State.STARTING, State.WAKING):
            return
        up.ready(books.now_s)
        up.load = None
        books.touch(up)  # the drain ends the swap

    def _start_failed(self, event: ev.StartFailed) -> None:
        books = self._books
        up = books.alive(event.model, event.generation)
        if up is None:
            return
        if up.state is State.STOPPING:  # it failed by itself just when it was told to stop, or was stuck after that
            books.gone(up)
            return
        up.fail(event.reason, books.now_s)
        if event.out_of_memory and up.wanted and not up.cramped and self._decisions.spare_sleepers():
            up.cramped, up.retry_at_s = True, None
            books.end_swap(up)
            books.touch(up)
            return
        up.cramped = False
        books.send_away(
            up, lambda request: refusals.upstream_failed(request, up, books.now_s, timed_out=event.timed_out)
        )
        books.end_swap(up)

    def _fell_asleep(self, event: ev.UpstreamAsleep) -> None:
        up = self._books.alive(event.model, event.generation)
        if up is not None and up.state is State.SLEEP_PENDING:
            up.asleep(self._books.now_s, event.host_bytes)
            self._books.touch(up)
            self._books.crowded = True
            self._books.made_room(up)

    def _sleep_failed(self, event: ev.SleepFailed) -> None:
        up = self._books.alive(event.model, event.generation)
        if up is not None and up.state is State.SLEEP_PENDING:
            up.botch(StopCause.SLEEP_FAILED, event.reason, lasting=event.lasting)
            self._books.touch(up)

    def _wake_failed(self, event: ev.WakeFailed) -> None:
        up = self._books.alive(event.model, event.generation)
        if up is not None and up.state is State.WAKING:
            up.botch(StopCause.WAKE_FAILED, event.reason, lasting=event.lasting)
            self._books.touch(up)

    def _exited(self, event: ev.UpstreamExited) -> None:
        books = self._books
        up = books.alive(event.model, event.generation)
        if up is None or up.state is State.STOPPING:
            return
        assert up.state is not State.STARTING, f"{up.id} exited while {up.state}: that is StartFailed"
        slept = up.state is State.ASLEEP
        up.enter(State.STOPPING, books.now_s)
        up.failure = event.reason
        books.touch(up)
        books.end_swap(up)
        if slept:
            books.left_bed()
        if event.awake:
            up.memory_free = False
            for swap in books.swaps.values():
                if not swap.begun and books.contend(books.upstreams[swap.target], up):
                    swap.pending.add(up.id)
        books.moved()

    def _stopped(self, event: ev.UpstreamStopped) -> None:
        up = self._books.alive(event.model, event.generation)
        if up is not None:
            self._books.gone(up)

    def _stop_failed(self, event: ev.StopFailed) -> None:
        books = self._books
        up = books.alive(event.model, event.generation)
        if up is None:
            return
        if up.state is State.STARTING:  # it has failed, and that is not all
            up.enter(State.STOPPING, books.now_s)
            books.end_swap(up)
        assert up.state is State.STOPPING, f"{up.id} was not told to stop"
        up.stuck = True
        up.failure = event.reason
        for swap in tuple(books.swaps.values()):
            if up.id in swap.pending:
                books.end_swap(books.upstreams[swap.target])
        books.moved()
