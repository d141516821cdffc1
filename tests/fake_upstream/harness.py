"""Runs fakes for these tests: inside the test process for contracts, as real processes for lives and deaths."""

import argparse
import asyncio
import contextlib
import json
import sys
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import dataclass

import aiohttp
from aiohttp import web

from llmswap.fake_upstream.ledger import Holder, Ledger
from llmswap.fake_upstream.options import add_arguments, resolve
from llmswap.fake_upstream.server import build, runner_of
from llmswap.fake_upstream.state import FAKE, Fake

CHAT = {"messages": [{"role": "user", "content": "hello there"}]}


def parse(*flags):
    parser = argparse.ArgumentParser()
    add_arguments(parser)
    return resolve(parser.parse_args(["--port", "0", *flags]))


@dataclass
class Served:
    fake: Fake
    http: aiohttp.ClientSession

    async def get(self, path):
        async with self.http.get(path) as response:
            return response.status, await body_of(response)

    async def post(self, path, body=None, **kwargs):
        async with self.http.post(path, json=body, **kwargs) as response:
            return response.status, await body_of(response)

    async def events(self, path, body):
        """Post a streaming request; gives (event name, payload) pairs."""
        async with self.http.post(path, json={**body, "stream": True}) as response:
            assert response.status == 200, await response.text()
            return events_of(await response.text())

    async def state(self):
        return (await self.get("/_fake/state"))[1]

    async def calls(self):
        return (await self.get("/_fake/journal"))[1]["calls"]


async def body_of(response):
    text = await response.text()
    return json.loads(text) if response.content_type == "application/json" else text


def events_of(text):
    events = []
    for block in text.replace("\r\n", "\n").strip().split("\n\n"):
        fields = dict(line.split(": ", 1) for line in block.split("\n"))
        data = fields["data"]
        events.append((fields.get("event", ""), data if data == "[DONE]" else json.loads(data)))
    return events


@asynccontextmanager
async def served(*flags, boot=True) -> AsyncIterator[Served]:
    """Serve a fake inside this process. Its engine is booted first, unless the test wants to see that."""
    options, knobs, faults = parse("--time-scale", "0", "--output-tokens", "exact:6", *flags)
    ledger = Ledger(options.ledger, options.gpu_total_gib, 0.0, Holder("test")) if options.ledger else None
    app = build(options, knobs, faults, ledger)
    runner = runner_of(app)
    await runner.setup()
    site = web.TCPSite(runner, "127.0.0.1", 0)
    await site.start()
    host, port = runner.addresses[0][:2]
    try:
        if boot:
            await app[FAKE].engine.boot()
        async with aiohttp.ClientSession(f"http://{host}:{port}", timeout=aiohttp.ClientTimeout(total=10)) as http:
            yield Served(app[FAKE], http)
    finally:
        await runner.cleanup()


@dataclass
class Process:
    process: asyncio.subprocess.Process
    url: str
    log: list[str]

    @property
    def pid(self):
        return self.process.pid

    async def exit_code(self, within_s=10):
        # Not process.wait(): that waits for the end of the pipe, too, which a grandchild may hold open.
        await until(lambda: self.process.returncode is not None, within_s)
        return self.process.returncode

    async def logged(self, text, within_s=10):
        """Read its log until a line has this text."""
        async with asyncio.timeout(within_s):
            while not any(text in line for line in self.log):
                line = await self.process.stdout.readline()
                assert line, f"the log ended without {text!r}: {self.log}"
                self.log.append(line.decode())


@asynccontextmanager
async def spawned(*flags, listening=True) -> AsyncIterator[Process]:
    """Run a fake as its own process; killed at the end if it still lives."""
    process = await asyncio.create_subprocess_exec(
        sys.executable, "-m", "llmswap.fake_upstream", "--port", "0", *flags, stdout=asyncio.subprocess.PIPE
    )  # fmt: skip
    fake = Process(process, "", [])
    try:
        if listening:
            await fake.logged("running on")
            fake.url = fake.log[-1].split(" on ")[1].split()[0]
        yield fake
    finally:
        with contextlib.suppress(ProcessLookupError):
            process.kill()
        await fake.exit_code()
        process._transport.close()  # asyncio closes it only when the pipe is read to its end


async def until(condition, within_s=5):
    async with asyncio.timeout(within_s):
        while not (result := condition()):  # noqa: ASYNC110  the state of a process or of another task
            await asyncio.sleep(0.005)
        return result
