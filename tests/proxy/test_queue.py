"""`GET /api/queue`, and the words `llmswap queue` makes of it."""

import asyncio
import re
import time
from typing import Any

import orjson
import pytest
from aiohttp import web

from llmswap.config.load import loads
from llmswap.core.events import LoadRequested, UnloadRequested
from llmswap.core.explanation import Rule, Verb, Why
from llmswap.core.fleet import ModelId
from llmswap.proxy import queue_client
from llmswap.proxy.queue import REQUESTS_MAX
from llmswap.proxy.queue_client import decision_words, queue_text, waits_table
from tests.proxy.rig import Rig, rig_on
from tests.raw import request
from tests.stack import until

CONFIG = """
models:
  a: {cmd: "server --port ${PORT}", concurrencyLimit: 300}
  b: {cmd: "server --port ${PORT}", concurrencyLimit: 300}
  c: {cmd: "server --port ${PORT}"}
"""
KEY = "sk-queue-0123456789"


async def queue(rig: Rig, headers: str = "") -> Any:
    reply = await rig.raw(request("GET", "/api/queue", headers=headers))
    assert reply.status == 200
    return orjson.loads(reply.body)


def ask(rig: Rig, model: str, caller: str) -> "asyncio.Task[Any]":
    headers = f"Content-Type: application/json\r\nX-LLMSwap-Caller: {caller}\r\n"
    data = request("POST", "/v1/chat/completions", orjson.dumps({"model": model}), headers=headers)
    return asyncio.create_task(rig.raw(data))


async def test_an_idle_server_has_nothing_to_tell() -> None:
    async with rig_on(loads(CONFIG)) as rig:
        told = await queue(rig)
        assert told.pop("now") == pytest.approx(time.time(), abs=5)
        assert told == {"waiting": [], "decisions": []}


async def test_who_waits_for_what_since_when_and_why() -> None:
    async with rig_on(loads(CONFIG)) as rig:
        release = asyncio.Event()

        async def slow(_: web.Request) -> web.StreamResponse:
            await release.wait()
            return web.json_response({"ok": True})

        rig.upstream.answer = slow
        busy = ask(rig, "a", "agent")
        await until(lambda: rig.upstream.seen, "a serves")
        waiting = [ask(rig, "b", "agent")]
        await until(lambda: rig.waiting("b") == 1, "the first waits")
        waiting.append(ask(rig, "b", "title"))
        await until(lambda: rig.waiting("b") == 2, "the second waits")

        told = await queue(rig)
        (wait,) = told["waiting"]
        first, second = wait.pop("requests")
        assert wait.pop("ready_in_s") is None  # b was never up: nobody knows
        assert wait == {"model": "b", "waiting": 2, "due": False, "why": "busy", "whom": ["a"], "until_s": None}
        assert (first["id"], first["caller"], second["id"], second["caller"]) == (2, "agent", 3, "title")
        assert first["since"] <= second["since"] <= told["now"]
        assert first["since"] == pytest.approx(told["now"] - first["waited_s"], abs=0.002)

        release.set()
        for reply in await asyncio.gather(busy, *waiting):
            assert reply.status == 200
        told = await queue(rig)
        assert told["waiting"] == []
        swap, start = (decision for decision in told["decisions"] if decision["verb"] == "swap")
        assert (swap["verb"], swap["model"], swap["rule"], swap["evicted"]) == ("swap", "b", "alone", ["a"])
        assert (swap["caller"], swap["waiting"], swap["kept"]) == ("agent", 2, [])
        assert 0 < swap["waited_s"] < 10
        assert (start["model"], start["evicted"], start["waiting"], start["alternatives"]) == ("a", [], 1, [])
        assert start["when"] <= swap["when"] <= told["now"]


async def test_alternatives_say_what_kept_them_back() -> None:
    async with rig_on(loads(CONFIG)) as rig:
        rig.auto = False
        asked = [ask(rig, "a", "one")]
        await until(lambda: rig.starts, "a is started")
        for model in ("b", "c"):
            asked.append(ask(rig, model, model))
            await until(lambda model=model: rig.waiting(model), "it waits")
        told = await queue(rig)
        assert [wait["model"] for wait in told["waiting"]] == ["a", "b", "c"]
        assert [wait["why"] for wait in told["waiting"]] == ["starting", "swap", "swap"]
        rig.ready()
        await until(lambda: len(rig.starts) == 2, "b's turn comes")
        newest = (await queue(rig))["decisions"][0]
        assert (newest["model"], newest["rule"], newest["evicted"], newest["caller"]) == ("b", "age", ["a"], "b")
        (other,) = newest["alternatives"]
        assert (other["model"], other["waiting"]) == ("c", 1)
        assert "c " in decision_words(newest)
        rig.ready()
        await until(lambda: len(rig.starts) == 3, "c's turn comes")
        rig.ready()
        for reply in await asyncio.gather(*asked):
            assert reply.status == 200


