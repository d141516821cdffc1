"""Scripted clients that send real HTTP: somebody chatting, a coding agent with background calls, a nightly batch."""

import asyncio
import json
import time
from collections.abc import Callable
from dataclasses import dataclass, field
from itertools import count
from random import Random
from typing import Any

import aiohttp

from llmswap.proxy.callers import CALLER

PATIENCE_S = 120.0
PAUSE_AFTER_ERROR_S = 1.0


@dataclass(slots=True)
class Ask:
    """One request on its way.

    Attributes:
        first_s: Monotonic time of the first byte of the answer; None while waiting.
        tokens: Events of the answer read so far.
    """

    model: str
    began_s: float = field(default_factory=time.monotonic)
    first_s: float | None = None
    tokens: int = 0


@dataclass
class Client:
    """One of them.

    Attributes:
        asks: What it waits for or reads just now.
        tell: Takes a line (kind, text) when something is worth one.
    """

    name: str
    model: str
    url: str
    time_scale: float
    rng: Random
    tell: Callable[[str, str], None]
    asks: list[Ask] = field(default_factory=list)
    answered: int = 0
    failed: int = 0

    async def rest(self, least_s: float, most_s: float) -> None:
        """Do nothing for a while of simulated seconds."""
        await asyncio.sleep(self.rng.uniform(least_s, most_s) * self.time_scale)

    async def ask(self, http: aiohttp.ClientSession, path: str, body: dict[str, Any], model: str | None = None) -> None:
        """Send one request, read its answer as it comes; trouble is told, and the script goes on."""
        ask = Ask(model or self.model)
        self.asks.append(ask)
        try:
            who = {CALLER: self.name}
            async with http.post(self.url + path, json={"model": ask.model, **body}, headers=who) as response:
                async for line in response.content:
                    ask.tokens += line.startswith(b"data: {")
                    if ask.first_s is None and line.strip():
                        self._answered(ask, response.status)
        except (aiohttp.ClientError, TimeoutError) as error:
            self.failed += 1
            self.tell("bad", f"{self.name}: {type(error).__name__}: {error}")
            await asyncio.sleep(PAUSE_AFTER_ERROR_S)
        finally:
            self.asks.remove(ask)

    def _answered(self, ask: Ask, status: int) -> None:
        ask.first_s = time.monotonic()
        waited_s = ask.first_s - ask.began_s
        if status == 200:
            self.answered += 1
            self.tell("client", f"{self.name} hears from {ask.model} after {waited_s:.1f} s")
        else:
            self.failed += 1
            self.tell("bad", f"{self.name}: {ask.model} answered {status} after {waited_s:.1f} s")


def _user(text: str) -> list[dict[str, str]]:
    return [{"role": "user", "content": text}]


async def chat(client: Client, http: aiohttp.ClientSession) -> None:
    """Chat: one streamed question after the other, with time to read."""
    for turn in count():
        body = {"messages": _user(f"question {turn}: tell me more"), "stream": True}
        await client.ask(http, "/v1/chat/completions", body)
        await client.rest(6, 14)


async def agent(client: Client, http: aiohttp.ClientSession) -> None:
    """Code: a few steps over the Anthropic API, while a small model names the session in the background."""
    await client.rest(3, 5)
    for task in count():
        title = {"messages": _user(f"a title for task {task}"), "max_tokens": 12}
        background = asyncio.create_task(client.ask(http, "/v1/chat/completions", title, "small-chat"))
        try:
            for step in range(client.rng.randint(1, 3)):
                body = {"messages": _user(f"task {task}, step {step}"), "max_tokens": 400, "stream": True}
                await client.ask(http, "/v1/messages", body)
            await background
        finally:
            background.cancel()
        await client.rest(8, 16)


async def batch(client: Client, http: aiohttp.ClientSession) -> None:
    """Work off a pile: four documents at once, then nothing for long."""
    await client.rest(14, 16)
    for pile in count():
        bodies = [{"messages": _user(f"summarise document {pile}.{number}"), "max_tokens": 150} for number in range(4)]
        async with asyncio.TaskGroup() as group:
            for body in bodies:
                group.create_task(client.ask(http, "/v1/chat/completions", body))
        await client.rest(30, 45)


SCRIPTS = (("chat user", "small-chat", chat), ("coding agent", "coder", agent), ("batch", "big-reasoner", batch))


def session() -> aiohttp.ClientSession:
    """Give the HTTP client they share."""
    return aiohttp.ClientSession(timeout=aiohttp.ClientTimeout(total=PATIENCE_S))


def curl(url: str, model: str) -> str:
    """Give a command line that does what a client does, in two short lines that can be pasted."""
    body = json.dumps({"model": model, "messages": _user("hello")}, separators=(",", ":"))
    return f"curl {url}/v1/chat/completions \\\n    -d '{body}'"
