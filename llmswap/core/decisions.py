"""The one decision site: after every event, `drain` looks at the books and dispatches, starts, stops or refuses.

The policy is llama-swap's `fifo`. Where it differs the reason stands at the place.
"""

from collections.abc import Sequence

from llmswap.core import refusals
from llmswap.core.books import Books
from llmswap.core.commands import Dispatch, Start, StartCause, Stop, StopCause
from llmswap.core.fleet import ModelId
from llmswap.core.states import State
from llmswap.core.swaps import Swap
from llmswap.core.upstreams import Upstream


class Decisions:
    """Decides on what the books say, and writes into them what it decided."""

    def __init__(self, books: Books) -> None:
        self._books = books

    def drain(self) -> None:
        """Do all that can be done now. Looks only at models whose chances the event may have changed."""
        books = self._books
        for up in tuple(books.touched.values()):
            self._leave(up)
        if books.drain_by_s is not None:
            self._wind_down()
        else:
            self._advance_swaps()
            for up in self._to_decide():
                self._decide(up)
            for up in books.touched.values():
                self._stop_if_idle(up)
                books.arm(up)
        books.touched.clear()
        books.everyone = False

    def servable(self, up: Upstream) -> bool:
        """Whether it can serve now, whoever else waits (llama-swap's fast path).

        Whom it would evict but nobody can stop is no reason to leave a ready upstream unused.
        """
        books = self._books
        return up.admits and up.id not in books.swaps and all(other.stuck for other in books.evictions(up))

    def _leave(self, up: Upstream) -> None:
        """See off who waited too long, and the upstream itself if it was told to go and may."""
        self._books.expire(up)
        self._books.settle(up)
        if up.state in (State.STARTING, State.READY):
            if up.dismissed:
                self._stop(up, StopCause.UNLOAD)
            elif up.retiring and up.in_flight == 0:
                self._stop(up, StopCause.RELOAD)

    def _to_decide(self) -> list[Upstream]:
        candidates = self._books.wanted if self._books.everyone else self._books.touched
        wanted = [up for up in candidates.values() if up.wanted]
        if len(wanted) > 1:
            wanted.sort(key=lambda up: up.turn)
        return wanted

    def _decide(self, up: Upstream) -> None:
        """Serve, begin a swap, refuse, or let wait; for all who want one model, in the order of llama-swap's rules."""
        books = self._books
        if up.id in books.swaps:
            return
        if up.stuck:
            books.send_away(up, lambda request: refusals.stuck(request, up, up))
        elif up.backing_off(books.now_s):
            books.send_away(up, lambda request: refusals.backoff(request, up, books.now_s))
        elif up.state is State.STOPPING or up.retiring:
            return
        elif self.servable(up):
            self._dispatch(up)
        else:
            self._make_room(up, books.evictions(up))

    def _dispatch(self, up: Upstream) -> None:
        books = self._books
        while up.line and up.in_flight < up.model.concurrency_limit:
            request = books.pop(up)
            books.leases[request] = up, up.generation
            up.in_flight += 1
            up.idle_since_s = None
            books.commands.append(Dispatch(request, up.id, up.generation))
        books.settle(up)

    def _make_room(self, up: Upstream, evict: Sequence[Upstream]) -> None:
        """Begin a swap, unless somebody in the way is busy, or on the way in or out for another swap."""
        stuck = next((other for other in evict if other.stuck), None)
        if stuck is not None and up.state is not State.READY:
            self._books.send_away(up, lambda request: refusals.stuck(request, up, stuck))
            return
        evict = [other for other in evict if not other.stuck]
        ids = tuple(other.id for other in evict)
        if any(self._is_busy(other) for other in evict):
            return
        if any(swap.collides(up.id, ids) for swap in self._books.swaps.values()):
            return
        ready = [other for other in evict if other.state is State.READY]
        swap = Swap(up.id, ids, pending=set(ids), evicted=tuple(other.id for other in ready))
        self._books.add_swap(swap)
        for other in ready:
            self._stop(other, StopCause.EVICT, evicted_for=up.id)
        if not swap.pending:
            self._start(up, swap)

    def _is_busy(self, up: Upstream) -> bool:
        """Whether it must not be evicted now. One that stops already is not spared by its last requests."""
        return up.state is State.READY and up.in_flight > 0

    def _advance_swaps(self) -> None:
        """Start whoever has the room now, and serve who waited for a swap that is done.

        There is no hopeful step: memory is free when its UpstreamStopped came.
        """
        for swap in tuple(self._books.swaps.values()):
            up = self._books.upstreams[swap.target]
            if swap.pending:
                continue
            if up.state is State.READY:
                self._books.end_swap(up)
                self._dispatch(up)  # before anybody of higher priority can have it evicted again
            elif not swap.begun:
                self._start(up, swap)

    def _start(self, up: Upstream, swap: Swap) -> None:
        books = self._books
        alive = [model for model in swap.evict if model in books.upstreams and books.upstreams[model].holding]
        assert not alive, f"{up.id} was to start before {alive} were gone"
        assert up.wanted, f"{up.id} was to start for nobody"
        up.begin(books.next_generation(), books.now_s)
        swap.begun = True
        cause = StartCause.REQUEST if up.line else StartCause.LOAD
        books.commands.append(Start(up.id, up.generation, cause, swap.evicted))

    def _stop(self, up: Upstream, cause: StopCause, *, evicted_for: ModelId | None = None, force: bool = False) -> None:
        if cause in (StopCause.EVICT, StopCause.TTL):
            assert up.in_flight == 0, f"{up.id} was to be stopped for {cause} while busy"
        if up.state is not State.STOPPING:
            up.enter(State.STOPPING, self._books.now_s)
            self._books.end_swap(up)
        up.forced = up.forced or force
        self._books.commands.append(Stop(up.id, up.generation, cause, evicted_for, force))

    def _stop_if_idle(self, up: Upstream) -> None:
        """Stop an upstream whose ttl is over. Comes last, so that a request that arrived first wins."""
        ttl_s = up.model.idle_ttl_s
        if ttl_s is None or up.idle_since_s is None or up.wanted:
            return
        if up.idle_since_s + ttl_s <= self._books.now_s:
            self._stop(up, StopCause.TTL)

    def _wind_down(self) -> None:
        """Stop everything: who is idle now, who is busy when its last lease ends, all when the deadline has passed."""
        books = self._books
        force = books.drain_left_s() <= 0
        for up in books.upstreams.values():
            if up.state in (State.STOPPED, State.FAILED):
                up.enter(State.SHUTDOWN, books.now_s)
            elif up.holding:
                idle = up.state is not State.STOPPING and up.in_flight == 0
                if idle or (force and not up.forced):
                    self._stop(up, StopCause.SHUTDOWN, force=force)
