"""One inference request from body to last event, the same for every text API; and the faults that end it badly."""

import asyncio
import gzip
import json
import os
import signal
from collections.abc import Awaitable, Callable
from math import inf
from typing import Any

from aiohttp import web

from llmswap.fake_upstream.dialect import Dialect, limit_of
from llmswap.fake_upstream.engine import Refused
from llmswap.fake_upstream.errors import error_response
from llmswap.fake_upstream.faults import Armed
from llmswap.fake_upstream.generation import Arrival, Run, plan, produce
from llmswap.fake_upstream.metrics import Metrics
from llmswap.fake_upstream.sse import EventStream
from llmswap.fake_upstream.state import CALL, FAKE, Fake, read_json
from llmswap.fake_upstream.usage import UsageStyle

TAKES = "X-Fake-Takes"  # of one request: seconds from its turn to its last token, before the time scale
COLD = "X-Fake-Cold"  # NAME SECONDS: so much later, before the time scale, if NAME has not asked in this life before


class Cut(Exception):
    """A fault ended the connection; nothing more is to be sent."""


def text_api(dialect: type[Dialect]) -> Callable[[web.Request], Awaitable[web.StreamResponse]]:
    """Make the handler of a text API."""

    async def handle(request: web.Request) -> web.StreamResponse:
        fake, body = request.app[FAKE], await read_json(request)
        if refusal := await before_answer(request):
            return refusal
        model = served_model(fake, body)
        prompt, limit = dialect.prompt(body), limit_of(body, dialect.limits)
        came, takes_s, cold_s = Arrival.now(fake.engine), asked_time_s(request), cold_time_s(request)
        async with fake.engine.slot():
            run = plan(fake.engine, model, prompt, limit, came)
            run.takes_s, run.cold_s = takes_s, cold_s
            shape = dialect(body, run, _usage_style(fake), fake.options.persona)
            try:
                if body.get("stream"):
                    return await _stream(request, run, shape)
                return await _whole(request, run, shape)
            finally:
                _count(fake.engine.metrics, run)
                request[CALL].first_s = run.first_s - fake.journal.born_s if run.produced else None

    return handle


def asked_time_s(request: web.Request) -> float | None:
    """Read how long the client wants its answer to take, before the time scale; None if it does not say.

    Raises:
        Refused: It says something else.
    """
    text = request.headers.get(TAKES)
    return None if text is None else _seconds(TAKES, text)


def cold_time_s(request: web.Request) -> float:
    """Read how much longer an answer takes to a client that this process has not seen, before the time scale.

    Raises:
        Refused: The header says something else.
    """
    text = request.headers.get(COLD)
    if text is None:
        return 0.0
    name, _, number = text.rpartition(" ")
    seconds, acquainted = _seconds(COLD, number), request.app[FAKE].acquainted
    if name in acquainted:
        return 0.0
    acquainted.add(name)
    return seconds


def _seconds(header: str, text: str) -> float:
    try:
        seconds = float(text)
    except ValueError:
        seconds = -1.0
    if not 0.0 <= seconds < inf:
        raise Refused(400, f"{header}: {text!r} is not a number of seconds, 0 or more")
    return seconds


def _count(metrics: Metrics, run: Run) -> None:
    """Count a run that ended, however it did; one cut short counts as aborted, with the tokens it got to."""
    complete = run.produced == len(run.planned)
    finish = run.finish if complete else "abort"
    metrics.count_tokens(finish, run.prompt_tokens if run.produced else 0, run.cached_tokens, run.produced)
    if run.produced:
        metrics.count_times(run.came.at_s, run.started_s, run.first_s, run.last_s, run.produced)


def served_model(fake: Fake, body: dict[str, Any]) -> str:
    """Find the model a request names. vLLM and a router insist on a name they serve.

    Raises:
        Refused: It serves no such model.
    """
    name = body.get("model")
    if name is None:
        return fake.options.models[0]
    if (fake.options.persona == "vllm" or fake.options.router) and name not in fake.options.models:
        raise Refused(404, f"The model `{name}` does not exist.")
    return str(name)


