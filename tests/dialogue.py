"""What a client says to a running llmswap, in as few words as a test wants to read."""

import asyncio
import json
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import Any

import aiohttp

from tests.stack import Program

HELLO = [{"role": "user", "content": "Hello!"}]
CHAT = "/v1/chat/completions"


async def ask(http: aiohttp.ClientSession, program: Program, model: str, **body: Any) -> tuple[int, Any]:
    """Ask for a chat completion; gives the status and the JSON answer."""
    async with http.post(program.url + CHAT, json={"model": model, "messages": HELLO, **body}) as answer:
        return answer.status, await answer.json()


class Listener:
    """A client in the middle of a streamed answer."""

    def __init__(self, answer: aiohttp.ClientResponse) -> None:
        self.answer = answer
        self.lines: list[str] = []

    @property
    def tokens(self) -> int:
        """How many pieces of the answer have come."""
        events = [json.loads(line[6:]) for line in self.lines if line.startswith("data: {")]
        return sum(bool(choice.get("delta", {}).get("content")) for event in events for choice in event["choices"])

    @property
    def complete(self) -> bool:
        """Whether the stream said that it is over."""
        return "data: [DONE]" in self.lines

    async def hear(self, tokens: int) -> None:
        """Listen until that many pieces have come."""
        while self.tokens < tokens:
            line = await self.answer.content.readline()
            assert line, f"the stream ended after {self.tokens} tokens"
            self.lines.append(line.decode().strip())

    async def hear_out(self) -> None:
        """Listen to the end, however it ends."""
        async for line in self.answer.content:
            self.lines.append(line.decode().strip())


@asynccontextmanager
async def listening(http: aiohttp.ClientSession, program: Program, model: str, **body: Any) -> AsyncIterator[Listener]:
    """Ask for a streamed answer and listen to it; leaving the block hangs up."""
    asked = {"model": model, "messages": HELLO, "stream": True, **body}
    async with http.post(program.url + CHAT, json=asked) as answer:
        assert answer.status == 200, await answer.text()
        yield Listener(answer)


async def finish(*tasks: "asyncio.Task[Any]") -> None:
    """Cancel tasks and wait for their end."""
    for task in tasks:
        task.cancel()
    await asyncio.gather(*tasks, return_exceptions=True)
