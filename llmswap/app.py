"""The composition root: the one place where the parts meet, and the order in which they start and stop."""

import asyncio
import gc
import logging
import os
import signal
import ssl
import time
import uuid
from collections.abc import AsyncIterator, Callable, Coroutine
from contextlib import asynccontextmanager
from dataclasses import dataclass, replace
from pathlib import Path

from llmswap.config.errors import ConfigError, ConfigIssue
from llmswap.config.load import load
from llmswap.config.settings import Launch, Loaded, PerformanceSettings
from llmswap.core.events import DrainRequested, FleetReloaded
from llmswap.core.fleet import ModelId
from llmswap.core.scheduler import Scheduler
from llmswap.core.snapshot import Snapshot
from llmswap.core.states import State
from llmswap.journal.writer import Journal
from llmswap.proxy.callers import caller_classes
from llmswap.proxy.context import Context
from llmswap.proxy.routes import build_app
from llmswap.proxy.server import BindRefused, Server, check_bind, serve
from llmswap.proxy.upstream import UpstreamClient
from llmswap.runtime.drivers import find_drivers
from llmswap.runtime.footprints import Footprints
from llmswap.runtime.gate import Gate
from llmswap.runtime.gpu import Reader
from llmswap.runtime.logbook import LogBook
from llmswap.runtime.logevents import events
from llmswap.runtime.loop import RunLoop
from llmswap.runtime.memory import DeviceMemory
from llmswap.runtime.observing import Phase
from llmswap.runtime.orphans import default_dir
from llmswap.runtime.preload import Preload
from llmswap.runtime.proxylog import ProxyLog
from llmswap.runtime.sampler import Sampler
from llmswap.runtime.stdout import StdoutWriter
from llmswap.runtime.supervisor import Supervisor
from llmswap.runtime.watch import stamp, watch
from llmswap.telemetry.hardware import Hardware
from llmswap.telemetry.logs import StepLog, listening, rejected
from llmswap.telemetry.metrics import Metrics, Sources
from llmswap.telemetry.proxy_metrics import Losses
from llmswap.telemetry.tracing import Tracing
from llmswap.telemetry.watching import Watching

log = logging.getLogger(__name__)

DRAIN_LIMIT_S = 30.0
RELOAD_PAUSE_S = 0.2  # between two that signals ask for
STOP_MARGIN_S = 5.0  # after the drain deadline everything is killed; this is for the kernel to do it
PRELOAD_MARGIN_S = 60.0  # beyond a model's own readiness limit, for those it has to evict
GARBAGE_AFTER = 5000  # objects; about a hundred requests

EXIT_OK = 0
EXIT_FAILED = 1
EXIT_FATAL = 70  # the scheduler broke: fail-stop


@dataclass(frozen=True, slots=True)
class Options:
    """What the command line decides.

    Attributes:
        listen: `host:port`; port 0 lets the system choose; an empty host means all interfaces.
        state_dir: Where upstream pids are remembered, for the next life; None for the default place.
    """

    config: Path | None = None
    config_dir: Path | None = None
    listen: str = "127.0.0.1:8080"
    watch_config: bool = False
    tls: ssl.SSLContext | None = None
    allow_unauthenticated: bool = False
    state_dir: Path | None = None


