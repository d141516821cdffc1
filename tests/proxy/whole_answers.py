"""Answers in one body, as engines give them, with what they took."""

import json

from tests.proxy.answers import (
    AS_TOKENS,
    CACHED_MESSAGE,
    CHAT,
    JSON,
    MESSAGES,
    NATIVE_END,
    RESPONSES,
    RESPONSES_SAY,
    RESPONSES_USED,
    TIMED,
    TIMINGS,
    USED,
    Answer,
    message,
    response,
    whole,
)

BODIES = tuple(
    Answer(name, path, body, says, JSON)
    for name, path, body, says in (
        ("chat", CHAT, whole(usage=USED), {"input_tokens": 11, "output_tokens": 5}),
        ("chat with timings", CHAT, whole(timings=TIMINGS), TIMED),
        ("chat without usage", CHAT, whole(), {}),
        ("chat with usage of nothing", CHAT, whole(usage={"prompt_tokens": 0, "completion_tokens": 0}), {}),
        ("chat that says an answer of no tokens", CHAT, whole(usage={**USED, "completion_tokens": 0}),
         {"input_tokens": 11}),
        ("chat of more than 256 KiB", CHAT, whole(more="x" * 300_000, usage=USED, system_fingerprint="s"),
         {"input_tokens": 11, "output_tokens": 5, "cut": True}),
        ("responses", RESPONSES, json.dumps(response("completed", RESPONSES_USED)).encode(),
         {**RESPONSES_SAY, "finish_reasons": ("completed",)}),
        ("messages", MESSAGES, json.dumps(message({**CACHED_MESSAGE, "output_tokens": 5}, "end_turn")).encode(),
         {"input_tokens": 11, "cached_tokens": 6, "output_tokens": 5, "finish_reasons": ("end_turn",)}),
        ("embeddings", "/v1/embeddings",
         json.dumps({"model": "big", "data": [], "usage": {"prompt_tokens": 11, "total_tokens": 11}}).encode(),
         {"input_tokens": 11, "finish_reasons": ()}),
        ("embeddings of 1 MiB", "/v1/embeddings",
         json.dumps({"data": [{"embedding": [0.125] * 120_000}], "usage": {"prompt_tokens": 11}}).encode(),
         {"input_tokens": 11, "cut": True}),
        ("rerank", "/v1/rerank", json.dumps({"model": "big", "results": [], "usage": {"total_tokens": 11}}).encode(),
         {"input_tokens": 11, "finish_reasons": ()}),
        ("rerank of 1 MiB with usage before the results", "/rerank",
         json.dumps({"usage": {"prompt_tokens": 11, "total_tokens": 11}, "results": ["x" * 2**20]}).encode(),
         {"input_tokens": 11, "cut": True}),
        ("rerank like Cohere", "/v1/rerank",
         json.dumps({"model": "big", "results": [], "meta": {"billed_units": {"input_tokens": 11}}}).encode(),
         {"input_tokens": 11, "finish_reasons": ()}),
        ("llama.cpp's own route", "/completion", json.dumps({**NATIVE_END, "content": "so"}).encode(),
         {**TIMED, "done": True, "finish_reasons": ("eos",)}),
        ("llama.cpp's array", "/infill",
         json.dumps([{"content": "a", "model": "big", "index": 0}, {**NATIVE_END, "index": 1}]).encode(),
         {**TIMED, "prefill_s": None, "decode_s": None, "finish_reasons": ("eos",)}),
        ("responses of vLLM, with more details", RESPONSES,
         json.dumps(response("completed", {**RESPONSES_USED, "input_tokens_details": {
             "cached_tokens": 4, "cache_write_tokens": 2, "input_tokens_per_turn": [7, 4]}})).encode(),
         {**RESPONSES_SAY, "finish_reasons": ("completed",)}),
        ("an image", "/v1/images/generations",
         json.dumps({"model": "big", "data": [{"b64_json": "c28="}], "usage": {
             **AS_TOKENS, "input_tokens_details": {"text_tokens": 11, "image_tokens": 0}}}).encode(),
         {"input_tokens": 11, "output_tokens": 5, "finish_reasons": ()}),
        ("an image without usage", "/v1/images/generations",
         json.dumps({"model": "big", "data": [{"b64_json": "c28="}]}).encode(), {"finish_reasons": ()}),
        ("a transcription by its tokens", "/v1/audio/transcriptions",
         json.dumps({"model": "big", "text": "w", "usage": {
             "type": "tokens", **AS_TOKENS, "input_token_details": {"audio_tokens": 9, "text_tokens": 2}}}).encode(),
         {"input_tokens": 11, "output_tokens": 5, "finish_reasons": ()}),
        ("a transcription by its length", "/v1/audio/transcriptions",
         json.dumps({"model": "big", "text": "w", "usage": {"type": "duration", "seconds": 3}}).encode(),
         {"finish_reasons": ()}),
    )
)  # fmt: skip
