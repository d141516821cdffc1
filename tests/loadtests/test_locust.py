"""The whole thing: Locust as a process, before a real llmswap and before targets that show less of themselves."""

import json
import os
import signal
import subprocess
import sys
import urllib.request
from pathlib import Path
from urllib.parse import urlencode

import pytest

from loadtests import report, scenario
from loadtests.box import box
from tests.loadtests.locusts import FAST, ROOT, free_port, ran, started
from tests.stack import until_now

pytestmark = [pytest.mark.real, pytest.mark.timeout(180)]


@pytest.fixture
def served(tmp_path):
    with box(scenario.load("hit"), "fair", FAST, tmp_path / "box") as own:
        yield own


@pytest.fixture
def engine(tmp_path):
    """Serve a bare inference server: the OpenAI API, and nothing else to be seen."""
    port = free_port()
    flags = ["--persona", "vllm", "--model", "chat", "--boot", "0", "--time-scale", str(FAST)]
    command = [sys.executable, "-m", "llmswap.fake_upstream", "--port", str(port), *flags]
    with (tmp_path / "engine.log").open("wb") as log:
        process = subprocess.Popen(command, stdout=log, stderr=subprocess.STDOUT)
    try:
        until_now(lambda: "running on" in (tmp_path / "engine.log").read_text(), "the engine listens")
        yield f"http://127.0.0.1:{port}"
    finally:
        process.terminate()
        process.wait(10)


def test_the_same_seed_offers_the_same_to_one_process_and_to_two(served, tmp_path):
    one = ran(served.url, tmp_path / "one", "--alone", "--llmswap-log", str(served.log))
    two = ran(served.url, tmp_path / "two", "--processes", "2")
    entries = {(entry["method"], entry["name"]) for entry in json.loads((tmp_path / "one" / "locust.json").read_text())}
    assert entries == {(kind, "chat") for kind in ("E2E", "WAIT", "TTFT", "ITL-mean", "ITL-max")}
    offered = [{(each.actor, each.call): (each.model, each.takes_s) for each in run[1].samples} for run in (one, two)]
    both = offered[0].keys() & offered[1].keys()
    assert len(both) > 20
    assert {key: offered[0][key] for key in both} == {key: offered[1][key] for key in both}
    card = one[1].card
    assert {check["verdict"] for check in card["checks"] if not check["times"]} == {"agree"}
    assert len([check for check in card["checks"] if check["times"]]) == 3
    # On a machine that is busy with other things whoever measures is late.
    assert card["ttft_off_ms"] <= 10 + card["generator"]["lag_p99_ms"]
    assert [reason for reason in card["verdict"]["reasons"] if not reason.startswith("ttft_off_ms")] == []
    assert sum(bool(each.trace) for each in one[1].samples) in range(1, len(one[1].samples))


def test_the_exit_code_of_the_master_is_the_verdict(served, tmp_path):
    text = (scenario.FOLDER / "hit.yaml").read_text()
    harsh = tmp_path / "harsh.yaml"
    harsh.write_text(text.replace("failed_share: {exactly: 0}", "done: {least: 100000}"))
    assert harsh.read_text() != text
    for flags in ((), ("--processes", "2")):
        code, made, log = ran(served.url, tmp_path / f"run{len(flags)}", *flags, scenario=str(harsh))
        assert code == 1, log
        assert made.card["run"]["scenario"] == "harsh"
        assert any(reason.startswith("done: ") for reason in made.card["verdict"]["reasons"])


def test_a_run_whose_users_ask_for_nothing_fails(served, tmp_path):
    idle = tmp_path / "locustfile.py"
    idle.write_text("from loadtests.locustfile import *\nCallerUser.tasks = [lambda user: gevent.sleep(100)]\n")
    code, made, log = ran(served.url, tmp_path / "run", minutes=0.5, locustfile=idle)
    assert code == 1, log
    assert made.card["verdict"]["reasons"][0].startswith("too few samples: 0 requests have ended")


def test_a_saturated_generator_fails_the_run(served, tmp_path):
    hot = tmp_path / "locustfile.py"
    hot.write_text(
        "from locust import events\nfrom loadtests.locustfile import *\n"
        "@events.spawning_complete.add_listener\n"
        "def _hot(user_count, **_):\n    events.cpu_warning.fire(environment=None, cpu_usage=99)\n"
    )
    code, made, log = ran(served.url, tmp_path / "run", locustfile=hot)
    assert code == 1, log
    assert "used up a CPU core" in made.card["verdict"]["reasons"][0]


