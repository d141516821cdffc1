"""The checker of the stack's own tests, over all boards: their structure, and every query in promtool's hands."""

import os
import subprocess
import sys
from pathlib import Path

import pytest

from grafana.generate.__main__ import DASHBOARDS
from tests.grafana.boards import ROOT
from tests.real.prometheus import unpacked

pytestmark = [pytest.mark.real, pytest.mark.timeout(360)]


def test_the_checker_of_the_stack_finds_nothing():
    stack = Path(os.environ.get("LLMSWAP_STACK") or ROOT.parent / "shared" / "stack").resolve()
    boards = sorted((ROOT / DASHBOARDS).glob("*.json"))
    command = [sys.executable, stack / "dash_check.py", unpacked().promtool, *boards]
    done = subprocess.run(command, capture_output=True, text=True, timeout=100, check=False)
    assert done.returncode == 0, done.stdout + done.stderr
    assert done.stdout.count(" 0 problems") == len(boards) == 8
