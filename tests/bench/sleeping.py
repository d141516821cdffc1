"""What a swap by sleep costs beyond what the engines need for it themselves.

Two simulated engines sleep for one another, first for llmswap, then by hand: the same requests, sent to the same
engines one after the other by somebody who trusts every answer. What llmswap does besides (it queues, proves, serves)
is the difference.
"""

import json
import statistics
import sys
import time
import urllib.request
from collections.abc import Callable, Iterable, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from llmswap.config.presets import PRESETS, Preset
from tests.bench import contenders
from tests.bench.figures import Row
from tests.stub_gpu import stub_environ

SWAPS, QUICK_SWAPS = 60, 16  # even, so that the same model is up at the end
WARM = 20
SLEEP_S, WAKE_S = 0.05, 0.08
BOUND_MS = 5.0
CROWD = 16
# What a canary asks for; the engine's own time, like the steps.
CANARY = (("GET", "/v1/models", ""), ("POST", "/v1/completions", '{"prompt": "1, 2, 3,", "max_tokens": 8}'))
TIMES = f"--sleep-l1 {SLEEP_S} --wake-l1 {WAKE_S} --sleep-l2 {SLEEP_S} --wake-l2 {WAKE_S} --first-sleep-extra 0"
MEMORY = "--gpu-total 60 --gpu-ready 40 --gpu-release-lag 0"


@dataclass(frozen=True, slots=True)
class Way:
    """A way to swap.

    Attributes:
        engine: Flags of the simulated engine.
        driver: With a driver to ask (a stub whose GPU is the engines' ledger), so that memory must be seen to be free.
        crowd: How many ask at once for the model that sleeps; the last answer counts.
        more: Of each model's config.
    """

    name: str
    preset: Preset
    engine: str = "--persona vllm --enable-sleep-mode"
    driver: bool = True
    crowd: int = 1
    more: Mapping[str, Any] = field(default_factory=dict)


SGLANG = "--persona sglang --enable-memory-saver --enable-weights-cpu-backup"
WAYS = (
    Way("vLLM level 1, no driver", "vllm-l1", driver=False),
    Way("vLLM level 1", "vllm-l1"),
    Way("vLLM level 2, weights read again", "vllm-l2"),
    Way("SGLang, four steps", "sglang", SGLANG, more={"checkEndpoint": "/ready"}),
    Way(f"vLLM level 1, {CROWD} ask at once", "vllm-l1", crowd=CROWD),
)


def swap_rows(directory: Path, quick: bool) -> list[Row]:
    """Swap two models in each way."""
    return [_row(way, directory / f"sleep-{number}", quick) for number, way in enumerate(WAYS)]


def _row(way: Way, directory: Path, quick: bool) -> Row:
    directory.mkdir()
    swaps = QUICK_SWAPS if quick else SWAPS
    ports = [contenders.free_port(), contenders.free_port()]
    environ = stub_environ(directory / "gpus.json", directory / "none")
    config = _config(way, directory, ports)
    with (
        contenders.llmswap(directory, config, "sleep", environ if way.driver else {}) as server,
        ThreadPoolExecutor(way.crowd) as crowd,
    ):
        for model in ("m0", "m1", "m0", "m1"):  # starts, and the first sleep of each, which takes longer
            _ask(server.port, model)
        warm_s = statistics.median(_ask_all(crowd, way.crowd, server.port, "m1") for _ in range(WARM))
        slept = _sleeps(ports)
        took_s = [_ask_all(crowd, way.crowd, server.port, f"m{number % 2}") for number in range(swaps)]
        if _sleeps(ports) - slept != swaps:
            raise RuntimeError(f"not one sleep for each swap: {_sleeps(ports) - slept} for {swaps}")
        by_hand_s = [_swap_by_hand(way, ports[1 - number % 2], ports[number % 2]) for number in range(swaps)]
    return _verdict(way, warm_s, took_s, by_hand_s)


