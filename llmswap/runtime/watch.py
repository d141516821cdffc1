"""Notices that config files changed, by stat: renames, symlink swaps and bind mounts included."""

import asyncio
import contextlib
from collections.abc import Awaitable, Callable, Coroutine
from pathlib import Path

Stamp = tuple[tuple[str, int, int, int], ...]

POLL_INTERVAL_S = 1.0
SETTLE_INTERVAL_S = 0.1
SETTLE_MAX_S = 2.0


def stamp(config: Path | None, config_dir: Path | None) -> Stamp:
    """Give (path, mtime in ns, size, inode) of every config file, symlinks followed; missing ones are left out."""
    paths = [config] if config is not None else []
    if config_dir is not None:
        with contextlib.suppress(OSError):  # missing, or not ours to read for now: as a missing file
            paths += sorted(path for path in config_dir.iterdir() if path.suffix in {".yaml", ".yml"})
    found = []
    for path in paths:
        try:
            stat = path.stat()
        except OSError:
            continue  # gone for now: its return is the change worth a reload
        found.append((str(path), stat.st_mtime_ns, stat.st_size, stat.st_ino))
    return tuple(found)


def watch(take_stamp: Callable[[], Stamp], changed: Callable[[], Awaitable[None]]) -> Coroutine[None, None, None]:
    """Call `changed` after each change, from this call on, that leaves something to read. Runs until cancelled.

    A burst of edits is waited out (SETTLE_MAX_S at most), so that a half-written file is not read.
    """
    return _watch(take_stamp(), take_stamp, changed)


async def _watch(seen: Stamp, take_stamp: Callable[[], Stamp], changed: Callable[[], Awaitable[None]]) -> None:
    while True:
        await asyncio.sleep(POLL_INTERVAL_S)
        now = take_stamp()
        if now == seen:
            continue
        for _ in range(int(SETTLE_MAX_S / SETTLE_INTERVAL_S)):
            await asyncio.sleep(SETTLE_INTERVAL_S)
            before, now = now, take_stamp()
            if now == before:
                break
        if now and now != seen:
            await changed()
        seen = now
