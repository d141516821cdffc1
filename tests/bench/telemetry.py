"""What it costs to be watched: CPU per request and chunk with nobody watching, and with more and more who do."""

import socket
import statistics
import sys
import threading
import time
import urllib.request
from collections.abc import Callable, Mapping, Sequence
from contextlib import ExitStack
from itertools import takewhile
from pathlib import Path
from typing import Any, Self

from tests.bench import contenders, labels, trouble
from tests.bench.contenders import Served, free_port
from tests.bench.figures import CHUNK, FLAT_OUT, STREAMED, Row, cpu_per_unit

ALL_BOUND_PERCENT = 80.0
RESIDENCY_BOUND_PERCENT = 20.0
RENDER_BOUND_MS = 10.0
MODELS = 20
SCRAPES = 40
PULSE_S = 0.0005
ROUNDS, QUICK_ROUNDS = 7, 5
SETTLE_S = 1.3  # what waits to be sent goes after a second
COPIES = 2  # two runs of the same program differ by some percent, each for as long as it lives

OFF, METRICS, RESIDENCY, ALL = "nobody watching", "metrics", "10 % of hits traced", "everything traced"


def cost_rows(directory: Path, quick: bool) -> list[Row]:
    """Serve the same load four times over: unwatched, with metrics, with a tenth of the hits traced, with all."""
    with ExitStack() as stack:
        upstream = stack.enter_context(contenders.upstream(directory))
        sink = stack.enter_context(_sink(directory))
        everyone = [
            [stack.enter_context(_watched(name, directory, upstream.port, sink.port, copy)) for name in _TRACES]
            for copy in range(COPIES)
        ]
        requests, answers, chunks = (_costs(everyone, kind, quick) for kind in (FLAT_OUT, STREAMED, CHUNK))
    return [
        *_request_rows("CPU per request, 0.6 KB answered at once", requests),
        *_request_rows("CPU per request, answered in 20 chunks", answers),
        Row(
            "CPU per streamed chunk, beyond nobody watching: metrics",
            _beyond(chunks, METRICS),
            "%",
            None,
            _noted(chunks),
        ),
    ]


def _costs(everyone: Sequence[Sequence[Served]], kind: str, quick: bool) -> Mapping[str, Sequence[float]]:
    """Give microseconds per request or chunk: by who watches, round by round, the mean of the copies."""
    servers = [server for copies in everyone for server in copies]
    found = cpu_per_unit(servers, QUICK_ROUNDS if quick else ROUNDS, kind, quick, SETTLE_S)
    by_name = zip(_TRACES, zip(*everyone, strict=True), strict=True)
    return {
        name: [statistics.fmean(values) for values in zip(*(found[server.name] for server in copies), strict=True)]
        for name, copies in by_name
    }


_TRACES: Mapping[str, Mapping[str, Any] | None] = {
    OFF: None,
    METRICS: None,
    RESIDENCY: {"sampler": "residency", "percent": 10},
    ALL: {"sampler": "always"},
}


def _request_rows(title: str, costs: Mapping[str, Sequence[float]]) -> list[Row]:
    """Compare those who watch. A trace costs the same for a short answer as for a long one, so its share does not."""
    title += ", beyond nobody watching"
    return [
        Row(f"{title}: metrics", _beyond(costs, METRICS), "%", None, _noted(costs)),
        Row(f"{title}: metrics, {RESIDENCY}", _beyond(costs, RESIDENCY), "%", RESIDENCY_BOUND_PERCENT),
        Row(f"{title}: metrics, {ALL}", _beyond(costs, ALL), "%", ALL_BOUND_PERCENT),
    ]


def _watched(name: str, directory: Path, upstream_port: int, sink_port: int, copy: int = 0) -> Served:
    traces = _TRACES[name]
    config = contenders.one_model(upstream_port)
    if traces is not None:
        config["telemetry"] = {"traces": {"endpoint": f"http://127.0.0.1:{sink_port}", **traces}}
    served = contenders.llmswap(directory, config, f"{name.replace(' ', '-').replace('%', 'percent')}-{copy}")
    if name == OFF:
        served.command[served.command.index("llmswap")] = "tests.bench.unwatched"
    return served