def test_a_target_that_lacks_a_model_or_is_not_there_is_told_and_nothing_is_sent(served, tmp_path):
    code, made, log = ran(served.url, tmp_path / "lacks", scenario="pingpong")
    assert (code, made) == (2, None)
    assert "has no model left, right; it has chat" in log
    assert "--models left=NAME" in log
    code, made, log = ran(f"http://127.0.0.1:{free_port()}", tmp_path / "gone")
    assert (code, made) == (2, None)
    assert "cannot be reached" in log


def test_models_go_by_the_targets_names(served, tmp_path):
    code, made, log = ran(served.url, tmp_path / "run", "--models", "left=chat,right=chat", scenario="pingpong")
    assert made is not None, log
    assert made.card["done"] > 5
    assert code == 1  # no swap, where the scenario wants many
    assert set(made.card["models"]) == {"left", "right"}


def test_a_bare_server_is_loaded_too_and_what_it_does_not_show_is_not_seen(engine, tmp_path):
    code, made, log = ran(engine, tmp_path / "run")
    assert code == 0, log
    assert made.card["run"]["kind"] == "OpenAI-compatible"
    assert made.card["ttft"]["count"] > 20
    assert (made.card["swaps"], made.card["wait"], made.card["checks"]) == (None, None, [])
    assert {row["verdict"] for row in made.card["thresholds"]} == {"pass", "not seen"}
    assert "not seen" in (made.folder / "report.html").read_text()


def test_an_interrupted_run_leaves_its_report(served, tmp_path):
    process = started(served.url, tmp_path, "--headless", minutes=60)
    log = tmp_path / "box" / "llmswap.log"
    try:
        until_now(lambda: log.read_text().count('"ttft_s"') > 20, "some requests", 60)
        process.send_signal(signal.SIGINT)
        code = process.wait(60)
    finally:
        process.kill()
    (folder,) = (tmp_path / "reports").iterdir()
    made = report.read(folder)
    assert made.card["done"] > 10
    assert made.card["run"]["minutes"] < 60
    assert code == (0 if made.card["verdict"]["passed"] else 1)


def test_the_web_ui_starts_a_scenario_of_choice_and_prometheus_sees_its_users(served, tmp_path):
    port, metrics = free_port(), free_port()
    process = started(
        served.url, tmp_path, "--web-host", "127.0.0.1", "--web-port", str(port), "--metrics-port", str(metrics)
    )

    def page(address, data=None):
        try:
            with urllib.request.urlopen(address, data, timeout=20) as response:
                return response.read().decode()
        except OSError:
            return ""

    try:
        front = until_now(lambda: page(f"http://127.0.0.1:{port}/"), "the web UI", 60)
        assert "opencode_fanout" in front
        assert "--api-key" not in front
        form = {"scenario": "hit", "minutes": "2", "time_scale": str(FAST), "seed": "3", "host": served.url}
        assert '"success":true' in page(f"http://127.0.0.1:{port}/swarm", urlencode(form).encode()).replace(" ", "")
        (folder,) = until_now(lambda: list((tmp_path / "reports").glob("*/report.html")), "a report", 60)
        seen = page(f"http://127.0.0.1:{metrics}/metrics")
    finally:
        process.terminate()
        process.wait(30)
    card = report.read(folder.parent).card
    assert (card["run"]["scenario"], card["run"]["seed"]) == ("hit", 3)
    done = [line for line in seen.splitlines() if line.startswith("locust_requests_total") and 'ending="done"' in line]
    assert sum(float(line.rsplit(" ", 1)[1]) for line in done) == card["done"]
    assert 'locust_users{scenario="hit"} 3.0' in seen
    assert "locust_time_to_first_token_seconds_bucket" in seen


def test_make_load_ends_what_it_started_when_it_is_told_to_end(tmp_path):
    command = [sys.executable, "-m", "loadtests", "run", "hit", "--minutes", "60", "--report", str(tmp_path)]
    tag = f"LOADTEST_TAG={tmp_path}".encode()
    process = subprocess.Popen(
        command, cwd=ROOT, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL,
        env={**os.environ, "LOADTEST_TAG": str(tmp_path)},
    )  # fmt: skip

    def family():
        return [path for path in Path("/proc").glob("[0-9]*/environ") if tag in _read(path)]

    until_now(lambda: len(family()) >= 4, "llmswap, its upstream and Locust", 60)
    process.terminate()
    assert process.wait(60) == 128 + signal.SIGTERM
    until_now(lambda: not family(), "the end of them all", 30)


def _read(path):
    try:
        return path.read_bytes()
    except OSError:
        return b""
