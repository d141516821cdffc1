"""Fault rows of swapping that need the whole program: real processes, real sockets, real clients."""

import asyncio
import random
import sys
import time
from collections import Counter

import pytest

import llmswap.runtime.stopping
from llmswap.app import Options, reader, running_app
from llmswap.core.states import State
from tests.dialogue import HELLO, ask, finish, listening
from tests.stack import as_yaml, fake, until

SLOW = {"itl": 20, "output_tokens": "exact:2000"}
TOGETHER = {"swap": False, "exclusive": False}
TTL_MODELS, TTL_ROUNDS = 16, 4
# Costs a third of a simulated engine to start, and less to ask.
LIGHT = f"{sys.executable} -m tests.bench.upstream --port ${{PORT}}"


async def test_F057_client_that_leaves_the_queue_gets_no_load_started(stack, http):
    program = stack.start({"models": {"a": {"cmd": fake("a", **SLOW)}, "b": {"cmd": fake("b"), "concurrencyLimit": 1}}})
    async with listening(http, program, "a") as busy:
        await busy.hear(1)
        queued = asyncio.create_task(ask(http, program, "b"))

        async def depth() -> float:
            return await program.metric("llmswap_queue_depth", model="b")

        await until(depth, "b's request waits")
        await finish(queued)

        async def nobody() -> bool:
            return await depth() == 0

        await until(nobody, "the queue is empty again", 2)
        second = asyncio.create_task(ask(http, program, "b"))  # takes the one slot: it has been given back
        await until(depth, "another request waits")
        await finish(second)
        await until(nobody, "the queue is empty again", 2)
    status, _ = await ask(http, program, "a", max_tokens=1)
    assert status == 200
    assert await program.running() == {"a": "ready"}
    assert await program.metric("llmswap_swaps_total", to_model="b") == 0


async def test_F061_1000_requests_for_10_models_take_10_loads(stack, http):
    count, names = 1000, [f"m{number}" for number in range(10)]
    models = {name: {"cmd": f"{LIGHT} --load-s 0.1 --model {name}", "concurrencyLimit": count} for name in names}
    program = stack.start({"queueMax": count, "models": models})
    order = names * (count // len(names))
    random.Random(61).shuffle(order)

    async def served(name: str) -> tuple[int, bool]:
        status, answer = await ask(http, program, name, max_tokens=1)
        return status, answer.get("model") == name

    answers = Counter(await asyncio.gather(*map(served, order)))
    assert answers == {(200, True): count}
    for name in names:
        assert await program.metric("llmswap_swaps_total", to_model=name, outcome="ok") == 1, name


async def test_F065_failed_start_after_an_eviction_costs_only_its_own_waiters(stack, http):
    broken = fake("b", fail="crash_at_start")
    program = stack.start({"models": {"a": {"cmd": fake("a")}, "b": {"cmd": broken, "concurrencyLimit": 3}}})
    assert (await ask(http, program, "a"))[0] == 200
    waiters = await asyncio.gather(*(ask(http, program, "b") for _ in range(3)))
    assert [status for status, _ in waiters] == [502, 502, 502]
    assert "exited" in waiters[0][1]["error"]["message"]
    began_s = time.monotonic()
    assert [(await ask(http, program, "b"))[0] for _ in range(4)] == [503] * 4  # backing off: refused at once
    assert time.monotonic() - began_s < 1
    assert (await ask(http, program, "a"))[0] == 200
    assert await program.running() == {"a": "ready"}

    async def tried_again() -> bool:
        return (await ask(http, program, "b"))[0] == 502

    await until(tried_again, "b is tried again after its backoff; no slot was lost", 10)


async def test_F066_target_is_not_started_over_a_victim_that_cannot_be_stopped(tmp_path, http, monkeypatch):
    """No signal reaches the victim, as with a process in D state."""
    config = tmp_path / "config.yaml"
    config.write_text(as_yaml({"unloadTimeout": 1, "models": {"a": {"cmd": fake("a")}, "b": {"cmd": fake("b")}}}))
    options = Options(config=config, listen="127.0.0.1:0", state_dir=tmp_path / "state")
    monkeypatch.setattr(llmswap.runtime.stopping, "STUCK_AFTER_S", 0.1)

    async def chat(app, model):
        asked = {"model": model, "messages": HELLO}
        async with http.post(app.addresses[0] + "/v1/chat/completions", json=asked) as answer:
            return answer.status, await answer.json()

    async with running_app(options, reader(options)) as app:
        assert (await chat(app, "a"))[0] == 200
        with monkeypatch.context() as unkillable:
            unkillable.setattr(llmswap.runtime.stopping, "send", lambda *_: None)
            unkillable.setattr("llmswap.runtime.process.Process.signal_group", lambda *_: None)
            status, answer = await chat(app, "b")
            assert status == 503
            assert "cannot be" in answer["error"]["message"]
            views = app.loop.snapshot().upstreams
            assert views["a"].state is State.STOPPING
            assert views["a"].stuck
            assert views["b"].state is State.STOPPED
            assert (await chat(app, "b"))[0] == 503
        await until(lambda: app.loop.snapshot().upstreams["a"].state is State.STOPPED, "a can be killed after all")
        assert (await chat(app, "b"))[0] == 200


async def test_F068_unloading_a_stubborn_model_does_not_hold_up_the_others(stack, http):
    models = {"a": {"cmd": fake("a", "--ignore-sigterm"), "unloadTimeout": 3}, "b": {"cmd": fake("b")}}
    program = stack.start({"models": models, "groups": {"all": {**TOGETHER, "members": ["a", "b"]}}})
    assert (await ask(http, program, "a"))[0] == 200
    began_s = time.monotonic()
    unload = asyncio.create_task(http.post(f"{program.url}/api/models/unload/a"))
    await program.until_state("a", "stopping")
    assert (await ask(http, program, "b"))[0] == 200
    assert not unload.done()
    assert time.monotonic() - began_s < 3
    async with await unload as answer:
        assert answer.status == 200
    assert time.monotonic() - began_s >= 3
    assert await program.running() == {"b": "ready"}


@pytest.mark.timeout(120)
async def test_F069_requests_at_the_moment_the_ttl_fires_are_served(stack, http):
    models = {f"m{number}": {"cmd": LIGHT, "ttl": 1} for number in range(TTL_MODELS)}
    program = stack.start({"models": models, "groups": {"all": {**TOGETHER, "members": list(models)}}})
    rng = random.Random(69)
    statuses: Counter[int] = Counter()

    async def at_the_boundary(model: str) -> None:
        for _ in range(TTL_ROUNDS):
            statuses[(await ask(http, program, model))[0]] += 1
            await asyncio.sleep(1 + rng.uniform(-0.004, 0.012))

    await asyncio.gather(*map(at_the_boundary, models))
    assert statuses == {200: TTL_MODELS * TTL_ROUNDS}
    starts = await program.metric("llmswap_swaps_total", outcome="ok")
    assert TTL_MODELS < starts <= TTL_MODELS * TTL_ROUNDS, "the ttl must have fired, or the boundary was never met"
