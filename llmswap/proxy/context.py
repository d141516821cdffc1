"""What every handler may reach: one value, kept in the aiohttp application."""

from collections.abc import Awaitable, Callable, Mapping
from dataclasses import dataclass, field

from aiohttp import web

from llmswap.config.settings import Loaded, ModelSettings
from llmswap.core.fleet import ModelId
from llmswap.core.states import State
from llmswap.proxy.bodies import BodyLimits, HeldBodies
from llmswap.proxy.inflight import InFlight
from llmswap.proxy.metering.asking import Manners
from llmswap.proxy.upstream import UpstreamClient
from llmswap.runtime.footprints import Seen
from llmswap.runtime.gate import Gate
from llmswap.runtime.heartbeat import Heartbeat
from llmswap.runtime.logbook import LogBook
from llmswap.runtime.loop import RunLoop
from llmswap.runtime.observing import RequestObserver, Unobserved
from llmswap.runtime.sampler import Sampler


@dataclass
class Context:
    """The parts behind the HTTP surface.

    Attributes:
        loaded: The config generation in force; replaced by a reload, so read it anew for each request.
        metrics: Renders the Prometheus exposition for an Accept header: (body, content type). Telemetry's.
        reload: Re-reads the config; raises ConfigError and changes nothing if it is bad.
        held_bodies: What JSON bodies take of the memory, all together.
        in_flight: The requests inside, so that one can be cancelled by its number.
        observer: Sees requests for models.
        manners: What is known of how each model's engine counts tokens.
        footprints: Tells what each model was seen to hold in each state.
        sampler: Looks at the machine; None if nobody does.
        heartbeat: Tells how late the event loop runs what is due; beats while the application runs.
    """

    loaded: Loaded
    loop: RunLoop
    gate: Gate
    logs: LogBook
    upstream: UpstreamClient
    metrics: Callable[[str], Awaitable[tuple[bytes, str]]]
    reload: Callable[[], Awaitable[None]]
    limits: BodyLimits = field(default_factory=BodyLimits)
    held_bodies: HeldBodies = field(default_factory=HeldBodies)
    in_flight: InFlight = field(default_factory=InFlight)
    observer: RequestObserver = field(default_factory=Unobserved)
    manners: Manners = field(default_factory=Manners)
    footprints: Callable[[], Mapping[ModelId, Mapping[State, Seen]]] = dict
    sampler: Sampler | None = None
    heartbeat: Heartbeat = field(default_factory=Heartbeat)

    def settings_of(self, model: ModelId) -> ModelSettings:
        """Give the HTTP-side settings of a model of the current fleet."""
        return self.loaded.settings.models[model]


CONTEXT: web.AppKey[Context] = web.AppKey("llmswap.context", Context)
