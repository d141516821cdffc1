"""A real Prometheus watches llmswap through a scripted minute: swaps by sleep and by start, errors, a reload.

Afterwards everything that was counted must add up: in Prometheus, in the scheduler's journal, in the simulated
engines' own books, and in what the clients saw.
"""

import asyncio
import json
import random
import re
import subprocess
from collections import Counter, defaultdict
from collections.abc import AsyncIterator, Iterator
from functools import partial
from pathlib import Path
from typing import Any

import aiohttp
import pytest

from llmswap.core.commands import Dispatch, Reject, Start, Wake
from llmswap.core.events import RequestArrived, RequestId, UpstreamReady
from llmswap.core.fleet import ModelId
from llmswap.journal.reader import Entry, Recording
from tests.dialogue import CHAT
from tests.real.prometheus import Binaries, Prometheus, unpacked
from tests.stack import Program, fake, listening_ports, one, until
from tests.telemetry.otlp_receiver import Received, http_receiver

pytestmark = pytest.mark.real

TIME_SCALE = 0.1
ROUNDS = 8  # of every model in turn: three swaps each
SLEEPERS = ("l1", "l2")
ALONE = ("l1",)  # the preset of l2 has it generate a token after a wake, which is no client's
COLD = "cold"
KINDS = {"l1": "wake1", "l2": "wake2"}
CLIENTS = 3
SETTLE_S = 30.0
COUNTED = re.compile(r"llmswap_\w+_(total|count|bucket|sum)")


@pytest.fixture(scope="module")
def binaries() -> Binaries:
    return unpacked()


class Watched:
    """A llmswap with everything switched on, and the Prometheus that scrapes it."""

    def __init__(self, stack: Any, folder: Path, binaries: Binaries, receiver: Received) -> None:
        self.folder, self.binaries, self.receiver = folder, binaries, receiver
        stack.environ["VLLM_SERVER_DEV_MODE"] = "1"
        self.program: Program = stack.start(self.config())
        scrape = [
            {"job_name": "llmswap", "static_configs": [{"targets": [f"127.0.0.1:{self.program.port}"]}]},
            {
                "job_name": "llmswap-upstream",
                "http_sd_configs": [{"url": f"{self.program.url}/sd/prometheus", "refresh_interval": "1s"}],
            },
        ]
        self.prometheus = Prometheus(binaries, folder, scrape, "1s")
        self.tokens: Counter[str] = Counter()
        self.answers: Counter[tuple[str, int]] = Counter()

    def config(self, **more: Any) -> dict[str, Any]:
        engine = {"time_scale": TIME_SCALE, "boot": 5, "output_tokens": "exact:12", "ttft": 0.2, "itl": 0.02}
        vllm = {**engine, "persona": "vllm", "enable_sleep_mode": True}
        models: dict[str, Any] = {
            name: {"cmd": fake(name, **vllm), "sleep": {"preset": f"vllm-{name}", "verify": True}} for name in SLEEPERS
        }
        models[COLD] = {"cmd": fake(COLD, **engine)}
        return {
            "models": models | more,
            "routing": {"scheduler": {"use": "fifo"}},
            "journal": {"path": str(self.folder / "journal.jsonl")},
            "telemetry": {"traces": {"endpoint": self.receiver.endpoint}},
        }

    async def ask(self, http: aiohttp.ClientSession, model: str, *, stream: bool) -> None:
        """Ask, and count what came."""
        body = {"model": model, "stream": stream, "messages": [{"role": "user", "content": "hello there"}]}
        if stream:
            body["stream_options"] = {"include_usage": True}
        async with http.post(self.program.url + CHAT, json=body) as answer:
            text = await answer.text()
        self.answers[model, answer.status] += 1
        if answer.status != 200:
            return
        pieces = [line[6:] for line in text.splitlines() if line.startswith("data: {")] if stream else [text]
        usage = [found for piece in pieces if (found := json.loads(piece).get("usage"))]
        self.tokens["input"] += usage[-1]["prompt_tokens"]
        self.tokens["output"] += usage[-1]["completion_tokens"]

    async def script(self, http: aiohttp.ClientSession) -> None:
        """Act the minute out."""
        chance = random.Random(5)
        seen: list[set[str]] = []
        for turn in range(ROUNDS):
            for model in (*SLEEPERS, COLD):
                await asyncio.gather(
                    *(self.ask(http, model, stream=bool(chance.getrandbits(1))) for _ in range(CLIENTS))
                )
                await self.ask(http, f"nobody-{turn}", stream=False)
                if turn < 2:  # to see targets come and go takes Prometheus a second or two
                    seen.append(await self._target(model))
        assert seen == [{model} for model in (*SLEEPERS, COLD)] * 2
        self.program.reload(self.config(late={"cmd": fake("late", time_scale=TIME_SCALE)}))
        await until(
            lambda: self.prometheus.number("llmswap_config_models") == 4, "the reload is scraped", SETTLE_S, 0.2
        )
        await self.ask(http, "late", stream=False)

    async def _target(self, model: str) -> set[str]:
        await until(
            lambda: set(self.prometheus.targets("llmswap-upstream")) == {model}, f"target {model}", SETTLE_S, 0.2
        )
        return set(self.prometheus.targets("llmswap-upstream"))

    async def settled(self) -> None:
        """Wait until Prometheus has seen the last of it."""
        total = sum(self.answers.values())
        await until(
            lambda: self.prometheus.number("sum(llmswap_requests_total)") == total, "all is scraped", SETTLE_S, 0.2
        )

    def steps(self) -> Iterator[Any]:
        """Give the recorded steps."""
        for record in Recording(self.folder / "journal.jsonl"):
            if isinstance(record, Entry):
                yield record.step

    def close(self) -> None:
        self.prometheus.close()


