"""Model list, embeddings, rerank, audio, and what each persona adds."""

import base64
import io
import struct
import wave

import aiohttp
import pytest

from tests.fake_upstream.harness import CHAT, served


async def test_the_model_list_has_every_served_name_in_the_persona_s_shape():
    async with served("--persona", "vllm", "--model", "a", "b") as fake:
        _, body = await fake.get("/v1/models")
        assert [card["id"] for card in body["data"]] == ["a", "b"]
        assert body["data"][1]["owned_by"] == "vllm"
        assert body["data"][1]["root"] == "a"


async def test_embeddings_are_the_same_as_floats_and_as_base64():
    async with served() as fake:
        _, floats = await fake.post("/v1/embeddings", {"input": ["one", "two"], "dimensions": 4})
        _, packed = await fake.post("/v1/embeddings", {"input": "two", "dimensions": 4, "encoding_format": "base64"})
        vector = struct.unpack("<4f", base64.b64decode(packed["data"][0]["embedding"]))
        assert vector == pytest.approx(floats["data"][1]["embedding"])
        assert floats["data"][0]["embedding"] != floats["data"][1]["embedding"]
        assert floats["usage"] == {"prompt_tokens": 2, "total_tokens": 2}


async def test_rerank_puts_the_document_with_the_query_s_words_first():
    async with served() as fake:
        body = {"query": "green apple", "documents": ["blue car", "a green apple", "green car"], "top_n": 2}
        _, answer = await fake.post("/v1/rerank", body)
        assert [result["index"] for result in answer["results"]] == [1, 2]


async def test_transcription_takes_a_form_and_streams_on_demand():
    async with served() as fake:

        def form(**fields):
            data = aiohttp.FormData(fields)
            data.add_field("file", bytes(2500), filename="a.wav")
            return data

        async with fake.http.post("/v1/audio/transcriptions", data=form(model="m")) as response:
            whole = await response.json()
        assert len(whole["text"].split()) == 3
        assert whole["usage"]["type"] == "tokens"
        async with fake.http.post("/v1/audio/transcriptions", data=form(stream="true")) as response:
            text = await response.text()
        assert text.count("transcript.text.delta") == 3
        assert text.count("transcript.text.done") == 1


async def test_speech_is_a_playable_file():
    async with served() as fake, fake.http.post("/v1/audio/speech", json={"input": "three short words"}) as response:
        with wave.open(io.BytesIO(await response.read())) as sound:
            assert sound.getnframes() == 2400


async def test_llamacpp_routes():
    async with served("--persona", "llamacpp", "--max-num-seqs", "3", "--model", "m") as fake:
        assert (await fake.get("/props"))[1]["total_slots"] == 3
        assert [slot["is_processing"] for slot in (await fake.get("/slots"))[1]] == [False] * 3
        assert len((await fake.post("/tokenize", {"content": "hello there"}))[1]["tokens"]) == 2
        _, body = await fake.post("/infill", {"input_prefix": "a", "input_suffix": "b"})
        assert body["tokens_predicted"] == 6
        assert body["stop"] is True
        assert (await fake.get("/metrics"))[0] == 501
        assert (await fake.get("/nothing"))[1]["error"]["type"] == "not_found_error"
        _, body = await fake.post("/v1/chat/completions", {**CHAT, "model": "any name"})
        assert body["model"] == "any name"


async def test_llamacpp_without_slots_says_501():
    async with served("--persona", "llamacpp", "--no-slots") as fake:
        assert (await fake.get("/slots"))[0] == 501


async def test_vllm_routes():
    async with served("--persona", "vllm", "--model", "m") as fake:
        assert (await fake.get("/version"))[1] == {"version": "0.33.0"}
        assert (await fake.get("/load"))[1] == {"server_load": 0}
        assert (await fake.get("/ping"))[0] == 200
        assert (await fake.get("/health")) == (200, "")
        assert (await fake.post("/tokenize", {"prompt": "hello there"}))[1]["count"] == 2


def samples(text):
    return {line.rpartition(" ")[0]: float(line.rpartition(" ")[2]) for line in text.splitlines() if line[0] != "#"}


async def test_vllm_metrics_move_with_what_was_served():
    async with served("--persona", "vllm", "--model", "m") as fake:
        await fake.post("/v1/chat/completions", CHAT)
        await fake.events("/v1/chat/completions", {**CHAT, "max_tokens": 2})
        values = samples((await fake.get("/metrics"))[1])
        base = 'model_name="m",engine="0"'
        assert values[f"vllm:prompt_tokens_total{{{base}}}"] == 8
        assert values[f"vllm:generation_tokens_total{{{base}}}"] == 8
        assert values[f'vllm:request_success_total{{{base},finished_reason="stop"}}'] == 1
        assert values[f'vllm:request_success_total{{{base},finished_reason="length"}}'] == 1
        assert values[f"vllm:time_to_first_token_seconds_count{{{base}}}"] == 2
        assert values[f'vllm:time_to_first_token_seconds_bucket{{{base},le="+Inf"}}'] == 2
        assert values[f"vllm:num_requests_running{{{base}}}"] == 0
        assert values[f'vllm:engine_sleep_state{{{base},sleep_state="awake"}}'] == 1


async def test_llamacpp_metrics_have_its_names_and_no_labels():
    async with served("--persona", "llamacpp", "--metrics") as fake:
        await fake.post("/v1/chat/completions", CHAT)
        values = samples((await fake.get("/metrics"))[1])
        assert values["llamacpp:tokens_predicted_total"] == 6
        assert values["llamacpp:prompt_tokens_total"] == 4
        assert values["llamacpp:requests_processing"] == 0
