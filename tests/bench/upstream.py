"""The bench's upstream: a bare asyncio protocol, so that it costs little beside the proxy that is measured.

`python -m tests.bench.upstream --port N [--load-s 0.1] [--model NAME]`. Answers POSTs with a fixed
completion, or, when the body asks for `"stream"`, with `chunks` events at `rate` a second, each holding the monotonic
time at which it was sent.
"""

import argparse
import asyncio
import gc
import json
import signal
import time

from tests.bench import wire

ANSWER_BYTES = 600
HEALTHY = wire.response("200 OK", b'{"status":"ok"}')


class Connection(asyncio.Protocol):
    """One connection, one request at a time, each answered alike."""

    def __init__(self, completion: bytes) -> None:
        self.completion = completion

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        assert isinstance(transport, asyncio.Transport)
        self.transport = transport
        self.loop = asyncio.get_running_loop()
        self.buffer = b""
        self.timer: asyncio.TimerHandle | None = None

    def connection_lost(self, exc: Exception | None) -> None:
        if self.timer is not None:
            self.timer.cancel()

    def data_received(self, data: bytes) -> None:
        self.buffer += data
        while (end := self.buffer.find(b"\r\n\r\n")) >= 0:
            head = self.buffer[: end + 4]
            found = wire.LENGTH.search(head)
            size = int(found.group(1)) if found else 0
            if len(self.buffer) < end + 4 + size:
                return
            body = self.buffer[end + 4 : end + 4 + size]
            self.buffer = self.buffer[end + 4 + size :]
            self.answer(head, body)

    def answer(self, head: bytes, body: bytes) -> None:
        """Answer one request."""
        if not head.startswith(b"POST"):
            self.transport.write(HEALTHY)
        elif b'"stream": true' in body:
            wanted = json.loads(body)
            self.transport.write(wire.STREAM_HEAD)
            self.left, self.gap_s = int(wanted["chunks"]), 1 / wanted["rate"]
            self.next_s = self.loop.time() + self.gap_s
            self.timer = self.loop.call_at(self.next_s, self.tick)
        else:
            self.transport.write(self.completion)

    def tick(self) -> None:
        """Send the next token of a stream; the pace does not drift with the load."""
        self.transport.write(wire.event(time.monotonic()))
        self.left -= 1
        if self.left == 0:
            self.timer = None
            self.transport.write(wire.STREAM_TAIL)
            return
        self.next_s += self.gap_s
        self.timer = self.loop.call_at(self.next_s, self.tick)


async def serve(port: int, load_s: float, model: str) -> None:
    """Serve until SIGTERM."""
    completion = wire.completion(ANSWER_BYTES, model)
    loop = asyncio.get_running_loop()
    stop = asyncio.Event()
    loop.add_signal_handler(signal.SIGTERM, stop.set)
    await asyncio.sleep(load_s)
    server = await loop.create_server(lambda: Connection(completion), "127.0.0.1", port, backlog=1024)
    gc.freeze()
    await stop.wait()
    server.close()


if __name__ == "__main__":
    parser = argparse.ArgumentParser()
    parser.add_argument("--port", type=int, required=True)
    parser.add_argument("--load-s", type=float, default=0.0)
    parser.add_argument("--model", default=wire.MODEL)
    args = parser.parse_args()
    asyncio.run(serve(args.port, args.load_s, args.model))
