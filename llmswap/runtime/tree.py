"""Which processes belong to an upstream, read from /proc; and signals that reach only the process that was meant."""

import contextlib
import os
import signal
from collections.abc import Collection, Iterable
from dataclasses import dataclass
from pathlib import Path

from llmswap.runtime.redaction import redact_command

TAG_NAME = "LLMSWAP_INSTANCE"
_PROC = Path("/proc")
_DESCRIBED_CHARS = 120


@dataclass(frozen=True, slots=True)
class Proc:
    """One process at one moment. `(pid, started)` names it for ever; the pid alone may be used again.

    Attributes:
        started: Clock ticks from boot.
        zombie: Dead, and only waiting for its parent to take note.
    """

    pid: int
    parent: int
    group: int
    session: int
    started: int
    zombie: bool


def look_up(pid: int) -> Proc | None:
    """Read one process; None if there is none, or none that we may see (`hidepid`)."""
    try:
        stat = (_PROC / str(pid) / "stat").read_bytes()
    except (FileNotFoundError, ProcessLookupError, PermissionError):
        return None
    fields = stat[stat.rindex(b")") + 2 :].split()  # the name before it may hold anything, spaces and brackets too
    parent, group, session = (int(field) for field in fields[1:4])
    return Proc(pid, parent, group, session, int(fields[19]), zombie=fields[0] in {b"Z", b"X"})


def everyone() -> list[Proc]:
    """Read all processes. Costs some 20 microseconds each: not for the event loop of a crowded machine."""
    found = (look_up(int(name)) for name in os.listdir(_PROC) if name.isdigit())  # noqa: PTH208  no Path objects wanted
    return [proc for proc in found if proc is not None]


def is_alive(proc: Proc) -> bool:
    """Whether exactly this process still runs (a zombie does not)."""
    now = look_up(proc.pid)
    return now is not None and now.started == proc.started and not now.zombie


def is_descendant(proc: Proc, ancestor: int) -> bool:
    """Whether a process comes from another, as far as its living ancestors tell."""
    while proc.parent != ancestor:
        parent = look_up(proc.parent)
        if parent is None or parent.started > proc.started:
            return False
        proc = parent
    return True


def families(leaders: Collection[int]) -> dict[int, set[int]]:
    """Give the pids of each leader's living descendants, itself included. Reads all of /proc: call it in a thread."""
    candidates = [proc for proc in everyone() if not proc.zombie]
    roots = [proc for proc in candidates if proc.pid in leaders]
    return {root.pid: {root.pid, *_descendants(candidates, {root.pid: root})} for root in roots}


def send(proc: Proc, number: signal.Signals) -> None:
    """Signal exactly this process; nothing happens if it is gone, whoever has its pid now.

    The pidfd pins the process first; only then is its start time compared.
    """
    with contextlib.suppress(OSError):  # gone, not ours to signal, or no descriptor left: callers look again
        pidfd = os.pidfd_open(proc.pid)
        try:
            if is_alive(proc):
                signal.pidfd_send_signal(pidfd, number)
        finally:
            os.close(pidfd)


def bears(pid: int, tag: str) -> bool:
    """Whether a process was started with this tag, or one below it (`a:b` is below `a`)."""
    try:
        environ = (_PROC / str(pid) / "environ").read_bytes()
    except (FileNotFoundError, ProcessLookupError, PermissionError):
        return False
    wanted = f"\0{TAG_NAME}={tag}".encode()
    at = (b"\0" + environ).find(wanted)
    return at >= 0 and environ[at + len(wanted) - 1 :][:1] in {b"", b"\0", b":"}


def describe(pid: int) -> str:
    """Name a process for a message: pid and command, secrets hidden."""
    try:
        words = (_PROC / str(pid) / "cmdline").read_bytes().rstrip(b"\0").split(b"\0")
    except OSError:
        return f"pid {pid}"
    command = redact_command(b" ".join(b" ".join(words).split()).decode(errors="replace"))
    return f"pid {pid} ({command[:_DESCRIBED_CHARS]})"


class Tree:
    """All that came from one start, also what left its group, its session or its family.

    Members are found by session and group, by descent from members, and by the tag in their environment (a program
    that overwrites its title may have lost it, a double fork has left the family: each way alone misses some).

    Args:
        tag: `instance:generation:model`, or `instance` for all of a life of llmswap.
        known: Members seen before.
        session: Number of the leader's session and group; None if the leader may have been reaped, because then the
            number may belong to strangers.
    """

    def __init__(self, tag: str, known: Iterable[Proc], session: int | None) -> None:
        self._tag = tag
        self._known = {proc.pid: proc for proc in known}
        self._session = session
        # Nothing older can come from it, which spares reading most environments.
        self._oldest = min((proc.started for proc in self._known.values()), default=0)

    def look(self) -> list[Proc]:
        """Find the living members. Reads all of /proc: call it in a thread."""
        candidates = [proc for proc in everyone() if proc.started >= self._oldest and proc.pid != os.getpid()]
        members = {proc.pid: proc for proc in candidates if self._belongs(proc)}
        members |= _descendants(candidates, members)
        self._known = members
        return [proc for proc in members.values() if not proc.zombie]

    def _belongs(self, proc: Proc) -> bool:
        known = self._known.get(proc.pid)
        if known is not None and known.started == proc.started:
            return True
        if self._session is not None and self._session in {proc.session, proc.group}:
            return True
        return bears(proc.pid, self._tag)


def _descendants(candidates: Iterable[Proc], roots: dict[int, Proc]) -> dict[int, Proc]:
    children: dict[int, list[Proc]] = {}
    for proc in candidates:
        children.setdefault(proc.parent, []).append(proc)
    found: dict[int, Proc] = {}
    waiting = list(roots)
    while waiting:
        for child in children.get(waiting.pop(), []):
            if child.pid not in roots and child.pid not in found:
                found[child.pid] = child
                waiting.append(child.pid)
    return found
