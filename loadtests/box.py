"""A box of our own: llmswap as a process, with simulated upstreams that cost what the scenario says."""

import json
import os
import random
import shlex
import signal
import subprocess
import sys
import time
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import yaml

from loadtests.reading import Span
from loadtests.scenario import POLICIES, Model, Scenario

EXIT_S = 0.05  # real seconds that a simulated upstream takes to end when told to end at once
START_LIMIT_S, STOP_LIMIT_S, POLL_S = 30.0, 45.0, 0.02
MAX_WAIT_S, QUEUE_TIMEOUT_S = 120.0, 600.0  # llmswap's defaults, in seconds of the scenario
TOKENS_MAX, PORTS_EACH = 4000, 50
WHOLE_SECONDS = ("maxWait", "hold")  # of a policy's settings


class BoxError(RuntimeError):
    """llmswap does not serve; the message has its last words."""


@dataclass(frozen=True, slots=True)
class Box:
    """One that serves.

    Attributes:
        log: Its log, as JSON.
        journal: What its scheduler did, for `llmswap simulate`.
    """

    url: str
    log: Path
    journal: Path


@contextmanager
def box(scenario: Scenario, policy: str, real_s: float, folder: Path) -> Iterator[Box]:
    """Serve a scenario's models under a policy, until the block ends.

    Args:
        scenario: Which models, and what they cost.
        policy: `fair`, `fifo`, or `fair,hold=10,maxWait=60`.
        real_s: Real seconds for one of the scenario.
        folder: For config, log and journal.

    Raises:
        BoxError: It does not come up.
        ValueError: There is no such policy.
    """
    folder.mkdir(parents=True, exist_ok=True)
    log, journal = folder / "llmswap.log", folder / "journal.jsonl"
    path = folder / "config.yaml"
    # Another llmswap may run beside this one. The system itself gives out higher ports only.
    ports = {"startPort": random.SystemRandom().randrange(10_000, 32_000, PORTS_EACH)}
    path.write_text(yaml.safe_dump(ports | config(scenario, policy, real_s, journal), sort_keys=False))
    command = [sys.executable, "-m", "llmswap", "serve", "--config", str(path), "--listen", "127.0.0.1:0"]
    with log.open("wb") as out:
        process = subprocess.Popen(
            [*command, "--state-dir", str(folder / "state")],
            stdin=subprocess.DEVNULL,
            stdout=out,
            stderr=subprocess.STDOUT,
            env={**os.environ, "VLLM_SERVER_DEV_MODE": "1"},
            start_new_session=True,
        )
    try:
        yield Box(_address(process, log), log, journal)
    finally:
        _end(process)


def config(scenario: Scenario, policy: str, real_s: float, journal: Path) -> dict[str, Any]:
    """Write the config of a llmswap that serves a scenario.

    Raises:
        ValueError: There is no such policy.
    """
    use, settings = policy_of(policy)
    if use == "fair":
        settings = {"maxWait": MAX_WAIT_S} | settings
    settings = {
        key: max(1, round(value * real_s)) if key in WHOLE_SECONDS and isinstance(value, float) and value else value
        for key, value in settings.items()
    }
    own = {
        "models": {name: _model(name, model, real_s) for name, model in scenario.models.items()},
        "groups": dict(scenario.groups),
        "queueTimeout": max(1, round(QUEUE_TIMEOUT_S * real_s)),
        "routing": {"scheduler": {"use": use, "settings": {use: settings}}},
        "journal": {"path": str(journal)},
        "telemetry": {"logFormat": "json"},
        "logToStdout": "proxy",
    }
    return _merged(own, scenario.config)


def policy_of(text: str) -> tuple[str, dict[str, Any]]:
    """Read `fair,hold=10,maxWait=60`; its times are the scenario's.

    Raises:
        ValueError: There is no such policy.
    """
    use, *pairs = text.split(",")
    if use not in POLICIES:
        raise ValueError(f"there is no policy '{use}'; there are {', '.join(POLICIES)}")
    settings: dict[str, Any] = {}
    for pair in pairs:
        key, equals, value = pair.partition("=")
        if not (key and equals and value):
            raise ValueError(f"'{pair}': write a setting of {use} as NAME=VALUE")
        settings[key] = float(value) if value.replace(".", "", 1).isdecimal() else value
    return use, settings


def _merged(below: Mapping[str, Any], above: Mapping[str, Any]) -> dict[str, Any]:
    """Lay one mapping over another, at every depth."""
    result = dict(below)
    for key, value in above.items():
        under = result.get(key)
        both = isinstance(value, Mapping) and isinstance(under, Mapping)
        result[key] = _merged(under, value) if both else value  # type: ignore[arg-type]
    return result


def _model(name: str, model: Model, real_s: float) -> dict[str, Any]:
    """Write one model, whose loads and stops take the mean of what the scenario says."""
    options: dict[str, object] = {
        "time-scale": real_s,
        "boot": _mean(model.load),
        "sigterm-delay": max(0.0, _mean(model.stop) - EXIT_S / real_s),
        "output-tokens": f"exact:{TOKENS_MAX}",
        "max-num-seqs": max(100, model.concurrency_limit),
        "gpu-release-lag": 0,
    }
    words = [sys.executable, "-m", "llmswap.fake_upstream", "--port", "${PORT}", "--model", name, "--boot-since-spawn"]
    entry: dict[str, Any] = {"concurrencyLimit": model.concurrency_limit}
    if model.sleep is not None:
        words += ["--persona", "vllm", "--enable-sleep-mode", "--first-sleep-extra", "0"]
        options |= {"sleep-l1": _mean(model.sleep), "wake-l1": _mean(model.wake)}
        entry["sleep"] = {"preset": "vllm-l1"}
    for option, value in options.items():
        words += [f"--{option}", f"{value:g}" if isinstance(value, float) else str(value)]
    if model.ttl_s:
        entry["ttl"] = max(1, round(model.ttl_s * real_s))
    if model.substitutes:
        entry["substitutes"] = list(model.substitutes)
    return {"cmd": " ".join(word if word == "${PORT}" else shlex.quote(word) for word in words), **entry}


def _mean(span: Span) -> float:
    return sum(span) / 2


def _address(process: "subprocess.Popen[bytes]", log: Path) -> str:
    """Wait until it says where it listens."""
    end_s = time.monotonic() + START_LIMIT_S
    while time.monotonic() < end_s:
        for line in log.read_text(errors="replace").splitlines():
            if '"server.listening"' in line:
                return str(json.loads(line)["address"])
        if process.poll() is not None:
            break
        time.sleep(POLL_S)
    raise BoxError(f"llmswap does not serve:\n{log.read_text(errors='replace')[-4000:]}")


def _end(process: "subprocess.Popen[bytes]") -> None:
    """End it: ask, insist, kill."""
    for number, limit_s in ((signal.SIGTERM, STOP_LIMIT_S), (signal.SIGTERM, 10.0), (signal.SIGKILL, 5.0)):
        if process.poll() is not None:
            return
        process.send_signal(number)
        try:
            process.wait(limit_s)
        except subprocess.TimeoutExpired:
            continue
