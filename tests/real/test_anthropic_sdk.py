"""The official Anthropic client against real llama-servers, through /v1/messages."""

from collections.abc import AsyncIterator

import anthropic
import pytest

from tests.stack import Program, until

pytestmark = pytest.mark.real

TELL = [{"role": "user", "content": "Tell me a story."}]


@pytest.fixture
async def client(served: Program) -> AsyncIterator[anthropic.AsyncAnthropic]:
    async with anthropic.AsyncAnthropic(base_url=served.url, api_key="none", max_retries=0, timeout=60) as client:
        yield client


async def test_models_are_listed(client):
    assert {model.id async for model in client.models.list()} >= {"quick", "slow"}


async def test_messages_swap_the_models(served, client):
    for model in ("slow", "quick"):
        answer = await client.messages.create(model=model, max_tokens=6, messages=TELL)
        assert answer.content[0].text
        assert answer.usage.output_tokens == 6
        assert answer.stop_reason == "max_tokens"
        assert await served.running() == {model: "ready"}


async def test_a_stream_adds_up_to_a_message(client):
    async with client.messages.stream(model="slow", max_tokens=25, messages=TELL) as stream:
        parts = [part async for part in stream.text_stream]
        message = await stream.get_final_message()
    assert len(parts) >= 20
    assert message.content[0].text == "".join(parts)
    assert message.usage.output_tokens == 25


async def test_tokens_are_counted(client):
    counted = await client.messages.count_tokens(model="claude-3-5-haiku-latest", messages=TELL)
    assert counted.input_tokens > 0


async def test_a_client_that_leaves_mid_stream_frees_the_server(served, client):
    async with client.messages.stream(model="slow", max_tokens=1500, messages=TELL) as stream:
        async for _ in stream.text_stream:
            break

    async def free() -> bool:
        return await served.metric("llmswap_requests_in_flight", model="slow") == 0

    await until(free, "the abandoned stream is gone", 5)
    answer = await client.messages.create(model="slow", max_tokens=2, messages=TELL)
    assert answer.content[0].text


async def test_a_client_that_times_out_frees_the_server(served, client):
    await client.messages.create(model="slow", max_tokens=1, messages=TELL)
    with pytest.raises(anthropic.APITimeoutError):
        await client.with_options(timeout=0.5).messages.create(model="slow", max_tokens=1500, messages=TELL)

    async def free() -> bool:
        return await served.metric("llmswap_requests_in_flight", model="slow") == 0

    await until(free, "the abandoned request is gone", 5)


async def test_an_unknown_model_is_a_not_found_error_in_the_clients_dialect(client):
    with pytest.raises(anthropic.NotFoundError) as caught:
        await client.messages.create(model="nobody", max_tokens=2, messages=TELL)
    assert caught.value.body["type"] == "error"
    assert caught.value.body["error"]["type"] == "not_found_error"
    assert "nobody" in caught.value.body["error"]["message"]
