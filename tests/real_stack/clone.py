"""A clean clone of the repository, in which the stack is brought up as a newcomer would."""

import base64
import json
import shutil
import subprocess
import urllib.error
import urllib.parse
import urllib.request
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import yaml

from tests.real_stack.engine import ROOT, Engine

PROJECT = "llmswap"
FREE_PORTS = {"LLMSWAP_PORT": "0", "GRAFANA_PORT": "0", "LOCUST_PORT": "0"}
PASSWORD = Path(".secrets") / "grafana_admin_password"


def clone(root: Path) -> Path:
    """Copy what git knows, or would take in."""
    listed = subprocess.run(
        ["git", "ls-files", "-z", "--cached", "--others", "--exclude-standard"],
        cwd=ROOT,
        check=True,
        capture_output=True,
        text=True,
    )
    for name in filter(None, listed.stdout.split("\0")):
        if (ROOT / name).is_file():
            (root / name).parent.mkdir(parents=True, exist_ok=True)
            shutil.copy(ROOT / name, root / name)
            (root / name).chmod((root / name).stat().st_mode | 0o444)  # whatever the umask of this checkout was
    for folder in root.rglob("*"):
        if folder.is_dir():
            folder.chmod(0o755)
    return root


def get(url: str, password: str = "", within_s: float = 20) -> Any:
    """Ask for JSON, as Grafana's admin if a password is given."""
    request = urllib.request.Request(url)
    if password:
        request.add_header("Authorization", "Basic " + base64.b64encode(f"admin:{password}".encode()).decode())
    with urllib.request.urlopen(request, timeout=within_s) as answer:
        return json.load(answer)


class Stack:
    """The stack of a clone.

    Attributes:
        environ: What is set beside .env.
        took_s: From no engine to a healthy stack.
    """

    def __init__(self, engine: Engine, root: Path) -> None:
        self.engine, self.root = engine, root
        self.environ = dict(FREE_PORTS)
        self.took_s = 0.0

    @contextmanager
    def otherwise(self, **environ: str) -> Iterator[None]:
        """Set more beside .env for a while; afterwards everything is brought up as it was."""
        before, self.environ = self.environ, self.environ | environ
        try:
            yield
        finally:
            self.environ = before
            self.up("--remove-orphans")

    @property
    def images(self) -> dict[str, str]:
        """Service -> image, of what is on by default."""
        content = yaml.safe_load(self.compose("config"))
        return {name: service["image"] for name, service in content["services"].items()}

    def compose(self, *words: str, within_s: float = 300) -> str:
        """Run `docker compose`."""
        return self.engine.run("docker", "compose", *words, cwd=self.root, within_s=within_s, **self.environ)

    def make(self, target: str, within_s: float = 360) -> str:
        """Run `make`."""
        return self.engine.run("make", target, cwd=self.root, within_s=within_s, **self.environ)

    def up(self, *words: str) -> None:
        """Bring everything up that has changed, and wait for its health."""
        self.compose("up", "--detach", "--wait", "--wait-timeout", "120", *words)

    def container(self, service: str) -> dict[str, Any]:
        """Give what `docker inspect` says of a service's container."""
        (number,) = self.compose("ps", "--all", "--quiet", service).split()
        (found,) = json.loads(self.engine.run("docker", "inspect", number))
        return found

    def published(self, service: str, port: int) -> str:
        """Give the URL at which a service is published on this machine."""
        return "http://" + self.compose("port", service, str(port)).strip()

    def inside(self, service: str, port: int) -> str:
        """Give the URL of a service on the inner network, which this machine can reach as its bridge."""
        address = self.container(service)["NetworkSettings"]["Networks"][f"{PROJECT}_back"]["IPAddress"]
        return f"http://{address}:{port}"

    @property
    def llmswap(self) -> str:
        """Give llmswap's URL."""
        return self.published("llmswap", 8080)

    def prometheus(self, path: str, **query: str) -> Any:
        """Ask Prometheus' API; gives `data`."""
        said = get(f"{self.inside('prometheus', 9090)}/api/v1/{path}?{urllib.parse.urlencode(query)}")
        assert said["status"] == "success", said
        return said["data"]

    def samples(self, expression: str) -> list[tuple[dict[str, str], float]]:
        """Evaluate an expression now."""
        rows = self.prometheus("query", query=expression)["result"]
        return [(row["metric"], float(row["value"][1])) for row in rows]

    def number(self, expression: str) -> float:
        """Evaluate an expression to one number; 0 if there is none."""
        return next((value for _, value in self.samples(expression)), 0.0)

    def targets(self) -> dict[str, str]:
        """Give job -> health of what Prometheus scrapes; the worst of each."""
        found: dict[str, str] = {}
        for row in self.prometheus("targets", state="active")["activeTargets"]:
            job = row["labels"]["job"]
            found[job] = row["health"] if found.get(job, "up") == "up" else found[job]
        return found

    def alerts(self) -> set[str]:
        """Give the names of the alerts that have reached Alertmanager."""
        return {row["labels"]["alertname"] for row in get(f"{self.inside('alertmanager', 9093)}/api/v2/alerts")}

    def trace(self, trace: str) -> list[dict[str, Any]]:
        """Give the spans of a trace; none if Tempo does not know it."""
        try:
            found = get(f"{self.inside('tempo', 3200)}/api/traces/{trace}")
        except urllib.error.HTTPError as error:
            error.close()
            if error.code != 404:
                raise
            return []
        return [span for batch in found["batches"] for scope in batch["scopeSpans"] for span in scope["spans"]]

    def grafana(self, path: str) -> Any:
        """Ask Grafana, as the admin."""
        password = (self.root / PASSWORD).read_text().strip()
        return get(self.published("grafana", 3000) + path, password)

    def logs(self, service: str) -> str:
        """Give what a service has printed."""
        return self.compose("logs", "--no-log-prefix", service)
