"""Whose turn it is, and whom the others must leave in peace for now: what differs between the schedulers."""

from typing import Protocol

from llmswap.core.books import Books
from llmswap.core.fleet import Scheduling
from llmswap.core.holding import MARGIN, auto_hold_s
from llmswap.core.states import State
from llmswap.core.upstreams import Upstream


class Policy(Protocol):
    """A way of working off the queue."""

    def limit_reached(self, up: Upstream) -> str | None:
        """Say which limit keeps a model from taking another request, waiting or served; None if none does."""

    def turn(self, up: Upstream) -> tuple[int, ...]:
        """Give a wanted model's place among those that are wanted; the smallest goes first."""

    def yields_to(self, up: Upstream) -> Upstream | None:
        """Name who is due and needs the place of a model, so that this may neither serve nor be started now."""

    def held_until_s(self, resident: Upstream, target: Upstream) -> float | None:
        """Say until when an idle resident may not be evicted for the target; None if it may at once."""


class Fifo:
    """llama-swap's rules: by priority, then by age; a ready model always serves; nobody idle is spared."""

    def limit_reached(self, up: Upstream) -> str | None:
        """Count those who wait, too."""
        limit = up.model.concurrency_limit
        inside = len(up.line) + (up.in_flight if up.admits else 0)
        return f"concurrency limit is {limit}" if inside >= limit else None

    def turn(self, up: Upstream) -> tuple[int, ...]:
        """Priority before age."""
        return (-up.priority, up.oldest_turn)

    def yields_to(self, up: Upstream) -> Upstream | None:  # noqa: ARG002
        """Nobody."""
        return None

    def held_until_s(self, resident: Upstream, target: Upstream) -> float | None:  # noqa: ARG002
        """Hold nobody."""
        return None


class Fair:
    """Nobody waits beyond a bound, and a resident whose callers are about to return is kept for them.

    A request is due once it has waited for its model's `max_wait_s`. The model that has been due longest goes first;
    whoever is in its way takes no new requests, so that it drains. All else is a matter of priority, age and hold.
    """

    def __init__(self, books: Books) -> None:
        self._books = books

    def limit_reached(self, up: Upstream) -> str | None:
        """Count only those who wait; `concurrency_limit` bounds those who are served."""
        limit = up.model.queue_limit
        return f"queue limit is {limit}" if len(up.line) >= limit else None

    def turn(self, up: Upstream) -> tuple[int, ...]:
        """Due before not due, the oldest first; the others by priority, then by age."""
        return (0, 0, up.oldest_turn) if up.is_due(self._books.now_s) else (1, -up.priority, up.oldest_turn)

    def yields_to(self, up: Upstream) -> Upstream | None:
        """Name who is due, has an earlier turn, and could not live beside it."""
        books = self._books
        for other in books.wanted.values():
            if other is up or not other.is_due(books.now_s) or other.stuck:
                continue
            earlier = not up.wanted or self.turn(other) < self.turn(up)
            if earlier and up in books.evictions_with(other, up):
                return other
        return None

    def held_until_s(self, resident: Upstream, target: Upstream) -> float | None:
        """Hold an idle resident for its callers, unless the target is due or of higher priority."""
        now_s = self._books.now_s
        if resident.state is not State.READY or resident.idle_since_s is None:
            return None
        if target.is_due(now_s) or target.priority > resident.priority or resident.retiring:
            return None
        until_s = resident.idle_since_s + self._hold_s(resident, target)
        return until_s if until_s > now_s else None

    def _hold_s(self, resident: Upstream, target: Upstream) -> float:
        """Give the hold of this idle spell; a learnt one is settled when it is first asked for."""
        if resident.model.hold_s is not None:
            return resident.model.hold_s
        if resident.learnt_hold is None or resident.learnt_hold[0] != resident.idle_since_s:
            hold_s = auto_hold_s(resident.rhythm, self._books.pace(resident), resident.model.max_wait_s)
            resident.learnt_hold = resident.idle_since_s, hold_s
        # Leaving too early costs at most the way there and back: where loads are quick, nobody waits long for nothing.
        return min(resident.learnt_hold[1], MARGIN * max(resident.rhythm.reload_s, target.rhythm.reload_s))


def policy_of(books: Books) -> Policy:
    """Choose the fleet's policy."""
    return Fair(books) if books.fleet.scheduling is Scheduling.FAIR else Fifo()
