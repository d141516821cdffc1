"""The OpenAI routes that are not text generation: the model list, so far."""

from aiohttp import web

from llmswap.fake_upstream.dialect import now
from llmswap.fake_upstream.state import FAKE, json_response

OWNERS = {"generic": "fake", "llamacpp": "llamacpp", "vllm": "vllm"}


async def models(request: web.Request) -> web.Response:
    """List the names it serves under."""
    options = request.app[FAKE].options
    cards = []
    for name in options.models:
        card: dict[str, object] = {
            "id": name, "object": "model", "created": now(), "owned_by": OWNERS[options.persona],
        }  # fmt: skip
        if options.persona == "vllm":
            card |= {"root": options.models[0], "parent": None, "max_model_len": options.context_tokens,
                     "permission": []}  # fmt: skip
        elif options.persona == "llamacpp":
            card["meta"] = {"n_ctx_train": options.context_tokens, "n_vocab": 128_000}
        cards.append(card)
    return json_response({"object": "list", "data": cards})
