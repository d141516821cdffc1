"""The measurements behind each row of the bench's table."""

import json
import statistics
import subprocess
import sys
import time
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from typing import Any

from tests.bench.contenders import Served

# Requests are measured twice: flat out, as fast as 16 connections ask; and paced alike for everyone, below what any of
# them can take, because flat out a fast proxy finds several events at each wakeup and shares its cost among them.
REQUESTS_PER_S = 1500
REQUEST_ROUND_S = 4
FLAT_OUT_COUNT = 6000
STREAMS_PER_ROUND = 200
RATE = 20
ANSWERS, ANSWER_CHUNKS, ANSWER_RATE = 1200, 20, 100
RSS_POLL_S = 0.1


@dataclass(frozen=True, slots=True)
class Row:
    """One line of the table. `bound` None: for information."""

    name: str
    value: float
    unit: str
    bound: float | None = None
    note: str = ""

    @property
    def passed(self) -> bool:
        """Whether the value keeps its bound."""
        return self.bound is None or self.value <= self.bound

    def as_dict(self) -> dict[str, Any]:
        """Give the row for JSON."""
        return {**asdict(self), "passed": self.passed}


@dataclass(frozen=True, slots=True)
class Load:
    """What the load generator saw, and what the server spent meanwhile."""

    seen: dict[str, Any]
    cpu_s: float

    @property
    def clean(self) -> bool:
        """Whether every request was answered with 200 and every stream ended well."""
        return not self.seen["errors"] and set(self.seen["statuses"]) <= {"200"} and self.seen["requests"] > 0


def apply_load(server: Served, *arguments: object, settle_s: float = 0.0) -> Load:
    """Run the load generator against a server and note what the server spends, up to so long afterwards."""
    command = [sys.executable, "-m", "tests.bench.load", *map(str, arguments), "--port", str(server.port)]
    before_s = server.cpu_s()
    with subprocess.Popen(command, stdout=subprocess.PIPE, stdin=subprocess.DEVNULL) as generator:
        while True:
            server.note_rss()
            try:
                output, _ = generator.communicate(timeout=RSS_POLL_S)
            except subprocess.TimeoutExpired:
                continue
            break
    if generator.returncode != 0:
        raise RuntimeError(f"the load generator failed on {server.name}; see above")
    time.sleep(settle_s)
    return Load(json.loads(output), server.cpu_s() - before_s)


PACED, FLAT_OUT, STREAMED, CHUNK = "request", "request flat out", "streamed answer", "chunk"


def _arguments(kind: str, quick: bool) -> tuple[object, ...]:
    share = 2 if quick else 1
    if kind == CHUNK:
        return ("streams", "--connections", STREAMS_PER_ROUND, "--chunks", 100 // share, "--rate", RATE)
    if kind == STREAMED:
        counts = ("--count", ANSWERS // share, "--chunks", ANSWER_CHUNKS)
        return ("answers", "--connections", 64, *counts, "--rate", ANSWER_RATE)
    if kind == FLAT_OUT:
        return ("requests", "--connections", 16, "--count", FLAT_OUT_COUNT // share, "--rate", 0)
    count = REQUESTS_PER_S * REQUEST_ROUND_S // share
    return ("requests", "--connections", 16, "--count", count, "--rate", REQUESTS_PER_S)


def cpu_per_unit(
    servers: Sequence[Served], rounds: int, kind: str, quick: bool, settle_s: float = 0.0
) -> dict[str, list[float]]:
    """Give, per server and round, the CPU microseconds per request or per streamed chunk.

    The rounds are interleaved, so that a busy moment of the machine hits all alike. The first round warms up and is
    thrown away.
    """
    arguments = _arguments(kind, quick)
    found: dict[str, list[float]] = {server.name: [] for server in servers}
    for number in range(rounds + 1):
        for server in servers if number % 2 else reversed(servers):
            load = apply_load(server, *arguments, settle_s=settle_s)
            if not load.clean:
                raise RuntimeError(f"{server.name} did not serve cleanly: {load.seen}")
            units = load.seen["chunks"] if kind == CHUNK else load.seen["requests"]
            if number:
                found[server.name].append(1e6 * load.cpu_s / units)
    return found


def cpu_rows(title: str, costs: dict[str, list[float]], subject: str, bound: float | None) -> list[Row]:
    """Compare medians with nginx's as it comes; the tuned one's and the relay's stand beside, for information."""
    medians = {name: statistics.median(values) for name, values in costs.items()}
    ours, plain = medians[subject], medians["nginx"]
    note = ", ".join(f"{name} {value:.0f} us" for name, value in medians.items())
    return [
        Row(f"{title}: {subject} / nginx", ours / plain, "x", bound, note),
        Row(f"{title}: {subject} / tuned nginx", ours / medians["tuned nginx"], "x"),
        Row(f"{title}: relay / nginx", medians["relay"] / plain, "x"),
    ]


def stream_rows(server: Served, floor: Served, streams: int, seconds: float) -> list[Row]:
    """Hold many streams and compare each token's time of arrival with its time of sending."""
    chunks = int(RATE * seconds)
    arguments = ("streams", "--connections", streams, "--rate", RATE, "--chunks")
    direct = apply_load(floor, *arguments, min(chunks, RATE * 10)).seen
    load = apply_load(server, *arguments, chunks)
    seen = load.seen
    expected = streams * chunks
    wrong = sum(seen["errors"].values()) + sum(n for status, n in seen["statuses"].items() if status != "200")
    missing = expected - seen["chunks"]
    title = f"{streams} streams of {RATE}/s held for {seconds:.0f} s"
    gap, bare = seen["gap_ms"], direct["gap_ms"]
    note = (
        f"p50 {gap['p50']:.2f}, max {gap['max']:.1f} ms; without a proxy p99 {bare['p99']:.2f} ms; "
        f"proxy used {100 * load.cpu_s / seen['wall_s']:.0f} % of a core"
    )
    return [
        Row(f"{title}: p99 from send to receipt", gap["p99"], "ms", 20.0, note),
        Row(f"{title}: errors and missing tokens", wrong + missing, "", 0, json.dumps(seen["errors"])),
    ]