@pytest.fixture
async def watched(stack, tmp_path, binaries, http) -> AsyncIterator[Watched]:
    async with http_receiver() as receiver:
        watched = Watched(stack, tmp_path, binaries, receiver)
        try:
            await watched.script(http)
            await watched.settled()
            yield watched
        finally:
            watched.close()


@pytest.mark.timeout(240)
async def test_what_prometheus_has_seen_adds_up(watched: Watched, http: aiohttp.ClientSession) -> None:
    prometheus = watched.prometheus
    # the clients
    for (model, status), count in watched.answers.items():
        label = model if not model.startswith("nobody") else "_unknown"
        if label != "_unknown":
            assert prometheus.number(f'sum(llmswap_requests_total{{model="{label}",code="{status}"}})') == count, model
    unknown = sum(count for (model, _), count in watched.answers.items() if model.startswith("nobody"))
    assert prometheus.number('sum(llmswap_requests_total{model="_unknown",code="404"})') == unknown == 3 * ROUNDS
    for kind, tokens in watched.tokens.items():
        assert prometheus.number(f'sum(llmswap_tokens_total{{token_type="{kind}"}})') == tokens, kind
    await _check_engines(watched, http)
    _check_journal(watched)
    # time
    counters = [name for name in prometheus.api("label/__name__/values") if COUNTED.fullmatch(name)]
    assert len(counters) > 50
    assert [name for name in counters if prometheus.number(f"sum(resets({name}[10m]))")] == []
    per_gpu = prometheus.query("sum by (gpu) (llmswap_gpu_phase_seconds_total)")
    uptime_s = prometheus.number("time() - process_start_time_seconds")
    assert per_gpu
    assert all(abs(value - uptime_s) < 10 for value in per_gpu.values()), (per_gpu, uptime_s)
    await _check_exemplars(watched)
    await _check_form(watched, http)


