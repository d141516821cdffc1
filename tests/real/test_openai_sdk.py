"""The official OpenAI client against two real llama-servers that take turns."""

import asyncio
import os
import signal
from collections.abc import AsyncIterator

import aiohttp
import openai
import psutil
import pytest

from tests.stack import Program, until

pytestmark = pytest.mark.real

TELL = [{"role": "user", "content": "Tell me a story."}]
LONG = 1500  # tokens: over ten seconds of the slow model


@pytest.fixture
async def client(served: Program) -> AsyncIterator[openai.AsyncOpenAI]:
    async with openai.AsyncOpenAI(base_url=f"{served.url}/v1", api_key="none", max_retries=0, timeout=60) as client:
        yield client


async def until_free(served: Program, model: str) -> None:
    """Wait until neither llmswap nor the real server is busy for us any more.

    llama-server looks for a client that has left once a second, counted anew at each answer it gives to anybody: asked
    more often than that, it would never notice.
    """

    async def none_in_flight() -> bool:
        return await served.metric("llmswap_requests_in_flight", model=model) == 0

    async def idle() -> bool:
        async with aiohttp.ClientSession() as http, http.get(f"{served.url}/upstream/{model}/slots") as answer:
            return not any(slot["is_processing"] for slot in await answer.json())

    await until(none_in_flight, f"nothing in flight for {model}", 2)
    await until(idle, f"the server of {model} is idle", 8, every_s=1.5)


async def test_models_are_listed(client):
    listed = {model.id: model async for model in client.models.list()}
    assert set(listed) == {"quick", "slow", "embedder"}
    assert listed["slow"].description == "speaks slowly"


async def test_chat_swaps_the_models(served, client):
    for model in ("quick", "slow", "quick"):
        answer = await client.chat.completions.create(model=model, messages=TELL, max_tokens=12, temperature=0)
        assert answer.choices[0].message.content
        assert answer.usage is not None
        assert answer.usage.completion_tokens == 12
        assert await served.running() == {model: "ready"}


async def test_an_alias_reaches_its_model(served, client):
    await client.chat.completions.create(model="gpt-4o-mini", messages=TELL, max_tokens=2)
    assert await served.running() == {"quick": "ready"}


async def test_a_stream_comes_token_by_token(client):
    chunks, usage = [], None
    stream = await client.chat.completions.create(
        model="slow", messages=TELL, max_tokens=30, stream=True, stream_options={"include_usage": True}
    )
    async for chunk in stream:
        chunks += [choice.delta.content for choice in chunk.choices if choice.delta.content]
        usage = chunk.usage or usage
    assert len(chunks) >= 25
    assert usage is not None
    assert usage.completion_tokens == 30


async def test_a_streamed_answer_is_the_unstreamed_one(client):
    asked = {"model": "quick", "messages": TELL, "max_tokens": 40, "temperature": 0, "seed": 1}
    whole = await client.chat.completions.create(**asked)
    stream = await client.chat.completions.create(**asked, stream=True)
    parts = [choice.delta.content or "" async for chunk in stream for choice in chunk.choices]
    assert "".join(parts) == whole.choices[0].message.content


async def test_completions_and_embeddings(client):
    answer = await client.completions.create(model="quick", prompt="the way of", max_tokens=5)
    assert answer.choices[0].text
    vectors = await client.embeddings.create(model="embedder", input=["one", "two"])
    assert [len(entry.embedding) for entry in vectors.data] == [64, 64]


async def test_many_clients_for_both_models_are_all_served(client):
    async def ask(model: str) -> int:
        answer = await client.chat.completions.create(model=model, messages=TELL, max_tokens=4)
        return answer.usage.completion_tokens

    models = ["quick", "slow"] * 5
    assert await asyncio.gather(*map(ask, models)) == [4] * len(models)


async def test_a_client_that_times_out_frees_the_server(served, client):
    await client.chat.completions.create(model="slow", messages=TELL, max_tokens=1)
    with pytest.raises(openai.APITimeoutError):
        await client.with_options(timeout=0.5).chat.completions.create(model="slow", messages=TELL, max_tokens=LONG)
    await until_free(served, "slow")
    answer = await client.chat.completions.create(model="slow", messages=TELL, max_tokens=2)
    assert answer.choices[0].message.content


async def test_a_client_that_leaves_mid_stream_frees_the_server(served, client):
    stream = await client.chat.completions.create(model="slow", messages=TELL, max_tokens=LONG, stream=True)
    seen = 0
    async for _ in stream:
        seen += 1
        if seen == 5:
            break
    assert await served.metric("llmswap_requests_in_flight", model="slow") == 1
    await stream.close()
    await until_free(served, "slow")
    assert await served.running() == {"slow": "ready"}
    answer = await client.chat.completions.create(model="slow", messages=TELL, max_tokens=2)
    assert answer.choices[0].message.content


async def test_a_swap_waits_for_a_stream_and_cuts_nothing(served, client):
    stream = await client.chat.completions.create(model="slow", messages=TELL, max_tokens=80, stream=True)
    iterator = aiter(stream)
    await anext(iterator)
    other = asyncio.create_task(client.chat.completions.create(model="quick", messages=TELL, max_tokens=2))
    finish = [choice.finish_reason async for chunk in iterator for choice in chunk.choices]
    assert finish[-1] == "length"
    assert (await other).choices[0].message.content
    assert await served.running() == {"quick": "ready"}


async def test_an_unknown_model_is_a_not_found_error(client):
    with pytest.raises(openai.NotFoundError) as caught:
        await client.chat.completions.create(model="nobody", messages=TELL)
    assert "nobody" in caught.value.message
    assert caught.value.body["type"] == "invalid_request_error"


async def test_an_error_of_the_server_arrives_as_it_is(client):
    with pytest.raises(openai.BadRequestError) as caught:
        await client.chat.completions.create(model="quick", messages=[{"role": "nobody"}], max_tokens=1)
    assert "message" in caught.value.body


async def test_a_server_killed_mid_stream_never_looks_complete(served, client):
    stream = await client.chat.completions.create(model="slow", messages=TELL, max_tokens=LONG, stream=True)
    iterator = aiter(stream)
    await anext(iterator)
    leaders = [process for process in served.family() if "llmswap-slow-" in " ".join(process.cmdline())]
    for process in leaders:
        os.kill(process.pid, signal.SIGKILL)
    with pytest.raises(openai.APIError):
        async for _ in iterator:
            pass
    gone, alive = psutil.wait_procs(leaders, 3)
    assert gone
    assert not alive
    answer = await client.chat.completions.create(model="slow", messages=TELL, max_tokens=2)
    assert answer.choices[0].message.content
