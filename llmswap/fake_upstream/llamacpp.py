"""llama-server's own routes: props, slots, native completion and infill, tokenizer; and its idle sleep.

Its router mode has further routes, in `llamacpp_router.py`.
"""

from contextlib import AbstractAsyncContextManager, nullcontext

from aiohttp import web

from llmswap.fake_upstream.chat import Infill
from llmswap.fake_upstream.dialect import text_of
from llmswap.fake_upstream.engine import Phase, Refused
from llmswap.fake_upstream.health import health
from llmswap.fake_upstream.idling import Idler
from llmswap.fake_upstream.openai import models
from llmswap.fake_upstream.serve import text_api
from llmswap.fake_upstream.state import FAKE, json_response, read_json
from llmswap.fake_upstream.tokens import token_id, tokenize

EXEMPT = frozenset({"/health", "/v1/health", "/props", "/models", "/v1/models", "/metrics"})
IDLER: web.AppKey[Idler] = web.AppKey("idler", Idler)


def add_routes(app: web.Application) -> None:
    """Add them."""
    add = app.router.add_route
    add("GET", "/v1/health", health)
    add("GET", "/props", props)
    add("GET", "/slots", slots)
    add("POST", "/infill", text_api(Infill))
    add("POST", "/completion", text_api(Infill))
    add("POST", "/tokenize", tokens)
    fake = app[FAKE]
    if not fake.options.router:
        add("GET", "/models", models)
        idler = app[IDLER] = Idler(fake.engine)
        fake.attend = lambda request: _awake(idler, request)
        app.on_cleanup.append(_stop_idling)


def _awake(idler: Idler, request: web.Request) -> AbstractAsyncContextManager[None]:
    """Wake it for every call but those that do without the model."""
    loading = idler.engine.phase is Phase.BOOTING
    return nullcontext() if loading or request.path in EXEMPT else idler.task()


async def _stop_idling(app: web.Application) -> None:
    app[IDLER].close()


async def props(request: web.Request) -> web.Response:
    """Give the server's properties."""
    fake = request.app[FAKE]
    idler = request.app.get(IDLER)
    return json_response(
        {
            "default_generation_settings": {"n_ctx": fake.options.context_tokens},
            "total_slots": fake.knobs.max_num_seqs,
            "model_alias": fake.options.models[0],
            "model_path": f"/models/{fake.options.models[0]}.gguf",
            "chat_template": "{{ messages }}",
            "is_sleeping": idler is not None and idler.asleep,
        }
    )


async def slots(request: web.Request) -> web.Response:
    """Give every slot; 503 with `fail_on_no_slot` if all are busy."""
    fake = request.app[FAKE]
    if not fake.options.slots:
        raise Refused(501, "This server does not support slots endpoint. Start it without `--no-slots`")
    busy, count = fake.engine.running, fake.knobs.max_num_seqs
    if busy >= count and request.query.get("fail_on_no_slot"):
        raise Refused(503, "no slot available")
    rows = [{"id": number, "n_ctx": fake.options.context_tokens, "speculative": False, "is_processing": number < busy}
            for number in range(count)]  # fmt: skip
    return json_response(rows)


async def tokens(request: web.Request) -> web.Response:
    """Tokenize text."""
    body = await read_json(request)
    return json_response({"tokens": [token_id(piece) for piece in tokenize(text_of(body.get("content")))]})
