"""Ending a process tree: ask, wait, kill, and look until nothing is left."""

import asyncio
import contextlib
import logging
import signal
import time
from collections.abc import Callable, Coroutine
from typing import Any, TypeVar

from llmswap.runtime.process import Process
from llmswap.runtime.spawn import SpawnError
from llmswap.runtime.tree import Proc, Tree, is_alive, send

log = logging.getLogger(__name__)

# What is left of a tree when its leader is gone gets this long to follow it before it is killed.
LINGER_S = 1.0
# How long after SIGKILL a process may still be there before it counts as stuck (D state).
STUCK_AFTER_S = 30.0
_KILL_AGAIN_S = 1.0
_POLL_S = 0.005
_POLL_MOST_S = 0.1
_BLIND_RETRIES = 100
_BLIND_PAUSE_S = 0.1

T = TypeVar("T")
Hurry = asyncio.Future[None]
Starter = Callable[[], Process]


async def ask_to_stop(process: Process, stopper: Starter | None, grace_s: float, hurry: Hurry) -> None:
    """Give the leader its chance: `cmdStop`, or SIGTERM to the group. Returns when it is gone or its time is up.

    `stopper` starts `cmdStop`; if there is none, or it fails, SIGTERM is sent. `hurry` cuts the grace short.
    """
    deadline_s = time.monotonic() + grace_s
    if stopper is None or not await _run_stopper(process, stopper, grace_s, hurry):
        # SIGCONT: a stopped process could not act on SIGTERM.
        process.signal_group(signal.SIGTERM, signal.SIGCONT)
    await first_of(deadline_s - time.monotonic(), process.exited, hurry)


async def _run_stopper(process: Process, stopper: Starter, grace_s: float, hurry: Hurry) -> bool:
    """Run `cmdStop`, at most for the grace and not much longer than its target lives. False if it failed."""
    try:
        helper = stopper()
    except SpawnError as error:
        log.warning("cmdStop: %s; sending SIGTERM instead", error)
        return False
    await first_of(grace_s, helper.exited, process.exited, hurry)
    if process.exited.done():
        await first_of(LINGER_S, helper.exited, hurry)
    failed = helper.exited.done() and helper.exited.result().code != 0
    if failed and not process.exited.done():
        log.warning("cmdStop %s; sending SIGTERM instead", helper.exited.result())
    await clear(helper.tree, polite=False, hurry=hurry)
    helper.release()
    return not failed


async def clear(
    tree: Tree, *, polite: bool, hurry: Hurry | None = None, on_stuck: Callable[[list[Proc]], None] | None = None
) -> None:
    """End every member of a tree. Returns when none is alive, however long that takes.

    If `polite`, they may end by SIGTERM first, for at most LINGER_S or until `hurry` is done. `on_stuck` is called
    once if something is still there STUCK_AFTER_S after SIGKILL.
    """
    left = await look(tree)
    if not left:
        return
    if polite and not (hurry and hurry.done()):
        for proc in left:
            send(proc, signal.SIGTERM)
        await _gone(left, LINGER_S, hurry)
        left = await look(tree)
    killed_s = time.monotonic()
    while left:
        for proc in left:
            send(proc, signal.SIGKILL)
        await _gone(left, _KILL_AGAIN_S)
        left = await look(tree)
        if left and on_stuck is not None and time.monotonic() - killed_s > STUCK_AFTER_S:
            on_stuck(left)
            on_stuck = None


async def look(tree: Tree) -> list[Proc]:
    """Find the living members without holding up the event loop.

    Raises:
        OSError: /proc could not be read for many seconds (no file descriptors left).
    """
    for _ in range(_BLIND_RETRIES):
        try:
            return await asyncio.to_thread(tree.look)
        except OSError as error:
            log.warning("cannot look for processes, trying again: %s", error)
            await asyncio.sleep(_BLIND_PAUSE_S)
    return await asyncio.to_thread(tree.look)


async def first_of(timeout_s: float | None, *futures: asyncio.Future[Any]) -> None:
    """Wait until one of them is done or the time is up; cancels none."""
    timeout_s = None if timeout_s is None else max(0.0, timeout_s)
    await asyncio.wait(futures, timeout=timeout_s, return_when=asyncio.FIRST_COMPLETED)


async def unless(work: Coroutine[Any, Any, T], *ends: asyncio.Future[Any]) -> T | None:
    """Do the work, unless one of the ends comes first or with it: then it is cancelled, and the result is None."""
    task = asyncio.get_running_loop().create_task(work)
    try:
        await first_of(None, task, *ends)
    finally:
        if not task.done():
            task.cancel()
            with contextlib.suppress(asyncio.CancelledError):
                await task
    result = None if task.cancelled() else task.result()
    return None if any(end.done() for end in ends) else result


def _is_there(proc: Proc) -> bool:
    try:
        return is_alive(proc)
    except OSError:  # no descriptor left to look with
        return True


async def _gone(procs: list[Proc], timeout_s: float, hurry: Hurry | None = None) -> None:
    """Wait until all of them are gone, the time is up, or `hurry` is done."""
    deadline_s, pause_s = time.monotonic() + timeout_s, _POLL_S
    while any(map(_is_there, procs)) and time.monotonic() < deadline_s and not (hurry and hurry.done()):
        await asyncio.sleep(pause_s)
        pause_s = min(_POLL_MOST_S, pause_s * 1.5)
