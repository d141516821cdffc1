"""Swap classes, substitutes, headers and the queue on the whole program: real processes, real sockets."""

import asyncio
import re
from typing import Any

import aiohttp
import pytest

from llmswap.cli import main
from tests.dialogue import CHAT, HELLO, ask, finish
from tests.stack import Program, Stack, fake, until

QUEUE_S, SWAP_S = "X-LLMSwap-Queue-Seconds", "X-LLMSwap-Swap-Seconds"
RESIDENCY, SERVED_BY = "X-LLMSwap-Residency", "X-LLMSwap-Served-By"
Heads = dict[str, str]


def config(**big: Any) -> dict[str, Any]:
    small = {"cmd": fake("small", persona="vllm", time_scale=0)}
    return {"models": {"big": {"cmd": fake("big", boot=0.3), "substitutes": ["small"], **big}, "small": small}}


async def say(
    http: aiohttp.ClientSession, program: Program, model: str, *, stream: bool = False, **headers: str
) -> tuple[int, Heads, str]:
    """Ask for a chat completion; gives status, head and text."""
    names = {f"X-LLMSwap-{name.capitalize()}": value for name, value in headers.items()}
    body = {"model": model, "messages": HELLO, "max_tokens": 2, "stream": stream}
    async with http.post(program.url + CHAT, json=body, headers=names) as answer:
        return answer.status, dict(answer.headers), await answer.text()


async def queue(http: aiohttp.ClientSession, program: Program) -> Any:
    async with http.get(program.url + "/api/queue") as answer:
        assert answer.status == 200
        return await answer.json()


async def test_never_swap_starts_nothing_and_evicts_nobody(stack: Stack, http: aiohttp.ClientSession) -> None:
    program = stack.start(config(swapClassByID={"title": "never-swap"}))
    status, head, text = await say(http, program, "title")
    assert (status, "would_swap" in text) == (503, True)
    assert int(head["Retry-After"]) >= 1
    assert await program.running() == {}
    await say(http, program, "big")
    pid = program.upstream_pid("big")
    status, _, text = await say(http, program, "small", swap="never-swap")
    assert (status, "would_swap" in text) == (503, True)
    assert (await say(http, program, "title"))[0] == 200
    assert await program.running() == {"big": "ready"}
    assert program.upstream_pid("big") == pid
    assert await program.metric("llmswap_swaps_total") == 1


async def test_a_substitute_serves_under_its_own_name_and_says_so(stack: Stack, http: aiohttp.ClientSession) -> None:
    program = stack.start(config(swapClass="prefer-warm"))
    assert (await ask(http, program, "small", max_tokens=1))[0] == 200
    status, head, text = await say(http, program, "big")
    assert (status, head[SERVED_BY], head[RESIDENCY]) == (200, "small", "hit"), text
    assert '"model":"small"' in text.replace(" ", "")  # vLLM would have answered 404 to another name
    assert await program.running() == {"small": "ready"}


@pytest.mark.parametrize("stream", [False, True])
async def test_the_head_tells_a_hit_from_a_miss(stack: Stack, http: aiohttp.ClientSession, stream: bool) -> None:
    program = stack.start(config())
    _, head, _ = await say(http, program, "big", stream=stream)
    assert head[RESIDENCY] == "miss"
    assert 0.3 <= float(head[SWAP_S]) <= float(head[QUEUE_S]) + 0.002 < 10
    _, head, text = await say(http, program, "big", stream=stream)
    assert (head[RESIDENCY], head[SWAP_S]) == ("hit", "0.000")
    assert float(head[QUEUE_S]) < 0.5
    assert SERVED_BY not in head
    assert ("data: [DONE]" in text) is stream


async def test_the_queue_tells_who_waits_while_a_swap_runs_and_why_afterwards(
    stack: Stack, http: aiohttp.ClientSession, capsys: pytest.CaptureFixture[str]
) -> None:
    program = stack.start(config(cmd=fake("big", boot=1.0)))
    await say(http, program, "small")
    asked = asyncio.create_task(say(http, program, "big", caller="agent"))

    async def starting() -> bool:
        waits = (await queue(http, program))["waiting"]
        return bool(waits) and waits[0]["why"] == "starting"

    await until(starting, "big is being started")
    (wait,) = (await queue(http, program))["waiting"]
    assert (wait["model"], wait["waiting"], wait["requests"][0]["caller"]) == ("big", 1, "agent")
    for command in ("status", "queue"):
        assert await asyncio.to_thread(main, [command, "--url", program.url]) == 0
        assert "agent" in capsys.readouterr().out
    assert (await asked)[0] == 200

    told = await queue(http, program)
    assert told["waiting"] == []
    newest = told["decisions"][0]
    assert (newest["model"], newest["evicted"], newest["caller"]) == ("big", ["small"], "agent")
    assert await asyncio.to_thread(main, ["queue", "--url", program.url]) == 0
    words = capsys.readouterr().out
    assert "nobody waits" in words
    assert re.search(r"big evicted small: 1 waited \d+\.\d s, rule alone, for agent", words)
    assert await asyncio.to_thread(main, ["status", "--url", program.url]) == 0
    assert "LONGEST" not in capsys.readouterr().out


async def test_a_caller_that_leaves_is_told_no_longer(stack: Stack, http: aiohttp.ClientSession) -> None:
    program = stack.start(config(cmd=fake("big", boot=30)))
    asked = asyncio.create_task(say(http, program, "big"))

    async def callers() -> list[str]:
        return [one["caller"] for wait in (await queue(http, program))["waiting"] for one in wait["requests"]]

    await until(callers, "it waits")
    assert await callers() == ["loopback"]
    await finish(asked)

    async def nobody() -> bool:
        return not await callers()

    await until(nobody, "it is gone")
