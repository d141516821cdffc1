"""A model's filters on a request body, in llama-swap's order: useModelName, strip, set, set by requested name."""

from collections.abc import Mapping
from functools import lru_cache
from typing import Any

import orjson

from llmswap.config.settings import ModelSettings
from llmswap.proxy import jsonedit
from llmswap.proxy.errors import RequestError

_MODEL = jsonedit.parse_path("model")
_path = lru_cache(maxsize=4096)(jsonedit.parse_path)


def apply(body: bytes, settings: ModelSettings, requested: str) -> bytes:
    """Edit a JSON body for its upstream; without any filter it is returned as it is.

    `requested` is the model's name as the client wrote it: it selects among `setParamsByID`.

    Raises:
        RequestError: 413, an edited path leads through a container too large to look through.
    """
    try:
        if settings.use_model_name:
            body = jsonedit.put(body, _MODEL, orjson.dumps(settings.use_model_name))
        filters = settings.filters
        for path in filters.strip:
            body = jsonedit.remove(body, _path(path))
        body = _put_all(body, filters.set)
        return _put_all(body, filters.set_by_name.get(requested, {}))
    except jsonedit.TooManyItems:
        raise _too_many_items() from None


def rename(body: bytes, name: str) -> bytes:
    """Name another model in a JSON body.

    Raises:
        RequestError: 413, as `apply`.
    """
    try:
        return jsonedit.put(body, _MODEL, orjson.dumps(name))
    except jsonedit.TooManyItems:
        raise _too_many_items() from None


def _too_many_items() -> RequestError:
    message = f"the JSON body holds an object or array of more than {jsonedit.WALK_MAX} items"
    return RequestError(413, message, "too_many_values")


def _put_all(body: bytes, values: Mapping[str, Any]) -> bytes:
    for path in sorted(values):
        body = jsonedit.put(body, _path(path), orjson.dumps(values[path]))
    return body
