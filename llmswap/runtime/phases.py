"""Stretches of what is done to one upstream: begun, ended however that comes about, and then told."""

import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass

from llmswap.core.events import Generation
from llmswap.core.fleet import ModelId
from llmswap.runtime.observing import Phase, PhaseKind, PhaseObserver
from llmswap.runtime.process import Process

CUT_SHORT = "cut short: it ended, or was to stop"


def untold(phase: Phase) -> None:
    """Tell nobody."""
    del phase


@dataclass(slots=True)
class Findings:
    """What is found out during a phase. As in Phase."""

    error: str = ""
    call: str = ""
    status: int | None = None
    changes: Sequence[tuple[float, str]] = ()
    probes: int = 0
    freed_bytes: int | None = None


class Phases:
    """Tells the phases of one life.

    Args:
        tell: Who is told of each when it is over.
        hide: Takes secrets out of a text.
    """

    def __init__(self, model: ModelId, generation: Generation, tell: PhaseObserver, hide: Callable[[str], str]) -> None:
        self._model = model
        self._generation = generation
        self._tell = tell
        self._hide = hide

    @contextmanager
    def during(self, kind: PhaseKind, process: Callable[[], Process | None] = lambda: None) -> Iterator[Findings]:
        """A phase for as long as the block lasts; an error that leaves the block is what went wrong.

        `process` gives the leader as the phase ends, alive or just dead.
        """
        found, began_s = Findings(), time.monotonic()
        try:
            yield found
        except Exception as error:
            found.error = found.error or self._hide(str(error) or type(error).__name__)
            raise
        except BaseException:
            found.error = found.error or CUT_SHORT
            raise
        finally:
            leader = process()
            ended = leader.exited.result() if leader is not None and leader.exited.done() else None
            self._tell(
                Phase(
                    self._model,
                    self._generation,
                    kind,
                    began_s,
                    time.monotonic(),
                    found.error,
                    found.call,
                    found.status,
                    None if leader is None else leader.pid,
                    tuple(found.changes),
                    None if ended is None else ended.code,
                    found.freed_bytes,
                    found.probes,
                )
            )
