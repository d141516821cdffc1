"""Plays one workload under several policies, and says which did best."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass

from llmswap.sim.whatif.policies import Policy
from llmswap.sim.whatif.score import Score, Scorer, mean
from llmswap.sim.whatif.stage import play
from llmswap.sim.whatif.timeline import Camera, Timeline
from llmswap.sim.whatif.workload import Workload

AS_GOOD = 0.99  # of the most completions: between policies that complete as many, waits decide

Progress = Callable[[float], None]
Make = Callable[[int], Workload]  # the demand for one play, by its seed


@dataclass(frozen=True, slots=True)
class Row:
    """How one policy did.

    Attributes:
        policy: None for what was recorded, not simulated.
    """

    label: str
    score: Score
    policy: Policy | None = None

    @property
    def swept(self) -> bool:
        """Whether it is one of a sweep."""
        return self.policy is not None and self.policy.swept


def simulate(make: Make, policy: Policy, seeds: Sequence[int], until_s: float, progress: Progress) -> Row:
    """Play the workload once for each seed, and take the mean.

    Args:
        make: What to play.
        policy: Under which rules.
        seeds: One play each.
        until_s: How long a play is.
        progress: Is told which share of all plays is done.
    """
    scores = []
    for number, seed in enumerate(seeds):
        scorer = Scorer(0.0)

        def tell(now_s: float, before: int = number) -> None:
            progress((before + now_s / max(until_s, now_s, 1e-9)) / len(seeds))

        play(make(seed), policy.fleet, seed, until_s, observers=(scorer,), progress=tell)
        scores.append(scorer.score(until_s))
    progress(1.0)
    return Row(policy.label, mean(scores), policy)


def film(make: Make, policy: Policy, seed: int, until_s: float) -> Timeline:
    """Play the workload once more, to draw it."""
    workload = make(seed)
    camera = Camera(0.0, tuple(workload.fleet.models))
    play(workload, policy.fleet, seed, until_s, observers=(camera,))
    return camera.timeline(until_s)


def best(rows: Sequence[Row]) -> Row:
    """Choose the row with the most completions; among those as good as that, the one with the shortest p95 wait."""
    most = max(row.score.completed for row in rows)
    good = [row for row in rows if row.score.completed >= AS_GOOD * most]
    return min(good, key=lambda row: (row.score.waits.p95_s, row.score.lost_s))
