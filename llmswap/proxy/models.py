"""The model list, as llama-swap and OpenAI's clients know it."""

import time
from collections.abc import Callable
from typing import Any

import orjson
from aiohttp import web

from llmswap.config.settings import Capabilities, Loaded, ModelSettings
from llmswap.core.fleet import ModelId
from llmswap.core.snapshot import Snapshot
from llmswap.core.states import State
from llmswap.proxy.context import CONTEXT
from llmswap.proxy.errors import RequestError

UNLOADED = frozenset({State.STOPPED, State.FAILED, State.SHUTDOWN})
_FROM_CAPABILITIES = ("architecture", "capabilities", "supported_parameters", "context_length")
_CREATED = int(time.time())  # llama-swap says "now" each time; clients that compare lists want it to stay


async def list_models(request: web.Request) -> web.Response:
    """List the models, sorted by id."""
    context = request.app[CONTEXT]
    snapshot = context.loop.snapshot()
    records = _records(context.loaded, snapshot)
    body = orjson.dumps({"object": "list", "data": sorted(records, key=lambda record: str(record["id"]).encode())})
    return web.Response(body=body, content_type="application/json")


async def one_model(request: web.Request) -> web.Response:
    """Give the record of one model, by id or alias; unlisted ones too."""
    context = request.app[CONTEXT]
    name = request.match_info["id"]
    model = context.loaded.fleet.resolve(name)
    if model is None:
        raise RequestError(404, f"there is no model named {name[:200]!r}", "model_not_found")
    settings = context.settings_of(model)
    meta = {"type": "model", "aliases": list(settings.aliases)}
    if name != model:
        meta = {"type": "alias", "modelID": model}
    record = _record(settings, name, meta, _status(context.loop.snapshot(), model))
    return web.Response(body=orjson.dumps(record), content_type="application/json")


def _records(loaded: Loaded, snapshot: Snapshot) -> list[dict[str, Any]]:
    records = []
    for model, settings in loaded.settings.models.items():
        if settings.unlisted:
            continue
        status = _status(snapshot, model)
        meta = {"type": "model", "aliases": list(settings.aliases)}
        records.append(_record(settings, model, meta, status))
        if loaded.settings.include_aliases_in_list:
            for alias in settings.aliases:
                meta = {"type": "alias", "modelID": model}
                records.append(_record(settings, alias, meta, status))
    return records


def _status(snapshot: Snapshot, model: ModelId) -> str:
    """Say in llama.cpp's words whether a model is there; llama-swap has the first two of them."""
    view = snapshot.upstreams.get(model)
    if view is None or view.state in UNLOADED:
        return "unloaded"
    return "sleeping" if view.state is State.ASLEEP else "loaded"


def _record(settings: ModelSettings, model: str, internal: dict[str, Any], status: str) -> dict[str, Any]:
    record: dict[str, Any] = {
        "id": model,
        "object": "model",
        "created": _CREATED,
        "owned_by": "llama-swap",
        "status": {"value": status},
    }
    if settings.name.strip():
        record["name"] = settings.name.strip()
    if settings.description.strip():
        record["description"] = settings.description.strip()
    metadata = dict(settings.metadata)
    if settings.capabilities:
        for key in _FROM_CAPABILITIES:
            metadata.pop(key, None)
        record |= _described(settings.capabilities)
    meta: dict[str, Any] = {"llamaswap": metadata | {key: value for key, value in internal.items() if value}}
    if settings.capabilities.context > 0:
        meta["n_ctx"] = settings.capabilities.context
    record["meta"] = meta
    return record


_FLAGS: dict[str, Callable[[Capabilities], bool]] = {
    "vision": lambda can: "image" in can.inputs,
    "audio_transcriptions": lambda can: "audio" in can.inputs and "text" in can.outputs,
    "audio_speech": lambda can: "text" in can.inputs and "audio" in can.outputs,
    "image_generation": lambda can: "text" in can.inputs and "image" in can.outputs,
    "image_to_image": lambda can: "image" in can.inputs and "image" in can.outputs,
    "function_calling": lambda can: can.tools,
    "reranker": lambda can: can.reranker,
}


def _described(can: Capabilities) -> dict[str, Any]:
    described: dict[str, Any] = {}
    architecture: dict[str, Any] = {}
    if can.inputs:
        architecture["input_modalities"] = list(can.inputs)
    if can.outputs:
        architecture["output_modalities"] = list(can.outputs)
    if can.inputs and can.outputs:
        architecture["modality"] = f"{'+'.join(can.inputs)}->{'+'.join(can.outputs)}"
    if architecture:
        described["architecture"] = architecture
    flags = {name: True for name, holds in _FLAGS.items() if holds(can)}
    if flags:
        described["capabilities"] = flags
    if can.tools:
        described["supported_parameters"] = ["tools", "tool_choice"]
    if can.context > 0:
        described["context_length"] = can.context
    return described
