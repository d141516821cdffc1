"""`X-LLMSwap-*` about swaps: what a request may cost others, and what it was told of its own wait."""

import string
from dataclasses import dataclass
from functools import lru_cache
from urllib.parse import quote

from aiohttp import web

from llmswap.config.settings import ModelSettings
from llmswap.core.events import SwapClass
from llmswap.core.fleet import ModelId
from llmswap.proxy.errors import RequestError

SWAP_CLASS = "X-LLMSwap-Swap"
QUEUE_S = "X-LLMSwap-Queue-Seconds"
SWAP_S = "X-LLMSwap-Swap-Seconds"
RESIDENCY = "X-LLMSwap-Residency"
SERVED_BY = "X-LLMSwap-Served-By"
ANSWERS = (QUEUE_S, SWAP_S, RESIDENCY, SERVED_BY)

_LEAST_S = 0.0005  # less is written as 0.000
_AS_IT_IS = string.punctuation.replace("%", "")


@dataclass(frozen=True, slots=True)
class Served:
    """What a dispatched request's response says of how it came to be served.

    Attributes:
        fields: Headers.
        substitute: Who serves, if it is not the model that was asked for.
    """

    fields: tuple[tuple[str, str], ...]
    substitute: ModelId | None = None


_AT_ONCE = Served(((QUEUE_S, "0.000"), (SWAP_S, "0.000"), (RESIDENCY, "hit")))


def class_of(request: web.BaseRequest, settings: ModelSettings, name: str) -> SwapClass:
    """Say what a request may cost others: as it says itself, else as is said of the name it asks by, or of the model.

    Raises:
        RequestError: 400, it says something that is no swap class.
    """
    said = request.headers.get(SWAP_CLASS)
    if said is None:
        return settings.swap_class_by_name.get(name, settings.swap_class)
    try:
        return SwapClass(said.strip().lower())
    except ValueError:
        known = ", ".join(SwapClass)
        raise RequestError(400, f"`{SWAP_CLASS}` must be one of {known}", "invalid_swap_class") from None


def served(waited_s: float, swap_s: float | None, substitute: ModelId | None) -> Served:
    """Say how long a request waited, for what, and who serves it.

    Args:
        waited_s: From its arrival to its dispatch.
        swap_s: The part of that in which the model was swapped in; None if it was up.
        substitute: Who serves, if it is not the model that was asked for.
    """
    if swap_s is None and waited_s < _LEAST_S:
        if substitute is None:
            return _AT_ONCE  # nearly all
        fields = _AT_ONCE.fields
    else:
        residency = "hit" if swap_s is None else "miss"
        fields = ((QUEUE_S, f"{waited_s:.3f}"), (SWAP_S, f"{swap_s or 0.0:.3f}"), (RESIDENCY, residency))
    if substitute is None:
        return Served(fields)
    return Served((*fields, (SERVED_BY, _as_header(substitute))), substitute)


@lru_cache(maxsize=256)
def _as_header(model: ModelId) -> str:
    """Write a model id so that it may stand in a header: whatever is not printable ASCII percent-encoded."""
    return quote(model, safe=_AS_IT_IS)
