"""When live and simulated runs count as agreeing."""

from dataclasses import replace

from llmswap.core.fleet import Scheduling
from llmswap.sim.whatif.score import Score, Waits
from llmswap.sim.whatif.workload import Ending
from tests.live.run import Run
from tests.live.verdict import checks, strays, table

SCORE = Score(duration_s=180.0, completed=100, swaps=40, waits=Waits(100, 100, 1.0, 6.0, 8.0))
RUN = Run({Ending.DONE: 90, Ending.HUNG_UP: 10}, SCORE, SCORE, SCORE, 1.5, 0.05)


def failed(fair, slack=1.0):
    runs = {Scheduling.FIFO: [RUN, RUN], Scheduling.FAIR: fair}
    return [check.name for check in checks(runs, slack) if not check.passed]


def test_what_is_the_same_agrees():
    assert failed([RUN, RUN]) == []


def test_each_bar_is_kept_over_all_seeds_together_and_may_be_widened():
    off = {
        "fair: swaps": replace(RUN, again=replace(SCORE, swaps=43)),  # 7.5 % of 40
        "fair: p95 wait, s": replace(RUN, again=replace(SCORE, waits=Waits(100, 100, 1.0, 7.2, 8.0))),  # 20 % of 6 s
        "fair/fifo completions": replace(RUN, foretold=replace(SCORE, completed=80)),
    }
    for name, run in off.items():
        assert failed([run, run]) == [name]
        assert failed([run, run], slack=2.0) == []
        assert failed([run, RUN, RUN]) == []


def test_a_live_run_without_anything_agrees_with_nothing():
    assert "fair: swaps" in failed([replace(RUN, live=replace(SCORE, swaps=0))], slack=2.0)


def test_refused_calls_are_counted_and_impatient_callers_are_not():
    assert strays({Scheduling.FIFO: [RUN]}) == 0
    assert strays({Scheduling.FIFO: [RUN, replace(RUN, endings={Ending.CUT: 2, Ending.REFUSED: 1})]}) == 3


def test_the_table_is_in_the_scenarios_seconds():
    text = table({Scheduling.FIFO: [RUN], Scheduling.FAIR: [RUN]})
    assert "120.0 s" in text
    assert "a start took 30.0 s on average, a stop 1.0 s" in text
