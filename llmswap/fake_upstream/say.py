"""The fake's log: lines on standard output in the engines' shape."""

import os
import sys


def say(message: str, *args: object) -> None:
    """Write one line. A closed output is no reason to stop, as for the real engines."""
    try:
        sys.stdout.write(f"INFO:     [{os.getpid()}] {message % args if args else message}\n")
        sys.stdout.flush()
    except (BrokenPipeError, ValueError):
        return
