"""How an upstream falls asleep and wakes: steps in order, then proof. It decides nothing and posts nothing.

A 2xx proves little (vLLM gives one for a sleep that freed nothing and for a wake of an unknown tag), so what an engine
says of itself and the device memory it holds are looked at afterwards. What cannot be told is noted, not held against
it. After the first thing that goes wrong the engine is not asked again: it may still be at work on the last request.
"""

import asyncio
import contextlib
import logging
import time
from collections.abc import AsyncIterator, Callable, Coroutine, Iterator
from dataclasses import dataclass
from typing import Protocol, TypeVar

import orjson

from llmswap.config.settings import Launch, MemorySettings, Sleeping, SleepQuery, SleepStep
from llmswap.runtime.canary import Canary, CanaryDied
from llmswap.runtime.control import Answer, Control, NoAnswer
from llmswap.runtime.freeing import Footprint, Freed
from llmswap.runtime.observing import PhaseKind
from llmswap.runtime.phases import Findings, Phases

log = logging.getLogger(__name__)

QUERY_TIMEOUT_S = 5.0
# Some engines answer a moment before it is done.
SETTLE_S = 1.0
# From the last step of a wake until `check_path` answers 200. SGLang's /health may take 20 s by itself.
AWAKE_TIMEOUT_S = 30.0
# How often what a life holds is looked at, and a sleeper asked whether all is well; and how often in a row not.
VIGIL_S = 30.0
# So long after a change: whoever waited for it goes first.
FIRST_LOOK_S = 0.5
DOUBTS = 2
_POLL_S = 0.05
# Contexts, graphs and allocators stay on the device, however small the model: the least that an engine may keep.
RESIDUE_BYTES = 2 << 30
_RESIDUE_SHARE = 0.1
# With more than this still held, nothing was freed at all.
_UNFREED_SHARE = 0.98
_NO_SUCH_ROUTE = frozenset({404, 405, 501})
_SHOWN_CHARS = 200
_GIB = 1 << 30

T = TypeVar("T")


class SagaFailed(Exception):
    """A sleep or a wake came to nothing; the message is one line that begins with our own words.

    Attributes:
        lasting: It will not go better next time.
        lost: The connection broke: perhaps the process is about to be found dead, which says more.
    """

    def __init__(self, message: str, *, lasting: bool = False, lost: bool = False) -> None:
        super().__init__(message)
        self.lasting = lasting
        self.lost = lost


@dataclass(frozen=True, slots=True)
class Doubt:
    """Why a sleeper should go.

    Attributes:
        awake: It holds its device memory again.
    """

    reason: str
    awake: bool = False


class Measure(Protocol):
    """Takes note in the footprint of what the whole tree holds now."""

    async def __call__(self, *, awake: bool) -> None:
        """Look; `awake`: they hold what they need to serve."""


