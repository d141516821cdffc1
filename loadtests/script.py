"""What callers do, drawn from a seed: the offered schedule. The same seed offers the same to every proxy and policy.

The draws are the simulator's, number by number: what `llmswap simulate --scenario` plays in virtual time under a seed
is what comes over HTTP under the same seed. What only a load test draws comes from numbers of its own.
"""

from collections.abc import Iterator
from dataclasses import dataclass
from itertools import chain, cycle
from math import inf
from random import Random

from loadtests.reading import Span
from loadtests.scenario import Caller, Scenario, Step


@dataclass(frozen=True, slots=True)
class Call:
    """One thing a caller wants to have answered. Seconds of the scenario.

    Attributes:
        model: Who is asked, by the scenario's name for it.
        takes_s: How long its answer takes once it is being served.
        patience_s: After how long the caller hangs up, counted from each try.
        cold_s: What the answer takes longer if the model was reloaded since it last answered this caller.
        retries_s: Pauses before each further try.
        leaves_at: The client leaves when this share of the stream is there; 1 for one that stays.
        made_up: The name to ask for in place of the model's; empty for none.
    """

    model: str
    takes_s: float
    patience_s: float = inf
    swap_class: str = "may-swap"
    cold_s: float = 0.0
    retries_s: tuple[float, ...] = ()
    api: str = "chat"
    leaves_at: float = 1.0
    made_up: str = ""


@dataclass(frozen=True, slots=True)
class Turn:
    """What a caller does next: a pause, then some calls at once.

    Attributes:
        wait: The turn ends when the last of its calls has ended; otherwise when they are made.
    """

    after_s: float
    calls: tuple[Call, ...] = ()
    wait: bool = True


@dataclass(frozen=True, slots=True)
class Actor:
    """One caller of a run.

    Attributes:
        number: Its place among all callers, which decides its draws.
    """

    number: int
    name: str
    seed: int
    caller: Caller
    models: tuple[str, ...]

    def turns(self) -> Iterator[Turn]:
        """Give what it does, one turn after the other; for ever, unless its loop is empty."""
        rng = Random(f"{self.seed}/caller/{self.number}/{self.name}")  # noqa: S311  replayed from the seed on purpose
        own = Random(f"{self.seed}/own/{self.number}/{self.name}")  # noqa: S311
        yield Turn(_draw(rng, self.caller.start))
        for step in chain(self.caller.first, cycle(self.caller.loop)):
            if rng.random() < step.chance:
                for _ in range(rng.randint(*step.repeat)):
                    after_s = _draw(rng, step.think)
                    calls = tuple(self._call(rng, own, step) for _ in range(rng.randint(*step.burst)))
                    yield Turn(after_s, calls, wait=not step.background)

    def _call(self, rng: Random, own: Random, step: Step) -> Call:
        takes_s, patience_s, cold_s = _draw(rng, step.takes), _draw(rng, step.patience), _draw(rng, step.cold)
        model = step.model or _popular(self.models, step.popularity, own)
        leaves_at = own.uniform(0.0, 0.5) if step.leaves and own.random() < step.leaves else 1.0
        made_up = f"nobody-{own.getrandbits(48):012x}" if step.made_up else ""
        return Call(model, takes_s, patience_s, step.swap_class, cold_s, step.retry, step.api, leaves_at, made_up)


def cast(scenario: Scenario, seed: int) -> tuple[Actor, ...]:
    """Give everybody who calls, in the order in which the simulator has them enter."""
    everybody = [caller for caller in scenario.callers for _ in range(caller.count)]
    models = tuple(scenario.models)
    return tuple(Actor(number, caller.name, seed, caller, models) for number, caller in enumerate(everybody))


def _draw(rng: Random, span: Span) -> float:
    return span[0] if span[0] == span[1] else rng.uniform(*span)


def _popular(models: tuple[str, ...], popularity: float, rng: Random) -> str:
    weights = [rank**-popularity for rank in range(1, len(models) + 1)]
    return rng.choices(models, weights)[0]
