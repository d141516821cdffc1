"""The loading stream: what a streaming chat client sees while its model is on its way. Chat completion chunks only."""

import asyncio
import itertools
import random
import time
from collections.abc import Iterator

import orjson
from aiohttp import web

from llmswap.config.settings import ModelSettings
from llmswap.core.states import State
from llmswap.proxy.dialects import Ask, Dialect, sse_error
from llmswap.proxy.errors import RequestError
from llmswap.proxy.request_keys import REQUEST_ID
from llmswap.proxy.swapping import RESIDENCY
from llmswap.runtime.gate import Lease, Ticket
from llmswap.runtime.loop import RunLoop

TICK_S = 0.75
REMARK_EVERY = 8  # ticks without news
BACKLOG_MAX = 16 * 1024  # bytes the client has not taken; nothing is added to more than that

_PATH = "/v1/chat/completions"
_ASLEEP = frozenset({State.SLEEP_PENDING, State.ASLEEP, State.WAKING})
_DONE = b"data: [DONE]\n\n"
_HEADERS = {
    "Content-Type": "text/event-stream",
    "Cache-Control": "no-cache",
    "X-Accel-Buffering": "no",
    RESIDENCY: "miss",  # how long that took, only the end will show
}
_REMARKS = (
    "the weights are heavier than they look",
    "reading gigabytes so that you need not",
    "somewhere a fan has noticed",
    "still cheaper than a second card",
    "the last tenant is taking its tensors along",
    "no, a bigger model would not have been faster",
)


def shows_loading(loop: RunLoop, request: web.Request, settings: ModelSettings, ask: Ask) -> bool:
    """Tell whether a request that must wait is to see its model being loaded."""
    if not (ask.stream and settings.send_loading_state) or request.path != _PATH:
        return False
    return loop.snapshot().upstreams[settings.id].state is not State.READY


class LoadingStream:
    """One client's event stream, from the banner to the hand-over.

    Whoever waits also writes, in one coroutine, so nothing can be written once `wait` has returned.

    Attributes:
        response: The stream, once it has begun; None before, while an error can still be an ordinary response.
    """

    def __init__(self, request: web.Request, model: str) -> None:
        self.response: web.StreamResponse | None = None
        self._request = request
        self._model = model
        self._role: dict[str, str] = {"role": "assistant"}

    async def wait(self, loop: RunLoop, ticket: Ticket) -> Lease:
        """Wait for the lease and tell the client how it goes.

        Raises:
            Refused: The scheduler said no, now or later.
        """
        started_s = time.monotonic()
        self.response = web.StreamResponse(headers=_HEADERS)
        await self.response.prepare(self._request)
        lease = asyncio.get_running_loop().create_task(ticket.lease())
        try:
            await self._say(f"llmswap: {_doing(loop, ticket)} {self._model}\n")
            for line in self._news(loop, ticket):
                await self._say(line)
                await asyncio.wait({lease}, timeout=TICK_S)
                if lease.done():
                    break
            await self._say(f"\nllmswap: {_outcome(lease)} after {time.monotonic() - started_s:.1f} s\n\n")
            return lease.result()
        finally:
            lease.cancel()
            await asyncio.gather(lease, return_exceptions=True)

    def _news(self, loop: RunLoop, ticket: Ticket) -> Iterator[str]:
        """Give the next line each time it is asked, without end."""
        remarks = itertools.cycle(random.sample(_REMARKS, len(_REMARKS)))
        told, quiet = "", 0
        while True:
            now = _standing(loop, ticket)
            quiet += 1
            if now != told:
                told, quiet = now, 0
                yield f"\n{now} "
            elif quiet % REMARK_EVERY == 0:
                yield f"\n{next(remarks)} "
            else:
                yield "."

    async def _say(self, text: str) -> None:
        """Send a piece of reasoning text, unless the client is not taking what it has been sent."""
        assert self.response is not None
        transport = self._request.transport
        if transport is None or transport.get_write_buffer_size() > BACKLOG_MAX:
            return
        delta, self._role = {**self._role, "reasoning_content": text}, {}
        chunk = {
            "id": f"chatcmpl-{self._request[REQUEST_ID]}",
            "object": "chat.completion.chunk",
            "created": int(time.time()),
            "model": self._model,
            "choices": [{"index": 0, "delta": delta, "finish_reason": None}],
        }
        await self.response.write(b"data: " + orjson.dumps(chunk) + b"\n\n")

    async def fail(self, error: RequestError) -> web.StreamResponse:
        """End the stream with an error event, then `[DONE]`: the status went out with the banner."""
        assert self.response is not None
        await self.response.write(sse_error(Dialect.OPENAI, error.status, error.message, error.code) + _DONE)
        await self.response.write_eof()
        return self.response


def _doing(loop: RunLoop, ticket: Ticket) -> str:
    view = loop.snapshot().upstreams.get(ticket.model)
    return "waking" if view is not None and view.state in _ASLEEP else "loading"


def _standing(loop: RunLoop, ticket: Ticket) -> str:
    position = loop.queue_position(ticket.request)
    if position is not None:
        return f"queue position #{position}"
    view = loop.snapshot().upstreams.get(ticket.model)
    return "" if view is None else str(view.state)


def _outcome(lease: "asyncio.Task[Lease]") -> str:
    return "ready" if lease.exception() is None else "not loaded"
