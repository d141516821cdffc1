"""The OpenAI routes that do not generate text: model list, embeddings, rerank, audio. They take a slot all the same."""

import base64
import struct
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from random import Random
from typing import Any

from aiohttp import web

from llmswap.fake_upstream.dialect import limit_of, now, text_of
from llmswap.fake_upstream.engine import Refused
from llmswap.fake_upstream.serve import asked_time_s, before_answer, served_model
from llmswap.fake_upstream.sse import EventStream
from llmswap.fake_upstream.state import CALL, FAKE, json_response, read_json
from llmswap.fake_upstream.tokens import answer, tokenize

OWNERS = {"generic": "fake", "llamacpp": "llamacpp", "sglang": "sglang", "vllm": "vllm"}
DIMENSIONS = 16
SAMPLE_RATE = 8000
BYTES_PER_AUDIO_TOKEN = 1000


async def models(request: web.Request) -> web.Response:
    """List the names it serves under."""
    options = request.app[FAKE].options
    cards = []
    for name in options.models:
        card: dict[str, object] = {"id": name, "object": "model", "created": now(), "owned_by": OWNERS[options.persona]}
        if options.persona == "vllm":
            card |= {"root": options.models[0], "parent": None, "max_model_len": options.context_tokens}
            card["permission"] = []
        elif options.persona == "llamacpp":
            card["meta"] = {"n_ctx_train": options.context_tokens, "n_vocab": 128_000}
        cards.append(card)
    return json_response({"object": "list", "data": cards})


@asynccontextmanager
async def _worked(request: web.Request, prompt_tokens: int) -> AsyncIterator[None]:
    """Hold a slot, and take as long as the request says, else as a prefill of so many tokens takes."""
    engine, takes_s = request.app[FAKE].engine, asked_time_s(request)
    async with engine.slot():
        await engine.spend(engine.knobs.prefill_ms(prompt_tokens) / 1000 if takes_s is None else takes_s)
        yield
    engine.metrics.count_tokens("stop", prompt_tokens, 0, 0)


async def embeddings(request: web.Request) -> web.StreamResponse:
    """Embed one text, or several, or token ids; the same input gives the same vector."""
    fake, body = request.app[FAKE], await read_json(request)
    if refusal := await before_answer(request):
        return refusal
    model = served_model(fake, body)
    given = body.get("input")
    if not given:
        raise Refused(400, "'input' must not be empty")
    several = isinstance(given, list) and not isinstance(given[0], int)
    texts = [text_of(item) for item in given] if several else [text_of(given)]
    count = sum(len(tokenize(text)) for text in texts)
    size = limit_of(body, ("dimensions",)) or DIMENSIONS
    async with _worked(request, count):
        data = []
        for index, text in enumerate(texts):
            rng = Random(f"{fake.options.models[0]}/{text}")
            vector: Any = [rng.uniform(-1, 1) for _ in range(size)]
            if body.get("encoding_format") == "base64":
                vector = base64.b64encode(struct.pack(f"<{size}f", *vector)).decode()
            data.append({"object": "embedding", "index": index, "embedding": vector})
    usage = {"prompt_tokens": count, "total_tokens": count}
    return json_response({"object": "list", "data": data, "model": model, "usage": usage})


async def rerank(request: web.Request) -> web.StreamResponse:
    """Rank documents by the share of the query's words they hold."""
    fake, body = request.app[FAKE], await read_json(request)
    if refusal := await before_answer(request):
        return refusal
    model = served_model(fake, body)
    query, documents = body.get("query"), body.get("documents")
    if not isinstance(query, str) or not isinstance(documents, list):
        raise Refused(400, "'query' must be text and 'documents' a list")
    top = limit_of(body, ("top_n",))
    texts = [text_of(document) for document in documents]
    count = sum(len(tokenize(text)) for text in [query, *texts])
    async with _worked(request, count):
        words = set(query.lower().split())
        scores = [len(words & set(text.lower().split())) / max(1, len(words)) for text in texts]
        order = sorted(range(len(texts)), key=lambda index: -scores[index])[:top]
    results = [
        {"index": index, "document": {"text": texts[index]}, "relevance_score": scores[index]} for index in order
    ]
    usage = {"prompt_tokens": count, "total_tokens": count}
    return json_response({"id": f"rerank-{count}", "model": model, "results": results, "usage": usage})


async def transcriptions(request: web.Request) -> web.StreamResponse:
    """Transcribe: as many words as the file has kilobytes, as JSON, text or events."""
    fake = request.app[FAKE]
    form = await request.post()
    upload = form.get("file")
    if not isinstance(upload, web.FileField):
        raise Refused(400, "the form needs a 'file'")
    audio = upload.file.read()
    request[CALL].body_bytes = len(audio)
    if refusal := await before_answer(request):
        return refusal
    served_model(fake, {"model": form.get("model")})
    heard = 1 + len(audio) // BYTES_PER_AUDIO_TOKEN
    words = answer(Random(f"{fake.options.seed}/{len(audio)}"), heard)
    usage = {
        "type": "tokens",
        "input_tokens": heard,
        "input_token_details": {"audio_tokens": heard, "text_tokens": 0},
        "output_tokens": heard,
        "total_tokens": 2 * heard,
    }
    async with _worked(request, heard):
        if form.get("stream") == "true":
            stream = EventStream(request, fake.faults)
            await stream.open()
            for word in words:
                await stream.send(("", {"type": "transcript.text.delta", "delta": word}))
            await stream.send(("", {"type": "transcript.text.done", "text": "".join(words), "usage": usage}))
            await stream.close()
            return stream.response
    if form.get("response_format") == "text":
        return web.Response(text="".join(words))
    return json_response({"text": "".join(words), "usage": usage})


async def speech(request: web.Request) -> web.StreamResponse:
    """Speak: silence, a tenth of a second a word, as WAV."""
    fake, body = request.app[FAKE], await read_json(request)
    if refusal := await before_answer(request):
        return refusal
    served_model(fake, body)
    tokens = len(tokenize(text_of(body.get("input"))))
    async with _worked(request, tokens):
        pcm = bytes(tokens * SAMPLE_RATE // 10 * 2)
        form = struct.pack("<4sIHHIIHH", b"fmt ", 16, 1, 1, SAMPLE_RATE, 2 * SAMPLE_RATE, 2, 16)
        head = struct.pack("<4sI4s", b"RIFF", 36 + len(pcm), b"WAVE") + form
    return web.Response(body=head + struct.pack("<4sI", b"data", len(pcm)) + pcm, content_type="audio/wav")
