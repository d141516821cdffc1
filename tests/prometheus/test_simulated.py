"""The series of the thrashing tests are what the code makes of their scenarios, and those differ where they should."""

import pytest

from tests.prometheus.simulated import CASES, FILE, Case, sampled, written


def test_the_file_is_as_the_simulator_has_it():
    assert FILE.read_text() == written(), "run python -m tests.prometheus.simulated and look at what changed"


def grown(case: Case, name: str) -> float:
    """Say by how much a family grew in the last 30 minutes."""
    series = sampled(case.scenario, case.policy)
    return sum(values[-1] - values[-31] for key, values in series.items() if key.startswith(name))


@pytest.mark.parametrize("case", CASES, ids=lambda case: f"{case.scenario}-{case.policy}")
def test_a_scenario_shows_what_the_alert_is_to_tell_apart(case):
    thrash, swaps = grown(case, "swap_thrash_total"), grown(case, "swaps_total")
    lost = grown(case, 'gpu_phase_seconds_total{gpu="0",phase="swapping"}') / 1800
    thrashes = swaps >= 4 and thrash / swaps > 0.35
    assert (thrashes and lost > 0.1) == bool(case.fires), (thrash, swaps, lost)


def test_the_control_case_is_silent_for_want_of_swaps_and_the_rogue_one_for_its_price():
    control, rogue = CASES[2], CASES[-1]
    assert grown(control, "swaps_total") < 4
    assert grown(rogue, "swaps_total") >= 4
    assert grown(rogue, "swap_thrash_total") / grown(rogue, "swaps_total") > 0.35
