"""One child process, the leader of its tree: its birth, its output, its exit. How it is ended: stopping.py."""

import asyncio
import contextlib
import os
import signal
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass

from llmswap.runtime.output import Output
from llmswap.runtime.spawn import SpawnError, environment, spawn
from llmswap.runtime.tree import Tree, look_up


@dataclass(frozen=True, slots=True)
class Exit:
    """How a leader ended: by exit code, or by a signal."""

    code: int | None
    signal: int | None

    def __str__(self) -> str:
        if self.signal is None:
            return f"exited with code {self.code}"
        with contextlib.suppress(ValueError):
            return f"was killed by {signal.Signals(self.signal).name}"
        return f"was killed by signal {self.signal}"


class Process:
    """A running leader.

    The leader is reaped last: as long as its zombie holds the pid, its group's number cannot go to strangers.

    Args:
        tag: Marks the environment of everything that comes from it; see `tree.Tree`.
        sink: Gets the output, merged; must not block.

    Attributes:
        exited: Done as soon as the leader is dead, reaped or not.

    Raises:
        SpawnError: It could not be started.
    """

    def __init__(self, argv: Sequence[str], env: Iterable[str], tag: str, sink: Callable[[bytes], None]) -> None:
        loop = asyncio.get_running_loop()
        self._child, fd = spawn(argv, environment(env, tag))
        self.pid = self._child.pid
        try:
            leader = look_up(self.pid)
            self._pidfd = os.pidfd_open(self.pid)
        except OSError as error:
            os.close(fd)
            self._child.kill()
            self._child.wait()
            raise SpawnError(f"cannot watch {argv[0]}: {error.strerror}") from error
        assert leader is not None, "an unreaped child is always in /proc"
        self.leader = leader
        self.tree = Tree(tag, [leader], self.pid)
        self.exited: asyncio.Future[Exit] = loop.create_future()
        self._output = Output(fd, sink)
        loop.add_reader(self._pidfd, self._on_exit)

    def signal_group(self, *numbers: signal.Signals) -> None:
        """Signal the leader's group."""
        for number in numbers:
            # PermissionError: it runs as somebody else by now; the end will report it as stuck.
            with contextlib.suppress(ProcessLookupError, PermissionError):
                os.killpg(self.pid, number)

    def drain(self) -> None:
        """Take what has been printed so far."""
        self._output.drain()

    def release(self) -> None:
        """Reap the leader and close its pipe. The tree must be gone."""
        self._child.wait()
        self._output.close()
        os.close(self._pidfd)

    def _on_exit(self) -> None:
        asyncio.get_running_loop().remove_reader(self._pidfd)
        result = os.waitid(os.P_PIDFD, self._pidfd, os.WEXITED | os.WNOWAIT)
        assert result is not None
        self._output.drain()
        by_exit = result.si_code == os.CLD_EXITED
        self.exited.set_result(Exit(result.si_status, None) if by_exit else Exit(None, result.si_status))
