"""Every query of every board is asked of a real Prometheus, which watches llmswap through half a minute of everything.

Swaps by sleep and by start, thrashing, failed starts, refusals, clients that leave, names that nobody has, an ill GPU;
that is the simulated engines' ledger, read through a stub of the driver's library.
"""

import asyncio
import json
import random
import re
import time
from collections.abc import AsyncIterator, Iterator
from pathlib import Path
from typing import Any

import aiohttp
import pytest

from tests.dialogue import CHAT
from tests.real.prometheus import Prometheus, unpacked
from tests.stack import Program, Stack, fake, until
from tests.stub_gpu import StubGpu
from tests.telemetry.otlp_receiver import Received, http_receiver

pytestmark = pytest.mark.real

ROOT = Path(__file__).parents[2]
BOARDS = sorted((ROOT / "grafana" / "dashboards").glob("*.json"))
RULES = ROOT / "prometheus" / "rules"
ROUNDS = 7
SETTLE_S = 20.0
TOTAL_GIB = 40.0
ENGINE = {"time_scale": 0.1, "boot": 5, "output_tokens": "exact:20", "ttft": 0.2, "itl": 0.02, "gpu_total": TOTAL_GIB}
VLLM = {**ENGINE, "persona": "vllm", "enable_sleep_mode": True, "gpu_ready": 24}
# What is right to have no data here, and why.
EMPTY = {
    ("llmswap-overview", "Alerts"): "nothing is wrong for long enough",
}


class Watched:
    """A llmswap with everything switched on, and the Prometheus that scrapes it by our rules."""

    def __init__(self, stack: Stack, folder: Path, receiver: Received) -> None:
        gpu = StubGpu(folder, TOTAL_GIB)
        gpu.ail("xid")
        stack.environ |= {**gpu.environ, "VLLM_SERVER_DEV_MODE": "1"}
        models: dict[str, Any] = {
            name: {
                "cmd": fake(name, gpu_ledger=gpu.ledger, **VLLM),
                "sleep": {"preset": f"vllm-{level}", "verify": True},
                "concurrencyLimit": 2,
            }
            for name, level in (("nap", "l1"), ("doze", "l2"))
        }
        models["doze"]["cmd"] += " --enable-prompt-tokens-details"
        llama = {**ENGINE, "persona": "llamacpp", "metrics": True, "gpu_ready": 20, "gpu_ledger": gpu.ledger}
        models["cold"] = {"cmd": fake("cold", **llama), "unloadDelay": 1, "queueLimit": 2}
        models["broken"] = {"cmd": fake("broken", **ENGINE, fail=["crash_at_start"])}
        models["odd"] = {"cmd": fake("odd", **ENGINE, fail=["no_usage", "http_status:500@2"])}
        config = {
            "models": models,
            "journal": {"path": str(folder / "journal.jsonl")},
            "telemetry": {"traces": {"endpoint": receiver.endpoint}},
        }
        self.program: Program = stack.start(config)
        scrape = [
            {"job_name": "llmswap", "static_configs": [{"targets": [f"127.0.0.1:{self.program.port}"]}]},
            {
                "job_name": "llmswap-upstream",
                "http_sd_configs": [{"url": f"{self.program.url}/sd/prometheus", "refresh_interval": "1s"}],
            },
        ]
        self.prometheus = Prometheus(unpacked(), folder, scrape, "1s", [RULES / "*.yml"])
        self.began_s = time.time()
        self.asked = 0

    async def ask(self, http: aiohttp.ClientSession, model: str, *, stream: bool = True, leave: bool = False) -> None:
        """Ask, and leave in the middle of the answer, or read all."""
        body = {"model": model, "stream": stream, "messages": [{"role": "user", "content": "hello there " * 20}]}
        self.asked += 1
        async with http.post(self.program.url + CHAT, json=body) as answer:
            await (answer.content.readany() if leave else answer.read())

    async def script(self, http: aiohttp.ClientSession) -> None:
        """Act it out."""
        chance = random.Random(5)
        for turn in range(ROUNDS):
            for model in ("nap", "doze", "cold"):
                many = chance.choice((1, 3, 6))
                await asyncio.gather(*(self.ask(http, model) for _ in range(many)), self.ask(http, model, leave=True))
                await self.ask(http, model)
                if turn == 1:  # the engine's own metrics are found and scraped, while another one sleeps
                    await until(lambda model=model: self._seen(model), f"{model} is scraped", SETTLE_S, 0.2)
            for other in (f"nobody-{turn}", "broken", "odd", "odd"):
                await self.ask(http, other)
            await self.ask(http, "odd", stream=False)
        await asyncio.gather(*(self.ask(http, chance.choice(("nap", "doze", "cold"))) for _ in range(24)))

    def _seen(self, model: str) -> float:
        return self.prometheus.number(f'up{{job="llmswap-upstream", model="{model}"}}')

    async def settled(self) -> None:
        """Wait until Prometheus has seen the last of it."""
        done = lambda: self.prometheus.number("sum(llmswap_requests_total)") == self.asked  # noqa: E731
        await until(done, "all is scraped", SETTLE_S, 0.2)

    def has_data(self, target: dict[str, Any]) -> bool:
        """Ask what a panel would ask."""
        lasted_s = int(time.time() - self.began_s) + 1
        query = _plain(target["expr"], lasted_s)
        if target.get("instant"):
            return bool(self.prometheus.api("query", query=query)["result"])
        now_s = time.time()
        span = {"start": f"{self.began_s}", "end": f"{now_s}", "step": "0.5"}
        return bool(self.prometheus.api("query_range", query=query, **span)["result"])


