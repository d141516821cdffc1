"""Callers over HTTP do what the simulator's callers do. What serves them here is no llmswap, just answers."""

import asyncio
from collections.abc import AsyncIterator
from dataclasses import replace
from math import inf

import pytest
from aiohttp import web

from llmswap.core.fleet import ModelId
from llmswap.fake_upstream.serve import TAKES
from llmswap.sim.whatif import scenario
from llmswap.sim.whatif.stage import play
from llmswap.sim.whatif.workload import Answer, Between, Call, Caller, Costs, Ending, Turn
from tests.live.driver import act_out
from tests.live.world import TIME_SCALE, shrunk
from tests.stack import until

FAST = shrunk(scenario.load("opencode_fanout").workload)
PATIENCE_S = 0.2


class Front:
    """Answers by the model that is asked for, and remembers who asked for what."""

    def __init__(self):
        self.url, self.asked, self.three = "", [], asyncio.Barrier(3)

    async def answer(self, request):
        model = (await request.json())["model"]
        self.asked.append((request.headers["X-LLMSwap-Caller"], model, float(request.headers[TAKES])))
        if model == "never":
            await asyncio.Event().wait()
        if model == "together":
            await self.three.wait()
        if model == "cut":
            request.transport.abort()
        return web.Response(status=503 if model == "refused" else 200)


@pytest.fixture
async def front() -> AsyncIterator[Front]:
    front, app = Front(), web.Application()
    app.router.add_post("/v1/chat/completions", front.answer)
    runner = web.AppRunner(app, handler_cancellation=True, shutdown_timeout=0.01)
    await runner.setup()
    await web.TCPSite(runner, "127.0.0.1", 0).start()
    front.url = "http://{}:{}".format(*runner.addresses[0])
    yield front
    await runner.cleanup()


def simulated_asks(seed):
    """Give what every caller asks for in the simulator, where all models are up at once: (caller, model, seconds)."""
    free = replace(FAST, costs={model: Costs(Between(0, 0), Between(0, 0)) for model in FAST.costs})
    answers: list[Answer] = []
    play(free, FAST.fleet, seed, 100.0, listeners=(answers.append,))
    return {(each.caller, each.call.model, round(each.call.service_s / TIME_SCALE, 6)) for each in answers}


async def test_the_same_seed_asks_for_the_same_as_in_the_simulator(front):
    playing = asyncio.create_task(act_out(FAST, 7, front.url, TIME_SCALE, []))
    try:
        await until(lambda: len(front.asked) > 20, "twenty calls")
    finally:
        playing.cancel()
        await asyncio.gather(playing, return_exceptions=True)
    assert {who for who, _, _ in front.asked} == {"orchestrator", "explorer", "coder"}
    assert set(front.asked) <= simulated_asks(7)
    assert not set(front.asked) <= simulated_asks(8)


async def test_a_caller_hears_how_each_of_its_calls_ended(front):
    heard = []

    def script(_rng):
        models = {"done": inf, "never": PATIENCE_S, "cut": inf}
        heard.extend((yield Turn(0.0, tuple(Call(ModelId(model), 1.0, limit) for model, limit in models.items()))))
        heard.extend((yield Turn(0.0, (Call(ModelId("refused"), 1.0, retries_s=(0.0, 0.0)),))))

    answers = []
    async with asyncio.timeout(10):
        await act_out(replace(FAST, callers=(Caller("one", script),)), 1, front.url, TIME_SCALE, answers)
    assert [answer.ending for answer in heard] == [Ending.DONE, Ending.HUNG_UP, Ending.CUT, Ending.REFUSED]
    assert heard[1].at_s - heard[1].came_s >= PATIENCE_S
    assert heard[3].tries == 3
    assert set(answers) == set(heard)
    assert len([model for _, model, _ in front.asked if model == "refused"]) == 3


async def test_turns_that_nobody_waits_for_and_callers_who_come_along_are_played_too(front):
    def one(name, *, along=(), wait=True, times=1):
        def script(_rng):
            for number in range(times):
                yield Turn(0.0, (Call(ModelId(name), 1.0),), wait, along if number == 0 else ())

        return Caller(name, script)

    first = one("together", along=(one("second"),), wait=False, times=3)
    async with asyncio.timeout(10):
        await act_out(replace(FAST, callers=(first,)), 1, front.url, TIME_SCALE, [])
    assert sorted(model for _, model, _ in front.asked) == ["second", "together", "together", "together"]
