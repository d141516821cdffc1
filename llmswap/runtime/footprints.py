"""What each model was seen to hold, ready and asleep: learned by looking, for plans, status and metrics."""

import asyncio
import contextlib
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field

from llmswap.core.events import Generation, UpstreamAsleep, UpstreamReady
from llmswap.core.fleet import ModelId
from llmswap.core.snapshot import Snapshot, UpstreamView
from llmswap.core.states import State
from llmswap.core.step import Step
from llmswap.runtime.freeing import Held, MemoryWatch
from llmswap.runtime.tree import families

# Engines grow while they serve; nobody needs to know sooner.
LOOK_S = 15.0
# So long after somebody came up or fell asleep: whoever waited for it goes first.
SETTLE_S = 0.5
_STATES = (State.READY, State.ASLEEP)


@dataclass(frozen=True, slots=True)
class Seen:
    """What one model holds in one state, in its latest life there.

    Attributes:
        by_gpu: Device memory in bytes by GPU uuid, when last seen.
        by_gpu_most: The most that was seen on each.
        host_bytes: An upper bound (shared pages count more than once); None if it could not be measured.
        problem: Why device memory could not be measured, in a line; empty if it was.
    """

    generation: Generation
    by_gpu: Mapping[str, int] = field(default_factory=dict)
    by_gpu_most: Mapping[str, int] = field(default_factory=dict)
    host_bytes: int | None = None
    host_most_bytes: int | None = None
    problem: str = ""


class Footprints:
    """Looks at every upstream that is ready or asleep, as soon as it is and every LOOK_S. An observer of the run loop.

    Args:
        leader: Gives the pid of a model's process; None if it has none.
    """

    def __init__(
        self, watch: MemoryWatch, snapshot: Callable[[], Snapshot], leader: Callable[[ModelId], int | None]
    ) -> None:
        self._watch = watch
        self._snapshot = snapshot
        self._leader = leader
        self._seen: dict[ModelId, dict[State, Seen]] = {}
        self._due = asyncio.Event()

    def __call__(self, step: Step) -> None:
        """Look soon, if somebody has come up or fallen asleep."""
        if isinstance(step.event, UpstreamReady | UpstreamAsleep):
            self._due.set()

    async def run(self) -> None:
        """Look for ever."""
        await self._watch.held(())  # a driver may take seconds to wake up: not when the first swap waits for it
        while True:
            self._due.clear()
            await self.look()
            with contextlib.suppress(
                TimeoutError
            ):  # not by wait_for: until Python 3.12 that may swallow a cancellation
                async with asyncio.timeout(LOOK_S):
                    await self._due.wait()
            await asyncio.sleep(SETTLE_S)

    def learned(self) -> Mapping[ModelId, Mapping[State, Seen]]:
        """Give what is known of the fleet's models. A copy."""
        return {model: dict(states) for model, states in self._seen.items()}

    async def look(self) -> None:
        """Look at all of them now."""
        upstreams = self._snapshot().upstreams
        for model in self._seen.keys() - upstreams.keys():
            del self._seen[model]
        awaited = {view.model: view for view in upstreams.values() if view.state in _STATES}
        leaders = {model: pid for model in awaited if (pid := self._leader(model)) is not None}
        if leaders:
            found = await asyncio.to_thread(families, leaders.values())
            # All at once: then they share one call of the driver.
            await asyncio.gather(
                *(self._measure(awaited[model], found[pid]) for model, pid in leaders.items() if pid in found)
            )

    async def _measure(self, view: UpstreamView, pids: set[int]) -> None:
        held = await self._watch.held(pids)
        host_bytes = await self._watch.host_bytes(pids)
        now = self._snapshot().upstreams.get(view.model)
        if now is not None and (now.state, now.since_s) == (view.state, view.since_s):  # else it was caught on the move
            states = self._seen.setdefault(view.model, {})
            states[view.state] = _updated(states.get(view.state), view.generation, held, host_bytes)


def _updated(old: Seen | None, generation: Generation, held: Held, host_bytes: int | None) -> Seen:
    if old is None or old.generation != generation:
        old = Seen(generation)
    most = dict(old.by_gpu_most)
    for gpu, used in held.by_device.items():
        most[gpu] = max(used, most.get(gpu, 0))
    host_most = max((known for known in (old.host_most_bytes, host_bytes) if known is not None), default=None)
    by_gpu = old.by_gpu if held.total_bytes is None else dict(held.by_device)
    return Seen(generation, by_gpu, most, host_bytes, host_most, held.reason)
