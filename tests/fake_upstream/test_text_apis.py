"""The shapes of the text APIs, streamed and whole."""

import pytest

from tests.fake_upstream.harness import CHAT, served


def usage_of(events):
    return [payload["usage"] for _, payload in events if isinstance(payload, dict) and payload.get("usage")]


async def test_a_chat_answer_has_exactly_the_tokens_asked_for_and_counts_them():
    async with served("--model", "m") as fake:
        status, body = await fake.post("/v1/chat/completions", CHAT)
        assert status == 200
        assert body["object"] == "chat.completion"
        assert body["model"] == "m"
        assert body["choices"][0]["finish_reason"] == "stop"
        assert len(body["choices"][0]["message"]["content"].split()) == 6
        assert body["usage"] == {"prompt_tokens": 4, "completion_tokens": 6, "total_tokens": 10}


async def test_a_token_limit_cuts_the_answer_and_says_so():
    async with served() as fake:
        for key in ("max_tokens", "max_completion_tokens"):
            _, body = await fake.post("/v1/chat/completions", {**CHAT, key: 2})
            assert body["usage"]["completion_tokens"] == 2
            assert body["choices"][0]["finish_reason"] == "length"


async def test_streamed_chat_tells_the_same_text_as_the_whole_answer():
    async with served() as fake:
        _, whole = await fake.post("/v1/chat/completions", CHAT)
        events = await fake.events("/v1/chat/completions", CHAT)
        assert events[-1] == ("", "[DONE]")
        chunks = [payload for _, payload in events[:-1]]
        assert chunks[0]["choices"][0]["delta"] == {"role": "assistant", "content": ""}
        assert chunks[-1]["choices"][0]["finish_reason"] == "stop"
        text = "".join(chunk["choices"][0]["delta"].get("content") or "" for chunk in chunks)
        assert text == whole["choices"][0]["message"]["content"]
        assert not usage_of(events)


async def test_usage_comes_in_a_last_chunk_without_choices_if_asked_for():
    async with served() as fake:
        events = await fake.events("/v1/chat/completions", {**CHAT, "stream_options": {"include_usage": True}})
        assert len(usage_of(events)) == 1
        assert events[-2][1]["choices"] == []
        assert events[-2][1]["usage"]["completion_tokens"] == 6
        assert all(payload["usage"] is None for _, payload in events[:-2])


async def test_vllm_omits_usage_elsewhere_and_can_report_it_all_along():
    async with served("--persona", "vllm") as fake:
        events = await fake.events("/v1/chat/completions", {**CHAT, "stream_options": {"include_usage": True}})
        assert all("usage" not in payload for _, payload in events[:-2])
        options = {"include_usage": True, "continuous_usage_stats": True}
        events = await fake.events("/v1/chat/completions", {**CHAT, "stream_options": options})
        grown = [usage["completion_tokens"] for usage in usage_of(events)]
        assert grown == sorted(grown)
        assert grown[-1] == 6
        assert len(grown) == len(events) - 1


async def test_thoughts_come_first_and_apart():
    async with served("--reasoning-tokens", "2") as fake:
        _, whole = await fake.post("/v1/chat/completions", CHAT)
        message = whole["choices"][0]["message"]
        assert len(message["reasoning_content"].split()) == 2
        assert len(message["content"].split()) == 4
        assert whole["usage"]["completion_tokens_details"] == {"reasoning_tokens": 2}
        events = await fake.events("/v1/chat/completions", CHAT)
        kinds = [next(iter(payload["choices"][0]["delta"]), "") for _, payload in events[1:-2]]
        assert kinds == ["reasoning_content"] * 2 + ["content"] * 4


async def test_legacy_completions_stream_text():
    async with served() as fake:
        _, whole = await fake.post("/v1/completions", {"prompt": "once upon"})
        assert whole["object"] == "text_completion"
        events = await fake.events("/v1/completions", {"prompt": "once upon"})
        assert "".join(payload["choices"][0]["text"] for _, payload in events[:-1]) == whole["choices"][0]["text"]


@pytest.mark.parametrize("thoughts", [0, 2])
async def test_responses_events_come_in_order_with_rising_numbers(thoughts):
    async with served("--reasoning-tokens", str(thoughts)) as fake:
        events = await fake.events("/v1/responses", {"input": "hello"})
        names = [name for name, _ in events]
        item = ["output_item.added", "content_part.added"]
        ended = ["content_part.done", "output_item.done"]
        thinking = [*item, *["reasoning_text.delta"] * thoughts, "reasoning_text.done", *ended] if thoughts else []
        speaking = [*item, *["output_text.delta"] * (6 - thoughts), "output_text.done", *ended]
        order = ["created", "in_progress", *thinking, *speaking, "completed"]
        assert names == [f"response.{name}" for name in order]
        assert [payload["sequence_number"] for _, payload in events] == list(range(len(events)))
        assert all(payload["type"] == name for name, payload in events)
        assert events[0][1]["response"]["usage"] is None
        final = events[-1][1]["response"]
        assert final["usage"]["output_tokens"] == 6
        assert final["usage"]["output_tokens_details"]["reasoning_tokens"] == thoughts
        _, whole = await fake.post("/v1/responses", {"input": "hello"})
        assert whole["output"] == final["output"]


