"""The proxy over a real scheduler and a real listening upstream, all in one process.

Only the processes are not real: `Start` and `Stop` are answered here, at once or when a test says so. Every model's
address is that of one recording upstream.
"""

from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager
from dataclasses import dataclass, field, replace
from typing import Any

import orjson
from aiohttp import web

from llmswap.config.settings import AccessSettings, Launch, Loaded, ModelSettings, Settings
from llmswap.core.commands import Start, Stop
from llmswap.core.events import StartFailed, UpstreamReady, UpstreamStopped
from llmswap.core.fleet import Fleet, Group, Model, ModelId
from llmswap.core.scheduler import Scheduler
from llmswap.core.states import State
from llmswap.proxy.bodies import BodyLimits
from llmswap.proxy.context import Context
from llmswap.proxy.routes import build_app
from llmswap.proxy.server import serve
from llmswap.proxy.upstream import UpstreamClient
from llmswap.runtime.gate import Gate
from llmswap.runtime.logbook import LogBook
from llmswap.runtime.loop import RunLoop
from tests.raw import RawClient, Reply, exchange
from tests.stack import until

Answer = Callable[[web.Request], Awaitable[web.StreamResponse]]


@dataclass(frozen=True)
class Seen:
    """A request as the upstream got it."""

    method: str
    target: str
    headers: Any
    body: bytes

    @property
    def json(self) -> Any:
        return orjson.loads(self.body)


@dataclass
class Upstream:
    """The recording upstream. `answer` may be replaced; it is called once the body has been read."""

    seen: list[Seen] = field(default_factory=list)
    answer: Answer | None = None
    url: str = ""

    async def handle(self, request: web.Request) -> web.StreamResponse:
        body = b"".join([data async for data in request.content.iter_any()])
        self.seen.append(Seen(request.method, request.raw_path, request.headers, body))
        if self.answer is not None:
            return await self.answer(request)
        return web.json_response({"ok": True})

    @property
    def last(self) -> Seen:
        return self.seen[-1]


@dataclass
class Rig:
    """A serving llmswap without processes.

    Attributes:
        auto: Starts succeed at once; otherwise `ready` or `fail` says how they end.
    """

    url: str
    context: Context
    upstream: Upstream
    loop: RunLoop
    starts: list[Start]
    auto: bool = True

    async def raw(self, data: bytes, within_s: float = 10.0) -> Reply:
        """Send these bytes on a connection of their own."""
        return await exchange("127.0.0.1", int(self.url.rsplit(":", 1)[1]), data, within_s)

    async def connect(self) -> RawClient:
        return await RawClient.connect("127.0.0.1", int(self.url.rsplit(":", 1)[1]))

    def ready(self) -> None:
        start = self.starts[-1]
        self.loop.post(UpstreamReady(start.model, start.generation))

    def fail(self, reason: str) -> None:
        start = self.starts[-1]
        self.loop.post(StartFailed(start.model, start.generation, reason))

    def state(self, model: str) -> State:
        return self.loop.snapshot().upstreams[ModelId(model)].state

    def in_flight(self, model: str) -> int:
        return self.loop.snapshot().upstreams[ModelId(model)].in_flight

    def waiting(self, model: str) -> int:
        return self.loop.snapshot().upstreams[ModelId(model)].waiting

    @property
    def idle(self) -> bool:
        """Whether every place has been given back."""
        return self.context.gate.occupants == 0 and all(
            view.in_flight == view.waiting == 0 for view in self.loop.snapshot().upstreams.values()
        )

    def _start(self, command: Start) -> None:
        self.starts.append(command)
        if self.auto:
            self.loop.post(UpstreamReady(command.model, command.generation))

    def _stop(self, command: Stop) -> None:
        self.loop.post(UpstreamStopped(command.model, command.generation))


def model(name: str, **settings: Any) -> ModelSettings:
    """Give a model's settings; what they do not say is llama-swap's default."""
    return ModelSettings(ModelId(name), Launch(ModelId(name), "unused", "unused"), **settings)


def loaded_of(models: tuple[ModelSettings, ...], access: AccessSettings, **settings: Any) -> Loaded:
    ids = tuple(entry.id for entry in models)
    names = {alias: entry.id for entry in models for alias in (*entry.aliases, *entry.filters.set_by_name)}
    fleet = Fleet(
        {name: Model(name) for name in ids}, {**names, **{name: name for name in ids}}, (Group("(default)", ids),)
    )
    return Loaded(fleet, Settings({entry.id: entry for entry in models}, access, **settings))


@asynccontextmanager
async def rig_of(
    *models: ModelSettings,
    access: AccessSettings | None = None,
    limits: BodyLimits | None = None,
    limit: int | None = None,
    **settings: Any,
) -> AsyncIterator[Rig]:
    """Serve these models for as long as the block lasts.

    Args:
        limit: Concurrency limit of every model.
        settings: Fields of Settings.
    """
    loaded = loaded_of(models, access or AccessSettings(), **settings)
    if limit is not None:
        limited = {name: replace(entry, concurrency_limit=limit) for name, entry in loaded.fleet.models.items()}
        loaded = replace(loaded, fleet=replace(loaded.fleet, models=limited))
    async with rig_on(loaded, limits or BodyLimits()) as rig:
        yield rig


@asynccontextmanager
async def rig_on(loaded: Loaded, limits: BodyLimits | None = None) -> AsyncIterator[Rig]:
    """Serve a config for as long as the block lasts; its commands are never run."""
    async with recording_upstream() as upstream:
        fatal: list[BaseException] = []
        loop = RunLoop(Scheduler(loaded.fleet), fatal.append)
        context = Context(
            loaded=loaded,
            loop=loop,
            gate=Gate(loop, lambda _model, _generation: upstream.url),
            logs=LogBook(),
            upstream=UpstreamClient(),
            metrics=_no_metrics,
            reload=_no_reload,
            limits=limits or BodyLimits(),
        )
        server = await serve(build_app(context), "127.0.0.1:0")
        rig = Rig(server.addresses[0], context, upstream, loop, [])
        loop.performs({Start: rig._start, Stop: rig._stop})
        try:
            yield rig
            await until(lambda: rig.idle, "everybody has left", 5)  # what a test leaves behind is a leak
            assert not fatal, fatal
        finally:
            await server.close(1.0)
            await context.upstream.close()


@asynccontextmanager
async def recording_upstream() -> AsyncIterator[Upstream]:
    """Listen as an upstream for as long as the block lasts."""
    upstream = Upstream()
    runner = web.ServerRunner(
        web.Server(upstream.handle, handler_cancellation=True, auto_decompress=False), access_log=None
    )
    await runner.setup()
    try:
        await web.TCPSite(runner, "127.0.0.1", 0).start()
        upstream.url = f"http://127.0.0.1:{runner.addresses[0][1]}"
        yield upstream
    finally:
        await runner.cleanup()


async def _no_reload() -> None:
    raise AssertionError("nothing reloads here")


async def _no_metrics(_accept: str) -> tuple[bytes, str]:
    return b"", "text/plain"
