"""A supervisor with real processes and a list of what it posted."""

import asyncio
import socket
import time
import uuid
from collections.abc import Callable
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import psutil

from llmswap.config.settings import Launch, MemorySettings
from llmswap.core.commands import Sleep, SleepCause, Start, StartCause, Stop, StopCause, Wake
from llmswap.core.events import Event, Generation
from llmswap.core.fleet import ModelId
from llmswap.runtime.freeing import MemoryWatch
from llmswap.runtime.logbook import LogBook
from llmswap.runtime.supervisor import Supervisor

M = ModelId("m")


async def until(condition: Callable[[], Any], what: str, within_s: float = 10.0) -> Any:
    """Poll a condition until it gives something true."""
    deadline_s = time.monotonic() + within_s
    while not (result := condition()):
        assert time.monotonic() < deadline_s, f"not within {within_s:g} s: {what}"
        await asyncio.sleep(0.005)
    return result


def free_port() -> int:
    """A port nobody listens on."""
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return probe.getsockname()[1]


def names_in(folder: Path) -> list[str]:
    """What a folder holds, sorted."""
    return sorted(path.name for path in folder.iterdir())


def alive(process: psutil.Process) -> bool:
    """Whether it runs; a zombie does not."""
    try:
        return process.is_running() and process.status() != psutil.STATUS_ZOMBIE
    except psutil.NoSuchProcess:
        return False


def tagged(tag: str) -> list[psutil.Process]:
    """Living processes whose LLMSWAP_INSTANCE begins with this."""
    found = []
    for process in psutil.process_iter():
        try:
            mine = process.environ().get("LLMSWAP_INSTANCE", "").startswith(tag)
            if mine and alive(process):
                found.append(process)
        except psutil.Error:
            continue
    return found


class Rig:
    """One supervisor; `start`, `stop`, `sleep` and `wake` give its commands, `next` waits for its answers."""

    def __init__(
        self, state_dir: Path | None = None, watch: MemoryWatch | None = None, memory: MemorySettings | None = None
    ) -> None:
        self.instance = uuid.uuid4().hex
        self.logs = LogBook()
        self.posted: list[tuple[float, Event]] = []
        self.read = 0
        self.launches: dict[ModelId, Launch] = {}
        self.fatal: list[BaseException] = []
        self.supervisor = Supervisor(
            self.launches,
            self._post,
            self.logs,
            instance=self.instance,
            state_dir=state_dir,
            watch=watch,
            memory=memory,
            on_fatal=self.fatal.append,
        )
        self._performers = self.supervisor.performers()

    def _post(self, event: Event) -> None:
        self.posted.append((time.monotonic(), event))

    def start(self, cmd: str, generation: int = 1, model: ModelId = M, **launch: Any) -> float:
        """Give Start for a model with this command; return the time."""
        if "port" not in launch and "${PORT}" in cmd:
            launch["port"] = free_port()
        launch.setdefault("proxy", "http://localhost:${PORT}" if "${PORT}" in cmd else "http://localhost:1")
        self.launches[model] = Launch(model=model, cmd=cmd, **launch)
        self._performers[Start](Start(model, Generation(generation), StartCause.REQUEST))
        return time.monotonic()

    def stop(
        self,
        generation: int = 1,
        model: ModelId = M,
        *,
        force: bool = False,
        cause: StopCause = StopCause.UNLOAD,
    ) -> float:
        """Give Stop; return the time."""
        self._performers[Stop](Stop(model, Generation(generation), cause, force=force))
        return time.monotonic()

    def sleep(self, generation: int = 1) -> None:
        """Give Sleep."""
        self._performers[Sleep](Sleep(M, Generation(generation), SleepCause.ORDER))

    def wake(self, generation: int = 1) -> None:
        """Give Wake."""
        self._performers[Wake](Wake(M, Generation(generation), StartCause.REQUEST))

    async def next(self, kind: type[Any], within_s: float = 10.0) -> Any:
        """Wait for the next event, which must be of this kind."""
        await until(lambda: len(self.posted) > self.read or self.fatal, f"{kind.__name__}\n{self.text()}", within_s)
        assert not self.fatal, self.fatal
        event = self.posted[self.read][1]
        assert isinstance(event, kind), f"{event}\n{self.text()}"
        self.read += 1
        return event

    @property
    def last_s(self) -> float:
        """When the event was posted that `next` gave last."""
        return self.posted[self.read - 1][0]

    def pid(self) -> int:
        """The leader's pid."""
        pid = self.supervisor.pid(M)
        assert pid is not None
        return pid

    def url(self, generation: int = 1) -> str:
        """The address of the ready upstream."""
        return self.supervisor.base_url(M, Generation(generation))

    def text(self, model: ModelId = M) -> str:
        """What the model printed."""
        return self.logs.model(model).history().decode(errors="replace")

    async def printed(self, text: str) -> None:
        """Wait until the model has printed this."""
        await until(lambda: text in self.text(), f"{text!r} in the log, which is {self.text()!r}")

    def survivors(self) -> list[psutil.Process]:
        """Living processes of this rig."""
        return tagged(self.instance)


@asynccontextmanager
async def supervised(
    state_dir: Path | None = None, watch: MemoryWatch | None = None, memory: MemorySettings | None = None
):
    """Run a rig; at its end nothing may be left."""
    rig = Rig(state_dir, watch, memory)
    await rig.supervisor.reclaim_orphans()
    try:
        yield rig
    finally:
        await rig.supervisor.close()
    assert not rig.fatal, rig.fatal
    assert rig.survivors() == []
