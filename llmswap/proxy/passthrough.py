"""`/upstream/{model}/...`: everything an upstream serves, past the API: its own pages, slots, props, websockets.

The path after the model goes out as it came in. Because of that it is looked at twice before: no dot segments, and no
path by which an engine is controlled (put to sleep, given other weights, shut down), which is the scheduler's business.
"""

import re
from typing import NamedTuple
from urllib.parse import unquote

from aiohttp import web

from llmswap.config.settings import ModelSettings
from llmswap.core.events import SwapClass
from llmswap.core.states import State
from llmswap.proxy import bodies, headers, swapping, targets
from llmswap.proxy.callers import caller_of
from llmswap.proxy.calls import Body, Call
from llmswap.proxy.context import CONTEXT, Context
from llmswap.proxy.dialects import Ask
from llmswap.proxy.errors import RequestError
from llmswap.proxy.inference import serve

PREFIX = "/upstream/"
# Names are matched against at most so many leading segments.
SEGMENTS_MAX = 32

# vLLM's and SGLang's development and administration routes, wherever in a path they stand.
CONTROL = frozenset(
    {
        "abort_requests",
        "collective_rpc",
        "continue_generation",
        "flush_cache",
        "is_paused",
        "is_sleeping",
        "load_lora_adapter",
        "pause",
        "pause_generation",
        "release_kv_cache_memory",
        "release_memory_occupation",
        "resume",
        "resume_memory_occupation",
        "shutdown",
        "sleep",
        "unload_lora_adapter",
        "wake_up",
    }
)
_CONTROL_PREFIXES = ("reset_", "update_weights")
_DECODE_MAX = 5

_SEGMENT = re.compile(r"[^/]+")
_UNWELCOME = ("Set-Cookie", "Service-Worker-Allowed", "Clear-Site-Data")
_SANDBOX = "sandbox allow-scripts allow-forms allow-popups"


class Place(NamedTuple):
    """Where a passthrough request leads.

    Attributes:
        name: Of the model, as it was asked for.
        path: What is left after the model, as it came; empty if nothing is.
    """

    settings: ModelSettings
    name: str
    path: str


async def upstream(request: web.Request) -> web.StreamResponse:
    """Serve any method on `/upstream/{model}/{path}`."""
    context = request.app[CONTEXT]
    settings = context.loaded.settings
    raw_path, query = targets.raw_target(request)
    _refuse_tricks(raw_path)
    place = find_place(context, raw_path)
    if not place.path:
        status = 301 if request.method in {"GET", "HEAD"} else 308
        return web.Response(status=status, headers={"Location": f"{raw_path}/{query}"})
    if not settings.access.allow_control:
        _refuse_control(place.path)
    head = headers.to_upstream(request, settings.access)
    path = unquote(place.path)
    if any(pattern.search(path) for pattern in settings.ignore_paths):
        _require_ready(context, place.settings)
    body = _body(request, context)
    swap_class = swapping.class_of(request, place.settings, place.name)
    if swap_class is SwapClass.PREFER_WARM:
        swap_class = SwapClass.MAY_SWAP
    call = Call(
        request,
        place.settings,
        Ask(place.settings.id),
        place.path + query,
        head,
        lambda _serving, _name: body,
        swap_class,
        caller_of(request, settings.access),
        substitutable=False,  # whose page is asked for is in its address
    )
    record = call.record
    record.model, record.asked, record.caller = place.settings.id, place.settings.id, call.caller
    return await serve(context, call)


def find_place(context: Context, raw_path: str) -> Place:
    """Find the longest run of leading segments that names a model.

    Raises:
        RequestError: 404.
    """
    if not raw_path.startswith(PREFIX):
        raise RequestError(400, f"the path must begin with {PREFIX} as it is", "invalid_target")
    name, found, asked, end = "", None, "", 0
    for count, segment in enumerate(_SEGMENT.finditer(raw_path, len(PREFIX))):
        if count >= SEGMENTS_MAX:
            break
        name = f"{name}/{unquote(segment.group())}" if name else unquote(segment.group())
        model = context.loaded.fleet.resolve(name)
        if model is not None:
            found, asked, end = model, name, segment.end()
    if found is None:
        raise RequestError(404, "model not found; GET /v1/models lists those there are", "model_not_found")
    return Place(context.settings_of(found), asked, raw_path[end:])


def _refuse_tricks(raw_path: str) -> None:
    path = unquote(raw_path)
    if "\\" in path or "\0" in path:
        raise RequestError(400, "the path holds a backslash or a NUL", "invalid_target")
    if not {".", ".."}.isdisjoint(path.split("/")):
        raise RequestError(400, "the path holds a dot segment", "invalid_target")


def _refuse_control(path: str) -> None:
    for _ in range(_DECODE_MAX):
        decoded = unquote(path)
        if decoded == path:
            break
        path = decoded
    else:
        raise RequestError(400, "the path is percent-encoded too many times over", "invalid_target")
    for segment in path.lower().split("/"):
        name = segment.partition(";")[0].strip()
        if name in CONTROL or name.startswith(_CONTROL_PREFIXES):
            message = f"{name[:64]!r} controls the engine; llmswap does that (set `upstream.allowControl` to permit it)"
            raise RequestError(403, message, "control_path")


def _body(request: web.Request, context: Context) -> tuple[Body, int | None]:
    if not request.body_exists:
        return None, None
    return bodies.chunks(request, context.limits.upload_max, context.limits), request.content_length


def _require_ready(context: Context, settings: ModelSettings) -> None:
    if context.loop.snapshot().upstreams[settings.id].state is not State.READY:
        raise RequestError(409, f"{settings.id} is not ready, and this path does not start it", "not_ready")


async def seal(request: web.Request, response: web.StreamResponse) -> None:
    """Keep an upstream's page from acting in our origin's name: it could script the admin API otherwise."""
    if request.match_info.handler is not upstream or request.app[CONTEXT].loaded.settings.access.trust_pages:
        return
    for name in _UNWELCOME:
        response.headers.pop(name, None)
    response.headers["Content-Security-Policy"] = _SANDBOX
