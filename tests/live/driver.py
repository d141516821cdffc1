"""Acts a workload's callers out over HTTP, on the simulator's scripts and draws, before a real llmswap.

What a client cannot know it cannot act out: when it is dispatched (`waits_s`), whether its prompt is cold (`cold_s`).
"""

import asyncio
import itertools
from math import inf
from random import Random

import aiohttp

from llmswap.core.events import RequestId
from llmswap.fake_upstream.serve import TAKES
from llmswap.proxy.callers import CALLER
from llmswap.proxy.swapping import SWAP_CLASS
from llmswap.sim.whatif.stage import REFUSED_PAUSE_S
from llmswap.sim.whatif.workload import Answer, Call, Caller, Ending, Script, Workload

MESSAGES = [{"role": "user", "content": "go on"}]


async def act_out(workload: Workload, seed: int, url: str, time_scale: float, answers: list[Answer]) -> None:
    """Play all callers until they are through, which most never are: cancel it.

    Args:
        workload: Its callers' seconds are real ones.
        seed: As the simulator takes it: the same seed means the same demand.
        url: Of llmswap.
        time_scale: Of the simulated upstreams.
        answers: Where each answer is put down as it comes; nobody knows when its request was dispatched.
    """
    timeout, connector = aiohttp.ClientTimeout(total=None, connect=10), aiohttp.TCPConnector(limit=0)
    async with (
        aiohttp.ClientSession(url, timeout=timeout, connector=connector) as http,
        asyncio.TaskGroup() as group,
    ):
        cast = _Cast(http, seed, time_scale, answers)
        for caller in workload.callers:
            group.create_task(cast.play(caller.name, cast.script(caller)))


class _Cast:
    def __init__(self, http: aiohttp.ClientSession, seed: int, time_scale: float, answers: list[Answer]) -> None:
        self._http, self._seed, self._time_scale, self._answers = http, seed, time_scale, answers
        self._entered, self._requests = itertools.count(), itertools.count()

    def script(self, caller: Caller) -> Script:
        """Begin the next caller's behaviour, on the random numbers that they have in the simulator."""
        return caller.script(Random(f"{self._seed}/caller/{next(self._entered)}/{caller.name}"))

    async def play(self, name: str, script: Script) -> None:
        """Act a script out, and those of whoever comes along."""
        turn = next(script, None)
        async with asyncio.TaskGroup() as group:
            while turn is not None:
                await asyncio.sleep(turn.after_s)
                calls = [group.create_task(self._call(name, call)) for call in turn.calls]
                for caller in turn.along:
                    group.create_task(self.play(caller.name, self.script(caller)))
                answers = tuple(await asyncio.gather(*calls)) if turn.wait else ()
                if answers and max(answers, key=lambda answer: answer.at_s).ending is Ending.REFUSED:
                    await asyncio.sleep(REFUSED_PAUSE_S)
                try:
                    turn = script.send(answers)
                except StopIteration:
                    turn = None

    async def _call(self, name: str, call: Call) -> Answer:
        """Try until it is answered, or not to be tried again."""
        assert call.waits_s == inf, "a client does not know when it is dispatched"
        assert call.cold_s == 0, "a client does not know whether it is the first of a life"
        clock = asyncio.get_running_loop().time
        came_s = clock()
        ending, tries = await self._try(name, call), 1
        for pause_s in call.retries_s:
            if ending is Ending.DONE:
                break
            await asyncio.sleep(pause_s)
            ending, tries = await self._try(name, call), tries + 1
        request = RequestId(next(self._requests))
        answer = Answer(clock(), name, call, ending, request, came_s, None, tries)
        self._answers.append(answer)
        return answer

    async def _try(self, name: str, call: Call) -> Ending:
        headers = {CALLER: name, SWAP_CLASS: str(call.swap_class), TAKES: f"{call.service_s / self._time_scale:.6f}"}
        body = {"model": call.model, "messages": MESSAGES}
        try:
            async with (
                asyncio.timeout(None if call.patience_s == inf else call.patience_s),
                self._http.post("/v1/chat/completions", json=body, headers=headers) as response,
            ):
                await response.read()
                return Ending.DONE if response.status == 200 else Ending.REFUSED
        except TimeoutError:
            return Ending.HUNG_UP
        except aiohttp.ClientError:
            return Ending.CUT
