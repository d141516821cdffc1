"""The learnt hold against the best fixed one, where it is hardest; docs/scheduling.md has every scenario."""

import pytest

from llmswap.sim.whatif import scenario
from llmswap.sim.whatif.fleets import under_fair
from llmswap.sim.whatif.stage import play
from llmswap.sim.whatif.workload import Ending

SEEDS = range(5)
FIXED_S = (0.0, 2.0, 5.0, 10.0, 20.0, 30.0)


def done(work, hold_s):
    answers = []
    for seed in SEEDS:
        play(work, under_fair(work.fleet, hold_s=hold_s), seed, 3600, listeners=(answers.append,))
    return sum(answer.ending is Ending.DONE for answer in answers)


@pytest.mark.parametrize(
    "name",
    ["hermes_hindsight_loop", "opencode_fanout", "claude_code_slots", "resident_lockout", "owui_chat_title_tags"],
)
def test_the_learnt_hold_is_within_a_twentieth_of_the_best_fixed_one(name):
    work = scenario.load(name).workload
    assert done(work, None) >= 0.95 * max(done(work, hold_s) for hold_s in FIXED_S)