async def before_answer(request: web.Request) -> web.StreamResponse | None:
    """Apply the faults that come before the response head; give the response if one of them is the answer.

    Raises:
        Cut: The connection was reset.
    """
    fake = request.app[FAKE]
    faults, engine = fake.faults, fake.engine
    hand_over(request)
    if engine.doomed:
        os._exit(1)
    if slow := faults.fires("slow_headers"):
        await engine.spend(slow.number())
        hand_over(request)
    if faults.fires("reset") or (request[CALL].reused and faults.fires("reset_reused")):
        cut(request)
    lies = faults.fires("health_lies")
    if faults.fires("hang") or (lies and lies.word("500") == "hang"):
        await asyncio.Event().wait()
    if moved := faults.fires("redirect"):
        return web.Response(status=302, headers={"Location": moved.word("")})
    status = 500 if lies else 0
    status = 503 if faults.fires("http_503") else status
    status = 429 if faults.fires("http_429") else status
    if chosen := faults.fires("http_status"):
        status = int(chosen.number())
    if status:
        retry = {"Retry-After": "1"} if status == 429 else None
        return error_response(fake.options.persona, request.path, status, f"simulated {status}", retry)
    return None


def hand_over(request: web.Request) -> None:
    """Journal that this call is work for the engine."""
    fake = request.app[FAKE]
    fake.journal.hand(request[CALL], str(fake.engine.phase))


def cut(request: web.Request) -> None:
    """Reset the connection.

    Raises:
        Cut: Always.
    """
    if request.transport is not None:
        request.transport.abort()
    raise Cut


def _usage_style(fake: Fake) -> UsageStyle:
    spoil = next((word for word, name in (("no", "no_usage"), ("null", "null_usage"), ("zero", "usage_zero"))
                  if fake.faults.fires(name)), "")  # fmt: skip
    llamacpp = fake.options.persona == "llamacpp"
    return UsageStyle(
        spoil=spoil,
        cached=llamacpp or fake.options.report_cached,
        timings=llamacpp,
        flat_reasoning=fake.options.persona == "sglang",
    )


async def _whole(request: web.Request, run: Run, shape: Dialect) -> web.StreamResponse:
    fake, texts = request.app[FAKE], []
    midway = _Midway(request, shape)
    async for token in produce(fake.engine, run):
        await midway.before(run.produced - 1)
        texts.append(token)
    request[CALL].tokens = run.produced
    split = run.reasoning
    data = json.dumps(shape.whole("".join(texts[:split]), "".join(texts[split:])), ensure_ascii=False).encode()
    if fake.faults.fires("gzip"):
        headers = {"Content-Encoding": "gzip"}
        return web.Response(body=gzip.compress(data), content_type="application/json", headers=headers)
    return web.Response(body=data, content_type="application/json")


async def _stream(request: web.Request, run: Run, shape: Dialect) -> web.StreamResponse:
    fake = request.app[FAKE]
    stream = EventStream(request, fake.faults)
    midway = _Midway(request, shape)
    await stream.open()
    for event in shape.opening():
        await stream.send(event)
    async for token in produce(fake.engine, run):
        if await midway.before(run.produced - 1, stream):
            return stream.response
        for event in shape.token(stream.spoil(token), thought=run.produced <= run.reasoning):
            await stream.send(event)
        request[CALL].tokens = run.produced
    if await midway.before(run.produced, stream):
        return stream.response
    for event in shape.closing():
        await stream.send(event)
    await stream.close()
    return stream.response


class _Midway:
    """The faults that strike after k tokens of one request."""

    def __init__(self, request: web.Request, shape: Dialect) -> None:
        faults = request.app[FAKE].faults
        names = ("stall", "disconnect_midstream", "die_midstream", "end_midstream", "error_chunk")
        self._armed = {name: fault for name in names if (fault := faults.fires(name))}
        self._request, self._shape = request, shape

    def _due(self, name: str, sent: int) -> Armed | None:
        fault = self._armed.get(name)
        return fault if fault and int(fault.number()) == sent else None

    async def before(self, sent: int, stream: EventStream | None = None) -> bool:
        """Strike if it is time; say whether the response has been ended.

        Raises:
            Cut: The connection was reset.
        """
        if stall := self._due("stall", sent):
            await self._request.app[FAKE].engine.spend(stall.number(1))
        if self._due("die_midstream", sent):
            os.kill(os.getpid(), signal.SIGKILL)
        if self._due("disconnect_midstream", sent):
            # One turn of the loop, so that what was written has left before the reset throws the rest away.
            await asyncio.sleep(0)
            cut(self._request)
        if stream is None:
            return False
        if self._due("error_chunk", sent):
            for event in self._shape.failure("simulated engine failure"):
                await stream.send(event)
        elif not self._due("end_midstream", sent):
            return False
        await stream.close()
        return True
