"""What those cost the others who do not take or do not end: a dead collector, readers that do not read, a log flood.

The same paced load runs with and without each of them in turn, so that a busy moment of the machine hits all alike; of
each round the 99th percentile is taken, and of those the median of the differences.
"""

import os
import socket
import statistics
import sys
import time
import urllib.request
from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import AbstractContextManager, ExitStack, contextmanager, nullcontext, suppress
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import psutil

from tests.bench import contenders
from tests.bench.contenders import FLOOD_MODULE, Served, free_port
from tests.bench.figures import Row, apply_load

BOUND_MS = 5.0
READERS = 50
FLOOD_MB_S, CHATTER_MB_S = 100, 2
PER_S, ROUND_S = 150, 2.5  # far below what it can take: else a busy machine makes queues of its own
ROUNDS, QUICK_ROUNDS = 11, 5
START_LIMIT_S, POLL_S = 30.0, 0.05
STUCK_S = 1.0  # what the kernel takes for readers is full by then
_DROPS = ("trace_spans_total", "log_readers_dropped_bytes_total", "stdout_dropped_bytes_total")


@dataclass
class Trouble:
    """One thing that goes wrong, and what it did.

    Attributes:
        server: Who has to live with it.
        during: Makes it go wrong for as long as the block lasts.
        drops: Names of what is dropped and counted for it.
        bound_ms: What it may add.
        p99_ms, added_ms: By round.
        dropped: Since the beginning.
    """

    name: str
    server: Served
    during: Callable[[], AbstractContextManager[Any]]
    drops: tuple[str, ...]
    bound_ms: float | None = BOUND_MS
    p99_ms: list[float] = field(default_factory=list)
    added_ms: list[float] = field(default_factory=list)
    dropped: dict[str, float] = field(default_factory=dict)


def rows(directory: Path, quick: bool) -> list[Row]:
    """Measure what each trouble adds to what requests take."""
    with ExitStack() as stack:
        upstream = stack.enter_context(contenders.upstream(directory))
        stuck = stack.enter_context(_nobody_reads())
        healthy = stack.enter_context(_server(directory, upstream.port, "healthy", stuck))
        blind = stack.enter_context(_server(directory, upstream.port, "blind", stuck, dead_collector=True))
        calm_ms = []
        troubles = _troubles(healthy, blind)
        for _ in range((QUICK_ROUNDS if quick else ROUNDS) + 1):  # the first one warms up
            calm = _p99_ms(healthy)
            calm_ms.append(calm)
            for trouble in troubles:
                with trouble.during():
                    trouble.p99_ms.append(_p99_ms(trouble.server))
                trouble.added_ms.append(trouble.p99_ms[-1] - calm)
                trouble.dropped = _dropped(trouble.server, trouble.drops)
    return [_row(trouble, calm_ms) for trouble in troubles]


def _troubles(healthy: Served, blind: Served) -> Sequence[Trouble]:
    readers = f"{READERS} readers of /logs/stream that do not read"
    flood = f"a log flood of {FLOOD_MB_S} MB/s that standard output does not take"

    @contextmanager
    def everything() -> Iterator[None]:
        with _talking(blind, FLOOD_MB_S), _talking(blind, CHATTER_MB_S), _stuck_readers(blind):
            yield

    @contextmanager
    def stuck() -> Iterator[None]:
        with _talking(healthy, CHATTER_MB_S), _stuck_readers(healthy):
            yield

    spans, read, stdout = _DROPS
    return (
        Trouble("nothing, which is the machine's own noise", healthy, nullcontext, (), None),
        Trouble("a dead collector", blind, nullcontext, (spans,)),
        Trouble(readers, healthy, stuck, (read,)),
        Trouble(flood, healthy, lambda: _talking(healthy, FLOOD_MB_S), (stdout,)),
        Trouble("all three at once", blind, everything, _DROPS),
    )


