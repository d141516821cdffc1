"""The parts of one fake, as handlers reach them."""

import json
from collections.abc import Callable
from contextlib import AbstractAsyncContextManager
from dataclasses import dataclass, field
from typing import Any

from aiohttp import web

from llmswap.fake_upstream.engine import Engine, Refused
from llmswap.fake_upstream.faults import Faults
from llmswap.fake_upstream.journal import Call, Journal
from llmswap.fake_upstream.knobs import Knobs
from llmswap.fake_upstream.options import Options

BODY_MAX = 64 * 1024 * 1024


@dataclass
class Fake:
    """Everything behind the HTTP surface.

    Attributes:
        attend: What surrounds a call, if anything: it is awake, or its model loaded, for as long.
        closing: SIGTERM has come and it drains.
        acquainted: Clients that said who they are when they asked for what is in their prompt's cache.
    """

    options: Options
    knobs: Knobs
    faults: Faults
    engine: Engine
    journal: Journal
    attend: Callable[[web.Request], AbstractAsyncContextManager[None]] | None = None
    closing: bool = False
    acquainted: set[str] = field(default_factory=set)


FAKE: web.AppKey[Fake] = web.AppKey("fake", Fake)
CALL: web.RequestKey[Call] = web.RequestKey("call", Call)


async def read_body(request: web.Request) -> bytes:
    """Read the whole body and note its size."""
    body = await request.read()
    request[CALL].body_bytes = len(body)
    return body


async def read_json(request: web.Request) -> dict[str, Any]:
    """Read a JSON object.

    Raises:
        Refused: It is none.
    """
    try:
        body = json.loads(await read_body(request))
    except (ValueError, RecursionError) as error:
        raise Refused(400, f"the body is not JSON: {error}") from error
    if not isinstance(body, dict):
        raise Refused(400, "the body is not a JSON object")
    return body


def json_response(payload: object, status: int = 200) -> web.Response:
    """Answer with JSON; non-ASCII text as it is, as the engines do."""
    text = json.dumps(payload, ensure_ascii=False)
    return web.Response(status=status, text=text, content_type="application/json")