def _verdict(way: Way, warm_s: float, took_s: Sequence[float], by_hand_s: Sequence[float]) -> Row:
    hand_s = statistics.median(by_hand_s)
    beyond_ms = [1000 * (took - warm_s - hand_s) for took in took_s]
    swap_ms, hand_ms, warm_ms = (1000 * value for value in (statistics.median(took_s), hand_s, warm_s))
    worst_ms = statistics.quantiles(beyond_ms, n=10)[8]
    note = f"swap {swap_ms:.0f} ms, by hand {hand_ms:.0f} ms, answer {warm_ms:.1f} ms; p90 {worst_ms:.1f} ms"
    title = f"a swap by sleep beyond the same requests by hand, median: {way.name}"
    return Row(title, statistics.median(beyond_ms), "ms", BOUND_MS, note)


def _config(way: Way, directory: Path, ports: list[int]) -> Mapping[str, Any]:
    """Configure two simulated engines that exclude one another; without a hold: only the swap itself is timed."""
    models = {}
    for number, port in enumerate(ports):
        said = f"{way.engine} {TIMES} {MEMORY} --boot 0 --ttft 0 --itl 0 --post-wake-first-ttft-mult 1"
        ledger = f"--gpu-ledger {directory}/gpus.json"
        models[f"m{number}"] = {
            "cmd": f"{sys.executable} -m llmswap.fake_upstream {said} {ledger} --model m{number} --port {port}",
            "proxy": f"http://127.0.0.1:{port}",
            "env": ["VLLM_SERVER_DEV_MODE=1"],
            "concurrencyLimit": 2 * CROWD,
            "sleep": {"preset": way.preset},
            **way.more,
        }
    return {"models": models, "routing": {"scheduler": {"use": "fifo"}}}


def _ask(port: int, model: str) -> float:
    """Send one request; gives when it was answered, by the monotonic clock."""
    body = json.dumps({"model": model, "messages": [{"role": "user", "content": "hi"}], "max_tokens": 1}).encode()
    headers = {"Content-Type": "application/json"}
    request = urllib.request.Request(f"http://127.0.0.1:{port}/v1/chat/completions", body, headers)
    with urllib.request.urlopen(request, timeout=30) as answer:
        answer.read()
    return time.perf_counter()


def _ask_all(crowd: ThreadPoolExecutor, count: int, port: int, model: str) -> float:
    """Have so many ask at once; gives how long it took until all of them were answered."""
    began_s = time.perf_counter()
    asking = [crowd.submit(_ask, port, model) for _ in range(count)]
    return max(asked.result() for asked in asking) - began_s


def _swap_by_hand(way: Way, awake: int, asleep: int) -> float:
    """Send one engine to sleep, and then wake the other; gives how long it took.

    Args:
        way: How they do it.
        awake, asleep: Their ports.
    """
    how = PRESETS[way.preset]
    began_s = time.perf_counter()
    for port, steps in ((awake, how.sleep), (asleep, how.wake)):
        _send(port, ((step.method, step.endpoint, step.body) for step in steps))
    if how.canary:
        _send(asleep, CANARY)
    return time.perf_counter() - began_s


def _send(port: int, requests: Iterable[tuple[str, str, str]]) -> None:
    for method, path, body in requests:
        data = None if method == "GET" else body.encode()
        headers = {"Content-Type": "application/json"} if body else {}
        request = urllib.request.Request(f"http://127.0.0.1:{port}{path}", data, headers, method=method)
        with urllib.request.urlopen(request, timeout=30) as answer:
            answer.read()


def _sleeps(ports: list[int]) -> int:
    """Count the sleeps that the engines went through, by their own books."""
    count = 0
    for port in ports:
        with urllib.request.urlopen(f"http://127.0.0.1:{port}/_fake/journal", timeout=10) as answer:
            operations = json.load(answer)["operations"]
        count += sum((entry["kind"], entry["result"]) == ("sleep", "ok") for entry in operations)
    return count


SECTIONS: Mapping[str, Callable[[Path, bool], list[Row]]] = {"sleep": swap_rows}