def _row(trouble: Trouble, calm_ms: list[float]) -> Row:
    calm, now = statistics.median(calm_ms[1:]), statistics.median(trouble.p99_ms[1:])
    counted = ", ".join(f"{name} {count:.3g}" for name, count in trouble.dropped.items())
    note = f"p99 {now:.1f} ms, {calm:.1f} ms without (medians of {len(calm_ms) - 1} rounds)"
    note += f"; dropped: {counted}" if counted else ""
    return Row(f"p99 added by {trouble.name}", statistics.median(trouble.added_ms[1:]), "ms", trouble.bound_ms, note)


@contextmanager
def _server(
    directory: Path, upstream_port: int, name: str, stdout: int, *, dead_collector: bool = False
) -> Iterator[Served]:
    """Run a llmswap with an upstream that answers and two that could talk."""
    config = contenders.one_model(upstream_port)
    for model, rate in (("flood", FLOOD_MB_S), ("chatter", CHATTER_MB_S)):
        command = f"{sys.executable} -m {FLOOD_MODULE} {rate}"
        config["models"][model] = {"cmd": command, "proxy": "http://127.0.0.1:9", "checkEndpoint": "none"}
    config["hooks"] = {"on_startup": {"preload": list(config["models"])}}
    config["groups"] = {"all": {"swap": False, "members": list(config["models"])}}
    config["logToStdout"] = "both"
    if dead_collector:
        config["telemetry"] = {"traces": {"endpoint": f"http://127.0.0.1:{free_port()}", "sampler": "always"}}
    served = contenders.llmswap(directory, config, name)
    served.stdout = stdout
    with served:
        for rate in (FLOOD_MB_S, CHATTER_MB_S):
            _talker(served, rate).suspend()
        try:
            yield served
        finally:
            for rate in (FLOOD_MB_S, CHATTER_MB_S):
                _talker(served, rate).resume()  # to be able to obey and end


@contextmanager
def _talking(server: Served, rate: int) -> Iterator[None]:
    talker = _talker(server, rate)
    talker.resume()
    yield
    talker.suspend()


def _talker(server: Served, rate: int) -> psutil.Process:
    """Find the upstream that prints so many MB/s."""
    deadline_s = time.monotonic() + START_LIMIT_S
    while time.monotonic() < deadline_s:
        for child in psutil.Process(server.process.pid).children():
            with suppress(psutil.Error):  # others come and go
                if child.cmdline()[-2:] == [FLOOD_MODULE, str(rate)]:
                    return child
        time.sleep(POLL_S)
    raise RuntimeError(f"{server.name} did not start what prints {rate} MB/s:\n{server.log.read_text()[-4000:]}")


@contextmanager
def _nobody_reads() -> Iterator[int]:
    """Give the end of a pipe into which one can write until it is full."""
    reader, writer = os.pipe()
    try:
        yield writer
    finally:
        os.close(writer)
        os.close(reader)


@contextmanager
def _stuck_readers(server: Served) -> Iterator[None]:
    """Follow the log of the upstreams many times over, and take nothing of it."""
    with ExitStack() as stack:
        for _ in range(READERS):
            reader = stack.enter_context(socket.socket())
            reader.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 4096)
            reader.connect(("127.0.0.1", server.port))
            reader.sendall(b"GET /logs/stream/upstream HTTP/1.1\r\nHost: 127.0.0.1\r\n\r\n")
        time.sleep(STUCK_S)
        yield


def _p99_ms(server: Served) -> float:
    arguments = ("requests", "--connections", 16, "--count", int(PER_S * ROUND_S), "--rate", PER_S)
    load = apply_load(server, *arguments)
    if not load.clean:
        raise RuntimeError(f"{server.name} did not serve cleanly: {load.seen}")
    return float(load.seen["wait_ms"]["p99"])


def _dropped(server: Served, names: Iterable[str]) -> dict[str, float]:
    """Read off the metrics what was dropped since the beginning."""
    with urllib.request.urlopen(f"http://127.0.0.1:{server.port}/metrics", timeout=10) as answer:
        lines = answer.read().decode().splitlines()
    found = dict.fromkeys(names, 0.0)
    for line in lines:
        series, _, value = line.rpartition(" ")
        name = series.partition("{")[0].removeprefix("llmswap_")
        if name in found and 'result="exported"' not in series:
            found[name] += float(value)
    return found
