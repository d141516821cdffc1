"""Processes that lost their parent come to us, and we bury them: no zombie stays, and no status of ours is lost."""

import asyncio
import contextlib
import ctypes
import os
import signal
from collections.abc import Callable, Collection
from pathlib import Path

from llmswap.runtime.tree import look_up

_PR_SET_CHILD_SUBREAPER = 36
_PAUSE_S = 0.05


class Reaper:
    """Adopts what our children leave behind (also without being PID 1) and reaps it when it dies.

    Adoption keeps ancestry readable: a daemonised grandchild becomes our child, not init's.

    Args:
        own: Gives the pids whose exit somebody here waits for; they are left alone.
    """

    def __init__(self, own: Callable[[], Collection[int]]) -> None:
        self._own = own
        self._timer: asyncio.TimerHandle | None = None

    def open(self) -> None:
        """Begin. Without a main thread (some tests) no signal comes, and nothing is reaped."""
        _adopt(1)
        with contextlib.suppress(RuntimeError, ValueError):
            asyncio.get_running_loop().add_signal_handler(signal.SIGCHLD, self._soon)

    def close(self) -> None:
        """Stop."""
        with contextlib.suppress(RuntimeError, ValueError):
            asyncio.get_running_loop().remove_signal_handler(signal.SIGCHLD)
        if self._timer is not None:
            self._timer.cancel()
        _adopt(0)

    def _soon(self) -> None:
        # A pause gathers a burst of deaths, and lets those who wait for a child of theirs come first.
        if self._timer is None:
            self._timer = asyncio.get_running_loop().call_later(_PAUSE_S, self._reap)

    def _reap(self) -> None:
        self._timer = None
        own = self._own()
        here = os.getsid(0)
        for pid in _children():
            proc = look_up(pid)
            # What runs in our own session was started by us in some other way, and is waited for there.
            if proc is not None and proc.zombie and pid not in own and proc.session != here:
                with contextlib.suppress(ChildProcessError):
                    os.waitpid(pid, os.WNOHANG)


def _adopt(on: int) -> None:
    ctypes.CDLL(None).prctl(_PR_SET_CHILD_SUBREAPER, on, 0, 0, 0)


def _children() -> list[int]:
    found: list[int] = []
    with contextlib.suppress(
        OSError
    ):  # a thread that ended meanwhile, or no descriptor left: the next death looks again
        for task in Path("/proc/self/task").iterdir():
            found += map(int, (task / "children").read_text().split())
    return found
