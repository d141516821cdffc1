"""Child processes: workers that hold the engine's GPU memory, and one that outlives the fake with it."""

import subprocess

COMMANDS = {
    "plain": ("sleep", "600"),
    "setsid": ("sleep", "600"),
    "stubborn": ("sh", "-c", "trap '' TERM; exec sleep 600"),
}


def spawn(kind: str) -> int:
    """Start one that outlives us and give its pid.

    Args:
        kind: plain, stubborn (ignores SIGTERM) or setsid (leaves our process group).
    """
    child = subprocess.Popen(COMMANDS[kind], stdin=subprocess.DEVNULL, start_new_session=kind == "setsid")  # noqa: S603  fixed words
    return child.pid


class Workers:
    """Processes that live as long as we do, however we end: each reads a pipe whose other end is ours."""

    def __init__(self, count: int) -> None:
        self._processes = [
            subprocess.Popen(("/bin/cat",), stdin=subprocess.PIPE, stdout=subprocess.DEVNULL) for _ in range(count)
        ]
        self.pids = [process.pid for process in self._processes]

    def end(self) -> None:
        """End them and wait for it."""
        for process in self._processes:
            process.communicate()
