"""What it costs to be watched: CPU per request and chunk with nobody watching, and with more and more who do."""

import statistics
import sys
import threading
import time
import urllib.request
from collections.abc import Callable, Mapping
from contextlib import ExitStack
from pathlib import Path
from typing import Any

from tests.bench import contenders, trouble
from tests.bench.contenders import Served, free_port
from tests.bench.figures import CHUNK, FLAT_OUT, Row, cpu_per_unit

ALL_BOUND_PERCENT = 80.0
RESIDENCY_BOUND_PERCENT = 20.0
RENDER_BOUND_MS = 10.0
MODELS = 20
SCRAPES = 40
ROUNDS, QUICK_ROUNDS = 5, 3

OFF, METRICS, RESIDENCY, ALL = "nobody watching", "metrics", "10 % of hits traced", "everything traced"


def cost_rows(directory: Path, quick: bool) -> list[Row]:
    """Serve the same load four times over: unwatched, with metrics, with a tenth of the hits traced, with all."""
    with ExitStack() as stack:
        upstream = stack.enter_context(contenders.upstream(directory))
        sink = stack.enter_context(_sink(directory))
        everyone = [stack.enter_context(_watched(name, directory, upstream.port, sink.port)) for name in _TRACES]
        rounds = QUICK_ROUNDS if quick else ROUNDS
        requests = _medians(cpu_per_unit(everyone, rounds, FLAT_OUT, quick))
        chunks = _medians(cpu_per_unit(everyone, rounds, CHUNK, quick))
    note = ", ".join(f"{name} {value:.0f} us" for name, value in requests.items())
    title = "CPU per request, beyond nobody watching"
    return [
        Row(f"{title}: metrics", _beyond(requests, METRICS), "%", None, note),
        Row(f"{title}: metrics, {RESIDENCY}", _beyond(requests, RESIDENCY), "%", RESIDENCY_BOUND_PERCENT),
        Row(f"{title}: metrics, {ALL}", _beyond(requests, ALL), "%", ALL_BOUND_PERCENT),
        Row(
            "CPU per streamed chunk, beyond nobody watching: metrics",
            _beyond(chunks, METRICS),
            "%",
            None,
            ", ".join(f"{name} {value:.1f} us" for name, value in chunks.items()),
        ),
    ]


_TRACES: Mapping[str, Mapping[str, Any] | None] = {
    OFF: None,
    METRICS: None,
    RESIDENCY: {"sampler": "residency", "percent": 10},
    ALL: {"sampler": "always"},
}


def _watched(name: str, directory: Path, upstream_port: int, sink_port: int) -> Served:
    traces = _TRACES[name]
    config = contenders.one_model(upstream_port)
    if traces is not None:
        config["telemetry"] = {"traces": {"endpoint": f"http://127.0.0.1:{sink_port}", **traces}}
    served = contenders.llmswap(directory, config, name.replace(" ", "-").replace("%", "percent"))
    served.name = name
    if name == OFF:
        served.command[served.command.index("llmswap")] = "tests.bench.unwatched"
    return served


def _sink(directory: Path) -> Served:
    port = free_port()
    return Served("sink", port, [sys.executable, "-m", "tests.bench.sink", str(port)], directory / "sink.log")


def _medians(costs: Mapping[str, list[float]]) -> dict[str, float]:
    return {name: statistics.median(values) for name, values in costs.items()}


def _beyond(costs: Mapping[str, float], name: str) -> float:
    return 100.0 * (costs[name] / costs[OFF] - 1.0)


def render_rows(directory: Path, quick: bool) -> list[Row]:
    """Scrape a llmswap with many models while a client asks for something small: how late is its answer?"""
    config = contenders.many_models(MODELS, 0.0, 10)
    with contenders.llmswap(directory, config, "scraped") as server:
        plain_ms = [_timed_ms(server.port, "/health") for _ in range(SCRAPES)]
        scrapes = SCRAPES // 4 if quick else SCRAPES
        took_ms, size = [], 0
        for _ in range(scrapes):
            time.sleep(1.05)  # what was rendered last is given out again for a second
            began_s = time.perf_counter()
            with urllib.request.urlopen(f"http://127.0.0.1:{server.port}/metrics", timeout=10) as answer:
                size = len(answer.read())
            took_ms.append(1000 * (time.perf_counter() - began_s))
        held_ms = _longest_hold_ms(server.port)
    note = f"{size / 1024:.0f} KiB in {statistics.median(took_ms):.0f} ms; /health alone {max(plain_ms):.1f} ms at most"
    return [Row(f"/metrics of {MODELS} models: the event loop's longest hold", held_ms, "ms", RENDER_BOUND_MS, note)]


def _longest_hold_ms(port: int) -> float:
    """Give how late the small answers are at most, that are asked for all the time while /metrics is rendered."""
    worst_ms, over = 0.0, threading.Event()

    def ask() -> None:
        nonlocal worst_ms
        while not over.is_set():
            worst_ms = max(worst_ms, _timed_ms(port, "/health"))

    asking = threading.Thread(target=ask)
    asking.start()
    for _ in range(3):
        time.sleep(1.05)
        _timed_ms(port, "/metrics")
    over.set()
    asking.join()
    return worst_ms


def _timed_ms(port: int, path: str) -> float:
    began_s = time.perf_counter()
    with urllib.request.urlopen(f"http://127.0.0.1:{port}{path}", timeout=10) as answer:
        answer.read()
    return 1000 * (time.perf_counter() - began_s)


def rows(directory: Path, quick: bool) -> list[Row]:
    """Measure all of it."""
    return [*cost_rows(directory, quick), *render_rows(directory, quick), *trouble.rows(directory, quick)]


SECTIONS: Mapping[str, Callable[[Path, bool], list[Row]]] = {"telemetry": rows}
