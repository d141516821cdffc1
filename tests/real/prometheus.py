"""A real Prometheus, unpacked once and kept outside the repository, as a process of a test."""

import json
import os
import signal
import socket
import subprocess
import time
import urllib.parse
import urllib.request
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest
import yaml

ROOT = Path(__file__).resolve().parents[2]
BUILD_LIMIT_S = 300
READY_LIMIT_S = 30.0
STOP_LIMIT_S = 15.0


@dataclass(frozen=True, slots=True)
class Binaries:
    """Where the programs are."""

    prometheus: Path
    promtool: Path
    amtool: Path


def unpacked() -> Binaries:
    """Unpack Prometheus, promtool and Alertmanager's amtool, if that has not been done before."""
    stack = Path(os.environ.get("LLMSWAP_STACK") or ROOT.parent / "shared" / "stack").resolve()
    if not (stack / "lib.sh").exists():
        message = (
            f"{stack / 'lib.sh'} is not there: the real-stack checks cannot run (LLMSWAP_STACK names another place)"
        )
        pytest.fail(message) if os.environ.get("CI") else pytest.skip(message)
    script = '. "$1"; unpack "$NEXT" prometheus promtool prometheus-alertmanager >&2; echo "$DK/root/$NEXT"'
    done = subprocess.run(
        ["bash", "-c", script, "unpack", stack / "lib.sh"],
        check=True,
        timeout=BUILD_LIMIT_S,
        stdin=subprocess.DEVNULL,
        stdout=subprocess.PIPE,
        text=True,
    )
    place = Path(done.stdout.split()[-1])
    return Binaries(
        place / "prometheus/usr/bin/prometheus",
        place / "promtool/usr/bin/promtool",
        place / "prometheus-alertmanager/usr/bin/amtool",
    )


class Prometheus:
    """One running server; what it is asked, it must be able to answer.

    Args:
        scrape: The `scrape_configs`.
        every: The time between scrapes, and between evaluations of the rules.
        rules: The `rule_files`.
    """

    def __init__(
        self,
        binaries: Binaries,
        directory: Path,
        scrape: list[Mapping[str, Any]],
        every: str,
        rules: Iterable[Path] = (),
    ) -> None:
        with socket.socket() as sock:
            sock.bind(("127.0.0.1", 0))
            port = sock.getsockname()[1]
        self.url = f"http://127.0.0.1:{port}"
        self._log = directory / "prometheus.log"
        config: dict[str, Any] = {
            "global": {"scrape_interval": every, "scrape_timeout": every, "evaluation_interval": every}
        }
        config |= {"scrape_configs": scrape, "rule_files": [str(path) for path in rules]}
        path = directory / "prometheus.yml"
        path.write_text(yaml.safe_dump(config))
        with self._log.open("wb") as log:
            self._process = subprocess.Popen(
                [
                    binaries.prometheus,
                    f"--config.file={path}",
                    f"--storage.tsdb.path={directory / 'tsdb'}",
                    f"--web.listen-address=127.0.0.1:{port}",
                    "--enable-feature=exemplar-storage",
                ],
                stdin=subprocess.DEVNULL,
                stdout=log,
                stderr=subprocess.STDOUT,
                cwd=directory,
            )
        self._await_ready()

    def _await_ready(self) -> None:
        deadline_s = time.monotonic() + READY_LIMIT_S
        while True:
            try:
                with urllib.request.urlopen(f"{self.url}/-/ready", timeout=2):
                    return
            except OSError:
                ended = self._process.poll() is not None or time.monotonic() > deadline_s
                assert not ended, f"Prometheus does not serve:\n{self._log.read_text()}"
            time.sleep(0.05)

    def api(self, path: str, **query: str) -> Any:
        """Ask the HTTP API; gives `data`."""
        address = f"{self.url}/api/v1/{path}?{urllib.parse.urlencode(query)}"
        with urllib.request.urlopen(address, timeout=20) as answer:
            said = json.load(answer)
        assert said["status"] == "success", said
        return said["data"]

    def query(self, expression: str) -> dict[tuple[tuple[str, str], ...], float]:
        """Evaluate an expression now; gives labels (the name left out) -> value."""
        found = {}
        for row in self.api("query", query=expression)["result"]:
            labels = {name: value for name, value in row["metric"].items() if name != "__name__"}
            found[tuple(sorted(labels.items()))] = float(row["value"][1])
        return found

    def number(self, expression: str) -> float:
        """Evaluate an expression that has one value, or none: then 0."""
        return next(iter(self.query(expression).values()), 0.0)

    def rules(self) -> list[dict[str, Any]]:
        """Give every rule, with what became of its last evaluation: `health`, `lastError`."""
        return [rule for group in self.api("rules")["groups"] for rule in group["rules"]]

    def firing(self) -> dict[str, str]:
        """Give alert -> severity of those that fire."""
        alerts = (alert for alert in self.api("alerts")["alerts"] if alert["state"] == "firing")
        return {alert["labels"]["alertname"]: alert["labels"]["severity"] for alert in alerts}

    def targets(self, job: str) -> dict[str, str]:
        """Give model -> health of the live targets of a job."""
        active = self.api("targets", state="active")["activeTargets"]
        return {row["labels"]["model"]: row["health"] for row in active if row["labels"]["job"] == job}

    def close(self) -> None:
        """End it."""
        self._process.send_signal(signal.SIGTERM)
        try:
            self._process.wait(STOP_LIMIT_S)
        except subprocess.TimeoutExpired:
            self._process.kill()
            self._process.wait(STOP_LIMIT_S)
