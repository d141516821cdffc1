"""What a request asks for, and what goes out for it, whichever model serves it. Waits for nobody."""

from collections.abc import AsyncIterator, Callable
from dataclasses import dataclass
from functools import partial

from aiohttp import web
from multidict import CIMultiDict

from llmswap.config.settings import ModelSettings
from llmswap.core.events import SwapClass
from llmswap.proxy import dialects, filters, records, swapping
from llmswap.proxy.callers import caller_of
from llmswap.proxy.context import Context
from llmswap.proxy.dialects import Ask
from llmswap.proxy.errors import RequestError
from llmswap.proxy.hop.messages import Outgoing
from llmswap.proxy.request_keys import RECORD, SERVED
from llmswap.runtime.gate import Lease, Ticket
from llmswap.runtime.observing import RequestRecord

_SHOWN = 200  # characters of a client's model name in an error
_ASKED = 128  # and in a record

Body = bytes | AsyncIterator[bytes] | None
Fill = Callable[[ModelSettings, str | None], tuple[Body, int | None]]
"""Makes the body for the model that serves, and its size as `Outgoing` wants it. The name, if there is one, takes the
place of the one the client wrote: the model stands in for another."""


@dataclass(slots=True)
class Call:
    """A request on its way to a model.

    Attributes:
        settings: Of the model that is asked for.
        ask: What it asks for; its model as the client wrote it.
        target: Path and query for the upstream.
        head: Headers for the upstream.
        substitutable: Whether another model's answer would do.
    """

    request: web.Request
    settings: ModelSettings
    ask: Ask
    target: str
    head: CIMultiDict[str]
    fill: Fill
    swap_class: SwapClass
    caller: str
    substitutable: bool = True

    @property
    def record(self) -> RequestRecord:
        """What becomes of it."""
        return self.request[RECORD]

    def granted(self, ticket: Ticket, lease: Lease) -> None:
        """Note how it came by a lease, for the response to tell."""
        records.granted(self.record, ticket, lease)
        substitute = None if lease.model == self.settings.id else lease.model
        self.request[SERVED] = swapping.served(self.record.waited_s, self.record.swap_s, substitute)

    def outgoing(self, serving: ModelSettings) -> Outgoing:
        """Make what is sent to a model that serves: the one that is asked for, or one that stands in for it.

        Raises:
            RequestError: 413, a filter cannot be applied to this body.
        """
        name, target = None, self.target
        if serving.id != self.settings.id:
            name = serving.use_model_name or serving.id
            if self.ask.in_query:
                path, mark, query = target.partition("?")
                target = path + mark + dialects.rename_in_query(query, name)
        body, size = self.fill(serving, name)
        return Outgoing(self.request.method, target, self.head, body, size)


def call_of(  # noqa: PLR0913, PLR0917
    context: Context, request: web.Request, ask: Ask, target: str, head: CIMultiDict[str], fill: Fill
) -> Call:
    """Find out who is asked, and on what terms.

    Raises:
        RequestError: 404, there is no such model; 400, the terms make no sense.
    """
    record = request[RECORD]
    record.asked, record.stream, record.max_tokens = ask.model[:_ASKED], ask.stream, ask.max_tokens
    settings = find_model(context, ask.model)
    swap_class = swapping.class_of(request, settings, ask.model)
    caller = caller_of(request, context.loaded.settings.access)
    record.model, record.caller = settings.id, caller
    return Call(request, settings, ask, target, head, fill, swap_class, caller)


def find_model(context: Context, name: str) -> ModelSettings:
    """Find the model behind the name a client gave.

    Raises:
        RequestError: 404.
    """
    if not name:
        raise RequestError(404, "no model id could be identified; name one in `model`")
    model = context.loaded.fleet.resolve(name)
    if model is None:
        shown = name if len(name) <= _SHOWN else name[:_SHOWN] + "…"
        raise RequestError(404, f"no model {shown!r}; GET /v1/models lists those there are", "model_not_found")
    return context.settings_of(model)


def fill_nothing(serving: ModelSettings, name: str | None) -> tuple[Body, int | None]:
    """Fill a request that has no body."""
    del serving, name
    return None, None


def filler(body: bytes, ask: Ask, content_type: str) -> Fill:
    """Give what fills a request with a body that lies in memory. Filters act only on JSON that says it is JSON."""
    if "application/json" in content_type:
        return partial(_fill_json, body, ask.model)
    return partial(_fill_other, body, ask)


def _fill_json(body: bytes, asked: str, serving: ModelSettings, name: str | None) -> tuple[Body, int | None]:
    if name is None:
        return filters.apply(body, serving, asked), None
    return filters.apply(filters.rename(body, name), serving, serving.id), None


def _fill_other(body: bytes, ask: Ask, serving: ModelSettings, name: str | None) -> tuple[Body, int | None]:
    del serving
    if name is None or ask.in_query:
        return body, None
    if dialects.looks_like_json(body):
        return filters.rename(body, name), None
    return dialects.rename_in_query(body.decode("latin-1"), name).encode("latin-1"), None