def _plain(query: str, lasted_s: int) -> str:
    for variable, value in {"$__rate_interval": "10s", "$__range": f"{lasted_s}s"}.items():
        query = query.replace(variable, value)
    return re.sub(r"\$(job|instance|model)\b", ".+", query)


def _targets() -> Iterator[tuple[str, str, dict[str, Any]]]:
    for path in BOARDS:
        board = json.loads(path.read_text())
        for panel in (inner for outer in board["panels"] for inner in (outer, *outer.get("panels", []))):
            for target in panel.get("targets", []):
                if "expr" in target and "locust_" not in target["expr"]:  # no load test runs here
                    yield board["uid"], panel["title"], target
        for mark in board["annotations"]["list"]:
            if mark["name"] != "Alerts":
                yield board["uid"], mark["name"], mark["target"]


def _check_that_parts_make_a_whole(watched: Watched) -> None:
    """What is lost by pair and by caller is what is lost."""
    queries = {(uid, title, target["refId"]): target["expr"] for uid, title, target in _targets()}
    parts = [
        queries["llmswap-swaps", "GPU time lost, by pair", "A"],
        queries["llmswap-swaps", "GPU time lost, by caller", "A"],
    ]
    # at one moment that is over, so that all of them mean the same seconds
    at_s, lasted_s = str(time.time() - 1), int(time.time() - watched.began_s)
    whole, *sums = (
        float(
            watched.prometheus.api("query", query=f"sum({_plain(query, lasted_s)})", time=at_s)["result"][0]["value"][1]
        )
        for query in (queries["llmswap-swaps", "GPU time lost", "A"], *parts)
    )
    assert whole > 1
    assert sums == pytest.approx([whole, whole], rel=0.02)


@pytest.fixture
async def watched(stack: Stack, tmp_path: Path, http: aiohttp.ClientSession) -> AsyncIterator[Watched]:
    async with http_receiver() as receiver:
        watched = Watched(stack, tmp_path, receiver)
        try:
            await watched.script(http)
            await watched.settled()
            yield watched
        finally:
            watched.prometheus.close()


@pytest.mark.timeout(240)
async def test_every_query_of_every_board_has_data(watched: Watched) -> None:
    silent, every = [], list(_targets())
    for uid, title, target in every:
        if (uid, title) not in EMPTY and not watched.has_data(target):
            silent.append(f"{uid} / {title}: {target['expr']}")
    assert len(every) > 200
    _check_that_parts_make_a_whole(watched)
    assert not silent, "\n" + "\n".join(silent)
