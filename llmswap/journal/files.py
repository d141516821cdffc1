"""The file a journal is written to, and those that were rotated away: `path`, `path.1` (newer) … `path.KEEP` (oldest).

One process writes a journal at a time; the lock is on the file itself. Knows bytes only, nothing of steps.
"""

import contextlib
import fcntl
import os
import stat
from pathlib import Path

from llmswap.config.settings import JournalSettings
from llmswap.journal.codec import MAGIC, may_be_header
from llmswap.journal.reader import rotated

_FLAGS = os.O_RDWR | os.O_APPEND | os.O_CREAT | os.O_CLOEXEC | os.O_NOFOLLOW | os.O_NONBLOCK
_OPEN_TRIES = 3


class RefusedError(OSError):
    """This path is not ours to write to."""

    def __init__(self, why: str) -> None:
        super().__init__(0, why)


class JournalFile:
    """The current file, open and locked.

    Attributes:
        settings: Where it is and how large it may become.
        size: In bytes; it ends with a whole line.
        fresh: It is empty: then it takes one line of any length.

    Raises:
        OSError: It cannot be written. So may every method; then `close` it.
    """

    def __init__(self, settings: JournalSettings) -> None:
        self.settings = settings
        settings.path.parent.mkdir(mode=0o700, parents=True, exist_ok=True)
        self._fd = _open(settings.path)
        try:
            self.size = _prepare(self._fd)
        except OSError:
            os.close(self._fd)
            raise
        self.fresh = self.size == 0

    def close(self) -> None:
        """Let go of it."""
        os.close(self._fd)

    def in_place(self) -> bool:
        """Say whether the path still leads to it: nobody removed or moved it."""
        return _leads_to(self.settings.path, self._fd)

    def fits(self, more_bytes: int) -> bool:
        """Say whether that much may be added."""
        return self.size + more_bytes <= self.settings.max_bytes

    def write(self, lines: bytes) -> None:
        """Add whole lines, all or none."""
        rest = memoryview(lines)
        try:
            while rest:
                rest = rest[os.write(self._fd, rest) :]
        except OSError:
            with contextlib.suppress(OSError):  # then its end is torn; whoever opens it next ends that line
                os.ftruncate(self._fd, self.size)
            raise
        self.size += len(lines)
        self.fresh = False

    def rotate(self) -> None:
        """Put the file aside, drop the oldest, and go on in a new one."""
        path, keep = self.settings.path, self.settings.keep
        for file in reversed(rotated(path)):
            number = int(file.suffix[1:])
            if number >= keep:
                file.unlink()
            else:
                file.rename(f"{path}.{number + 1}")
        if keep:
            path.rename(f"{path}.1")
        else:
            path.unlink()
        new = _open(path)
        os.close(self._fd)
        self._fd = new
        self.size = _prepare(new)
        self.fresh = True


def _open(path: Path) -> int:
    """Open and lock it; another process may move it away meanwhile."""
    for _ in range(_OPEN_TRIES):
        fd = os.open(path, _FLAGS, 0o600)
        try:
            if not stat.S_ISREG(os.fstat(fd).st_mode):
                raise RefusedError("it is not a regular file")
            fcntl.flock(fd, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            os.close(fd)
            raise RefusedError("another process writes its journal there") from None
        except OSError:
            os.close(fd)
            raise
        if _leads_to(path, fd):
            return fd
        os.close(fd)
    raise RefusedError("another process keeps moving it")


def _leads_to(path: Path, fd: int) -> bool:
    try:
        return os.path.samestat(path.stat(follow_symlinks=False), os.fstat(fd))
    except FileNotFoundError:
        return False


def _prepare(fd: int) -> int:
    """Make sure that lines can be added; gives its size."""
    status = os.fstat(fd)
    size = status.st_size
    if size and not may_be_header(os.pread(fd, len(MAGIC), 0)):
        raise RefusedError("the file exists and is not a journal")
    if stat.S_IMODE(status.st_mode) != 0o600:
        os.fchmod(fd, 0o600)
    if size and os.pread(fd, 1, size - 1) != b"\n":  # the last to write it crashed
        size += os.write(fd, b"\n")
    return size
