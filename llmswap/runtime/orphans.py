"""What a life of llmswap leaves in its state directory, so that the next one finds upstreams that outlived it.

Two files per life: `<instance>.lock`, locked as long as that llmswap lives (the kernel lets go however it dies), and
`<instance>.json`, the processes of its upstreams. A life whose lock can be taken is over, and what is left of it may be
ended; somebody else's running llmswap is never touched.
"""

import asyncio
import fcntl
import hashlib
import json
import logging
import os
import re
from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import Any

from llmswap.runtime.stopping import clear, look
from llmswap.runtime.tree import Proc, Tree, describe, look_up

log = logging.getLogger(__name__)

_VERSION = 1
_GIVE_UP_S = 15.0
_INSTANCE = re.compile(r"[A-Za-z0-9_-]{1,64}")


class Registry:
    """This life's two files.

    Args:
        directory: None to keep no record (then orphans are not found).
        instance: Unique to this life; letters, digits, `-` and `_`.
    """

    def __init__(self, directory: Path | None, instance: str) -> None:
        assert _INSTANCE.fullmatch(instance), f"not usable as a file name: {instance!r}"
        self._directory = directory
        self._instance = instance
        self._lock: int | None = None
        self._world = _world()
        self._upstreams: dict[str, dict[str, Any]] = {}

    def open(self) -> None:
        """Begin the record. If the directory cannot be used that is logged, and no record is kept."""
        if self._directory is None:
            return
        try:
            self._directory.mkdir(mode=0o700, parents=True, exist_ok=True)
            self._lock = _locked(self._directory / f"{self._instance}.lock", create=True)
        except OSError as error:
            log.warning("no state can be kept in %s (%s): orphans would not be found", self._directory, error.strerror)
            self._directory = None

    def record(self, key: str, port: int | None, members: Iterable[Proc]) -> None:
        """Note the processes of an upstream."""
        processes = [{"pid": proc.pid, "started": proc.started} for proc in members]
        self._upstreams[key] = {"port": port, "processes": processes}
        self._write()

    def forget(self, key: str) -> None:
        """Nothing is left of an upstream."""
        if self._upstreams.pop(key, None) is not None:
            self._write()

    def close(self) -> None:
        """End the record; the files stay if an upstream is still noted."""
        if self._directory is None or self._lock is None:
            return
        if not self._upstreams:
            _remove(self._directory, self._instance)
        os.close(self._lock)
        self._lock = None

    def _write(self) -> None:
        if self._directory is None or self._lock is None:
            return
        content = {"version": _VERSION, **self._world, "upstreams": self._upstreams}
        path = self._directory / f"{self._instance}.json"
        fresh = path.with_suffix(".new")
        try:
            fd = os.open(fresh, os.O_WRONLY | os.O_CREAT | os.O_TRUNC, 0o600)
            with os.fdopen(fd, "w") as file:
                json.dump(content, file)
            fresh.replace(path)
        except OSError as error:
            log.warning("cannot write %s: %s", path, error.strerror)

    async def reclaim(self) -> int:
        """End what is left of earlier lives; return how many processes that were."""
        if self._directory is None or self._lock is None:
            return 0
        ended = 0
        for lock in sorted(self._directory.glob("*.lock")):
            if lock.stem == self._instance:
                continue
            try:
                fd = _locked(lock, create=False)
            except OSError:  # somebody's running llmswap, or it has just gone
                continue
            try:
                ended += await _end_life(self._directory, lock.stem)
            finally:
                os.close(fd)
        return ended


async def _end_life(directory: Path, instance: str) -> int:
    path = directory / f"{instance}.json"
    try:
        content = json.loads(path.read_text())
        if any(content[key] != value for key, value in _world().items()):
            _remove(directory, instance)
            return 0  # before a reboot or in another container: those pids mean nothing here
        known = [proc for upstream in content["upstreams"].values() for proc in _alive(upstream["processes"])]
    except FileNotFoundError:
        known = []
    except (OSError, ValueError, KeyError, TypeError, AttributeError) as error:
        log.warning("%s cannot be read (%r); looking for tagged processes only", path, error)
        known = []
    tree = Tree(instance, known, None)
    left = await look(tree)
    for proc in left:
        log.warning("ending an orphan of an earlier life: %s", describe(proc.pid))
    try:
        async with asyncio.timeout(_GIVE_UP_S):
            await clear(tree, polite=True)
    except TimeoutError:
        # Its record stays, so that the next start tries again.
        log.exception("an orphan of an earlier life cannot be ended; it may hold memory and its port")
    else:
        _remove(directory, instance)
    return len(left)


def _alive(processes: list[dict[str, int]]) -> list[Proc]:
    found = ((look_up(entry["pid"]), entry["started"]) for entry in processes)
    return [proc for proc, started in found if proc is not None and proc.started == started]


def _world() -> dict[str, str]:
    """Name where pids and start times have their meaning: this boot, this pid namespace."""
    boot = Path("/proc/sys/kernel/random/boot_id").read_text().strip()
    return {"boot": boot, "pid_namespace": str(Path("/proc/self/ns/pid").readlink())}


def _locked(path: Path, *, create: bool) -> int:
    fd = os.open(path, os.O_RDWR | os.O_CLOEXEC | (os.O_CREAT if create else 0), 0o600)
    try:
        fcntl.flock(fd, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except OSError:
        os.close(fd)
        raise
    return fd


def _remove(directory: Path, instance: str) -> None:
    for suffix in ("json", "new", "lock"):
        (directory / f"{instance}.{suffix}").unlink(missing_ok=True)


def default_dir(sources: Sequence[Path], listen: str) -> Path | None:
    """Give the place of a config's pid files, so that two llmswaps with different configs never meet.

    Returns:
        None for a user without a home (a container with an odd uid).
    """
    try:
        base = os.environ.get("XDG_STATE_HOME") or str(Path.home() / ".local" / "state")
    except RuntimeError:
        return None
    paths = "\0".join(str(path.absolute()) for path in sources)
    return Path(base) / "llmswap" / hashlib.sha256(f"{paths}\0{listen}".encode()).hexdigest()[:16]
