"""Runs the whole program as a real process, for tests, and leaves nothing behind.

Every process of a test carries a tag in its environment, inherited by whatever it starts, so that children which
escaped their group or their parent are still found: at the end none may be alive.
"""

import asyncio
import os
import random
import re
import shlex
import signal
import subprocess
import sys
import time
import uuid
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import aiohttp
import psutil
import yaml

START_LIMIT_S = 20.0
STOP_LIMIT_S = 20.0
SWEEP_LIMIT_S = 3.0
POLL_S = 0.01
TAG = "LLMSWAP_TEST_TAG"
PORTS_EACH = 50

# What the program's log must never hold: our bugs, whatever they cost the client.
BUGS = re.compile(
    r"Traceback \(most recent call last\)|was never (awaited|retrieved)|^.*(ResourceWarning|RuntimeWarning).*$",
    re.MULTILINE,
)

Config = str | Mapping[str, Any]


def until_now(condition: Callable[[], Any], what: str, within_s: float = 10.0) -> Any:
    """Poll a condition, blocking, until it gives something true."""
    deadline = time.monotonic() + within_s
    while not (result := condition()):
        assert time.monotonic() < deadline, f"not within {within_s:g} s: {what}"
        time.sleep(POLL_S)
    return result


async def until(condition: Callable[[], Any], what: str, within_s: float = 10.0, every_s: float = POLL_S) -> Any:
    """Poll a condition (plain or async) until it gives something true."""
    deadline = time.monotonic() + within_s
    while True:
        result = condition()
        if asyncio.iscoroutine(result):
            result = await result
        if result:
            return result
        assert time.monotonic() < deadline, f"not within {within_s:g} s: {what}"
        await asyncio.sleep(every_s)


def fake(model: str = "m", /, *flags: str, **options: Any) -> str:
    """Give the command line of a simulated upstream: `fake("m1", persona="vllm", fail=["http_503"])`.

    An option `a_b=1` becomes `--a-b 1`, a list repeats the flag, True is a bare flag. What is served is called `model`.
    """
    words = [sys.executable, "-m", "llmswap.fake_upstream", "--port", "${PORT}", "--model", model]
    for name, value in options.items():
        flag = "--" + name.replace("_", "-")
        for item in value if isinstance(value, list | tuple) else [value]:
            words += [flag] if item is True else [flag, str(item)]
    return " ".join(word if word == "${PORT}" else shlex.quote(word) for word in [*words, *flags])


@dataclass
class Program:
    """A running `llmswap serve`."""

    process: subprocess.Popen[bytes]
    config_path: Path
    log_path: Path
    tag: str
    url: str = ""
    port: int = 0
    host: str = "127.0.0.1"

    @property
    def pid(self) -> int:
        """Of the program itself."""
        return self.process.pid

    def log_text(self) -> str:
        """Everything it has written to stdout and stderr."""
        return self.log_path.read_text(errors="replace")

    def write_config(self, config: Config) -> None:
        """Replace the config file in one step (os.replace)."""
        new = self.config_path.with_suffix(".new")
        new.write_text(as_yaml(config))
        new.replace(self.config_path)

    def reload(self, config: Config | None = None) -> None:
        """Send SIGHUP, with a new config first if one is given. Does not wait for its effect."""
        if config is not None:
            self.write_config(config)
        self.process.send_signal(signal.SIGHUP)

    def terminate(self, number: int = signal.SIGTERM) -> None:
        """Ask it to end. Does not wait."""
        self.process.send_signal(number)

    async def exited(self, within_s: float = STOP_LIMIT_S) -> int:
        """Wait for its end; gives the exit code (negative: the signal)."""
        await until(lambda: self.process.poll() is not None, f"end of llmswap\n{self.log_text()}", within_s)
        assert self.process.returncode is not None
        return self.process.returncode

    async def running(self) -> dict[str, str]:
        """Give model -> state of every upstream that is not stopped, from `/running`."""
        async with aiohttp.ClientSession() as http, http.get(self.url + "/running") as response:
            assert response.status == 200, await response.text()
            return {entry["model"]: entry["state"] for entry in (await response.json())["running"]}

    async def until_state(self, model: str, state: str, within_s: float = 10.0) -> None:
        """Wait until a model is in a state; `stopped` includes failed ones."""

        async def reached() -> bool:
            return (await self.running()).get(model, "stopped") == state

        await until(reached, f"{model} is {state}\n{self.log_text()}", within_s)

    async def metric(self, name: str, **labels: str) -> float:
        """Give the sum of a metric's samples that carry the labels."""
        async with aiohttp.ClientSession() as http, http.get(self.url + "/metrics") as response:
            text = await response.text()
        wanted = [f'{key}="{value}"' for key, value in labels.items()]
        lines = (line for line in text.splitlines() if re.match(rf"{re.escape(name)}[{{ ]", line))
        return sum(float(line.rsplit(" ", 1)[1]) for line in lines if all(label in line for label in wanted))

    def upstream(self, model: str) -> psutil.Process:
        """Give the simulated upstream that serves the model."""
        return one([process for process in self.family() if _serves(process, model)], f"upstream of {model}")

    def upstream_pid(self, model: str) -> int:
        """Give the pid of the simulated upstream that serves the model."""
        return self.upstream(model).pid

    async def journal(self, model: str) -> list[dict[str, Any]]:
        """Read what a simulated upstream has been asked, from its own port, past llmswap."""
        port = one(listening_ports(self.upstream_pid(model)), f"port of {model}")
        async with aiohttp.ClientSession() as http, http.get(f"http://127.0.0.1:{port}/_fake/journal") as response:
            assert response.status == 200, await response.text()
            data = await response.json()
        calls: list[dict[str, Any]] = data["calls"]
        return calls

    def family(self) -> list[psutil.Process]:
        """Give every living process that this program or anything under it has started, itself left out."""
        return [process for process in tagged(self.tag) if process.pid != self.pid]