async def _check_engines(watched: Watched, http: aiohttp.ClientSession) -> None:
    """Those that were up or asleep all along have books of their own, which are asked for past llmswap."""
    number, program = watched.prometheus.number, watched.program
    for model in SLEEPERS:
        calls = await program.journal(model)
        asked = [call for call in calls if call["path"].startswith(CHAT) and call["outcome"] == "done"]
        assert number(f'sum(llmswap_requests_total{{model="{model}",outcome="ok"}})') == len(asked)
        answered = sum(call["tokens"] for call in asked)
        assert number(f'sum(llmswap_tokens_total{{model="{model}",token_type="output"}})') == answered > 0
        warmed = [call for call in calls if call["tokens"] and call not in asked]
        if model in ALONE:
            assert not warmed, "it is asked by clients only"
            port = one(listening_ports(program.upstream_pid(model)), f"port of {model}")
            async with http.get(f"http://127.0.0.1:{port}/metrics") as answer:
                theirs = await answer.text()
            for kind, name in (("input", "vllm:prompt_tokens_total"), ("output", "vllm:generation_tokens_total")):
                (tokens,) = re.findall(rf"^{name}(?:{{.*}})? (\S+)$", theirs, re.MULTILINE)
                assert number(f'sum(llmswap_tokens_total{{model="{model}",token_type="{kind}"}})') == float(tokens)


def _check_journal(watched: Watched) -> None:
    """What the recorded steps add up to, the plain way, is what was counted (I19)."""
    asked: dict[RequestId, tuple[ModelId, float]] = {}
    waits: dict[ModelId, list[float]] = defaultdict(list)
    begun: Counter[tuple[str, ...]] = Counter()
    ready = 0
    for step in watched.steps():
        if isinstance(step.event, RequestArrived):
            asked[step.event.request] = step.event.model, step.at_s
        ready += isinstance(step.event, UpstreamReady)
        for command in step.commands:
            assert not isinstance(command, Reject)
            if isinstance(command, Dispatch):
                model, arrived_s = asked.pop(command.request)
                waits[model].append(step.at_s - arrived_s)
            elif isinstance(command, Start | Wake):
                begun[command.model, "cold" if isinstance(command, Start) else KINDS[command.model]] += 1
    number = watched.prometheus.number
    assert number('sum(llmswap_swaps_total{outcome="ok"})') == ready == begun.total() >= 3 * ROUNDS
    for (model, kind), count in begun.items():
        where = f'{{to_model="{model}",kind="{kind}",outcome="ok"}}'
        assert number(f"llmswap_swaps_total{where}") == count, where
    assert waits.keys() == {*SLEEPERS, COLD, "late"}
    for model, mine in waits.items():
        where = f'{{model="{model}",outcome="admitted"}}'
        assert number(f"llmswap_queue_wait_seconds_count{where}") == len(mine)
        assert number(f"llmswap_queue_wait_seconds_sum{where}") == pytest.approx(sum(mine))
        assert number(f'sum(llmswap_request_wait_seconds_total{{model="{model}"}})') == pytest.approx(sum(mine))


async def _check_exemplars(watched: Watched) -> None:
    found = watched.prometheus.api(
        "query_exemplars",
        query="llmswap_time_to_first_token_seconds_bucket or llmswap_request_duration_seconds_bucket",
        start="0",
        end="9999999999",
    )
    ids = {exemplar["labels"]["trace_id"] for series in found for exemplar in series["exemplars"]}
    assert len(ids) > ROUNDS
    await until(
        lambda: ids <= {span.trace_id.hex() for span in watched.receiver.spans()}, "every exemplar's trace arrives"
    )


async def _check_form(watched: Watched, http: aiohttp.ClientSession) -> None:
    for accept in ("text/plain", "application/openmetrics-text;version=1.0.0"):
        async with http.get(watched.program.url + "/metrics", headers={"Accept": accept}) as answer:
            text = await answer.read()
        if accept == "text/plain":
            check = partial(subprocess.run, [watched.binaries.promtool, "check", "metrics"], capture_output=True)
            said = await asyncio.to_thread(check, input=text, timeout=30, check=False)
            assert (said.returncode, said.stdout + said.stderr) == (0, b"")
        else:
            assert text.endswith(b"# EOF\n")
