"""Figures of the whole program: what swaps and starts cost, and what hostile bodies do to it."""

import gzip
import json
import re
import socket
import statistics
import subprocess
import sys
import threading
import time
import urllib.request
from collections.abc import Callable, Iterable, Mapping
from pathlib import Path

from tests.bench import contenders, wire
from tests.bench.contenders import Served, free_port
from tests.bench.figures import RSS_POLL_S, Row, apply_load

MODELS = 10
REQUESTS = 1000
LOAD_S = 0.1
REFUSALS = 2000
BODY_MIB = 512
BOMBS = 5
BOMB_BYTES = 1 << 30


def swap_rows(directory: Path, quick: bool) -> list[Row]:
    """Send many requests for many models that exclude one another, all at once, in random order."""
    count = REQUESTS // 5 if quick else REQUESTS
    config = contenders.many_models(MODELS, LOAD_S, count)
    with contenders.llmswap(directory, config, "swaps") as server:
        seen = apply_load(server, "mixed", "--models", MODELS, "--count", count).seen
        loads = starts(server.port)
        rss_mb = server.rss_mb
    bad = count - seen["statuses"].get("200", 0) + sum(seen["errors"].values())
    title = f"{count} requests, {MODELS} models of {1000 * LOAD_S:.0f} ms load, random order"
    note = f"{seen['wall_s']:.1f} s in all; {json.dumps(seen['statuses'])}"
    return [
        Row(f"{title}: loads beyond one per model", abs(loads - MODELS), "", 0, f"{loads} loads"),
        Row(f"{title}: not answered with 200", bad, "", 0, note),
        Row(f"{title}: time", seen["wall_s"], "s", 5.0),
        Row(f"{title}: RSS", rss_mb, "MB", 100.0),
    ]


def starts(port: int) -> int:
    """Count the upstream starts that the metrics tell of."""
    with urllib.request.urlopen(f"http://127.0.0.1:{port}/metrics", timeout=10) as answer:
        text = answer.read().decode()
    found = re.findall(r"^llmswap_swaps_total\{.*\} (\S+)$", text, re.MULTILINE)
    if not found:
        raise RuntimeError(f"no metric counts starts any more:\n{text}")
    return round(sum(map(float, found)))


def start_rows(directory: Path, quick: bool) -> list[Row]:
    """Compare a cold request through llmswap with starting the same upstream by hand and asking it."""
    tries = 4 if quick else 10
    bare = [_bare_start() for _ in range(tries)]
    config = contenders.many_models(tries, 0.0, 10)
    through = []
    with contenders.llmswap(directory, {**config, **_together(tries)}, "starts") as server:
        for number in range(tries):
            began_s = time.monotonic()
            _ask(server.port, f"m{number}")
            through.append(time.monotonic() - began_s)
    added_ms = 1000 * (statistics.median(through) - statistics.median(bare))
    note = f"cold {1000 * statistics.median(through):.0f} ms, by hand {1000 * statistics.median(bare):.0f} ms"
    return [Row("time llmswap adds to a start", added_ms, "ms", 50.0, note)]


def _together(models: int) -> Mapping[str, object]:
    members = [f"m{number}" for number in range(models)]
    return {"groups": {"all": {"swap": False, "exclusive": False, "members": members}}}


def _bare_start() -> float:
    port = free_port()
    command = [sys.executable, "-m", contenders.UPSTREAM_MODULE, "--port", str(port)]
    began_s = time.monotonic()
    with subprocess.Popen(command, stdin=subprocess.DEVNULL) as process:
        while not contenders.accepts(port):
            time.sleep(0.001)
        _ask(port, "m")
        took_s = time.monotonic() - began_s
        process.terminate()
    return took_s


def _ask(port: int, model: str) -> None:
    body = json.dumps({"model": model, "messages": []}).encode()
    headers = {"Content-Type": "application/json"}
    request = urllib.request.Request(f"http://127.0.0.1:{port}/v1/chat/completions", body, headers)
    with urllib.request.urlopen(request, timeout=30) as answer:
        answer.read()