class Sleeper:
    """Puts one upstream to sleep and wakes it.

    Args:
        launch: With the port filled in; its `sleeping` is not None.
        measure: Looks at what it holds.
        memory: Gives the settings in force.
        phases: Told of what is done.
    """

    def __init__(  # noqa: PLR0913, PLR0917
        self,
        launch: Launch,
        control: Control,
        footprint: Footprint,
        measure: Measure,
        memory: Callable[[], MemorySettings],
        phases: Phases,
    ) -> None:
        assert launch.sleeping is not None
        self._model = launch.model
        self._how: Sleeping = launch.sleeping
        self._check_path = launch.check_path
        self._control = control
        self._footprint = footprint
        self._measure = measure
        self._memory = memory
        self._phases = phases
        self._canary = Canary(control, self._note)
        self._freed_bytes = 0
        self._noted: set[str] = set()

    async def sleep(self) -> int | None:
        """Put it to sleep. It must be idle.

        Returns:
            The host memory that it keeps, in bytes; None if nobody can tell.

        Raises:
            SagaFailed: What it holds now is unknown.
        """
        async with contextlib.AsyncExitStack() as meanwhile:
            with self._phases.during(PhaseKind.SLEEP):
                async with self._control.conversation():
                    await self._fall_asleep()
                    # The driver is asked while the engine answers, because the swap waits for both.
                    freed = None
                    if self._how.verify_memory:
                        freed = await meanwhile.enter_async_context(_begun(self._see_freed()))
                    await self._confirm(asleep=True)
                    host_bytes = await self._footprint.host_bytes()
            if freed is not None:
                with self._phases.during(PhaseKind.FREE_WAIT) as phase:
                    phase.freed_bytes = await freed
        return host_bytes

    async def _fall_asleep(self) -> None:
        if self._how.canary:
            with _told("before the sleep"):
                await self._canary.learn()
        # While it serves it is looked at often enough (`stand_by`); to ask the driver now would only delay the swap.
        if not self._footprint.recall_awake():
            await self._measure(awake=True)
        await self._walk("sleep", self._how.sleep)

    async def wake(self) -> None:
        """Wake it until it can serve.

        Raises:
            SagaFailed: What it holds now is unknown.
        """
        async with self._control.conversation():
            with self._phases.during(PhaseKind.WAKE):
                lack = await self._footprint.lacks_host_memory(self._freed_bytes)
                if lack is not None:
                    raise SagaFailed(f"too little host memory for a wake: {lack}")
                await self._walk("wake", self._how.wake)
                told = await self._confirm(asleep=False)
            if self._how.awake_check and self._check_path is not None and not told:
                with self._phases.during(PhaseKind.HEALTH_WAIT) as phase:
                    await self._until_ready(self._check_path, phase)
            if self._how.warmup or self._how.canary:
                with self._phases.during(PhaseKind.WARMUP), _told("after the wake"):
                    await self._canary.hear(compare=self._how.canary)

    async def doubt(self) -> Doubt | None:
        """Ask a sleeper whether all is well, by its state query: a route that neither wakes it nor needs its memory.

        `/health` would not do: on some engines it generates a token, which on released memory is their death.

        Returns:
            Why it should go, or None: also if it has no such query, or does not answer that for now.
        """
        query = self._how.query
        if query is None:
            return None
        try:
            answer = await self._control.ask("GET", query.endpoint, timeout_s=QUERY_TIMEOUT_S)
        except NoAnswer:
            return None
        if answer.status >= 500:
            return Doubt(f"its engine is dead, the state query answered {answer.status}: {_shown(answer)}")
        if _state(answer, query) is False:
            return Doubt(f"it woke without being asked: {query.endpoint} says so", awake=True)
        return None

    async def _walk(self, what: str, steps: tuple[SleepStep, ...]) -> None:
        for number, step in enumerate(steps, 1):
            name = f"{what} step {number} of {len(steps)}"
            call = f"{step.method} {step.endpoint}"
            with self._phases.during(PhaseKind.CALL) as phase:
                phase.call = call
                try:
                    answer = await self._control.ask(step.method, step.endpoint, step.body, timeout_s=step.timeout_s)
                except NoAnswer as error:
                    raise SagaFailed(f"{name} {error}: {call}", lost=error.lost) from error
                phase.status = answer.status
            if answer.status in _NO_SUCH_ROUTE:
                hint = "vLLM has this route only with VLLM_SERVER_DEV_MODE=1 in its environment"
                raise SagaFailed(f"{name} answered {answer.status}: {call} ({hint})", lasting=True)
            if not answer.good:
                raise SagaFailed(f"{name} answered {answer.status}: {call}: {_shown(answer)}")

    async def _confirm(self, *, asleep: bool) -> bool:
        """Ask whether it sleeps, until it says what it should say. False if it cannot be asked."""
        query, deadline_s = self._how.query, time.monotonic() + SETTLE_S
        while query is not None:
            says = await self._says(query)
            if says is None or says is asleep:
                return says is not None
            if time.monotonic() >= deadline_s:
                still = "awake" if asleep else "asleep"
                raise SagaFailed(f"every step succeeded, but it is still {still}: GET {query.endpoint} says so")
            await asyncio.sleep(_POLL_S)
        return False

    async def _says(self, query: SleepQuery) -> bool | None:
        """Give its state as it says; None if this version of the engine cannot be asked."""
        try:
            answer = await self._control.ask("GET", query.endpoint, timeout_s=QUERY_TIMEOUT_S)
        except NoAnswer as error:
            raise SagaFailed(f"the state query {error}: GET {query.endpoint}", lost=error.lost) from error
        if answer.status not in _NO_SUCH_ROUTE and not answer.good:
            raise SagaFailed(f"the state query answered {answer.status}: GET {query.endpoint}: {_shown(answer)}")
        state = _state(answer, query) if answer.good else None
        if state is None:
            self._note(f"cannot tell whether it sleeps: GET {query.endpoint} answered {answer.status} {_shown(answer)}")
        return state

    async def _see_freed(self) -> int | None:
        """Give how much came free; None if nobody can tell."""
        before = self._footprint.held_bytes
        allowed = self._how.residual_bytes
        if allowed is None:
            allowed = max(int(before * _RESIDUE_SHARE), min(RESIDUE_BYTES, before // 2))
        # What was not measured before is not waited for: a watch in the dark gives it time, as is right after a stop.
        unknown = self._footprint.unknown
        freed = Freed(None, None, unknown) if unknown else await self._footprint.freed(allowed, self._memory().cap_s)
        if freed.ok is None:
            self._note(f"cannot tell whether its device memory is free: {freed.reason}")
            return None
        left = freed.left_bytes if freed.left_bytes is not None else before
        if not freed.ok:
            unfreed = left >= before * _UNFREED_SHARE
            hint = " (vLLM frees it only with --enable-sleep-mode, SGLang with --enable-memory-saver)"
            amount = f"{left / _GIB:.1f} of {before / _GIB:.1f} GiB left, {allowed / _GIB:.1f} GiB may stay"
            told = f": {freed.reason}" if freed.reason else ""
            raise SagaFailed(f"device memory is not free after every step, {amount}{hint if unfreed else ''}{told}",
                             lasting=unfreed)  # fmt: skip
        self._freed_bytes = max(0, before - left)
        return self._freed_bytes

    async def _until_ready(self, path: str, phase: Findings) -> None:
        deadline_s = time.monotonic() + AWAKE_TIMEOUT_S
        while True:
            try:
                left_s = max(_POLL_S, deadline_s - time.monotonic())
                answer = await self._control.ask("GET", path, timeout_s=left_s)
            except NoAnswer as error:
                raise SagaFailed(f"not ready after the wake, it {error}: GET {path}", lost=error.lost) from error
            finally:
                phase.probes += 1
            said = f"answered {answer.status}"
            if not phase.changes or phase.changes[-1][1] != said:
                phase.changes = (*phase.changes, (time.monotonic(), said))
            if answer.status == 200:
                return
            if time.monotonic() >= deadline_s:
                raise SagaFailed(f"not ready {AWAKE_TIMEOUT_S:g} s after the wake: GET {path} answered {answer.status}")
            await asyncio.sleep(_POLL_S)

    def _note(self, text: str) -> None:
        """Log what could not be told, once."""
        if text not in self._noted:
            self._noted.add(text)
            log.warning("%s: %s", self._model, text)


async def stand_by(measure: Measure, sleeper: Sleeper | None) -> Doubt:
    """Take note of what an upstream holds from time to time, and look after it if it sleeps. Runs on.

    Args:
        measure: Takes that note.
        sleeper: If it sleeps.

    Returns:
        Why a sleeper has to go: its engine died while its HTTP server lives on, say.
    """
    doubts = 0
    await asyncio.sleep(FIRST_LOOK_S)
    while True:
        await measure(awake=sleeper is None)
        await asyncio.sleep(VIGIL_S)
        doubt = None if sleeper is None else await sleeper.doubt()
        doubts = doubts + 1 if doubt else 0
        if doubt and doubts >= DOUBTS:
            return doubt


@contextlib.asynccontextmanager
async def _begun(work: Coroutine[None, None, T]) -> AsyncIterator["asyncio.Task[T]"]:
    """Begin some work that the block may wait for; what is not done at its end is ended."""
    task = asyncio.create_task(work)
    try:
        await asyncio.sleep(0)  # else it would begin only when the block waits for something
        yield task
    finally:
        task.cancel()
        await asyncio.gather(task, return_exceptions=True)


@contextlib.contextmanager
def _told(when: str) -> Iterator[None]:
    """Make of a canary's death a failure of the sleep or the wake."""
    try:
        yield
    except CanaryDied as death:
        raise SagaFailed(f"{when}, {death}", lost=death.lost) from death


def _state(answer: Answer, query: SleepQuery) -> bool | None:
    try:
        value = orjson.loads(answer.body)[query.field] if answer.good else None
    except (ValueError, LookupError, TypeError):
        return None
    return value if isinstance(value, bool) else None


def _shown(answer: Answer) -> str:
    text = " ".join(answer.body.decode(errors="replace").split())
    return text[:_SHOWN_CHARS] or "(no text)"
