"""Locust as a process of a test."""

import signal
import socket
import subprocess
import sys
from functools import partial
from pathlib import Path

from loadtests import report
from loadtests.runs import LOCUSTFILE

ROOT = Path(__file__).parents[2]
FAST = 0.05  # real seconds for one of the scenario


def free_port():
    with socket.create_server(("127.0.0.1", 0)) as listener:
        return listener.getsockname()[1]


def started(url, folder, *flags, scenario="hit", minutes=2.0, scale=FAST, locustfile=LOCUSTFILE):
    words = ["--host", url, "--scenario", scenario, "--time-scale", str(scale), "--minutes", str(minutes)]
    words += ["--report", str(folder / "reports"), "--loglevel", "WARNING", "--json-file", str(folder / "locust")]
    words += [] if "--metrics-port" in flags else ["--metrics-port", "0"]
    with (folder / "locust.log").open("wb") as log:
        return subprocess.Popen(
            [sys.executable, "-m", "locust", "-f", str(locustfile), *words, *flags],
            stdin=subprocess.DEVNULL,
            stdout=log,
            stderr=subprocess.STDOUT,
            cwd=ROOT,
            # What a shell runs in its background ignores SIGINT, and so would whatever the tests start there.
            preexec_fn=partial(signal.signal, signal.SIGINT, signal.SIG_DFL),  # noqa: PLW1509
        )


def ran(url, folder, *flags, **how):
    """Run headless to the end; gives exit code, report (None without one) and log."""
    folder.mkdir(exist_ok=True)
    process = started(url, folder, "--headless", "--only-summary", *flags, **how)
    try:
        code = process.wait(120)
    finally:
        process.kill()
    written = sorted((folder / "reports").glob("*"))
    return code, report.read(written[0]) if written else None, (folder / "locust.log").read_text()