async def test_a_response_cut_by_its_limit_is_incomplete():
    async with served() as fake:
        events = await fake.events("/v1/responses", {"input": "hello", "max_output_tokens": 3})
        assert events[-1][0] == "response.incomplete"
        assert events[-1][1]["response"]["incomplete_details"] == {"reason": "max_output_tokens"}


@pytest.mark.parametrize("thoughts", [0, 2])
async def test_messages_events_come_in_order(thoughts):
    async with served("--reasoning-tokens", str(thoughts)) as fake:
        body = {**CHAT, "max_tokens": 50}
        events = await fake.events("/v1/messages", body)
        start, delta, stop = "content_block_start", "content_block_delta", "content_block_stop"
        thinking = [start, *[delta] * thoughts, delta, stop] if thoughts else []
        speaking = [start, *[delta] * (6 - thoughts), stop]
        order = ["message_start", "ping", *thinking, *speaking, "message_delta", "message_stop"]
        assert [name for name, _ in events] == order
        assert all(payload["type"] == name for name, payload in events)
        assert events[0][1]["message"]["usage"]["input_tokens"] == 4
        assert events[-2][1]["delta"]["stop_reason"] == "end_turn"
        assert events[-2][1]["usage"]["output_tokens"] == 6
        _, whole = await fake.post("/v1/messages", body)
        assert [block["type"] for block in whole["content"]] == (["thinking"] if thoughts else []) + ["text"]
        assert whole["usage"]["output_tokens"] == 6


async def test_errors_on_messages_are_anthropic_shaped_and_elsewhere_openai_shaped():
    async with served("--persona", "vllm", "--model", "m") as fake:
        status, body = await fake.post("/v1/messages", {**CHAT, "model": "other"})
        assert (status, body["type"], body["error"]["type"]) == (404, "error", "not_found_error")
        status, body = await fake.post("/v1/chat/completions", {**CHAT, "model": "other"})
        assert (status, body["error"]["type"], body["error"]["code"]) == (404, "NotFoundError", 404)


async def test_llamacpp_reports_timings_where_prompt_n_excludes_what_was_cached():
    prompt = {"messages": [{"role": "user", "content": "word " * 100}]}
    async with served("--persona", "llamacpp") as fake:
        _, first = await fake.post("/v1/chat/completions", prompt)
        _, second = await fake.post("/v1/chat/completions", prompt)
        assert first["timings"]["cache_n"] == 0
        assert second["timings"]["cache_n"] > 90
        for body in (first, second):
            assert body["timings"]["cache_n"] + body["timings"]["prompt_n"] == body["usage"]["prompt_tokens"]
            assert body["timings"]["predicted_n"] == 6
        events = await fake.events("/v1/chat/completions", prompt)
        assert "timings" in events[-2][1], "on the finish chunk, though no usage was asked for"
        assert "usage" not in events[-2][1]


@pytest.mark.parametrize(
    ("path", "body"),
    [
        ("/v1/chat/completions", {}),
        ("/v1/chat/completions", {"messages": []}),
        ("/v1/chat/completions", {"messages": ["x"]}),
        ("/v1/chat/completions", {**CHAT, "max_tokens": 0}),
        ("/v1/chat/completions", [1]),
        ("/v1/embeddings", {"input": []}),
        ("/v1/embeddings", {"input": "x", "dimensions": "many"}),
        ("/v1/rerank", {"query": "x", "documents": ["y"], "top_n": "all"}),
        ("/v1/rerank", {"query": "x"}),
    ],
)
async def test_requests_without_their_essentials_are_refused_with_400(path, body):
    async with served() as fake:
        status, answer = await fake.post(path, body)
        assert status == 400
        assert answer["error"]["message"]


async def test_a_prompt_beyond_the_context_is_refused():
    async with served("--max-model-len", "50") as fake:
        status, body = await fake.post("/v1/completions", {"prompt": "word " * 60})
        assert status == 400
        assert "maximum context length is 50" in body["error"]["message"]


async def test_same_seed_and_prompt_give_the_same_answer_whatever_came_before():
    async with served("--output-tokens", "lognormal:40") as one, served("--output-tokens", "lognormal:40") as two:
        await two.post("/v1/completions", {"prompt": "something else"})
        _, first = await one.post("/v1/chat/completions", CHAT)
        _, second = await two.post("/v1/chat/completions", CHAT)
        assert first["choices"] == second["choices"]
    async with served("--output-tokens", "lognormal:40", "--seed", "2") as other:
        _, third = await other.post("/v1/chat/completions", CHAT)
        assert first["choices"] != third["choices"]
