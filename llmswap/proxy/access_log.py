"""One line for each request, in llmswap's log: in llama-swap's words, or as the event `request.completed`."""

import logging
import re
import time as clock
from collections.abc import Iterator, Sequence
from typing import NamedTuple

from aiohttp import web

from llmswap.core.commands import RejectReason
from llmswap.proxy.completed import COMPLETED, QUEUE_TIMEOUT, of_model, timed_out
from llmswap.proxy.context import CONTEXT
from llmswap.proxy.origin import client_address
from llmswap.proxy.request_keys import DELIVERY, RECORD, REQUEST_ID, SERVED
from llmswap.runtime.logevents import Event, Value, events
from llmswap.runtime.observing import RequestRecord

log = logging.getLogger(__name__)

_SKIPPED = ("/wol-health", "/api/performance", "/metrics", "/sd/prometheus", "/upstream-metrics/")  # asked all the time
_UNPRINTABLE = re.compile(r'[^\x20-\x7e]|["\\]')
_USER_AGENT_MAX = 200


class Entry(NamedTuple):
    """What a line says."""

    peer: str
    method: str
    path: str
    version: str
    status: int
    size: int
    agent: str
    took_s: float
    substitute: str | None
    id: str
    route: str
    at_s: float
    record: RequestRecord | None


class _Burst:
    """Lines that are written together: they read as words, and give themselves as events."""

    __slots__ = ("_entries",)

    def __init__(self, entries: Sequence[Entry]) -> None:
        self._entries = entries

    def __str__(self) -> str:
        return "\n".join(map(_line, self._entries))

    def __iter__(self) -> Iterator[Event]:
        return map(_event, self._entries)


def entry_of(request: web.Request, status: int, size: int, took_s: float) -> Entry | None:
    """Give the entry of a request that has ended: None while the level is off, and for what is asked all the time."""
    path = request.rel_url.raw_path
    if not log.isEnabledFor(logging.INFO) or path.startswith(_SKIPPED):
        return None
    delivery = request.get(DELIVERY)
    if delivery is not None and delivery.status:
        size = delivery.bytes_out  # aiohttp does not see what goes past it
    headers = request.headers
    peer = request.remote or "-"
    trusted = request.app[CONTEXT].loaded.settings.access.trusted_proxies
    if trusted:
        peer = client_address(peer, headers.get("X-Forwarded-For"), trusted)
    agent = headers.get("User-Agent", "")
    version = "1.1" if request.version.minor else "1.0"
    served = request.get(SERVED)
    substitute = None if served is None else served.substitute
    record, resource = request.get(RECORD), request.match_info.route.resource
    return Entry(
        *(peer, request.method, path, version, status, size, agent, took_s, substitute),
        id=request.get(REQUEST_ID, ""),
        route="" if resource is None else resource.canonical,
        at_s=clock.time(),
        record=record,
    )


def write(entries: Sequence[Entry]) -> None:
    """Write the lines of requests, as one."""
    if entries:
        burst = _Burst(entries)
        log.info("%s", burst, extra=events(burst))


def warn(record: RequestRecord) -> None:
    """Write a line of its own for a request that waited in vain."""
    if record.refusal is RejectReason.QUEUE_TIMEOUT:
        late = Event(QUEUE_TIMEOUT, *timed_out(record))
        log.warning("%s", late.message, extra=events((late,)))


def _line(entry: Entry) -> str:
    path, agent = _plain(entry.path), _plain(entry.agent[:_USER_AGENT_MAX])
    asked = f'"{entry.method} {path} HTTP/{entry.version}"'
    substitute = "" if entry.substitute is None else f" by substitute {_plain(entry.substitute)}"
    return f'Request {entry.peer} {asked} {entry.status} {entry.size} "{agent}" {entry.took_s:.6f}s{substitute}'


def _event(entry: Entry) -> Event:
    """Give the entry as an event: of a request for a model with what became of it there."""
    record = entry.record
    fields: dict[str, Value] = {
        "id": entry.id,
        "method": entry.method,
        "route": entry.route if record is None else record.route,
        "path": entry.path,
        "status": entry.status,
        "duration_s": entry.took_s,
        "bytes": entry.size,
        "remote": entry.peer,
        "user_agent": entry.agent[:_USER_AGENT_MAX] or None,
    }
    if record is not None:
        fields |= of_model(record)
    message = f"{entry.method} {entry.path} {entry.status} in {entry.took_s:.3f} s"
    return Event(COMPLETED, message, fields, entry.at_s)


def _plain(text: str) -> str:
    return _UNPRINTABLE.sub(lambda found: f"\\x{ord(found[0]):02x}", text)