class App:
    """One running llmswap.

    Args:
        read_config: Reads the config anew, for the start and for each reload; raises ConfigError.
        read_gpus: What sees the GPUs.
    """

    def __init__(self, options: Options, read_config: Callable[[], Loaded], read_gpus: Reader | None = None) -> None:
        self._options = options
        self._read_config = read_config
        loaded = self._admit(read_config())
        self.exit_code = EXIT_OK
        self.stopping = asyncio.Event()
        self._reload_lock = asyncio.Lock()
        self._reload_wanted = False
        self._signalled = False
        self._obeying = False
        self._tasks: set[asyncio.Task[None]] = set()
        self._server: Server | None = None

        self._stdout = StdoutWriter()
        logs = LogBook(stdout=self._stdout)
        self._proxy_log = ProxyLog(logs)
        self._proxy_log.configure(loaded.settings)
        self.loop = RunLoop(Scheduler(loaded.fleet), self._fatal)
        self.journal = Journal(loaded.fleet)
        self.loop.observe(self.journal)
        scheme = "http" if options.tls is None else "https"
        self._tracing = Tracing(
            loaded.settings.telemetry, _launches(loaded), os.environ, lambda: self._metrics, scheme=scheme
        )
        self.loop.observe(self._tracing, requests=False)
        drivers = find_drivers(read_gpus)
        self._gpus = drivers.gpus
        watch = DeviceMemory(self._gpus)
        self._supervisor = self._supervise(loaded, logs, watch)
        self.loop.performs(self._supervisor.performers())
        gate = Gate(self.loop, self._supervisor.base_url)
        self.loop.observe(StepLog(self._tracing.swap_trace_id), requests=False)
        self.footprints = Footprints(watch, self.loop.snapshot, self._supervisor.pid)
        self.loop.observe(self.footprints, requests=False)
        self.sampler = Sampler(drivers, self.loop.snapshot, self._supervisor.pid, self._performance)
        self._metrics = self._count(loaded)
        self.loop.observe(self._metrics)
        self.context = Context(
            loaded=loaded,
            loop=self.loop,
            gate=gate,
            logs=logs,
            upstream=UpstreamClient(),
            metrics=self._metrics.render,
            reload=self.reload,
            observer=Watching(self._tracing, self._metrics),
            footprints=self.footprints.learned,
            sampler=self.sampler,
        )

    def _supervise(self, loaded: Loaded, logs: LogBook, watch: DeviceMemory) -> Supervisor:
        sources = [path for path in (self._options.config, self._options.config_dir) if path is not None]
        return Supervisor(
            _launches(loaded),
            self.loop.post,
            logs,
            instance=uuid.uuid4().hex,
            state_dir=self._options.state_dir or default_dir(sources, self._options.listen),
            watch=watch,
            memory=loaded.settings.memory,
            on_fatal=self._fatal,
            phase=self._phase,
            environ=self._tracing.environ,
        )

    def _performance(self) -> PerformanceSettings:
        return self.context.loaded.settings.performance

    def _count(self, loaded: Loaded) -> Metrics:
        hardware = Hardware(self.sampler.latest, lambda: self.context.loaded.settings.telemetry.compat_llamaswap)
        sources = Sources(
            learned=self.footprints.learned,
            gpus=self.sampler.gpus,
            hardware=hardware.freeze,
            losses=self._losses(),
            swap_trace=self._tracing.swap_trace_id,
        )
        return Metrics(loaded, self.loop.snapshot, sources, caller_classes(loaded.settings.access))

    def _losses(self) -> Losses:
        return Losses(
            spans=lambda: self._tracing.counts,
            span_queue=lambda: self._tracing.queue_length,
            journal=lambda: self.journal.dropped,
            stdout=lambda: self._stdout.dropped_bytes,
            readers=lambda: self.context.logs.dropped_bytes,
        )

    def _phase(self, phase: Phase) -> None:
        self._tracing.phase(phase)
        self._metrics.phase(phase)

    @property
    def addresses(self) -> tuple[str, ...]:
        """Base URLs it listens on."""
        assert self._server is not None, "not started"
        return self._server.addresses

    def _admit(self, loaded: Loaded) -> Loaded:
        """Apply the command line, and refuse a config that would leave the listener unprotected."""
        if self._options.allow_unauthenticated:
            access = replace(loaded.settings.access, allow_unauthenticated=True)
            loaded = replace(loaded, settings=replace(loaded.settings, access=access))
        check_bind(self._options.listen, loaded.settings.access)
        return loaded

    async def start(self) -> None:
        """Listen and begin to preload.

        Raises:
            OSError: The address cannot be listened on.
        """
        for warning in self.context.loaded.warnings:
            log.warning("%s", warning)
        self.journal.configure(self.context.loaded.settings.journal)
        if self._options.watch_config:  # before anybody can know that it runs, and write a new one
            config, config_dir = self._options.config, self._options.config_dir
            self._spawn(watch(lambda: stamp(config, config_dir), self.reload_logged))
        await self._supervisor.reclaim_orphans()
        self._server = await serve(build_app(self.context), self._options.listen, self._options.tls)
        for address in self.addresses:
            log.info("listening on %s", address, extra=events((listening(address),)))
        self._spawn(self.sampler.run())
        self._spawn(self._metrics.watch_the_loop())
        self._spawn(self._preload().run())
        self._spawn(self.footprints.run())

    def _spawn(self, work: Coroutine[None, None, None]) -> None:
        task = asyncio.get_running_loop().create_task(work)
        self._tasks.add(task)
        task.add_done_callback(self._done)

    def _done(self, task: asyncio.Task[None]) -> None:
        self._tasks.discard(task)
        if not task.cancelled() and (error := task.exception()) is not None:
            log.critical("a background task failed", exc_info=error)
            self._fatal(error)

    def _preload(self) -> Preload:
        """Plan the loading of the configured models, each bounded by its own readiness limit and a margin."""
        loaded = self.context.loaded
        models = loaded.settings.preload
        limits_s = {
            model: self.context.settings_of(model).launch.ready_timeout_s + PRELOAD_MARGIN_S for model in models
        }
        return Preload(self.loop, loaded.fleet, models, limits_s)

    async def reload(self) -> None:
        """Read the config anew and apply it; several calls at once end in one reload of the latest files.

        Raises:
            ConfigError: It is bad; the old one stays in force, untouched.
        """
        self._reload_wanted = True
        async with self._reload_lock:
            if not self._reload_wanted or self.stopping.is_set():
                return  # the reload that held the lock has read the files after this call
            self._reload_wanted = False
            try:
                loaded = self._admit_anew(await asyncio.to_thread(self._read_config))
            except ConfigError:
                self._metrics.config_rejected()
                raise
            self._apply(loaded)

    def _admit_anew(self, loaded: Loaded) -> Loaded:
        """Admit a config in place of the one in force.

        Raises:
            ConfigError: It would leave the listener unprotected, or has no models while there are some: most likely a
                half-written file.
        """
        try:
            loaded = self._admit(loaded)
        except BindRefused as error:
            raise self._refusal("apiKeys", str(error)) from error
        if self.context.loaded.fleet.models and not loaded.fleet.models:
            raise self._refusal("models", "the new config defines no models; the old one stays in force")
        return loaded

    def _refusal(self, path: str, message: str) -> ConfigError:
        return ConfigError([ConfigIssue(str(self._options.config or self._options.config_dir), 0, 0, path, message)])

    def _apply(self, loaded: Loaded) -> None:
        """Put a good config in force: no await in here, so that no request sees half of it."""
        for warning in loaded.warnings:
            log.warning("%s", warning)
        launches = _launches(loaded)
        self._supervisor.configure(launches, loaded.settings.memory)
        self._proxy_log.configure(loaded.settings)
        self.context.loaded = loaded
        self._metrics.configured(loaded, caller_classes(loaded.settings.access))
        self._tracing.configure(loaded.settings.telemetry, launches)
        self.journal.configure(loaded.settings.journal)
        self.loop.post(FleetReloaded(loaded.fleet))

    async def reload_logged(self) -> None:
        """Reload; a bad config is logged and changes nothing."""
        try:
            await self.reload()
        except ConfigError as error:
            for issue in error.issues:
                log.error("reload refused: %s", issue, extra=events((rejected(issue),)))

    def request_reload(self) -> None:
        """Reload in the background (SIGHUP), the first time at once; what comes soon after it is one more reload."""
        self._signalled = True
        if not self._obeying and not self.stopping.is_set():
            self._obeying = True
            self._spawn(self._obey_signals())

    async def _obey_signals(self) -> None:
        while self._signalled:
            self._signalled = False
            await self.reload_logged()
            await asyncio.sleep(RELOAD_PAUSE_S)
        self._obeying = False

    def request_stop(self) -> None:
        """Begin to drain; asked a second time, end at once (SIGTERM, SIGINT)."""
        if self.stopping.is_set():
            log.warning("second signal: ending now")
            self.exit_code = EXIT_FAILED
            self.loop.post(DrainRequested(time.monotonic()))
        self.stopping.set()

    def _fatal(self, error: BaseException) -> None:
        del error  # logged where it was caught
        if self.loop.dead is not None:
            self.context.gate.close("the scheduler has failed and llmswap is stopping")
        self.exit_code = EXIT_FATAL
        self.stopping.set()

    async def stop(self) -> None:
        """Drain, stop every upstream, close everything. Bounded by the drain limit and a margin."""
        self.stopping.set()
        if self._server is not None:
            self._server.announce_end()
        if self._server is not None and self.loop.dead is None:
            self.loop.post(DrainRequested(time.monotonic() + DRAIN_LIMIT_S))
            await self.loop.wait_for(_all_down, DRAIN_LIMIT_S + STOP_MARGIN_S)
        for task in tuple(self._tasks):
            task.cancel()
        await asyncio.gather(*self._tasks, return_exceptions=True)
        await self._supervisor.close()
        self.sampler.close()
        self._gpus.close()
        if self._server is not None:
            await self._server.close(STOP_MARGIN_S)
        await self.context.upstream.close()
        await asyncio.gather(asyncio.to_thread(self.journal.close), asyncio.to_thread(self._tracing.close))
        self._proxy_log.remove()
        self._stdout.close()

    async def run(self) -> int:
        """Start, serve until told to stop, stop. Returns the exit code."""
        event_loop = asyncio.get_running_loop()
        for number in (signal.SIGTERM, signal.SIGINT):
            event_loop.add_signal_handler(number, self.request_stop)
        event_loop.add_signal_handler(signal.SIGHUP, self.request_reload)
        try:
            await self.start()
            _spare_what_stays()
            await self.stopping.wait()
        finally:
            await self.stop()
        return self.exit_code


@asynccontextmanager
async def running_app(
    options: Options, read_config: Callable[[], Loaded], read_gpus: Reader | None = None
) -> AsyncIterator[App]:
    """Run llmswap inside another program (the demo, tests), for as long as the block lasts."""
    app = App(options, read_config, read_gpus)
    try:
        await app.start()
        yield app
    finally:
        await app.stop()


def _spare_what_stays() -> None:
    """Take what the start has made out of what garbage is looked for in: each look held the event loop for 40 ms."""
    gc.collect()
    gc.freeze()
    gc.set_threshold(GARBAGE_AFTER)


def reader(options: Options) -> Callable[[], Loaded]:
    """Give the function that reads the options' config files."""
    return lambda: load(options.config, options.config_dir, os.environ)


def _launches(loaded: Loaded) -> dict[ModelId, Launch]:
    return {model.id: model.launch for model in loaded.settings.models.values()}


def _all_down(snapshot: Snapshot) -> bool:
    return all(view.state is State.SHUTDOWN for view in snapshot.upstreams.values())
