"""What hostile clients can do to the number of series: 10^5 names, callers, paths and methods that nobody knows."""

import asyncio
import json
import random
import string
import urllib.request
from collections import Counter
from collections.abc import Iterator
from pathlib import Path

from tests.bench import contenders, wire
from tests.bench.contenders import Served
from tests.bench.figures import Row

REQUESTS, QUICK_REQUESTS = 100_000, 10_000
CONNECTIONS = 16
LONG_BYTES = 10_000  # of a model's name, in a body
LONG_HEADER_BYTES = 4_000
EVERY = 10  # one in so many is long
_LETTERS = string.ascii_letters + string.digits + '"\\{}=,'


def rows(directory: Path, quick: bool) -> list[Row]:
    """Ask for what there is not, in every field that could become a label, and count the series before and after."""
    count = QUICK_REQUESTS if quick else REQUESTS
    with contenders.llmswap(directory, contenders.many_models(2, 0.0, 10), "labelled") as server:
        asyncio.run(_send(server.port, 4 * len(_KINDS) * EVERY, seed=1))
        before, rss_mb = _series(server), server.note_rss()
        answered = asyncio.run(_send(server.port, count, seed=2))
        after = _series(server)
        grown_mb = server.note_rss() - rss_mb
    note = (
        f"{len(before)} before, {len(after)} after, longest {max(map(len, after))} characters; RSS {grown_mb:+.1f} MB; "
        f"answered with {json.dumps(answered)}"
    )
    return [
        Row(f"series that {count} requests of hostile clients made", len(after ^ before), "", 0, note),
        Row(f"of {count} requests of hostile clients: not answered", count - sum(answered.values()), "", 0),
    ]


async def _send(port: int, count: int, seed: int) -> Counter[str]:
    """Send so many requests; gives the answers by their status."""
    answered: Counter[str] = Counter()
    supply = _requests(count, random.Random(seed))
    await asyncio.gather(*(_client(port, supply, answered) for _ in range(CONNECTIONS)))
    return answered


async def _client(port: int, supply: Iterator[bytes], answered: Counter[str]) -> None:
    """Send one request after the other, on a new connection whenever llmswap has closed the last one."""
    reader = writer = None
    for request in supply:
        if writer is None:
            reader, writer = await asyncio.open_connection("127.0.0.1", port)
        assert reader is not None
        try:
            writer.write(request)
            head = await reader.readuntil(b"\r\n\r\n")
            found = wire.LENGTH.search(head)
            await reader.readexactly(int(found.group(1)) if found else 0)
            answered[head[9:12].decode()] += 1
            ended = b"connection: close" in head.lower()
        except (OSError, asyncio.IncompleteReadError):
            ended = True
        if ended:
            writer.close()
            reader = writer = None
    if writer is not None:
        writer.close()


def _requests(count: int, chance: random.Random) -> Iterator[bytes]:
    for number in range(count):
        long = number // len(_KINDS) % EVERY == 0
        yield _KINDS[number % len(_KINDS)](chance, long)


def _word(chance: random.Random, size: int, letters: str = _LETTERS) -> str:
    return "".join(chance.choices(letters, k=size))


def _by_name(chance: random.Random, long: bool) -> bytes:
    return wire.chat(300, model=_word(chance, LONG_BYTES if long else 12), user=_word(chance, 12))


def _by_header(chance: random.Random, long: bool) -> bytes:
    value = _word(chance, LONG_HEADER_BYTES if long else 12)
    trace = f"00-{chance.getrandbits(128):032x}-{chance.getrandbits(64):016x}-01"
    fields = f"X-LLMSwap-Caller: {value}\r\nAuthorization: Bearer {value}\r\ntraceparent: {trace}\r\n"
    request = wire.chat(300, model=_word(chance, 12))
    return request.replace(b"User-Agent: bench\r\n", f"User-Agent: {value}\r\n{fields}".encode())


def _by_path(chance: random.Random, long: bool) -> bytes:
    word = _word(chance, LONG_HEADER_BYTES if long else 12, string.ascii_letters)
    return wire.post(f"/{chance.choice(('upstream', 'v1', 'upstream-metrics', 'logs/stream'))}/{word}", b"{}")


def _by_method(chance: random.Random, long: bool) -> bytes:
    method = _word(chance, 200 if long else 8, string.ascii_uppercase)
    return wire.chat(300, model=_word(chance, 12)).replace(b"POST", method.encode(), 1)


_KINDS = (_by_name, _by_header, _by_path, _by_method)


def _series(server: Served) -> set[str]:
    """Give every series with its labels; those of OpenMetrics, too."""
    found = set()
    for accept in ("text/plain", "application/openmetrics-text;version=1.0.0"):
        asked = urllib.request.Request(f"http://127.0.0.1:{server.port}/metrics", headers={"Accept": accept})
        with urllib.request.urlopen(asked, timeout=10) as answer:
            lines = answer.read().decode().splitlines()
        found |= {line.partition(" # ")[0].rpartition(" ")[0] for line in lines if not line.startswith("#")}
    return found