def _sink(directory: Path) -> Served:
    port = free_port()
    return Served("sink", port, [sys.executable, "-m", "tests.bench.sink", str(port)], directory / "sink.log")


def _noted(costs: Mapping[str, Sequence[float]]) -> str:
    return ", ".join(f"{name} {statistics.median(values):.0f} us" for name, values in costs.items())


def _beyond(costs: Mapping[str, Sequence[float]], name: str) -> float:
    """Compare within each round, so that a busy moment of the machine hits both; give the median, in percent."""
    return statistics.median(100.0 * (cost / off - 1.0) for cost, off in zip(costs[name], costs[OFF], strict=True))


def render_rows(directory: Path, quick: bool) -> list[Row]:
    """Scrape a llmswap with many models while a client asks for something small: how late is its answer?

    The hold of a scrape is the latest of the small answers meanwhile; given is the median of many scrapes, beside the
    same for as long a time without one, because a busy machine holds everybody.
    """
    config = contenders.many_models(MODELS, 0.0, 10)
    with contenders.llmswap(directory, config, "scraped") as server, Pulse(server.port) as pulse:
        held_ms, idle_ms, took_ms, size = [], [], [], 0
        for _ in range(SCRAPES // 4 if quick else SCRAPES):
            time.sleep(1.05)  # what was rendered last is given out again for a second
            began_s = time.monotonic()
            with urllib.request.urlopen(f"http://127.0.0.1:{server.port}/metrics", timeout=10) as answer:
                size = len(answer.read())
            ended_s = time.monotonic()
            took_ms.append(1000 * (ended_s - began_s))
            held_ms.append(pulse.latest_ms(began_s, ended_s))
            idle_ms.append(pulse.latest_ms(2 * began_s - ended_s, began_s))
    note = (
        f"{size / 1024:.0f} KiB in {statistics.median(took_ms):.1f} ms; at most {max(held_ms):.1f} ms; "
        f"without a scrape {statistics.median(idle_ms):.1f}, at most {max(idle_ms):.1f} ms"
    )
    title = f"/metrics of {MODELS} models: the event loop's longest hold"
    return [Row(title, statistics.median(held_ms), "ms", RENDER_BOUND_MS, note)]


class Pulse:
    """Asks for /health over and over, on one connection and in a thread, and notes how late each answer was."""

    def __init__(self, port: int) -> None:
        self._port = port
        self._noted: list[tuple[float, float]] = []
        self._over = threading.Event()
        self._thread = threading.Thread(target=self._ask)

    def __enter__(self) -> Self:
        self._thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._over.set()
        self._thread.join()

    def _ask(self) -> None:
        request = b"GET /health HTTP/1.1\r\nHost: 127.0.0.1\r\n\r\n"
        with socket.create_connection(("127.0.0.1", self._port), 10) as connection:
            while not self._over.is_set():
                sent_s = time.monotonic()
                connection.sendall(request)
                if not connection.recv(4096):  # some hundred bytes, written in one go
                    raise RuntimeError("llmswap does not answer /health any more")
                self._noted.append((sent_s, time.monotonic()))
                self._over.wait(PULSE_S)

    def latest_ms(self, from_s: float, to_s: float) -> float:
        """Give how late the latest answer was of those that were waited for at some time between two moments."""
        while not self._noted or self._noted[-1][0] < to_s:
            self._over.wait(PULSE_S)
        noted = reversed(self._noted)
        recent = (entry for entry in noted if entry[0] <= to_s)
        return max(1000 * (got_s - sent_s) for sent_s, got_s in takewhile(lambda entry: entry[1] >= from_s, recent))


def rows(directory: Path, quick: bool) -> list[Row]:
    """Measure all of it."""
    measures = (cost_rows, render_rows, labels.rows, trouble.rows)
    return [row for measure in measures for row in measure(directory, quick)]


SECTIONS: Mapping[str, Callable[[Path, bool], list[Row]]] = {"telemetry": rows}
