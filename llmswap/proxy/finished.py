"""Requests that are over: told to those who watch, and written to llmswap's log.

That is done for several at once, a moment later: done one by one, between requests, it costs far more of the CPU (each
time it finds cold caches, and wakes the thread that writes to stdout).
"""

import asyncio
import time
from dataclasses import dataclass

from aiohttp import web
from aiohttp.abc import AbstractAccessLogger

from llmswap.proxy import access_log, records
from llmswap.proxy.access_log import Entry
from llmswap.proxy.context import Context
from llmswap.proxy.hop.messages import Delivery
from llmswap.proxy.metering.meter import Meter
from llmswap.proxy.request_keys import DELIVERY, METER, RECORD
from llmswap.runtime.observing import RequestRecord

GATHER_S = 0.05
GATHER_MAX = 32  # so many hold the event loop for a few milliseconds


@dataclass(frozen=True, slots=True)
class _Answered:
    """A request for a model, and what is known of its answer."""

    record: RequestRecord
    delivery: Delivery | None
    meter: Meter | None


class Finished:
    """Those of one application that nobody has been told of yet.

    Args:
        context: Its observer is told of requests for models.
    """

    def __init__(self, context: Context) -> None:
        self._context = context
        self._answered: list[_Answered] = []
        self._entries: list[Entry] = []
        self._timer: asyncio.TimerHandle | None = None

    def note(self, request: web.Request, status: int, size: int, took_s: float) -> None:
        """Take note of a request that has ended, once: a cancelled one is noted by who saw that first."""
        record = request.get(RECORD)
        if record is not None:
            if record.ended_s is not None:
                return
            record.ended_s = time.monotonic()
            record.status = status
            self._answered.append(_Answered(record, request.get(DELIVERY), request.get(METER)))
        entry = access_log.entry_of(request, status, size, took_s)
        if entry is not None:
            self._entries.append(entry)
        if len(self._answered) >= GATHER_MAX or len(self._entries) >= GATHER_MAX:
            self.flush()
        elif self._timer is None:
            self._timer = asyncio.get_running_loop().call_later(GATHER_S, self.flush)

    def flush(self) -> None:
        """Tell and write what has been gathered."""
        if self._timer is not None:
            self._timer.cancel()
            self._timer = None
        answered, self._answered = self._answered, []
        for one in answered:
            records.close(one.record, one.delivery, one.meter)
            self._context.observer.ended(one.record)
            access_log.warn(one.record)
        entries, self._entries = self._entries, []
        access_log.write(entries)


FINISHED: web.AppKey[Finished] = web.AppKey("llmswap.finished", Finished)


class Ends(AbstractAccessLogger):
    """What aiohttp calls after each response."""

    def log(self, request: web.BaseRequest, response: web.StreamResponse, time: float) -> None:
        """Note a finished request."""
        if isinstance(request, web.Request):
            size = response.content_length or response.body_length
            request.app[FINISHED].note(request, response.status, size, time)
