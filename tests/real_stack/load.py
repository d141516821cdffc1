"""Scripted clients that have everything happen that a dashboard can show: swaps, wakes, errors, callers who leave."""

import asyncio
import random
import time
from collections import Counter

import aiohttp

CHAT = "/v1/chat/completions"
CALLER = {"X-LLMSwap-Caller": "load"}
PATIENCE_S = 90.0
PAUSE_S = 0.3
LEAVES_AFTER_LINES = 4
LARGE = ("chat", "coder", "reasoner")  # deploy/llmswap.yaml: one of these at a time


class Clients:
    """Those who ask one llmswap, for so many seconds.

    Attributes:
        heard: How requests ended: by status, or `left`, `gave up`, `broken`, `timed out`.
    """

    def __init__(self, http: aiohttp.ClientSession, url: str, seconds: float) -> None:
        self._http, self._url = http, url
        self._end_s = time.monotonic() + seconds
        self.heard: Counter[str] = Counter()

    def on(self) -> bool:
        """Whether to go on."""
        return time.monotonic() < self._end_s

    async def ask(self, model: str, *, leave: bool = False, path: str = CHAT, words: int = 3, **body: object) -> None:
        """Send one request, and leave in the middle of the answer if told to."""
        body = {"model": model, "messages": [{"role": "user", "content": "tell me " * words}], **body}
        try:
            async with self._http.post(self._url + path, json=body, headers=CALLER) as answer:
                lines = 0
                async for _ in answer.content:
                    lines += 1
                    if leave and lines >= LEAVES_AFTER_LINES:
                        self.heard["left"] += 1
                        return
                self.heard[str(answer.status)] += 1
        except aiohttp.ClientError:
            self.heard["broken"] += 1
        except TimeoutError:
            self.heard["timed out"] += 1

    async def give_up(self, model: str, after_s: float) -> None:
        """Send a request and leave before the answer begins."""
        try:
            async with asyncio.timeout(after_s):
                await self.ask(model, max_tokens=5)
        except TimeoutError:
            self.heard["gave up"] += 1


async def chat(clients: Clients, seed: int) -> None:
    """Talk to one large model after the other."""
    chance = random.Random(seed)
    while clients.on():
        stream, words, tokens = bool(chance.getrandbits(1)), chance.choice((3, 40)), chance.choice((5, 40))
        await clients.ask(chance.choice(LARGE), stream=stream, words=words, max_tokens=tokens)
        await asyncio.sleep(PAUSE_S)


async def embed(clients: Clients) -> None:
    """Use the small model beside the large ones, by every kind of API."""
    while clients.on():
        await clients.ask("embed", path="/v1/embeddings", input="one and two")
        await clients.ask("embed", path="/v1/completions", prompt="one", max_tokens=5)
        await clients.ask("embed", path="/v1/messages", max_tokens=8, stream=True)
        await asyncio.sleep(PAUSE_S)


async def leave(clients: Clients) -> None:
    """Leave in the middle of an answer, and while waiting for a model."""
    while clients.on():
        await clients.ask("chat", leave=True, stream=True, max_tokens=200)
        await clients.give_up("reasoner", 0.5)
        await asyncio.sleep(5)


async def err(clients: Clients) -> None:
    """Ask for what is not there, for what breaks off, does not come up or does not count, and in a wrong way."""
    while clients.on():
        for model in ("nobody", "flaky", "flaky", "broken", "mute"):
            await clients.ask(model, stream=True, max_tokens=30)
            await asyncio.sleep(PAUSE_S)
        await clients.ask("mute", max_tokens=5)
        await clients.ask("embed", messages="not a list")
        await asyncio.sleep(4)


async def everything(url: str, seconds: float) -> Counter[str]:
    """Let all of them loose; gives how their requests ended."""
    timeout = aiohttp.ClientTimeout(total=PATIENCE_S)
    async with aiohttp.ClientSession(timeout=timeout) as http:
        clients = Clients(http, url, seconds)
        async with asyncio.TaskGroup() as group:
            for work in (chat(clients, 1), chat(clients, 2), embed(clients), leave(clients), err(clients)):
                group.create_task(work)
    return clients.heard
