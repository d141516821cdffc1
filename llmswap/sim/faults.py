"""What may go wrong in a world, and how often. Each world gets its own mix, so that faults also meet one another."""

from dataclasses import dataclass, fields
from random import Random


@dataclass(frozen=True, slots=True)
class Faults:
    """Probabilities, each for one occasion.

    Attributes:
        start_fails: A start comes to nothing.
        crash: An upstream dies by itself, be it ready, asleep or in between.
        sleep_fails: A sleep goes wrong, in whatever way.
        wake_fails: The same of a wake.
        stuck: An upstream cannot be killed when it should stop; it goes after all, much later.
        duplicate: An outcome is reported a second time, later.
        crossing: A start's own outcome crosses the order to stop.
        impatient: A client leaves early.
        reload_race: A request is for a model that is not (or no longer) there.
    """

    start_fails: float = 0.0
    crash: float = 0.0
    stuck: float = 0.0
    duplicate: float = 0.0
    crossing: float = 0.0
    impatient: float = 0.0
    reload_race: float = 0.0
    sleep_fails: float = 0.0
    wake_fails: float = 0.0

    @classmethod
    def draw(cls, rng: Random) -> "Faults":
        """Draw a mix: each fault is absent, rare or frequent."""
        return cls(**{field.name: rng.choice((0.0, 0.0, 0.05, 0.3)) for field in fields(cls)})
