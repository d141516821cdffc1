"""Times that whoever starts the fake, or asks it, sets to the second."""

import asyncio

import aiohttp
import pytest

from llmswap.fake_upstream.serve import COLD, TAKES
from tests.fake_upstream.harness import CHAT, served, spawned

PATH = "/v1/chat/completions"


@pytest.mark.parametrize("stream", [False, True])
async def test_an_answer_takes_as_long_as_its_request_says_whatever_the_knobs_say(stream):
    async with served("--time-scale", "0.1", "--ttft", "60000", "--itl", "60000") as fake:
        loop = asyncio.get_running_loop()
        began_s = loop.time()
        async with fake.http.post(PATH, json={**CHAT, "stream": stream}, headers={TAKES: "3"}) as response:
            assert response.status == 200
            await response.read()
        assert 0.29 < loop.time() - began_s < 1.0


async def test_a_time_that_is_none_is_refused():
    async with served() as fake:
        for text in ("soon", "-1", "inf", "nan"):
            for header in (TAKES, COLD):
                status, body = await fake.post(PATH, CHAT, headers={header: text})
                assert (status, header in body["error"]["message"]) == (400, True)


@pytest.mark.parametrize(
    ("path", "body"),
    [
        ("/v1/embeddings", {"input": "hello"}),
        ("/v1/rerank", {"query": "hello", "documents": ["hello"]}),
        ("/v1/audio/speech", {"input": "hello"}),
        ("/v1/images/generations", {"prompt": "hello"}),
    ],
)
async def test_other_apis_take_as_long_as_asked_too(path, body):
    async with served("--time-scale", "0.1", "--ttft", "60000") as fake:
        loop = asyncio.get_running_loop()
        began_s = loop.time()
        async with fake.http.post(path, json=body, headers={TAKES: "1"}) as response:
            await response.read()
            assert response.status == 200
        assert 0.09 < loop.time() - began_s < 1.0


async def test_a_prompt_is_read_anew_once_for_each_client_of_a_life():
    async with served("--time-scale", "0.01") as fake:
        for name in ("one", "one", "other one", "one"):
            await fake.post(PATH, CHAT, headers={TAKES: "1", COLD: f"{name} 20"})
        took_s = [call["first_s"] - call["at_s"] for call in await fake.calls()]
        assert [time_s > 0.2 for time_s in took_s] == [True, False, True, False]


async def test_a_boot_counted_from_the_spawn_has_the_start_of_the_process_in_it():
    assert await _boot_s("--boot", "0.6") > 0.59
    assert await _boot_s("--boot", "0.6", "--boot-since-spawn") < 0.55


async def _boot_s(*flags):
    """Boot a process; gives the seconds by its own clock, which begins when it is up itself."""
    async with spawned(*flags) as fake:
        await fake.logged("startup complete")
        async with aiohttp.ClientSession() as http, http.get(fake.url + "/_fake/journal") as response:
            (boot,) = (await response.json())["operations"]
    return boot["ended_s"] - boot["began_s"]
