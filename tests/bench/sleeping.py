"""What a swap by sleep costs beyond what the engines need for it themselves."""

import json
import statistics
import sys
import time
import urllib.request
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

from tests.bench import contenders
from tests.bench.figures import Row

SWAPS = 60
WARM = 20
SLEEP_S, WAKE_S = 0.05, 0.08
BOUND_MS = 5.0


def swap_rows(directory: Path, quick: bool) -> list[Row]:
    """Ask two models in turn that sleep for one another; then tell the same two to sleep and wake without the proxy."""
    swaps = SWAPS // 4 if quick else SWAPS
    ports = [contenders.free_port(), contenders.free_port()]
    with contenders.llmswap(directory, _config(directory, ports), "sleep") as server:
        for model in ("m0", "m1", "m0", "m1"):  # starts, and the first sleep of each, which takes longer
            _ask(server.port, model)
        warm_s = statistics.median(_ask(server.port, "m1") for _ in range(WARM))
        took_s = [_ask(server.port, f"m{number % 2}") for number in range(swaps)]
        busy_s = _busy(ports)[-swaps:]
        by_hand_s = statistics.median(
            _swap_by_hand(ports[1 - number % 2], ports[number % 2]) for number in range(swaps)
        )
    beyond_ms = [1000 * (took - warm_s - by_hand_s) for took in took_s]
    swap_ms, busy_ms, by_hand_ms = (
        1000 * value for value in (statistics.median(took_s), statistics.median(busy_s), by_hand_s)
    )
    note = f"swap {swap_ms:.0f} ms, POST sleep and wake by hand {by_hand_ms:.0f} ms, their handlers {busy_ms:.0f} ms"
    worst = f"p90 {statistics.quantiles(beyond_ms, n=10)[8]:.1f} ms"
    title = "a swap by sleep and wake: time beyond the engines' own, median"
    return [Row(title, statistics.median(beyond_ms), "ms", BOUND_MS, f"{note}; {worst}")]


def _config(directory: Path, ports: list[int]) -> Mapping[str, Any]:
    """Configure two simulated vLLMs that exclude one another; without a hold, so that only the swap itself is timed."""
    models = {}
    for number, port in enumerate(ports):
        flags = f"--sleep-l1 {SLEEP_S} --wake-l1 {WAKE_S} --first-sleep-extra 0 --boot 0 --ttft 0 --itl 0"
        ledger = f"--gpu-ledger {directory}/sleep-gpus.json --gpu-release-lag 0"
        engine = f"{sys.executable} -m llmswap.fake_upstream --persona vllm --enable-sleep-mode {flags} {ledger}"
        models[f"m{number}"] = {
            "cmd": f"{engine} --model m{number} --post-wake-first-ttft-mult 1 --port {port}",
            "proxy": f"http://127.0.0.1:{port}",
            "env": ["VLLM_SERVER_DEV_MODE=1"],
            "sleepMode": "enable",
            "sleep": {"preset": "vllm-l1"},
        }
    return {"models": models, "routing": {"scheduler": {"use": "fifo"}}}


def _ask(port: int, model: str) -> float:
    """Send one request; gives how long it took."""
    body = json.dumps({"model": model, "messages": [{"role": "user", "content": "hi"}], "max_tokens": 1}).encode()
    headers = {"Content-Type": "application/json"}
    request = urllib.request.Request(f"http://127.0.0.1:{port}/v1/chat/completions", body, headers)
    began_s = time.perf_counter()
    with urllib.request.urlopen(request, timeout=30) as answer:
        answer.read()
    return time.perf_counter() - began_s


def _swap_by_hand(awake: int, asleep: int) -> float:
    """Tell one engine to sleep, and then the other to wake, as somebody would who trusts them; gives how long it took.

    Args:
        awake, asleep: Their ports.
    """
    began_s = time.perf_counter()
    for port, path in ((awake, "/sleep?level=1&mode=wait"), (asleep, "/wake_up")):
        request = urllib.request.Request(f"http://127.0.0.1:{port}{path}", b"")
        with urllib.request.urlopen(request, timeout=30) as answer:
            answer.read()
    return time.perf_counter() - began_s


def _busy(ports: list[int]) -> list[float]:
    """Give for each swap how long the one engine took to sleep and the other to wake, in order."""
    operations = []
    for port in ports:
        with urllib.request.urlopen(f"http://127.0.0.1:{port}/_fake/journal", timeout=10) as answer:
            journal = json.load(answer)
        for entry in journal["operations"]:
            if entry["kind"] in {"sleep", "wake"}:
                operations.append((journal["born_s"] + entry["began_s"], entry))
    spans = [(entry["kind"], entry["ended_s"] - entry["began_s"]) for _, entry in sorted(operations, key=_when)]
    busy = []
    for (first, sleep_s), (second, wake_s) in zip(spans[1::2], spans[2::2], strict=True):  # the first woke nobody
        if (first, second) != ("sleep", "wake"):
            raise RuntimeError(f"not one sleep and one wake for each swap: {spans}")
        busy.append(sleep_s + wake_s)
    return busy


def _when(operation: tuple[float, Any]) -> float:
    return operation[0]


SECTIONS: Mapping[str, Callable[[Path, bool], list[Row]]] = {"sleep": swap_rows}
