"""Load tests under the eyes of a real Prometheus with the alert rules, their durations divided."""

import time
from pathlib import Path

import pytest

from loadtests import report, scenario
from loadtests.box import box
from tests.loadtests.locusts import started
from tests.real import scaled_rules
from tests.real.prometheus import Prometheus, unpacked

pytestmark = [pytest.mark.real, pytest.mark.timeout(600)]

ALERT = "LLMSwapThrashing"
FACTOR = 120.0  # 30 minutes are 15 s
LEAST_S = 8.0  # of a window: some scrapes
LOOK_S = 0.2


def fired_after_s(name: str, minutes: float, scale: float, tmp_path: Path) -> float | None:
    """Run a scenario under a Prometheus; gives when the alert fired, None if it never did."""
    scaled_rules.write(tmp_path / "rules", FACTOR, LEAST_S)
    with box(scenario.load(name), "fair", scale, tmp_path / "box") as own:
        scrape = [{"job_name": "llmswap", "static_configs": [{"targets": [own.url.removeprefix("http://")]}]}]
        prometheus = Prometheus(unpacked(), tmp_path, scrape, "1s", (tmp_path / "rules").glob("*.yml"))
        locust = started(own.url, tmp_path, "--headless", scenario=name, minutes=minutes, scale=scale)
        began_s, fired_s = time.monotonic(), None
        try:
            while locust.poll() is None:
                if fired_s is None and ALERT in prometheus.firing():
                    fired_s = time.monotonic() - began_s
                time.sleep(LOOK_S)
        finally:
            locust.kill()
            prometheus.close()
    (folder,) = (tmp_path / "reports").iterdir()
    assert report.read(folder).card["done"] > 5, (tmp_path / "locust.log").read_text()
    return fired_s


def test_two_models_in_turn_fire_the_alert_on_thrash_within_five_of_their_minutes(tmp_path):
    assert fired_after_s("pingpong", 5, 0.15, tmp_path) is not None


def test_slow_answers_of_two_models_that_live_together_do_not(tmp_path):
    assert fired_after_s("tutor_player_coach", 12, 0.05, tmp_path) is None
