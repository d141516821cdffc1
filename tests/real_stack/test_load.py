"""The stack under load: what the dashboards ask has an answer, exemplars lead to traces, alerts reach Alertmanager."""

import asyncio
import re
import shutil
import sys
import time
from collections.abc import Iterator

import pytest
import yaml

from tests.real_stack.clone import Stack
from tests.real_stack.engine import HERE, stack_scripts, told
from tests.real_stack.faster_rules import faster_rules
from tests.real_stack.load import everything
from tests.stack import until_now

pytestmark = [pytest.mark.real, pytest.mark.timeout(900)]

LOAD_S = 180
MAX_WAIT_S = 10  # simulated engines swap within seconds
FACTOR = 10  # by which rules are faster
ALERT_LIMIT_S = 180
CONFIG = "watched.yaml"


def prepare(stack: Stack) -> dict[str, str]:
    """Write a config with models that go wrong; gives what is to be set."""
    config = yaml.safe_load((stack.root / "deploy" / "llmswap.yaml").read_text())
    broken = {"flaky": "disconnect_midstream:5", "broken": "crash_at_start", "mute": "no_usage"}
    config["models"] |= {
        name: {"cmd": f"llmswap fake-upstream --port ${{PORT}} --fail {fault}"} for name, fault in broken.items()
    }
    config["groups"]["wrong"] = {"members": list(broken), "swap": False, "exclusive": False}
    config["routing"] = {"scheduler": {"settings": {"fair": {"maxWait": MAX_WAIT_S}}}}
    (stack.root / "deploy" / CONFIG).write_text(yaml.safe_dump(config, sort_keys=False))
    shutil.copy(HERE / "compose.watched.yml", stack.root / "watched.yml")
    files = "docker-compose.yml:watched.yml"
    return {"LLMSWAP_CONFIG": CONFIG, "COMPOSE_FILE": files, "COMPOSE_PROFILES": "load"}


@pytest.fixture(scope="module")
def watched(stack: Stack) -> Iterator[Stack]:
    """Run the stack so that everything shows."""
    with faster_rules(stack, FACTOR), stack.otherwise(**prepare(stack)):
        stack.up()
        stack.compose("exec", "-T", "llmswap", "sh", "-c", "echo xid >/tmp/gpu-fault")
        yield stack
        stack.compose("rm", "--stop", "--force", "locust")  # of a profile that is off again, and yet it would go on


@pytest.fixture(scope="module")
def loaded(watched: Stack) -> Stack:
    """Have everything happen for three minutes."""
    heard = asyncio.run(everything(watched.llmswap, LOAD_S))
    told(f"{LOAD_S} s of load: {dict(sorted(heard.items()))}")
    assert heard["200"] > 100
    assert min(heard["left"], heard["gave up"], heard["broken"], heard["404"], heard["400"]) > 0, heard
    return watched


def test_every_query_of_every_dashboard_has_data(loaded: Stack):
    """By the checker of the stack's scripts, which asks once and knows only what is there at that moment."""
    promtool = f"{loaded.engine.environ['DK']}/root/forky/promtool/usr/bin/promtool"
    boards = sorted(map(str, (loaded.root / "grafana" / "dashboards").glob("*.json")))
    command = (sys.executable, str(stack_scripts() / "dash_check.py"), promtool, *boards)
    code, said = loaded.engine.attempt(*command, PROM_URL=loaded.inside("prometheus", 9090))
    assert len(re.findall(r"(\d+) expressions", said)) == len(boards) > 0, said
    assert [line.strip() for line in said.splitlines() if line.startswith("  ")] == []
    assert code == 0, said
    told(f"{len(boards)} dashboards, {sum(map(int, re.findall(r'([0-9]+) expressions', said)))} queries with data")


def test_all_kinds_of_swaps_were_seen(loaded: Stack):
    rows = loaded.samples("sum by (kind, outcome) (llmswap_swaps_total) > 0")
    assert {(row["kind"], row["outcome"]) for row, _ in rows} >= {
        ("cold", "ok"),
        ("wake1", "ok"),
        ("wake2", "ok"),
        ("cold", "exit"),
    }
    assert loaded.number('sum(llmswap_requests_total{outcome="client_disconnect"})') > 0


@pytest.mark.parametrize(
    ("metric", "span"),
    [("llmswap_request_duration_seconds_bucket", "POST"), ("llmswap_swap_duration_seconds_bucket", "llmswap.swap")],
)
def test_an_exemplar_leads_to_its_trace(loaded: Stack, metric, span):
    now_s = time.time()
    rows = loaded.prometheus("query_exemplars", query=metric, start=str(now_s - 900), end=str(now_s))
    traces = {exemplar["labels"]["trace_id"] for row in rows for exemplar in row["exemplars"]}
    assert traces
    for trace in sorted(traces)[:10]:
        names = {found["name"] for found in loaded.trace(trace)}
        assert any(name.startswith(span) for name in names), (trace, names)


def test_that_llmswap_is_down_reaches_alertmanager_and_that_it_is_back_as_well(watched: Stack):
    until_now(lambda: watched.targets().get("llmswap") == "up", "llmswap is scraped", 60)
    assert "LLMSwapDown" not in watched.alerts()
    watched.compose("stop", "llmswap")
    until_now(lambda: "LLMSwapDown" in watched.alerts(), "Alertmanager knows that llmswap is down", ALERT_LIMIT_S)
    watched.up()
    until_now(lambda: "LLMSwapDown" not in watched.alerts(), "Alertmanager knows that it is back", ALERT_LIMIT_S)
