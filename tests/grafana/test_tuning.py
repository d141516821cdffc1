"""docs/tuning.md tells what the simulator says: its commands are run, its figures compared."""

import shlex
import subprocess
import sys

import pytest

from tests.grafana.boards import ROOT

pytestmark = pytest.mark.real

TEXT = (ROOT / "docs" / "tuning.md").read_text()
NEAR = 0.05  # a scheduler that decides a little differently is no reason to write the page anew


def _examples() -> dict[str, list[str]]:
    """Give command -> the lines of its table, as the page has them."""
    found = {}
    for block in TEXT.split("\n```console\n")[1:]:
        command, *lines = block.partition("```")[0].strip("\n").splitlines()
        if lines:
            found[command.removeprefix("$ llmswap ")] = lines
    return found


def _rows(lines: list[str]) -> dict[str, list[float]]:
    """Give policy -> its figures."""
    rows = [line.lstrip("* ").split() for line in lines if line.startswith(("  ", "* "))]
    return {name: [float(word.rstrip("%")) for word in words] for name, *words in rows if name != "policy"}


def test_the_examples_are_found():
    assert len(_examples()) == 5
    assert all(_rows(lines) for lines in _examples().values())


@pytest.mark.parametrize("command", _examples())
def test_an_example_comes_to_what_the_page_says(command):
    words = [sys.executable, "-m", "llmswap", *shlex.split(command)]
    done = subprocess.run(words, cwd=ROOT, capture_output=True, text=True, timeout=50, check=True)
    table, _, _ = done.stdout.partition("\n\n")[2].partition("\n\n")
    said, wanted = _rows(table.splitlines()), _rows(_examples()[command])
    assert said.keys() == wanted.keys()
    for policy, figures in wanted.items():
        assert said[policy] == pytest.approx(figures, rel=NEAR, abs=2), policy