async def test_decisions_of_nobody_in_particular_are_told_too() -> None:
    async with rig_on(loads(CONFIG)) as rig:
        rig.loop.post(LoadRequested(ModelId("a")))
        rig.loop.post(UnloadRequested())
        stop, load = (await queue(rig))["decisions"]
        assert (stop["verb"], stop["model"], stop["rule"]) == ("stop", "a", "order")
        assert (load["verb"], load["model"], load["rule"], load["caller"]) == ("swap", "a", "order", "")


async def test_of_a_long_line_the_head_is_shown_and_all_are_counted() -> None:
    async with rig_on(loads(CONFIG)) as rig:
        rig.auto = False
        asked = [ask(rig, "a", "many") for _ in range(REQUESTS_MAX + 5)]
        await until(lambda: rig.waiting("a") == REQUESTS_MAX + 5, "all wait")
        (wait,) = (await queue(rig))["waiting"]
        assert (wait["waiting"], len(wait["requests"])) == (REQUESTS_MAX + 5, REQUESTS_MAX)
        rig.ready()
        await asyncio.gather(*asked)


async def test_it_asks_for_a_key_where_there_are_keys() -> None:
    async with rig_on(loads(f"{CONFIG}apiKeys: [{KEY}]\n")) as rig:
        assert (await rig.raw(request("GET", "/api/queue"))).status == 401
        assert (await queue(rig, f"x-api-key: {KEY}\r\n"))["waiting"] == []


# In words -------------------------------------------------------------------------------------------------------------

WAIT = {"model": "big", "waiting": 2, "due": True, "why": "held", "whom": ["small"], "until_s": 3.2, "ready_in_s": 34.1}
CALLERS = ("agent", "agent", "title", "")
SWAP = {
    "ago_s": 161.0,
    "verb": "swap",
    "model": "big",
    "rule": "age",
    "evicted": ["small"],
    "kept": [],
    "wanted_by": None,
    "until_s": None,
    "caller": "",
    "waiting": 3,
    "waited_s": 41.21,
    "alternatives": [
        {"model": "coder", "waiting": 1, "waited_s": 3.0, "why": "later", "whom": [], "until_s": None},
    ],
}


def test_a_decision_is_a_sentence() -> None:
    assert decision_words(SWAP) == "big evicted small: 3 waited 41.2 s, rule age; coder came later (1 waiting 3.0 s)"
    three = SWAP | {"evicted": ["a", "b", "c"], "alternatives": [], "caller": "agent"}
    assert decision_words(three) == "big evicted a, b and c: 3 waited 41.2 s, rule age, for agent"
    load = SWAP | {"evicted": [], "alternatives": [], "waiting": 0, "rule": "order"}
    assert decision_words(load) == "big was started: rule order"
    assert decision_words(SWAP | {"verb": "stop", "rule": "ttl"}) == "big was stopped: idle for its ttl"
    assert decision_words(SWAP | {"verb": "sleep", "rule": "ttl"}) == "big was put to sleep: idle for its sleepAfter"
    held = decision_words(SWAP | {"verb": "hold", "rule": None, "wanted_by": "coder", "until_s": 9.5})
    assert held == "big was kept for its callers for 9.5 s at most, although coder wants its place: 3 waited 41.2 s"


def test_the_waits_are_a_table() -> None:
    requests = [{"id": 1, "caller": caller, "since": 0.0, "waited_s": 64.2} for caller in CALLERS]
    unknown = WAIT | {"model": "m", "requests": [], "ready_in_s": None, "due": False, "why": "limit", "whom": []}
    _, big, m = waits_table([WAIT | {"requests": requests}, unknown]).splitlines()
    assert re.split(" {2,}", big) == [
        *("big", "2", "1m 4s, overdue", "34s", "small is kept for its callers for 3s at most"),
        "agent (2), title, ?",
    ]
    assert m.split() == ["m", "2", "-", "?", "it", "serves", "as", "many", "as", "it", "may"]
    assert waits_table([]) == ""


def test_everything_together_and_nothing_at_all() -> None:
    assert queue_text({"waiting": [], "decisions": []}) == "nobody waits\n\nno decisions yet"
    text = queue_text({"waiting": [], "decisions": [SWAP]})
    assert text.splitlines()[2:] == ["last decisions:", f"  2m 41s ago  {decision_words(SWAP)}"]


def test_there_are_words_for_every_reason_and_rule() -> None:
    assert set(queue_client._NOW) == set(queue_client._THEN) == set(Why)
    assert set(queue_client._STOPPED) | set(queue_client._SLEPT) <= set(Rule)
    assert set(Verb) == {"swap", "hold", "stop", "sleep"}  # as `decision_words` tells them
