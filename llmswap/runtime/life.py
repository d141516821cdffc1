"""One life of an upstream: spawned, ready, gone. Each fact is posted as it becomes true, and only then."""

import asyncio
import contextlib
import ipaddress
import logging
from collections.abc import Callable, Collection, Coroutine, Iterable, Sequence
from dataclasses import dataclass

from llmswap.config.command import split
from llmswap.config.settings import PORT_MACRO, Launch, MemorySettings
from llmswap.core.events import (
    Event,
    Generation,
    SleepFailed,
    StartFailed,
    StopFailed,
    UpstreamAsleep,
    UpstreamExited,
    UpstreamReady,
    UpstreamStopped,
    WakeFailed,
)
from llmswap.runtime.containers import DAEMON_FAILED, Container, find
from llmswap.runtime.control import Control
from llmswap.runtime.freeing import Footprint, MemoryWatch, until_freed
from llmswap.runtime.logbook import LogBook
from llmswap.runtime.observing import PhaseKind, PhaseObserver, StartEnviron
from llmswap.runtime.phases import CUT_SHORT, Phases
from llmswap.runtime.ports import IpAddress, foreigner, holder, is_free, is_local, pick_free
from llmswap.runtime.process import Process
from llmswap.runtime.readiness import Prober, Target
from llmswap.runtime.redaction import secrets_in
from llmswap.runtime.sleeping import Doubt, SagaFailed, Sleeper, stand_by
from llmswap.runtime.spawn import SpawnError
from llmswap.runtime.start_errors import NoRoomError, NotReadyError, PortTakenError, StartError
from llmswap.runtime.stopping import ask_to_stop, clear, look, unless
from llmswap.runtime.tree import Proc, describe
from llmswap.runtime.voice import REASON_CHARS, Voice

log = logging.getLogger(__name__)

# A start that failed has nothing worth saving: it gets no more than this to end.
FAILED_GRACE_S = 5.0
# A connection that breaks off in a sleep or wake is mostly a death; that tells the reason, if it follows so soon.
EXIT_FOLLOWS_S = 0.25
_PID_MACRO = "${PID}"

Order = Callable[[Sleeper | None], Coroutine[None, None, Event]]


@dataclass(frozen=True, slots=True)
class House:
    """What a life needs of its supervisor.

    Attributes:
        reserved: Gives the ports that other lives use or are about to.
        record: Notes who is in the tree, for a next life of llmswap to find.
        over: Told when nothing is left of a life, just before its last event is posted.
        watch: Measures memory.
        memory: Gives the settings in force of when memory is free.
        phase: Told of what is done to it; `environ`: gives variables for its processes, below the configured ones.
    """

    post: Callable[[Event], None]
    logs: LogBook
    instance: str
    reserved: Callable[["Life"], Collection[int]]
    record: Callable[["Life", Iterable[Proc]], None]
    over: Callable[["Life"], None]
    watch: MemoryWatch
    memory: Callable[[], MemorySettings]
    phase: PhaseObserver
    environ: StartEnviron


