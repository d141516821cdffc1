"""The bench's load generator, a process of its own. Prints one JSON object.

`python -m tests.bench.load requests --port P --connections 16 --count 8000 --rate 1500`  (0: as fast as it goes)
`python -m tests.bench.load streams  --port P --connections 300 --chunks 1200 --rate 20`
`python -m tests.bench.load answers  --port P --connections 64 --count 1200 --chunks 20 --rate 100`
`python -m tests.bench.load mixed    --port P --models 10 --count 1000`
`python -m tests.bench.load ping     --port P --count 500`
"""

import argparse
import asyncio
import gc
import json
import random
import time
from collections import Counter
from collections.abc import Iterator

from tests.bench import wire


class Tally:
    """What the connections have seen. `gaps_s`: from the upstream's send to our receipt, for each chunk."""

    def __init__(self) -> None:
        self.statuses: Counter[str] = Counter()
        self.errors: Counter[str] = Counter()
        self.waits_s: list[float] = []
        self.gaps_s: list[float] = []

    def as_json(self, wall_s: float) -> str:
        """Write the result."""
        return json.dumps(
            {
                "statuses": self.statuses,
                "errors": self.errors,
                "requests": sum(self.statuses.values()),
                "chunks": len(self.gaps_s),
                "wall_s": wall_s,
                "wait_ms": quantiles_ms(self.waits_s),
                "gap_ms": quantiles_ms(self.gaps_s),
            }
        )


def quantiles_ms(values_s: list[float]) -> dict[str, float]:
    """Give p50, p99 and max in milliseconds."""
    if not values_s:
        return {}
    ordered = sorted(values_s)
    places = {"p50": 0.5, "p99": 0.99, "max": 1.0}
    return {name: round(1000 * ordered[min(len(ordered) - 1, int(p * len(ordered)))], 3) for name, p in places.items()}


class Connection(asyncio.Protocol):
    """Sends one request after the other from a shared supply; says when the supply, or the connection, has ended.

    With a `pace_s` it begins one request in that time, or as soon as the one before is answered.
    """

    def __init__(self, supply: Iterator[bytes], tally: Tally, pace_s: float = 0.0) -> None:
        self.supply = supply
        self.tally = tally
        self.pace_s = pace_s
        self.done: asyncio.Future[None] = asyncio.get_running_loop().create_future()
        self.buffer = b""
        self.body_size = -1
        self.streaming = False
        self.busy = False

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        assert isinstance(transport, asyncio.Transport)
        self.transport = transport
        self.due_s = time.monotonic()
        self.next()

    def next(self) -> None:
        """Send the next request, or end."""
        request = next(self.supply, None)
        self.busy = request is not None
        if request is None:
            self.transport.close()
            return
        self.buffer, self.body_size, self.streaming = b"", -1, False
        self.sent_s = time.monotonic()
        self.transport.write(request)

    def data_received(self, data: bytes) -> None:
        now_s = time.monotonic()
        self.buffer += data
        if self.body_size < 0 and not self.streaming and not self.head():
            return
        if self.streaming:
            self.stream(now_s)
        elif len(self.buffer) >= self.body_size:
            self.finish(now_s)

    def head(self) -> bool:
        """Read the response's head if it is whole."""
        end = self.buffer.find(b"\r\n\r\n")
        if end < 0:
            return False
        head, self.buffer = self.buffer[: end + 4], self.buffer[end + 4 :]
        self.tally.statuses[head[9:12].decode()] += 1
        found = wire.LENGTH.search(head)
        self.streaming = found is None and wire.CHUNKED.search(head) is not None
        self.body_size = int(found.group(1)) if found else 0
        return True

    def stream(self, now_s: float) -> None:
        """Note the age of every token that has come in whole."""
        end = 0
        for found in wire.SENT.finditer(self.buffer):
            self.tally.gaps_s.append(now_s - float(found.group(1)))
            end = found.end()
        self.buffer = self.buffer[end:]
        if self.buffer.endswith(wire.LAST_CHUNK):
            if b"[DONE]" not in self.buffer:
                self.tally.errors["no [DONE]"] += 1
            self.finish(now_s)

    def finish(self, now_s: float) -> None:
        """Take the next request once this one is answered."""
        self.tally.waits_s.append(now_s - self.sent_s)
        self.busy = False
        self.due_s += self.pace_s
        if self.due_s > now_s:
            asyncio.get_running_loop().call_at(self.due_s, self.next)
        else:
            self.next()

    def connection_lost(self, exc: Exception | None) -> None:
        if self.busy:
            self.tally.errors[f"cut: {exc or 'closed'}"] += 1
        self.done.set_result(None)


