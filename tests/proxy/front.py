"""The HTTP surface on a real socket, over the real scheduler, with upstreams that are only pretended."""

import ssl
from collections.abc import AsyncIterator, Callable, Mapping
from contextlib import asynccontextmanager
from dataclasses import dataclass, field, replace
from typing import Any

import aiohttp
from aiohttp import web

from llmswap.config.settings import AccessSettings, Launch, Loaded, ModelSettings, Settings
from llmswap.core.commands import Start, Stop
from llmswap.core.events import LoadRequested, UpstreamReady, UpstreamStopped
from llmswap.core.fleet import Fleet, Group, Model, ModelId
from llmswap.core.scheduler import Scheduler
from llmswap.core.states import State
from llmswap.proxy.context import Context
from llmswap.proxy.routes import build_app
from llmswap.proxy.server import Server, serve
from llmswap.proxy.upstream import UpstreamClient
from llmswap.runtime.gate import Gate
from llmswap.runtime.logbook import LogBook
from llmswap.runtime.loop import RunLoop
from tests.raw import RawClient, Reply, exchange

KEY = "sk-front-door-0123456789abcdef"


def model(name: str, /, **settings: Any) -> ModelSettings:
    """Give a model's settings; its command never runs."""
    launch = settings.pop("launch", None) or Launch(
        ModelId(name), cmd="serve --port ${PORT}", proxy="http://localhost:${PORT}", port=5800
    )
    return ModelSettings(ModelId(name), launch, **settings)


def loaded(
    *models: ModelSettings, idle_ttl_s: float | None = None, queue_timeout_s: float = 600.0, **settings: Any
) -> Loaded:
    """Give a config of models that may all live together."""
    fleet = Fleet(
        models={one.id: Model(one.id, idle_ttl_s=idle_ttl_s, queue_timeout_s=queue_timeout_s) for one in models},
        names={name: one.id for one in models for name in (*one.aliases, one.id)},
        groups=(Group("all", tuple(one.id for one in models), swap=False),),
    )
    return Loaded(fleet, Settings({one.id: one for one in models}, **settings))


@dataclass
class Front:
    """A served application.

    Attributes:
        starts: Upstreams become ready at once.
        stops: Upstreams stop at once; else they stay until `let_go`.
        base_url: Where every upstream is said to listen.
    """

    context: Context
    app: web.Application
    starts: bool = True
    stops: bool = True
    base_url: str = "http://127.0.0.1:9"
    held: list[Stop] = field(default_factory=list)
    server: Server | None = None

    @property
    def url(self) -> str:
        assert self.server is not None
        return self.server.addresses[0]

    @property
    def port(self) -> int:
        return int(self.url.rpartition(":")[2])

    def configure(self, access: AccessSettings) -> None:
        """Put other access settings in force, as a reload does."""
        old = self.context.loaded
        self.context.loaded = replace(old, settings=replace(old.settings, access=access))

    def load(self, name: str) -> None:
        """Make a model resident."""
        self.context.loop.post(LoadRequested(ModelId(name)))

    def let_go(self) -> None:
        """Let held stops end."""
        for stop in self.held:
            self.context.loop.post(UpstreamStopped(stop.model, stop.generation))
        self.held.clear()

    def state(self, name: str) -> State:
        return self.context.loop.snapshot().upstreams[ModelId(name)].state

    async def raw(self, data: bytes, within_s: float = 5.0) -> Reply:
        """Send bytes on a fresh connection, read until it is closed."""
        return await exchange("127.0.0.1", self.port, data, within_s)

    async def connect(self) -> RawClient:
        return await RawClient.connect("127.0.0.1", self.port)


@asynccontextmanager
async def front(
    config: Loaded | None = None,
    access: AccessSettings | None = None,
    extend: Callable[[web.Application], None] | None = None,
    listen: str = "127.0.0.1:0",
    tls: ssl.SSLContext | None = None,
) -> AsyncIterator[Front]:
    """Serve for as long as the block lasts. `extend` may change the application before it starts."""
    config = config or loaded(model("m1", aliases=("alias-1",)), model("author/model"))
    fatal: list[BaseException] = []
    loop = RunLoop(Scheduler(config.fleet), fatal.append)

    async def reload() -> None:
        raise NotImplementedError

    context = Context(
        loaded=config,
        loop=loop,
        gate=Gate(loop, lambda _model, _generation: served.base_url),
        logs=LogBook(),
        upstream=UpstreamClient(),
        metrics=exposition,
        reload=reload,
    )
    app = build_app(context)
    served = Front(context, app)

    def start(command: Start) -> None:
        if served.starts:
            loop.post(UpstreamReady(command.model, command.generation))

    def stop(command: Stop) -> None:
        if served.stops:
            loop.post(UpstreamStopped(command.model, command.generation))
        else:
            served.held.append(command)

    loop.performs({Start: start, Stop: stop})
    if access is not None:
        served.configure(access)
    if extend is not None:
        extend(app)
    served.server = await serve(app, listen, tls)
    try:
        yield served
    finally:
        await served.server.close(1.0)
        await context.upstream.close()
        assert not fatal or loop.dead is not None


@asynccontextmanager
async def session(**options: Any) -> AsyncIterator[aiohttp.ClientSession]:
    """Give a client that follows no redirect by itself."""
    async with aiohttp.ClientSession(timeout=aiohttp.ClientTimeout(total=10), **options) as client:
        yield client


async def ask(
    served: Front, method: str, path: str, headers: Mapping[str, str] | None = None, data: Any = None
) -> "Answer":
    """Make one request on a connection of its own."""
    async with (
        session() as client,
        client.request(method, served.url + path, headers=headers, data=data, allow_redirects=False) as response,
    ):
        return Answer(
            response.status, {name.lower(): value for name, value in response.headers.items()}, await response.read()
        )


@dataclass(frozen=True)
class Answer:
    status: int
    headers: Mapping[str, str]
    body: bytes

    @property
    def text(self) -> str:
        return self.body.decode()


async def exposition(_accept: str) -> tuple[bytes, str]:
    """Stand in for the metrics."""
    return b"llmswap_up 1\n", "text/plain; version=0.0.4; charset=utf-8"
