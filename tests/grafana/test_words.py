"""The house's words: colours for everything that has one, and queries that cannot be wrong about labels."""

import pytest

from grafana.generate import palette
from grafana.generate.boards.queue import AT_ONCE_LE
from grafana.generate.frame import COLUMNS, Board, Line, Row, dashboard
from grafana.generate.palette import OUTCOMES, STATES, SWAP_PHASES
from grafana.generate.panels import Query, Words, tile
from grafana.generate.promql import SLO_WAIT_LE, heat, mean, pick, quantile
from llmswap.core.states import State
from llmswap.runtime.observing import RequestOutcome
from llmswap.telemetry import names
from llmswap.telemetry.model_metrics import CODES


def test_states_are_in_the_order_of_their_codes():
    assert list(STATES) == [state.value for state in sorted(CODES, key=CODES.__getitem__)]
    assert set(STATES) == set(State)


def test_every_outcome_and_phase_has_a_colour_of_its_own():
    assert set(OUTCOMES) == set(RequestOutcome)
    assert set(SWAP_PHASES) == set(names.SWAP_PHASES)
    for colours in (STATES, OUTCOMES, SWAP_PHASES, palette.GPU_PHASES, palette.STARTS, palette.WAIT_CAUSES):
        assert len(set(colours.values())) == len(colours)


def test_what_means_the_same_has_the_same_colour():
    assert STATES["ready"] == palette.GPU_PHASES["serving"] == palette.STARTS["warm"] == OUTCOMES["ok"]
    assert STATES["starting"] == palette.GPU_PHASES["swapping"] == palette.STARTS["cold"] == palette.WAIT_CAUSES["swap"]
    assert STATES["asleep"] == palette.GPU_PHASES["idle"]
    assert STATES["stopped"] == palette.GPU_PHASES["empty"]


def test_the_objective_is_a_bucket():
    assert float(SLO_WAIT_LE) in names.QUEUE_WAIT.buckets
    assert float(AT_ONCE_LE) == min(names.QUEUE_WAIT.buckets)


def test_a_selection_is_narrowed_by_the_board():
    room = 'job=~"$job", instance=~"$instance"'
    assert pick(names.QUEUE_DEPTH) == f"llmswap_queue_depth{{{room}}}"
    assert pick(names.SWAPS, outcome="!ok", kind="~wake.", to_model="a") == (
        f'llmswap_swaps_total{{{room}, outcome!="ok", kind=~"wake.", to_model="a"}}'
    )
    assert 'outcome!~"a|b"' in pick(names.SWAPS, outcome="!~a|b")


@pytest.mark.parametrize(
    ("metric", "part", "labels", "trouble"),
    [
        (names.QUEUE_DEPTH, "", {"gpu": "0"}, "has no label gpu; it has model"),
        (names.QUEUE_WAIT, "", {}, "no part"),
        (names.QUEUE_DEPTH, "bucket", {}, "bucket cannot be asked for"),
        (names.QUEUE_WAIT, "sum", {"le": "1.0"}, "has no label le"),
    ],
)
def test_a_selection_of_what_there_is_not_is_refused(metric, part, labels, trouble):
    with pytest.raises(ValueError, match=trouble):
        pick(metric, part, **labels)


def test_a_mean_a_quantile_and_a_heat_map_are_silent_where_nothing_was_observed():
    assert mean(names.QUEUE_WAIT).endswith("> 0)")
    assert quantile(0.95, names.QUEUE_WAIT).endswith(">= 0")
    assert heat(names.QUEUE_WAIT).startswith("sum by (le) (increase(llmswap_queue_wait_seconds_bucket{")


def test_a_line_that_does_not_fill_the_grid_is_refused():
    panel = tile(Words("Title", "about", "none"), Query("up"))
    board = Board("uid", "Title", "about", [Row("", [Line(4, [(COLUMNS - 1, panel)])])])
    with pytest.raises(ValueError, match="23 wide, not 24"):
        dashboard(board)