def hostile_rows(directory: Path, quick: bool) -> list[Row]:
    """Send a body far too large and bodies that inflate without end; the others must not notice."""
    del quick
    bomb = gzip.compress(bytes(BOMB_BYTES // 1024), 9) * 1024  # members of a gzip file may be strung together
    with contenders.upstream(directory) as upstream:
        config = contenders.one_model(upstream.port)
        with contenders.llmswap(directory, config, "hostile") as server:
            base_mb = server.note_rss()
            large = _status_while_watching(server, lambda: send_large(server.port))
            grown_mb = server.rss_mb - base_mb
            pings, statuses = _ping_while(server, lambda: [send_bomb(server.port, bomb) for _ in range(BOMBS)])
    wrong = sum(status != 415 for status in statuses)
    return [
        Row(f"a body of {BODY_MIB} MiB: not refused with 413", float(large != 413), "", 0, f"status {large}"),
        Row(f"a body of {BODY_MIB} MiB: RSS grows by", grown_mb, "MB", 8 * 1.048576),
        Row(f"{BOMBS} gzip bombs: not refused with 415", wrong, "", 0, f"statuses {statuses}"),
        Row(f"{BOMBS} gzip bombs: longest stall of others", pings["max"], "ms", 20.0, f"p50 {pings['p50']:.2f} ms"),
    ]


def _status_while_watching(server: Served, send: Callable[[], int]) -> int:
    answers: list[int] = []
    thread = threading.Thread(target=lambda: answers.append(send()))
    thread.start()
    while thread.is_alive():
        server.note_rss()
        thread.join(RSS_POLL_S / 10)
    return answers[0] if answers else 0


def _ping_while(server: Served, send: Callable[[], list[int]]) -> tuple[dict[str, float], list[int]]:
    answers: list[int] = []
    thread = threading.Timer(0.5, lambda: answers.extend(send()))
    thread.start()
    seen = apply_load(server, "ping", "--seconds", 2.5).seen
    thread.join()
    return seen["wait_ms"], answers


def send_large(port: int) -> int:
    """Announce and send BODY_MIB of JSON until the server answers; gives the status."""
    size = BODY_MIB << 20
    block = b"w" * (1 << 20)
    head = wire.post("/v1/chat/completions", b"").replace(b"Content-Length: 0", b"Content-Length: %d" % size)
    return _send(port, head, (block for _ in range(BODY_MIB)))


def send_bomb(port: int, bomb: bytes) -> int:
    """Send a small body that says it is gzip; gives the status."""
    request = wire.post("/v1/chat/completions", bomb)
    return _send(port, request.replace(b"Accept: */*", b"Content-Encoding: gzip"), ())


def _send(port: int, head: bytes, blocks: Iterable[bytes]) -> int:
    with socket.create_connection(("127.0.0.1", port), timeout=30) as sock:
        try:
            sock.sendall(head)
            for block in blocks:
                sock.sendall(block)
        except ConnectionError:
            pass  # it has answered and hung up: the answer is still to be read
        try:
            answer = sock.recv(65536)
        except ConnectionError:
            return 0
    return int(answer[9:12]) if answer.startswith(b"HTTP/1.1 ") else 0


def refusal_rows(directory: Path, quick: bool) -> list[Row]:
    """Ask for a model that is not up, and say that it may not be swapped in for that."""
    count = REFUSALS // 4 if quick else REFUSALS
    config = contenders.many_models(2, LOAD_S, 10)
    request = wire.chat(2000, model="m1").replace(b"Accept: */*", b"X-LLMSwap-Swap: never-swap")
    with contenders.llmswap(directory, config, "refusals") as server:
        _ask(server.port, "m0")  # somebody whom a swap would cost its place
        loads = starts(server.port)
        took_ms, answers = [], []
        with socket.create_connection(("127.0.0.1", server.port), timeout=30) as sock:
            for _ in range(count):
                began_s = time.perf_counter()
                sock.sendall(request)
                answers.append(sock.recv(65536))
                took_ms.append(1000 * (time.perf_counter() - began_s))
        loads = starts(server.port) - loads
    wrong = sum(not (answer.startswith(b"HTTP/1.1 503 ") and b'"would_swap"' in answer) for answer in answers)
    p99_ms = statistics.quantiles(took_ms, n=100)[98]
    note = f"p50 {statistics.median(took_ms):.2f}, max {max(took_ms):.1f} ms"
    return [
        Row(f"{count} requests that may not swap: p99 to the refusal", p99_ms, "ms", 5.0, note),
        Row(f"{count} requests that may not swap: not refused with would_swap", wrong, "", 0),
        Row(f"{count} requests that may not swap: loads", loads, "", 0),
    ]


SECTIONS: Mapping[str, Callable[[Path, bool], list[Row]]] = {
    "swaps": swap_rows,
    "start": start_rows,
    "hostile": hostile_rows,
    "refusals": refusal_rows,
}
