"""What is measured: nginx, a bare relay, llmswap, or any command; each a process in front of the same upstream."""

import os
import shlex
import shutil
import socket
import subprocess
import sys
import time
from collections.abc import Mapping
from contextlib import AbstractContextManager, suppress
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Self

import psutil
import yaml

from tests.bench.wire import MODEL

READY_LIMIT_S = 30.0
UPSTREAM_MODULE = "tests.bench.upstream"
FLOOD_MODULE = "tests.bench.flood"

NGINX = """
{user}worker_processes 1;
pid {directory}/{name}.pid;
error_log stderr warn;
events {{ worker_connections 4096; }}
http {{
  access_log {access_log};
  client_max_body_size 0;
  client_body_temp_path {directory}/{name}-body;
  proxy_temp_path {directory}/{name}-proxy;
  fastcgi_temp_path {directory}/fastcgi;
  uwsgi_temp_path {directory}/uwsgi;
  scgi_temp_path {directory}/scgi;
  keepalive_requests 10000000;
  upstream bench {{ server 127.0.0.1:{upstream}; {keepalive} }}
  server {{
    listen 127.0.0.1:{port} backlog=1024;
    location / {{
      proxy_pass http://bench;
      {version}
      proxy_buffering off;
      proxy_read_timeout 600s;
    }}
  }}
}}
"""


def free_port() -> int:
    """Let the system choose a port."""
    with socket.socket() as sock:
        sock.bind(("127.0.0.1", 0))
        return int(sock.getsockname()[1])


@dataclass
class Served(AbstractContextManager["Served"]):
    """A server under `command`, listening on `port`, with its books of CPU and memory.

    Attributes:
        stdout: A descriptor that takes its standard output instead of the log.
    """

    name: str
    port: int
    command: list[str]
    log: Path
    environ: dict[str, str] = field(default_factory=dict)
    stdout: int | None = None
    rss_mb: float = 0.0

    def __enter__(self) -> Self:
        with self.log.open("ab") as log:
            self.process = subprocess.Popen(
                self.command,
                stdin=subprocess.DEVNULL,
                stdout=log if self.stdout is None else self.stdout,
                stderr=log,
                env={**os.environ, **self.environ},
                start_new_session=True,
            )
        deadline = time.monotonic() + READY_LIMIT_S
        while not accepts(self.port):
            if self.process.poll() is not None or time.monotonic() > deadline:
                self.__exit__()
                raise RuntimeError(f"{self.name} does not serve: {self.log.read_text()[-4000:]}")
            time.sleep(0.01)
        return self

    def __exit__(self, *_: object) -> None:
        if self.process.poll() is None:
            self.process.terminate()
            try:
                self.process.wait(20)
            except subprocess.TimeoutExpired:
                self.process.kill()
                self.process.wait(5)

    def tree(self) -> list[psutil.Process]:
        """Give the processes that are the proxy: its own tree, less the upstreams it runs."""
        root = psutil.Process(self.process.pid)
        found, look = [root], [root]
        while look:
            with suppress(psutil.NoSuchProcess):  # it has ended meanwhile
                for child in look.pop().children():
                    if not _is_upstream(child):
                        found.append(child)
                        look.append(child)
        return found

    def cpu_s(self) -> float:
        """Give the CPU seconds, user and system, used so far."""
        return sum(times.user + times.system for times in (process.cpu_times() for process in self.tree()))

    def note_rss(self) -> float:
        """Take the memory in MB (10^6) now; the highest is kept in `rss_mb`."""
        now_mb = sum(process.memory_info().rss for process in self.tree()) / 1e6
        self.rss_mb = max(self.rss_mb, now_mb)
        return now_mb


def _is_upstream(process: psutil.Process) -> bool:
    try:
        words = process.cmdline()
    except psutil.Error:
        return True  # gone
    return bool({UPSTREAM_MODULE, FLOOD_MODULE} & {*words}) or words[:1] == ["sleep"]


