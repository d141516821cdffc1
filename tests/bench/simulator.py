"""What simulating costs: a day of the busiest named scenario, the scheduler included."""

import time
from collections.abc import Callable, Mapping
from pathlib import Path

from llmswap.sim.whatif import scenario
from llmswap.sim.whatif.fleets import under_fair
from llmswap.sim.whatif.score import Scorer
from llmswap.sim.whatif.stage import play
from llmswap.sim.whatif.workload import Workload
from tests.bench.figures import Row

HOUR_S, DAY_S = 3600.0, 86_400.0
DAY_BOUND_S = 10.0


def simulate(workload: Workload, until_s: float) -> int:
    """Play it under fair, scored, as `llmswap simulate` does; give the number of events."""
    scorer = Scorer(0.0)
    events = play(workload, under_fair(workload.fleet), 0, until_s, observers=(scorer,))
    scorer.score(until_s)
    return events


def simulator_rows(directory: Path, quick: bool) -> list[Row]:
    """Find the scenario with the most events in an hour, and take the time of a day of it."""
    workloads = [scenario.load(name).workload for name in scenario.names()]
    busiest = max(workloads, key=lambda workload: simulate(workload, HOUR_S))
    begin_s = time.perf_counter()
    events = simulate(busiest, DAY_S)
    took_s = time.perf_counter() - begin_s
    note = f"{busiest.name}: {events} events, {1e6 * took_s / events:.0f} us each"
    return [Row("a simulated day of the busiest scenario", took_s, "s", DAY_BOUND_S, note)]


SECTIONS: Mapping[str, Callable[[Path, bool], list[Row]]] = {"simulator": simulator_rows}
