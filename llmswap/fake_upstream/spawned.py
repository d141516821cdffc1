"""How old this process is, the interpreter's own start-up included."""

import os
import time
from pathlib import Path

_START_TICKS = 19  # the field of /proc/self/stat, counted after the command's closing parenthesis


def since_spawn_s() -> float:
    """Give seconds since the process was spawned, to a hundredth; 0 where there is no /proc to tell."""
    try:
        stat = Path("/proc/self/stat").read_text()
    except OSError:
        return 0.0
    ticks = int(stat.rpartition(")")[2].split()[_START_TICKS])
    return max(0.0, time.clock_gettime(time.CLOCK_BOOTTIME) - ticks / os.sysconf("SC_CLK_TCK"))