def accepts(port: int) -> bool:
    """Whether someone listens."""
    with socket.socket() as sock:
        sock.settimeout(1)
        return sock.connect_ex(("127.0.0.1", port)) == 0


def upstream(directory: Path) -> Served:
    """Run the bench's upstream."""
    port = free_port()
    command = [sys.executable, "-m", UPSTREAM_MODULE, "--port", str(port)]
    return Served("upstream", port, command, directory / "upstream.log")


# As it comes, nginx makes a connection to the upstream for each request and writes an access log; tuned, neither. The
# first is what the bounds mean: against it a bare aiohttp relay costs the five times that they were set by.
_TUNED = {
    "access_log": "off",
    "keepalive": "keepalive 512; keepalive_requests 10000000;",
    "version": 'proxy_http_version 1.1; proxy_set_header Connection "";',
}


def nginx(directory: Path, upstream_port: int, *, tuned: bool = False) -> Served:
    """Run nginx: one worker, no response buffering.

    Raises:
        RuntimeError: There is no nginx on this machine.
    """
    binary = shutil.which("nginx", path=os.environ.get("PATH", "") + ":/usr/sbin:/usr/local/sbin")
    if binary is None:
        raise RuntimeError("nginx is what the figures are compared with; on Debian: apt-get install nginx-light")
    port = free_port()
    name = "tuned nginx" if tuned else "nginx"
    config = directory / f"{name.replace(' ', '-')}.conf"
    as_it_comes = {"access_log": directory / "access.log", "keepalive": "", "version": ""}
    choices = _TUNED if tuned else as_it_comes
    user = "user root;\n" if os.geteuid() == 0 else ""
    config.write_text(
        NGINX.format(user=user, name=config.stem, directory=directory, upstream=upstream_port, port=port, **choices)
    )
    command = [binary, "-p", str(directory), "-c", str(config), "-g", "daemon off;"]
    return Served(name, port, command, directory / f"{config.stem}.log")


def relay(directory: Path, upstream_port: int) -> Served:
    """Run the bare aiohttp relay."""
    port = free_port()
    command = [sys.executable, "-m", "tests.bench.relay", str(port), f"http://127.0.0.1:{upstream_port}"]
    return Served("relay", port, command, directory / "relay.log")


def by_command(name: str, template: str, directory: Path, upstream_port: int) -> Served:
    """Run any proxy: `{port}` and `{upstream}` (a base URL) in the command are filled in."""
    port = free_port()
    command = shlex.split(template.format(port=port, upstream=f"http://127.0.0.1:{upstream_port}"))
    return Served(name, port, command, directory / f"{name}.log")


def llmswap(
    directory: Path, config: Mapping[str, Any], name: str = "llmswap", environ: Mapping[str, str] | None = None
) -> Served:
    """Run llmswap with a config, and more variables in its environment."""
    port = free_port()
    path = directory / f"{name}.yaml"
    path.write_text(yaml.safe_dump(dict(config), sort_keys=False))
    command = [sys.executable, "-m", "llmswap", "serve", "--config", str(path), "--listen", f"127.0.0.1:{port}"]
    command += ["--state-dir", str(directory / f"{name}-state")]
    return Served(name, port, command, directory / f"{name}.log", dict(environ or {}))


def one_model(upstream_port: int) -> dict[str, Any]:
    """Configure one model that is the bench's own, already running upstream; its process only holds the place."""
    model = {
        "cmd": "sleep 100000",
        "proxy": f"http://127.0.0.1:{upstream_port}",
        "checkEndpoint": "none",
        "trustProxy": True,
        "concurrencyLimit": 1000,
    }
    return {"models": {MODEL: model}}


def many_models(count: int, load_s: float, waiting: int) -> dict[str, Any]:
    """Configure models that exclude one another, with the limits raised to hold `waiting` requests."""
    command = f"{sys.executable} -m {UPSTREAM_MODULE} --port ${{PORT}} --load-s {load_s}"
    models = {f"m{number}": {"cmd": command, "concurrencyLimit": waiting} for number in range(count)}
    return {"queueMax": waiting, "models": models}
