"""Recorded requests as closed loops: who came back after an answer comes back after the answer, whenever that is.

Replayed by the wall clock, a policy that answers sooner would gain nothing, and one that answers later would be asked
by people who are still waiting for their last answer. So the requests of a caller are chained into lanes: each follows
the one that ended last before it came, after the pause that was recorded.

A policy that answers sooner also runs out of recorded requests sooner. Who was still at it when the recording ended
would have gone on, so their lane begins again; otherwise no policy could complete more than was recorded.
"""

from collections.abc import Callable, Iterable
from dataclasses import dataclass, field
from functools import partial
from math import inf
from random import Random

from llmswap.core.events import SwapClass
from llmswap.core.fleet import ModelId
from llmswap.sim.whatif.stage import REFUSED_PAUSE_S
from llmswap.sim.whatif.workload import Call, Caller, Ending, Script, Turn

BURST_S = 0.02  # requests of one caller that close together were made at once: they are kept together
MOMENT_S = 0.5  # and so are those that no answer led to, if they are this close


@dataclass(slots=True, eq=False)
class Past:
    """One recorded request. Times are seconds since the beginning of the recording.

    Attributes:
        dispatched_s: None if it never was.
        ended_s: When it was answered, given up or refused; None if it was still open at the end.
        gave_up: Its client left while it waited.
    """

    model: ModelId
    caller: str
    arrived_s: float
    swap_class: SwapClass = SwapClass.MAY_SWAP
    dispatched_s: float | None = None
    ended_s: float | None = None
    gave_up: bool = False

    @property
    def service_s(self) -> float | None:
        """How long its answer took; None if that is not known."""
        if self.dispatched_s is None or self.ended_s is None:
            return None
        return self.ended_s - self.dispatched_s

    def waited_s(self, end_s: float) -> float:
        """Give its wait, as of the end of the recording."""
        until_s = self.ended_s if self.dispatched_s is None else self.dispatched_s
        return (end_s if until_s is None else until_s) - self.arrived_s


@dataclass(slots=True, eq=False)
class Link:
    """A request's place in its lane.

    Attributes:
        after_s: After the end of the request before it; for the first of a lane, after the arrival of the request it
            came along with, or after the beginning.
        then: Who comes next in the lane.
        along: First requests of lanes that begin with this one.
    """

    past: Past
    after_s: float
    then: "Link | None" = None
    along: list["Link"] = field(default_factory=list)


def lanes(requests: Iterable[Past]) -> list[Link]:
    """Chain requests into lanes.

    Args:
        requests: In order of arrival.

    Returns:
        The first links of those lanes that begin at a time of their own.
    """
    callers: dict[str, list[Past]] = {}
    for past in requests:
        callers.setdefault(past.caller, []).append(past)
    return [first for own in callers.values() for first in _lanes(own)]


def _lanes(requests: list[Past]) -> list[Link]:
    firsts: list[Link] = []
    idle: list[Link] = []  # ended, with no successor; the last to end comes last
    busy: list[tuple[float, Link]] = []
    latest: Link | None = None
    for past in requests:
        done = sorted((row for row in busy if row[0] <= past.arrived_s), key=lambda row: row[0])
        busy = [row for row in busy if row[0] > past.arrived_s]
        idle += (link for _, link in done)
        since_s = inf if latest is None else past.arrived_s - latest.past.arrived_s
        if latest is not None and since_s <= (MOMENT_S if not idle else BURST_S):
            link = Link(past, since_s)
            latest.along.append(link)
        elif idle:
            before = idle.pop()
            link = before.then = Link(past, past.arrived_s - (before.past.ended_s or 0.0))
        else:
            link = Link(past, past.arrived_s)
            firsts.append(link)
        latest = link
        if past.ended_s is not None:
            busy.append((past.ended_s, link))
    return firsts


@dataclass(frozen=True, slots=True)
class Traits:
    """What is not certain of a request.

    Attributes:
        service_s: How long its answer takes.
        patience_s: How long its client waits to be served.
    """

    service_s: float
    patience_s: float = inf


def goes_on(first: Link, end_s: float) -> bool:
    """Say whether a lane was still active when the recording ended: its next request was not overdue."""
    longest_s, link = 0.0, first
    while link.then is not None:
        link = link.then
        longest_s = max(longest_s, link.after_s)
    ended_s = link.past.ended_s
    return longest_s > 0 and (ended_s is None or end_s - ended_s <= longest_s)


def callers(firsts: Iterable[Link], end_s: float, traits: Callable[[Past], Traits]) -> tuple[Caller, ...]:
    """Make callers who act lanes out.

    Args:
        firsts: As `lanes` gives them.
        end_s: When the recording ended.
        traits: Of each request.
    """
    return tuple(Caller(first.past.caller, partial(_act, first, end_s, traits)) for first in firsts)


def _act(first: Link, end_s: float, traits: Callable[[Past], Traits], _rng: Random) -> Script:
    link: Link | None = first
    ever, again = goes_on(first, end_s), False
    heard_s = 0.0  # what the stage adds before a caller hears of a refusal; the recorded pause has it in it
    while link is not None:
        past, drawn = link.past, traits(link.past)
        call = Call(past.model, drawn.service_s, swap_class=past.swap_class, waits_s=drawn.patience_s)
        along = [other for other in link.along if not (again and goes_on(other, end_s))]  # those are on already
        (answer,) = yield Turn(max(0.0, link.after_s - heard_s), (call,), along=callers(along, end_s, traits))
        heard_s = REFUSED_PAUSE_S if answer.ending is Ending.REFUSED else 0.0
        link, again = (first.then, True) if ever and link.then is None else (link.then, again)