@dataclass
class Stack:
    """Starts programs for one test and ends them all."""

    directory: Path
    tag: str = field(default_factory=lambda: uuid.uuid4().hex)
    programs: list[Program] = field(default_factory=list)
    environ: dict[str, str] = field(default_factory=dict)

    def start(self, config: Config, *flags: str, config_path: Path | None = None, wait: bool = True) -> Program:
        """Start `llmswap serve` with the config (YAML text, or data) and wait until it listens."""
        number = len(self.programs)
        path = config_path or self.directory / f"config{number}.yaml"
        if config_path is None:
            path.write_text(as_yaml(config if isinstance(config, str) else {"startPort": a_start_port(), **config}))
        listen = [] if "--listen" in flags else ["--listen", "127.0.0.1:0"]
        state = [] if "--state-dir" in flags else ["--state-dir", str(self.directory / "state")]
        command = [sys.executable, "-W", "default", "-m", "llmswap", "serve", "--config", str(path)]
        log_path = self.directory / f"llmswap{number}.log"
        with log_path.open("wb") as log:
            process = subprocess.Popen(
                [*command, *listen, *state, *flags],
                stdin=subprocess.DEVNULL,
                stdout=log,
                stderr=subprocess.STDOUT,
                cwd=self.directory,
                env={**os.environ, **self.environ, TAG: self.tag},
                start_new_session=True,
            )
        program = Program(process, path, log_path, self.tag)
        self.programs.append(program)
        if wait:
            self._wait_listening(program)
        return program

    def _wait_listening(self, program: Program) -> None:
        def port() -> int | None:
            code = program.process.poll()
            assert code is None, f"llmswap ended with {code} instead of serving:\n{program.log_text()}"
            return next(iter(listening_ports(program.pid)), None)

        program.port = until_now(port, f"llmswap listens\n{program.log_text()}", START_LIMIT_S)
        program.url = f"http://{program.host}:{program.port}"

    def close(self, *, tracebacks_allowed: bool = False) -> None:
        """End every program and check what they leave behind.

        Raises:
            AssertionError: One had to be killed, a child survived, or a log tells of a bug in llmswap.
        """
        complaints = [complaint for program in self.programs if (complaint := _end(program))]
        deadline = time.monotonic() + SWEEP_LIMIT_S
        while (survivors := tagged(self.tag)) and time.monotonic() < deadline:
            time.sleep(POLL_S)
        for process in survivors:
            complaints.append(f"survived its llmswap: {_describe(process)}")
            _kill(process)
        for program in self.programs:
            text = program.log_text()
            if not tracebacks_allowed and (bug := BUGS.search(text)):
                complaints.append(f"{bug.group(0)} in the log:\n{text[-8000:]}")
        assert not complaints, "\n".join(complaints)


def a_start_port() -> int:
    """Give a port for a config to begin with, unlike those of the tests that run beside this one.

    A model that finds another's engine on its port is started twice. The system itself gives out higher ones only.
    """
    return random.SystemRandom().randrange(10_000, 32_000, PORTS_EACH)


def as_yaml(config: Config) -> str:
    """Write a config file's text."""
    return config if isinstance(config, str) else yaml.safe_dump(dict(config), sort_keys=False)


def one(items: Any, what: str) -> Any:
    """Give the only item there is."""
    found = list(items)
    assert len(found) == 1, f"expected one {what}, found {found}"
    return found[0]


def tagged(tag: str) -> list[psutil.Process]:
    """Find the living processes with the tag in their environment."""
    marker = f"{TAG}={tag}".encode()
    found = []
    for entry in Path("/proc").iterdir():
        if not entry.name.isdigit() or int(entry.name) == os.getpid():
            continue
        try:
            if marker in (entry / "environ").read_bytes():
                found.append(psutil.Process(int(entry.name)))
        except (OSError, psutil.Error):
            continue  # it ended meanwhile, is a zombie, or is not ours
    return found


def listening_ports(pid: int) -> list[int]:
    """Give the TCP ports on which a process listens."""
    try:
        connections = psutil.Process(pid).net_connections("tcp")
    except psutil.Error:
        return []
    return sorted({entry.laddr.port for entry in connections if entry.status == psutil.CONN_LISTEN})


def _serves(process: psutil.Process, model: str) -> bool:
    try:
        words = process.cmdline()
    except psutil.Error:
        return False
    return "llmswap.fake_upstream" in words and ["--model", model] in [words[i : i + 2] for i in range(len(words))]


def _describe(process: psutil.Process) -> str:
    try:
        return f"{process.pid} {shlex.join(process.cmdline())}"
    except psutil.Error:
        return str(process.pid)


def _kill(process: psutil.Process) -> None:
    try:
        process.kill()
    except psutil.Error:
        return  # gone by itself


def _end(program: Program) -> str:
    """End a program: ask, insist, kill. Gives a complaint if it had to be killed."""
    process = program.process
    for number, within_s in ((signal.SIGTERM, STOP_LIMIT_S), (signal.SIGTERM, STOP_LIMIT_S / 2), (signal.SIGKILL, 5.0)):
        if process.poll() is not None:
            return ""
        process.send_signal(number)
        try:
            process.wait(within_s)
        except subprocess.TimeoutExpired:
            continue
        if number == signal.SIGKILL:
            return f"llmswap (pid {process.pid}) had to be killed:\n{program.log_text()[-8000:]}"
    return ""
