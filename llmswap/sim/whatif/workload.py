"""What is asked of a simulated box, and what things cost there: the demand of a what-if, without any policy.

A named scenario and a recorded journal both become a Workload. How its callers act it out is `stage.py`'s business.
"""

from collections.abc import Callable, Generator, Mapping
from dataclasses import dataclass
from enum import StrEnum
from math import inf
from random import Random
from typing import Protocol, TypeAlias

from llmswap.core.events import RequestId, SwapClass
from llmswap.core.fleet import Fleet, ModelId
from llmswap.sim.workload import Order


@dataclass(frozen=True, slots=True)
class Call:
    """One thing a caller wants to have answered.

    Attributes:
        service_s: How long its answer takes once it is being served.
        patience_s: Seconds after which the caller hangs up, counted from each try, the answer included.
        waits_s: Seconds after which the caller hangs up unless the call is being served by then.
        cold_s: What its answer takes longer if the model was reloaded since it last answered this caller: the prompt
            must be read anew.
        retries_s: Pauses before each further try, after a try that was refused or cut off, or that ran out of patience.
    """

    model: ModelId
    service_s: float
    patience_s: float = inf
    swap_class: SwapClass = SwapClass.MAY_SWAP
    cold_s: float = 0.0
    retries_s: tuple[float, ...] = ()
    waits_s: float = inf


class Ending(StrEnum):
    """What became of a call."""

    DONE = "done"
    HUNG_UP = "hung_up"  # its caller lost patience, waiting or being served
    REFUSED = "refused"
    CUT = "cut"  # an operator unloaded the model under it
    OPEN = "open"  # the play was over first


@dataclass(frozen=True, slots=True)
class Answer:
    """The end of a call: each has exactly one.

    Attributes:
        caller: Its name.
        request: Its last try.
        came_s: When it was first tried.
        dispatched_s: When its last try began to be served; None if it never was.
        tries: How often it was tried.
        cold: Its prompt had to be read anew.
    """

    at_s: float
    caller: str
    call: Call
    ending: Ending
    request: RequestId
    came_s: float
    dispatched_s: float | None
    tries: int = 1
    cold: bool = False


@dataclass(frozen=True, slots=True)
class Turn:
    """What a caller does next: a pause, then some calls, all at once; no calls is a mere pause.

    Attributes:
        after_s: The pause, counted from the end of the turn before.
        wait: The turn ends when the last of its calls has ended; otherwise when they are made.
        along: Callers who begin when the calls are made.
    """

    after_s: float
    calls: tuple[Call, ...] = ()
    wait: bool = True
    along: "tuple[Caller, ...]" = ()


# Yields turns; is sent the answers to those it waits for, in the order of its calls, and nothing for the others.
Script: TypeAlias = Generator[Turn, tuple[Answer, ...], None]


@dataclass(frozen=True, slots=True)
class Caller:
    """Somebody who calls, in a loop of their own.

    Attributes:
        name: What their requests are put down to; several callers may share it.
        script: Begins their behaviour, on random numbers of their own: what they ask for does not depend on how they
            are served, so that two policies meet the same demand.
    """

    name: str
    script: Callable[[Random], Script]


class Duration(Protocol):
    """How long something takes, each time anew."""

    def draw(self, rng: Random) -> float:
        """Give the next one, in seconds."""


@dataclass(frozen=True, slots=True)
class Between:
    """Anything between two durations, evenly."""

    least_s: float
    most_s: float

    def draw(self, rng: Random) -> float:
        """Give the next one, in seconds."""
        return rng.uniform(self.least_s, self.most_s)


@dataclass(frozen=True, slots=True)
class OneOf:
    """One of the durations that were seen, evenly."""

    seen_s: tuple[float, ...]

    def draw(self, rng: Random) -> float:
        """Give the next one, in seconds."""
        return rng.choice(self.seen_s)


@dataclass(frozen=True, slots=True)
class Costs:
    """What a model costs to bring in and to put away.

    Attributes:
        sleep, wake: Of one that can sleep.
    """

    load: Duration
    stop: Duration
    sleep: Duration = Between(0.5, 1.5)
    wake: Duration = Between(1.0, 4.0)


@dataclass(frozen=True, slots=True)
class Workload:
    """Everything that is asked of a box.

    Attributes:
        fleet: Its models and who may live together, under llama-swap's policy. A what-if plays the same workload on
            other fleets of the same models.
        costs: Of every model of the fleet.
        orders: What an operator does meanwhile: loads and unloads.
    """

    name: str
    fleet: Fleet
    costs: Mapping[ModelId, Costs]
    callers: tuple[Caller, ...]
    orders: tuple[Order, ...] = ()