class Life:
    """Runs one upstream from Start to its end, in one task. Of device memory it is known to need `needs_bytes`, if any.

    Attributes:
        base_url: Where it listens; settled once it is ready.
        port: The port given to it by `${PORT}`, once that is settled.
        footprint: What it holds; `launched`: how it was to be started.
    """

    def __init__(self, launch: Launch, generation: Generation, house: House, needs_bytes: int = 0) -> None:
        loop = asyncio.get_running_loop()
        self.model = launch.model
        self.generation = generation
        self.base_url = launch.proxy
        self._movable = launch.port is not None and PORT_MACRO in launch.cmd
        self.port: int | None = None
        self._needs_bytes = needs_bytes
        self.launched = launch
        self._launch = launch  # with the port filled in, once that is settled
        self._house = house
        house.logs.conceal(launch.model, secrets_in(launch.cmd, launch.env))
        self._voice = Voice(launch.model, house.logs)
        self._phases = Phases(launch.model, generation, house.phase, self._voice.hide)
        self._process: Process | None = None
        self._helper: Process | None = None
        self._container: Container | None = None
        self._stop: asyncio.Future[None] = loop.create_future()
        self._hurry: asyncio.Future[None] = loop.create_future()
        self._order: asyncio.Future[Order] = loop.create_future()
        self.footprint = Footprint(house.watch)
        self._exited = self._failed = self._last = False
        self._stuck_reason: str | None = None
        self.task = loop.create_task(self._live(), name=f"upstream {self.tag}")

    @property
    def tag(self) -> str:
        """The value of LLMSWAP_INSTANCE in this life's processes."""
        # The generation comes first, because tags match by leading parts, and `qwen:7` may be a model beside `qwen`.
        return f"{self._house.instance}:{self.generation}:{self.model}"

    @property
    def pid(self) -> int | None:
        """The leader's pid, from spawn until the whole tree is gone."""
        return None if self._process is None else self._process.pid

    @property
    def children(self) -> set[int]:
        """Pids that are ours to reap: the leader and a running `cmdStop`."""
        return {process.pid for process in (self._process, self._helper) if process is not None}

    def sleep(self) -> None:
        """Put it to sleep. It must be up and awake, and nothing in flight."""
        self._order.set_result(self._fall_asleep)

    def wake(self) -> None:
        """Wake it. It must be asleep."""
        self._order.set_result(self._rise)

    def stop(self, *, force: bool, last: bool = False) -> None:
        """End it, in whatever state it is. A second call can only make it faster.

        Args:
            force: Without its grace.
            last: Nothing will be started after it: whether its memory is free concerns nobody.
        """
        self._last = self._last or last
        if not self._stop.done():
            self._stop.set_result(None)
            self._tell_stuck()
        if force and not self._hurry.done():
            self._hurry.set_result(None)

    async def _live(self) -> None:
        failure = await self._start()
        self._failed = failure is not None
        if failure is None and not self._stop.done():
            self._house.post(UpstreamReady(self.model, self.generation))
            await self._serve()
        await self._end()
        self._house.over(self)
        if failure is not None and not self._stop.done():
            timed_out = isinstance(failure, NotReadyError)
            lacking = not timed_out and (self._voice.lacked_memory or isinstance(failure, NoRoomError))
            self._house.post(StartFailed(self.model, self.generation, str(failure)[:REASON_CHARS], timed_out, lacking))
        else:
            self._house.post(UpstreamStopped(self.model, self.generation))

    async def _serve(self) -> None:
        """Stay up; sleep and wake on order, one at a time, until it dies or is to stop."""
        process = self._process
        assert process is not None
        sleeper, asleep = self._sleeper(), False
        doubt: Doubt | None = None
        while not (doubt or process.exited.done() or self._stop.done()):
            watched = sleeper if asleep else None
            found = await unless(stand_by(self._measure, watched), process.exited, self._stop, self._order)
            if self._order.done():
                asleep = await self._obey(process, sleeper)
            else:
                doubt = found
        if not self._stop.done():
            awake = False
            if doubt is None or process.exited.done():
                reason = self._voice.with_last_words(str(process.exited.result()))
            else:
                reason, awake = self._voice.hide(doubt.reason), doubt.awake
            self._exited = True
            self._house.post(UpstreamExited(self.model, self.generation, reason, awake))

    async def _obey(self, process: Process, sleeper: Sleeper | None) -> bool:
        """Carry out the order that was given, and tell what came of it. True if it sleeps now."""
        order, self._order = self._order.result(), asyncio.get_running_loop().create_future()
        outcome = await unless(order(sleeper), process.exited, self._stop)
        if outcome is not None:
            self._house.post(outcome)
        return isinstance(outcome, UpstreamAsleep)

    async def _fall_asleep(self, sleeper: Sleeper | None) -> Event:
        if sleeper is None:  # a reload has added the way to sleep since it was started
            return SleepFailed(self.model, self.generation, "it was started without a way to sleep", lasting=True)
        try:
            host_bytes = await sleeper.sleep()
        except SagaFailed as failure:
            await self._let_exit(failure)
            return SleepFailed(self.model, self.generation, self._voice.hide(str(failure)), failure.lasting)
        return UpstreamAsleep(self.model, self.generation, host_bytes)

    async def _rise(self, sleeper: Sleeper | None) -> Event:
        assert sleeper is not None, "what cannot sleep is not asleep"
        try:
            await sleeper.wake()
        except SagaFailed as failure:
            await self._let_exit(failure)
            return WakeFailed(self.model, self.generation, self._voice.hide(str(failure)), failure.lasting)
        return UpstreamReady(self.model, self.generation)

    async def _let_exit(self, failure: SagaFailed) -> None:
        if failure.lost:
            await asyncio.sleep(EXIT_FOLLOWS_S)  # its exit would end this saga

    def _sleeper(self) -> Sleeper | None:
        if self._launch.sleeping is None:
            return None
        control = Control(self.base_url, Target(self._launch).host_header)
        return Sleeper(self._launch, control, self.footprint, self._measure, self._house.memory, self._phases)

    async def _measure(self, *, awake: bool) -> None:
        assert self._process is not None
        with contextlib.suppress(OSError):  # no descriptor left to look with: what was seen last has to do
            await self.footprint.measure(await look(self._process.tree), awake=awake)

    async def _start(self) -> StartError | None:
        """Bring it up; give what failed. Returns early when told to stop."""
        try:
            try:
                await self._attempt(self.launched.port)
            except PortTakenError as taken:
                if not self._movable or self._stop.done():
                    raise
                log.warning("%s: %s; trying another port", self.model, taken)
                await self._end()
                self.footprint = Footprint(self._house.watch)  # the pids of the first attempt mean nobody any more
                await self._attempt(None)
        except StartError as error:
            return error
        except OSError as error:  # the system has no descriptor, port or process to give
            return StartError(f"cannot start: {error.strerror}")
        return None

    async def _attempt(self, port: int | None) -> None:
        if self._stop.done():
            return
        if not self.launched.proxy:
            raise StartError("its proxy URL is empty")
        with self._phases.during(PhaseKind.START, lambda: self._process):
            process = await self._spawn(port)
        if self._launch.check_path is not None:
            async with self.footprint.loading(lambda: look(process.tree)):
                await self._become_ready(process, Target(self._launch))

    async def _spawn(self, port: int | None) -> Process:
        if not self._house.memory().start_anyway and (
            lack := await self.footprint.lacks_host_memory(self._needs_bytes)
        ):
            raise NoRoomError(f"too little host memory for a start: {lack}")
        launch = self._launch = await self._settle(port)
        argv = split(launch.cmd)
        if (container := find(argv, self.tag, self._help)) is not None:
            taken = await container.name_taken(self._stop)
            if taken or self._stop.done():
                raise StartError(taken)
            self._container, argv = container, container.argv
        own = (f"{key}={value}" for key, value in self._house.environ(self.model, self.generation).items())
        try:
            process = self._process = Process(argv, [*own, *launch.env], self.tag, self._voice.hear)
        except SpawnError as error:
            raise StartError(str(error)) from error
        self._house.record(self, [process.leader])
        self.base_url = launch.proxy.rstrip("/")
        return process

    async def _settle(self, port: int | None) -> Launch:
        """Choose the port: the configured one, or another if that is taken and the command takes what it is given."""
        launch = self.launched
        if self._movable:
            reserved = self._house.reserved(self)
            if port is None or port in reserved or not is_free(port):
                moved = pick_free(reserved)
                log.info("%s: port %s is taken, using %s", self.model, port, moved)
                port = moved
            self.port = port
            return launch.at_port(port)
        target = Target(launch)
        if target.is_here and target.ownable and not is_free(target.port):
            owner = await asyncio.to_thread(holder, target.port)
            raise PortTakenError(f"port {target.port} is taken by {owner or 'somebody'}")
        return launch

    async def _become_ready(self, process: Process, target: Target) -> None:
        prober = Prober(target)
        with self._phases.during(PhaseKind.HEALTH_WAIT, lambda: process) as phase:
            phase.changes = prober.changes
            try:
                async with asyncio.timeout(self._launch.ready_timeout_s):
                    peer = await unless(prober.until_ready(), process.exited, self._stop)
            except TimeoutError:
                waited = f"not ready after {self._launch.ready_timeout_s:g} s"
                last = f"{self._launch.proxy}{self._launch.check_path} {prober.last}"
                raise NotReadyError(f"{waited}: {last}") from None
            finally:
                phase.probes = prober.asked
            if self._stop.done():
                phase.error = CUT_SHORT
                return
            if peer is None:
                raise await self._death(process, target)
            await self._check_owner(process, target, peer)

    async def _check_owner(self, process: Process, target: Target, peer: IpAddress) -> None:
        """Insist that the answer came from our own tree."""
        self.base_url = target.pinned(peer)
        members = await look(process.tree)
        self._house.record(self, members)
        if not target.ownable or not is_local(peer):
            return
        stranger = await asyncio.to_thread(foreigner, target.port, peer, [proc.pid for proc in members])
        if process.exited.done():
            raise await self._death(process, target)
        if stranger is not None:
            raise PortTakenError(f"port {target.port} is taken by {stranger}; if that is meant to be, set trustProxy")

    async def _death(self, process: Process, target: Target) -> StartError:
        """Say why it died: perhaps because somebody took its port between our check and its bind."""
        if self._movable and not is_free(target.port):
            members = await look(process.tree)
            address = ipaddress.ip_address(target.addresses[0])
            stranger = await asyncio.to_thread(foreigner, target.port, address, [proc.pid for proc in members])
            if stranger is not None:
                return PortTakenError(f"port {target.port} was taken by {stranger} meanwhile")
        ended = process.exited.result()
        hint = " (it must stay in the foreground)" if ended.code == 0 else ""
        return StartError(self._voice.with_last_words(f"{ended} during start{hint}"))

    async def _end(self) -> None:
        """Leave nothing of the process tree, if there is one, nor of its memory."""
        if (process := self._process) is not None:
            with self._phases.during(PhaseKind.STOP, lambda: process):
                await self._bring_down(process)
            await self._until_freed()

    async def _bring_down(self, process: Process) -> None:
        if not process.exited.done() and not self._hurry.done():
            grace_s = self._launch.stop_grace_s
            if not self._stop.done():
                grace_s = min(grace_s, FAILED_GRACE_S)
            members = await look(process.tree)  # while families are whole: who is seen now is found later
            if not self._last:
                await unless(self.footprint.measure(members), self._hurry)
            await ask_to_stop(process, self._stopper(process), grace_s, self._hurry)
        await clear(process.tree, polite=process.exited.done(), hurry=self._hurry, on_stuck=self._stuck)
        ended = await process.exited
        if self._container is not None:
            born = self._exited or ended.code != DAEMON_FAILED
            await self._container.remove(self._hurry, born=born, last=lambda: self._last, on_stuck=self._keep_stuck)
        process.release()
        self._process = self._helper = self._container = None

    async def _until_freed(self) -> None:
        """Wait until the device memory of the tree, which is gone, is free; or for what is to be done if it stays."""
        if self._last:
            return
        with self._phases.during(PhaseKind.FREE_WAIT) as phase:
            freed = await until_freed(
                self.footprint, self.model, self._house.memory, lambda: self._last, self._hurry, self._memory_stuck
            )
            phase.error = self._stuck_reason or ""
            if freed is not None and freed.left_bytes is not None:
                phase.freed_bytes = max(0, self.footprint.held_bytes - freed.left_bytes)

    def _stopper(self, process: Process) -> Callable[[], Process] | None:
        argv = split(self._launch.cmd_stop.replace(_PID_MACRO, str(process.pid)))
        return (lambda: self._help(argv, self._voice.hear)) if argv else None

    def _help(self, argv: Sequence[str], sink: Callable[[bytes], None]) -> Process:
        self._helper = Process(argv, self._launch.env, f"{self.tag}:stop", sink)
        return self._helper

    def _stuck(self, left: list[Proc]) -> None:
        self._keep_stuck(f"cannot be killed: {', '.join(describe(proc.pid) for proc in left)}")

    def _memory_stuck(self, reason: str) -> None:
        self._stuck_reason = reason
        log.error("%s is gone, but %s", self.model, reason)
        self._tell_stuck()

    def _keep_stuck(self, reason: str) -> None:
        self._stuck_reason = self._voice.hide(reason)
        log.error("%s %s", self.model, self._stuck_reason)
        self._tell_stuck()

    def _tell_stuck(self) -> None:
        """Post StopFailed, once somebody can make something of it: before a start has failed it is only a doubt."""
        if self._stuck_reason is not None and (self._stop.done() or self._exited or self._failed):
            self._house.post(StopFailed(self.model, self.generation, self._stuck_reason))
