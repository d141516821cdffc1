"""The table of docs/scheduling.md is what `make scenarios` makes of the scenarios and the scheduler as they are."""

import re

import pytest

from llmswap.sim.whatif import scenario
from tests.sim.whatif import table


def printed():
    _, _, rest = table.DOCUMENT.read_text().partition(table.BEGIN)
    return rest.partition(table.END)[0]


def test_the_table_has_a_line_for_every_scenario():
    assert printed().startswith(table.HEADER)
    assert tuple(re.findall(r"^\| `(\w+)`", printed(), re.MULTILINE)) == scenario.names()


def test_the_table_is_of_this_scheduler():
    """One line stands for all: it costs a second. If it fails, run `make scenarios` and look at what has changed."""
    assert str(table.line("claude_code_slots")) in printed()


def test_only_the_table_is_rewritten():
    text = f"before\n{table.BEGIN}old\n{table.END}after\n"
    assert table.rewrite(text, "new\n") == f"before\n{table.BEGIN}new\n{table.END}after\n"
    with pytest.raises(SystemExit, match="markers are missing"):
        table.rewrite("before\nafter\n", "new\n")


def test_the_best_hold_is_the_shortest_with_the_most_completions():
    def hour(done):
        return table.Hour(done, 0, 0.0, 0.0)

    line = table.Line("x", hour(100), hour(150), {0: hour(100), 5: hour(200), 10: hour(200)})
    assert (line.best_hold_s, line.learnt, line.gain) == (5, 0.75, 1.5)
