"""The observer that records the running program. The event loop only encodes a line; the scribe's thread writes it.

Whatever the disk does, it costs lines, never serving: a header tells the reader which steps are missing.
"""

import uuid

from llmswap.config.settings import JournalSettings
from llmswap.core.events import FleetReloaded
from llmswap.core.fleet import Fleet
from llmswap.core.step import Step
from llmswap.journal.codec import encode_step
from llmswap.journal.scribe import Mark, Scribe

BUFFER_BYTES = 4 << 20
CLOSE_LIMIT_S = 2.0


class Journal:
    """An observer that records every Step while it is switched on (`configure`).

    Args:
        fleet: In force before the first step.

    Attributes:
        dropped: Steps that were thrown away while it was switched on, because the buffer was full.
    """

    def __init__(self, fleet: Fleet, buffer_bytes: int = BUFFER_BYTES) -> None:
        self.dropped = 0
        self._fleet = fleet
        self._run = uuid.uuid4().hex
        self._buffer_bytes = buffer_bytes
        self._number = 0
        self._on = False
        self._broken_off = True  # the next line does not follow the last one, so a mark goes before it
        self._put_bytes = 0
        self._scribe: Scribe | None = None

    @property
    def trouble(self) -> str:
        """Why nothing can be written at present; empty if nothing keeps it from that."""
        return self._scribe.complaint if self._scribe is not None else ""

    def configure(self, settings: JournalSettings | None) -> None:
        """Record there from now on; None switches it off."""
        if settings is not None and self._scribe is None:
            self._scribe = Scribe(self._run)
        if self._scribe is not None:
            self._scribe.direct(settings)
        self._on = settings is not None
        self._broken_off = self._broken_off or not self._on

    def __call__(self, step: Step) -> None:
        """Take note of the step."""
        if self._on:
            self._record(step)
        self._number += 1
        if type(step.event) is FleetReloaded:
            self._fleet = step.event.fleet

    def _record(self, step: Step) -> None:
        scribe = self._scribe
        assert scribe is not None, "switched on without a scribe"
        waiting_bytes = self._put_bytes - scribe.taken_bytes
        # After a break half of the buffer must be free: a slow disk brings a few long gaps, not many short ones.
        limit_bytes = self._buffer_bytes // 2 if self._broken_off else self._buffer_bytes
        if waiting_bytes >= limit_bytes:
            self.dropped += 1
            self._broken_off = True
            return
        line = encode_step(step)
        if self._broken_off:
            scribe.items.append(Mark(self._number, self._fleet))
            self._broken_off = False
        scribe.items.append(line)
        if type(step.event) is FleetReloaded:
            scribe.items.append(Mark(self._number + 1, step.event.fleet))
        self._put_bytes += len(line)
        half = self._buffer_bytes // 2
        scribe.wake(hurry=waiting_bytes <= half < waiting_bytes + len(line))

    def close(self, timeout_s: float = CLOSE_LIMIT_S) -> None:
        """Write what waits, for at most that long, and record no more."""
        self._on = False
        if self._scribe is not None:
            self._scribe.end(timeout_s)
