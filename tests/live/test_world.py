"""The fast world is the scenario's world, only faster."""

from pathlib import Path
from random import Random

import pytest

from llmswap.config.load import loads
from llmswap.core.fleet import Scheduling
from llmswap.sim.whatif import scenario
from llmswap.sim.whatif.compare import simulate
from llmswap.sim.whatif.fleets import under_fifo
from llmswap.sim.whatif.policies import Policy
from llmswap.sim.whatif.workload import Turn
from tests.live.world import TIME_SCALE, config, shrunk
from tests.stack import as_yaml

SLOW = scenario.load("opencode_fanout").workload


def first_turns(script, many=30) -> list[Turn]:
    turns = [next(script)]
    while len(turns) < many:
        turns.append(script.send(()))
    return turns


def test_callers_ask_for_the_same_things_in_a_twentieth_of_the_time():
    for slow, fast in zip(SLOW.callers, shrunk(SLOW).callers, strict=True):
        assert fast.name == slow.name
        slow_turns, fast_turns = (first_turns(caller.script(Random("1"))) for caller in (slow, fast))
        for was, now in zip(slow_turns, fast_turns, strict=True):
            assert now.after_s == was.after_s * TIME_SCALE
            assert [call.model for call in now.calls] == [call.model for call in was.calls]
            assert [call.service_s for call in now.calls] == [call.service_s * TIME_SCALE for call in was.calls]
            assert [call.patience_s for call in now.calls] == [call.patience_s * TIME_SCALE for call in was.calls]


def test_a_policy_that_knows_no_seconds_does_the_same_in_it():
    """`fifo` has no time of its own; it differs by loads and stops that take their mean."""

    def score(workload, until_s):
        fleet = under_fifo(workload.fleet)
        return simulate(lambda _: workload, Policy("fifo", fleet), [1], until_s, lambda _: None).score

    fast = score(shrunk(SLOW), 3600 * TIME_SCALE)
    slow = score(SLOW, 3600)
    assert fast.swaps == pytest.approx(slow.swaps, abs=2)
    assert fast.completed == pytest.approx(slow.completed, abs=5)
    assert fast.waits.p95_s == pytest.approx(slow.waits.p95_s * TIME_SCALE, rel=0.05)


@pytest.mark.parametrize("policy", list(Scheduling))
def test_the_config_is_that_of_the_scenario_with_the_policys_times_shrunk(policy, tmp_path: Path):
    fleet = loads(as_yaml(config(SLOW, policy, tmp_path / "journal.jsonl"))).fleet
    assert fleet.scheduling is policy
    assert fleet.models.keys() == SLOW.fleet.models.keys()
    assert [group.swap for group in fleet.groups] == [True]
    for model in fleet.models.values():
        assert model.queue_timeout_s == 600 * TIME_SCALE
        if policy is Scheduling.FAIR:
            assert model.max_wait_s == 120 * TIME_SCALE
            assert model.hold_s is None
