"""A child process that outlives the fake and keeps holding its GPU memory and its output pipes."""

import subprocess

COMMANDS = {
    "plain": ("sleep", "600"),
    "setsid": ("sleep", "600"),
    "stubborn": ("sh", "-c", "trap '' TERM; exec sleep 600"),
}


def spawn(kind: str) -> int:
    """Start one and give its pid: `plain`, `stubborn` (ignores SIGTERM) or `setsid` (leaves our process group)."""
    child = subprocess.Popen(COMMANDS[kind], stdin=subprocess.DEVNULL, start_new_session=kind == "setsid")  # noqa: S603  fixed words
    return child.pid
