"""Prometheus' files by its own tools: config, rules, tests of every alert; and the rules on a real llmswap."""

import os
import subprocess
from itertools import cycle
from pathlib import Path

import aiohttp
import pytest

from tests.dialogue import CHAT
from tests.promql.catalogue import recorded
from tests.real import scaled_rules
from tests.real.prometheus import Binaries, Prometheus, unpacked
from tests.stack import fake, until
from tests.stub_gpu import StubGpu

pytestmark = pytest.mark.real

ROOT = Path(__file__).parents[2]
ROOM = ROOT / "prometheus"
TOTAL_GIB = 40.0
FACTOR = 60.0  # 30 minutes are 30 s
LEAST_S = 5.0  # of a window: some scrapes
FIRES_WITHIN_S = 180.0


@pytest.fixture(scope="module")
def binaries() -> Binaries:
    return unpacked()


def passes(*words: object) -> None:
    """Run a tool; what it says is shown if it finds fault."""
    done = subprocess.run(
        [str(word) for word in words],
        env=os.environ | {"GRAFANA_URL": "https://grafana.example.org"},
        stdin=subprocess.DEVNULL,
        capture_output=True,
        text=True,
        timeout=120,
        check=False,
    )
    assert done.returncode == 0, done.stdout + done.stderr


def test_prometheus_takes_the_config(binaries: Binaries) -> None:
    passes(binaries.promtool, "check", "config", "--lint=all", "--lint-fatal", ROOM / "prometheus.yml")


def test_prometheus_takes_the_rules(binaries: Binaries) -> None:
    passes(binaries.promtool, "check", "rules", "--lint=all", "--lint-fatal", *sorted((ROOM / "rules").glob("*.yml")))


def test_alertmanager_takes_its_config(binaries: Binaries) -> None:
    passes(binaries.amtool, "check-config", ROOM / "alertmanager.yml")


@pytest.mark.timeout(180)
@pytest.mark.parametrize("path", sorted((ROOM / "tests").glob("*.yml")), ids=lambda path: path.stem)
def test_alerts_fire_and_stay_silent(path: Path, binaries: Binaries) -> None:
    passes(binaries.promtool, "test", "rules", path)


@pytest.mark.timeout(400)
async def test_every_rule_works_on_real_series_and_a_ping_pong_fires_the_thrash_alert(
    stack, tmp_path: Path, binaries: Binaries, http: aiohttp.ClientSession
) -> None:
    gpu = StubGpu(tmp_path, TOTAL_GIB)
    stack.environ |= {**gpu.environ, "VLLM_SERVER_DEV_MODE": "1"}
    engine = {"time_scale": 0.1, "boot": 5, "output_tokens": "exact:4", "ttft": 0.2, "itl": 0.02}
    engine |= {"gpu_ledger": gpu.ledger, "gpu_total": TOTAL_GIB, "gpu_ready": 24}
    vllm = {**engine, "persona": "vllm", "enable_sleep_mode": True}
    program = stack.start(
        {
            "models": {
                "sleeper": {"cmd": fake("sleeper", **vllm), "sleep": {"preset": "vllm-l1"}},
                "other": {"cmd": fake("other", **engine)},
            },
            "routing": {"scheduler": {"use": "fifo"}},  # fair holds models for seconds, which are minutes here
        }
    )
    scaled_rules.write(tmp_path / "rules", FACTOR, LEAST_S)
    scrape = [{"job_name": "llmswap", "static_configs": [{"targets": [f"127.0.0.1:{program.port}"]}]}]
    prometheus = Prometheus(binaries, tmp_path, scrape, "1s", (tmp_path / "rules").glob("*.yml"))
    models = cycle(("sleeper", "other"))

    async def thrashes() -> bool:
        body = {"model": next(models), "messages": [{"role": "user", "content": "ping"}]}
        async with http.post(program.url + CHAT, json=body) as answer:
            assert answer.status == 200, await answer.text()
        return "LLMSwapThrashing" in prometheus.firing()

    try:
        await until(thrashes, "LLMSwapThrashing fires", FIRES_WITHIN_S, 0.05)
        assert "critical" not in prometheus.firing().values()
        assert {rule["name"]: rule.get("lastError") for rule in prometheus.rules() if rule["health"] != "ok"} == {}
        assert prometheus.number("count(llmswap_gpu_memory_unattributed_bytes)") == 1
        silent = [name for name in recorded() if not prometheus.query(f"last_over_time({name}[10m])")]
        assert [name for name in silent if not name.endswith("offset1h")] == []
        program.terminate()
        await until(lambda: "LLMSwapDown" in prometheus.firing(), "LLMSwapDown fires", FIRES_WITHIN_S, 0.2)
    finally:
        prometheus.close()
