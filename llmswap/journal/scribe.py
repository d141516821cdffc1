"""The thread that writes a journal, so that only a thread waits for a disk. Fails, waits and tries again by itself."""

import logging
import threading
import time
from collections import deque
from dataclasses import dataclass

from llmswap import __version__
from llmswap.config.settings import JournalSettings
from llmswap.core.fleet import Fleet
from llmswap.journal.codec import VERSION, Header, encode_header
from llmswap.journal.files import JournalFile

log = logging.getLogger(__name__)

FLUSH_S = 0.5
FIRST_RETRY_S = 1.0
LAST_RETRY_S = 60.0
_CHUNK_BYTES = 1 << 16


@dataclass(frozen=True, slots=True)
class Mark:
    """Stands between lines and says which step comes next, and under which fleet."""

    number: int
    fleet: Fleet


class Scribe:
    """Writes lines to the file it is directed to.

    Attributes:
        items: What to write, in order, a mark before the first line. The event loop appends, the thread takes.
        taken_bytes: How much of the lines is written so far.
        complaint: Why it cannot write at present; empty while it can.
    """

    def __init__(self, run: str) -> None:
        self.items: deque[bytes | Mark] = deque()
        self.taken_bytes = 0
        self._run_id = run
        self._settings: JournalSettings | None = None  # where to; stays when switched off, for what waits
        self._on = False
        self._file: JournalFile | None = None
        self._chunk: list[bytes] = []  # taken from the items, and not written yet
        self._next: Mark | None = None
        self._header_due = True
        self.complaint = ""
        self._ending = False
        self._work = threading.Event()
        self._hurry = threading.Event()
        self._thread = threading.Thread(target=self._run, name="llmswap-journal", daemon=True)
        self._thread.start()

    def direct(self, target: JournalSettings | None) -> None:
        """Say where to write from now on; None: nowhere, once what waits is written."""
        self._on = target is not None
        self._settings = target or self._settings
        self.wake(hurry=True)

    def wake(self, *, hurry: bool) -> None:
        """Say that there is something to do; without hurry it may gather more first."""
        if not self._work.is_set():
            self._work.set()
        if hurry and not self._hurry.is_set():
            self._hurry.set()

    def end(self, timeout_s: float) -> None:
        """Have it write what waits and end; wait for that long."""
        self._ending = True
        self.wake(hurry=True)
        self._thread.join(timeout_s)

    def _run(self) -> None:
        pause_s, ending = FLUSH_S, False
        while not ending:
            self._work.wait()
            self._work.clear()
            ending, on = self._ending, self._on  # before the items: what was put there earlier is written
            try:
                self._write_all()
                if not on:
                    self._close()
                pause_s = FLUSH_S
            except OSError as error:
                self._complain(error)
                pause_s = FIRST_RETRY_S if pause_s < FIRST_RETRY_S else min(2 * pause_s, LAST_RETRY_S)
                self._work.set()
            if not ending:
                self._hurry.wait(pause_s)
                self._hurry.clear()
        self._close()

    def _write_all(self) -> None:
        """Write what waits.

        Raises:
            OSError: It cannot be written now; what is left stays.
        """
        if self._file is not None and (self._file.settings != self._settings or not self._file.in_place()):
            self._close()
        while self.items or self._chunk:
            self._gather()
            if self._chunk:
                self._write_chunk()
        if self.complaint and self._file is not None:
            self.complaint = ""
            log.warning("the journal %s is being written again", self._file.settings.path)

    def _gather(self) -> None:
        """Take what comes next: marks, then lines up to the next mark."""
        while self.items and not self._chunk and isinstance(mark := self.items[0], Mark):
            self.items.popleft()
            self._header_due = self._header_due or self._next is None or mark.number != self._next.number
            self._next = mark
        length = sum(map(len, self._chunk))
        while self.items and length < _CHUNK_BYTES and isinstance(line := self.items[0], bytes):
            self.items.popleft()
            self._chunk.append(line)
            length += len(line)

    def _write_chunk(self) -> None:
        """Write as many lines of the chunk as the file has room for, at least one."""
        file = self._opened()
        header = self._header() if self._header_due else b""
        if not (file.fresh or file.fits(len(header) + len(self._chunk[0]))):
            file.rotate()
            header = self._header()
        count, length = 1, len(header) + len(self._chunk[0])
        for line in self._chunk[1:]:
            if not file.fits(length + len(line)):
                break
            count, length = count + 1, length + len(line)
        file.write(header + b"".join(self._chunk[:count]))
        self._header_due = False
        assert self._next is not None, "a mark comes before the first line"
        self._next = Mark(self._next.number + count, self._next.fleet)
        self.taken_bytes += length - len(header)
        del self._chunk[:count]

    def _opened(self) -> JournalFile:
        if self._file is None:
            assert self._settings is not None, "there are lines, so there was a target"
            self._file = JournalFile(self._settings)
            self._header_due = True
        return self._file

    def _header(self) -> bytes:
        assert self._next is not None, "a mark comes before the first line"
        header = Header(
            VERSION, __version__, self._run_id, self._next.number, time.time(), time.monotonic(), self._next.fleet
        )
        return encode_header(header)

    def _complain(self, error: OSError) -> None:
        """Say once what is wrong, until something else is or all is well."""
        self._close()
        complaint = error.strerror or str(error)
        if complaint != self.complaint:
            self.complaint = complaint
            path = self._settings.path if self._settings is not None else None
            log.error("cannot write the journal %s: %s; trying again now and then, steps may be lost", path, complaint)

    def _close(self) -> None:
        if self._file is not None:
            self._file.close()
            self._file = None
