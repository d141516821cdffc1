"""The unit for machines without Docker, by systemd's own judgement."""

import os
import re
import shutil
import subprocess

import pytest

from tests.deploy.files import DEPLOY

pytestmark = pytest.mark.real

EXPOSURE_MAX = "30"  # of 100; what keeps it from less is what engines need: devices, compiling, the network


@pytest.fixture
def analyze(tmp_path):
    """Run systemd-analyze on the unit, with a program and a user that are there."""
    if shutil.which("systemd-analyze") is None:
        pytest.fail("systemd-analyze is missing") if os.environ.get("CI") else pytest.skip("no systemd-analyze here")
    text = (DEPLOY / "llmswap.service").read_text()
    text = text.replace("/opt/llmswap/bin/llmswap", "/bin/true")
    unit = tmp_path / "llmswap.service"
    unit.write_text(re.sub(r"(?m)^(User|Group)=llmswap$", r"\1=daemon", text))

    def run(*words: str) -> tuple[int, str]:
        command = ["systemd-analyze", *words, unit]
        done = subprocess.run(command, capture_output=True, text=True, timeout=30, check=False)
        return done.returncode, done.stdout + done.stderr

    return run


def test_it_is_a_unit_without_a_fault(analyze):
    assert analyze("verify") == (0, "")


def test_what_it_leaves_open_is_little(analyze):
    code, said = analyze("security", "--offline=yes", f"--threshold={EXPOSURE_MAX}")
    assert code == 0, said