async def run(
    port: int, connections: int, supply: Iterator[bytes], tally: Tally, *, spread_s: float = 0.0, pace_s: float = 0.0
) -> None:
    """Drive the supply over the connections; `spread_s` spaces out their starts, so that paces do not align."""
    loop = asyncio.get_running_loop()
    opened = []
    for _ in range(connections):
        _, connection = await loop.create_connection(lambda: Connection(supply, tally, pace_s), "127.0.0.1", port)
        opened.append(connection)
        if spread_s:
            await asyncio.sleep(spread_s / connections)
    await asyncio.gather(*(connection.done for connection in opened))


async def ping(port: int, seconds: float, tally: Tally) -> None:
    """Ask for /health every 2 ms: the longest answer is the longest time the loop stood still."""
    reader, writer = await asyncio.open_connection("127.0.0.1", port)
    end_s = time.monotonic() + seconds
    while time.monotonic() < end_s:
        sent_s = time.monotonic()
        writer.write(b"GET /health HTTP/1.1\r\nHost: 127.0.0.1\r\n\r\n")
        head = await reader.readuntil(b"\r\n\r\n")
        found = wire.LENGTH.search(head)
        await reader.readexactly(int(found.group(1)) if found else 0)
        tally.statuses[head[9:12].decode()] += 1
        tally.waits_s.append(time.monotonic() - sent_s)
        await asyncio.sleep(0.002)
    writer.close()


def mixed(models: int, count: int, seed: int) -> list[bytes]:
    """Write requests for several models in random order."""
    order = [number % models for number in range(count)]
    random.Random(seed).shuffle(order)
    return [wire.chat(300, model=f"m{number}") for number in order]


async def main(args: argparse.Namespace) -> Tally:
    """Do what the command line says."""
    tally = Tally()
    gc.freeze()
    if args.what == "requests":
        request = wire.chat(2048)
        pace_s = args.connections / args.rate if args.rate else 0.0
        supply = iter([request] * args.count)
        await run(args.port, args.connections, supply, tally, spread_s=pace_s, pace_s=pace_s)
    elif args.what == "streams":
        request = wire.chat(400, stream=True, chunks=args.chunks, rate=args.rate)
        await run(args.port, args.connections, iter([request] * args.connections), tally, spread_s=1 / args.rate)
    elif args.what == "answers":
        request = wire.chat(4096, stream=True, chunks=args.chunks, rate=args.rate)
        whole_s = args.chunks / args.rate
        await run(args.port, args.connections, iter([request] * args.count), tally, spread_s=whole_s)
    elif args.what == "mixed":
        await run(args.port, args.count, iter(mixed(args.models, args.count, args.seed)), tally)
    else:
        await ping(args.port, args.seconds, tally)
    return tally


if __name__ == "__main__":
    parser = argparse.ArgumentParser()
    parser.add_argument("what", choices=["requests", "streams", "answers", "mixed", "ping"])
    parser.add_argument("--port", type=int, required=True)
    parser.add_argument("--connections", type=int, default=16)
    parser.add_argument("--count", type=int, default=1000)
    parser.add_argument("--chunks", type=int, default=100)
    parser.add_argument("--rate", type=float, default=20.0)
    parser.add_argument("--models", type=int, default=10)
    parser.add_argument("--seconds", type=float, default=2.0)
    parser.add_argument("--seed", type=int, default=1)
    began_s = time.monotonic()
    result = asyncio.run(main(parser.parse_args()))
    print(result.as_json(time.monotonic() - began_s))
