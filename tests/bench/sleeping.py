"""What a swap by sleep costs beyond what the engines need for it themselves.

Two simulated engines sleep for one another for llmswap, and two like them by hand: the same requests, sent one after
the other by somebody who trusts every answer. What llmswap does besides (it queues, proves, serves) is the difference.
The two ways take turns, so that a busy moment of the machine hits both.
"""

import json
import shlex
import statistics
import sys
import time
import urllib.request
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from llmswap.config.presets import PRESETS, Preset
from llmswap.config.settings import SleepStep
from tests.bench import contenders
from tests.bench.figures import Row
from tests.stub_gpu import stub_environ

SWAPS, QUICK_SWAPS = 60, 16
WARM_SWAPS = 4  # even: the first round finds the first of each pair asleep
WARM = 5
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
    with ExitStack() as stack:
        server = stack.enter_context(contenders.llmswap(directory, config, "sleep", environ if way.driver else {}))
        crowd = stack.enter_context(ThreadPoolExecutor(way.crowd))
        hands = stack.enter_context(_by_hand(way, directory))
        for number in range(WARM_SWAPS):  # starts, and the first sleep of each, which takes longer
            _ask_all(crowd, way.crowd, server.port, f"m{number % 2}")
            _swap_by_hand(way, hands[1 - number % 2], hands[number % 2])
        slept = _sleeps(ports)
        rounds = [_round(way, crowd, server.port, hands, number % 2) for number in range(swaps)]
        if _sleeps(ports) - slept != swaps:
            raise RuntimeError(f"not one sleep for each swap: {_sleeps(ports) - slept} for {swaps}")
    return _verdict(way, rounds)


@dataclass(frozen=True, slots=True)
class _Round:
    """Seconds that an answer took of a model that was up, and of one that slept; and a swap by hand."""

    warm_s: float
    took_s: float
    hand_s: float

    @property
    def beyond_ms(self) -> float:
        return 1000 * (self.took_s - self.warm_s - self.hand_s)


def _round(way: Way, crowd: ThreadPoolExecutor, port: int, hands: Sequence[int], number: int) -> _Round:
    """Swap to the model of this number, for llmswap and by hand."""
    warm_s = statistics.median(_ask_all(crowd, way.crowd, port, f"m{1 - number}") for _ in range(WARM))
    took_s = _ask_all(crowd, way.crowd, port, f"m{number}")
    return _Round(warm_s, took_s, _swap_by_hand(way, hands[1 - number], hands[number]))


@contextmanager
def _by_hand(way: Way, directory: Path) -> Iterator[Sequence[int]]:
    """Run two engines of nobody, the first asleep, and give their ports."""
    ports = [contenders.free_port(), contenders.free_port()]
    environ = {"VLLM_SERVER_DEV_MODE": "1"}
    with ExitStack() as stack:
        for number, port in enumerate(ports):
            command = shlex.split(_engine(way, directory / "hands.json", f"hand{number}", port))
            engine = contenders.Served(f"hand{number}", port, command, directory / f"hand{number}.log", environ)
            stack.enter_context(engine)
            if number == 0:
                _walk(port, PRESETS[way.preset].sleep)
        yield ports


def _verdict(way: Way, rounds: Sequence[_Round]) -> Row:
    def median_ms(times_s: Iterable[float]) -> float:
        return 1000 * statistics.median(times_s)

    beyond_ms = [entry.beyond_ms for entry in rounds]
    swap_ms, hand_ms = median_ms(entry.took_s for entry in rounds), median_ms(entry.hand_s for entry in rounds)
    warm_ms, worst_ms = median_ms(entry.warm_s for entry in rounds), statistics.quantiles(beyond_ms, n=10)[8]
    note = f"swap {swap_ms:.0f} ms, by hand {hand_ms:.0f} ms, answer {warm_ms:.1f} ms; p90 {worst_ms:.1f} ms"
    title = f"a swap by sleep beyond the same requests by hand, median: {way.name}"
    return Row(title, statistics.median(beyond_ms), "ms", BOUND_MS, note)


def _config(way: Way, directory: Path, ports: list[int]) -> Mapping[str, Any]:
    """Configure two simulated engines that exclude one another; without a hold: only the swap itself is timed."""
    models = {}
    for number, port in enumerate(ports):
        models[f"m{number}"] = {
            "cmd": _engine(way, directory / "gpus.json", f"m{number}", port),
            "proxy": f"http://127.0.0.1:{port}",
            "env": ["VLLM_SERVER_DEV_MODE=1"],
            "concurrencyLimit": 2 * CROWD,
            "sleep": {"preset": way.preset},
            **way.more,
        }
    return {"models": models, "routing": {"scheduler": {"use": "fifo"}}}


def _engine(way: Way, ledger: Path, model: str, port: int) -> str:
    said = f"{way.engine} {TIMES} {MEMORY} --boot 0 --ttft 0 --itl 0 --post-wake-first-ttft-mult 1"
    own = f"--gpu-ledger {ledger} --model {model} --port {port}"
    return f"{sys.executable} -m llmswap.fake_upstream {said} {own}"


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
    _walk(awake, how.sleep)
    _walk(asleep, how.wake)
    if how.canary:
        _send(asleep, CANARY)
    return time.perf_counter() - began_s


def _walk(port: int, steps: Iterable[SleepStep]) -> None:
    _send(port, ((step.method, step.endpoint, step.body) for step in steps))


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
