"""One seed of a scenario, live and then simulated: both policies at once, each in a real llmswap with a journal."""

import asyncio
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from statistics import fmean

from llmswap.core.fleet import Scheduling
from llmswap.sim.whatif import recorded
from llmswap.sim.whatif.compare import simulate
from llmswap.sim.whatif.policies import Policy
from llmswap.sim.whatif.recorded import Recorded
from llmswap.sim.whatif.score import Score
from llmswap.sim.whatif.workload import Answer, Costs, Duration, Ending, OneOf, Workload
from tests.live.driver import act_out
from tests.live.world import TIME_SCALE, config, shrunk
from tests.stack import Stack

SEEDS = range(1, 11)  # in what order a simulation of a journal takes the recorded times


@dataclass(frozen=True, slots=True)
class Take:
    """What a live run leaves behind.

    Attributes:
        endings: What became of the calls, as their callers saw it.
    """

    journal: Path
    endings: Mapping[Ending, int]


@dataclass(frozen=True, slots=True)
class Run:
    """One live run, and what the simulator makes of it. All of it in real seconds.

    Attributes:
        live: What its journal came to.
        again: The same journal simulated, under the policy of the recording.
        foretold: The scenario simulated with the seed of the live run, its loads and stops, and nothing else of it:
            what its callers did is not known.
        load_s: What a start took, on average.
        stop_s: What a stop took, on average.
    """

    endings: Mapping[Ending, int]
    live: Score
    again: Score
    foretold: Score
    load_s: float
    stop_s: float


async def record(stack: Stack, scenario: Workload, seed: int, duration_s: float) -> dict[Scheduling, Take]:
    """Serve a scenario under every policy at once.

    Args:
        stack: Starts the llmswaps, and keeps their journals.
        scenario: Not shrunk.
        seed: Of the demand.
        duration_s: Real seconds.
    """
    fast = shrunk(scenario)
    journals = {policy: stack.directory / f"{policy}.jsonl" for policy in Scheduling}
    programs = {policy: stack.start(config(scenario, policy, journals[policy])) for policy in Scheduling}
    answers: dict[Scheduling, list[Answer]] = {policy: [] for policy in Scheduling}
    plays = [
        asyncio.create_task(act_out(fast, seed, program.url, TIME_SCALE, answers[policy]))
        for policy, program in programs.items()
    ]
    try:
        await asyncio.wait(plays, timeout=duration_s, return_when=asyncio.FIRST_COMPLETED)
        assert not any(play.done() for play in plays), f"a play ended before its time: {plays}"
        endings = {policy: Counter(answer.ending for answer in answers[policy]) for policy in Scheduling}
        for program in programs.values():
            program.terminate()
        for program in programs.values():
            await program.exited()
    finally:
        for play in plays:
            play.cancel()
        await asyncio.gather(*plays, return_exceptions=True)
    return {policy: Take(journals[policy], endings[policy]) for policy in Scheduling}


def judge(take: Take, scenario: Workload, seed: int) -> Run:
    """Simulate what was recorded, and what was to be expected."""
    told = recorded.read(take.journal)
    fast, policy = _as_slow_as(told, shrunk(scenario)), Policy(str(told.fleet.scheduling), told.fleet)
    return Run(
        take.endings,
        told.score,
        simulate(told.workload, policy, SEEDS, told.duration_s, _tell_nobody).score,
        simulate(lambda _seed: fast, policy, [seed], told.duration_s, _tell_nobody).score,
        *_mean_costs_s(told),
    )


def _as_slow_as(told: Recorded, fast: Workload) -> Workload:
    """Give every start and stop one of the recorded times: how busy the machine was is not the scheduler's doing."""
    costs = {
        model: Costs(_one_of(told.loads.get(model), cost.load), _one_of(told.stops.get(model), cost.stop))
        for model, cost in fast.costs.items()
    }
    return replace(fast, costs=costs)


def _one_of(seen_s: Sequence[float] | None, otherwise: Duration) -> Duration:
    return OneOf(tuple(seen_s)) if seen_s else otherwise


def _mean_costs_s(told: Recorded) -> tuple[float, float]:
    loads_s, stops_s = ([time_s for each in times.values() for time_s in each] for times in (told.loads, told.stops))
    return fmean(loads_s), fmean(stops_s)


def _tell_nobody(_share: float) -> None:
    """Let a simulation's progress go unseen: it is a moment."""
