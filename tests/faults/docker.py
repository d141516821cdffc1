"""A `docker` on PATH, and its daemon: a thread of the test. Containers are simulated upstreams that the daemon starts.

So a container is in nobody's process tree but the test's, as a real one. Understood are `run`, `ps` with a filter, and
`rm --force`, of `run` the options `--rm`, `--name`, `--label` and `--publish`; what follows the image is the model.
"""

import contextlib
import json
import os
import shlex
import socket
import socketserver
import subprocess
import sys
import threading
from dataclasses import dataclass, field
from pathlib import Path

from tests.stack import TAG, fake

_CLIENT = """#!{python} -ISE
import json, os, signal, socket, sys
trouble = {trouble!r}
if os.path.exists(trouble):
    print("docker: " + open(trouble).read(), file=sys.stderr)
    print("", "Run 'docker run --help' for more information", sep=chr(10), file=sys.stderr)
    os._exit(125 if "run" in sys.argv else 1)
daemon = socket.create_connection(("127.0.0.1", {port}))
signal.signal(signal.SIGTERM, lambda *_: daemon.sendall(b"TERM\\n"))
daemon.sendall(json.dumps(sys.argv[1:]).encode() + b"\\n")
for line in daemon.makefile("rb"):
    said = json.loads(line)
    if isinstance(said, int):
        os._exit(said)
    print(said, flush=True)
os._exit(1)
"""


@dataclass
class Container:
    """One, from its creation to its removal."""

    id: str
    name: str
    label: str
    removes_itself: bool
    process: subprocess.Popen[bytes]


@dataclass
class Docker:
    """The daemon, for one test; `start` puts its client on a program's PATH.

    Attributes:
        containers: What `docker ps --all` shows.
        asked: Every command line that came, without `docker`.
        may_remove: While not set, a removal by `--rm` is at work and does not end.
        may_map: While not set, a published port leads nowhere yet; `turned_away` counts who has tried it.
        flags: More options of the simulated upstreams.
    """

    folder: Path
    tag: str
    flags: tuple[str, ...] = ()
    containers: dict[str, Container] = field(default_factory=dict)
    asked: list[list[str]] = field(default_factory=list)
    may_remove: threading.Event = field(default_factory=threading.Event)
    may_map: threading.Event = field(default_factory=threading.Event)
    turned_away: int = 0

    def __post_init__(self) -> None:
        self.may_remove.set()
        self.may_map.set()
        self._lock = threading.Lock()
        docker = self

        class Handler(socketserver.StreamRequestHandler):
            def handle(self) -> None:
                with contextlib.suppress(OSError, ValueError):  # the client was killed
                    docker._answer(self)

        self._server = socketserver.ThreadingTCPServer(("127.0.0.1", 0), Handler, bind_and_activate=True)
        self._server.daemon_threads = True
        self._thread = threading.Thread(target=self._server.serve_forever, args=(0.01,), daemon=True)
        self._thread.start()
        self.folder.mkdir()
        self._trouble = self.folder / "trouble"
        client = self.folder / "docker"
        client.write_text(
            _CLIENT.format(python=sys.executable, port=self._server.server_address[1], trouble=str(self._trouble))
        )
        client.chmod(0o755)

    @property
    def path(self) -> str:
        """A PATH on which our client comes first."""
        return f"{self.folder}{os.pathsep}{os.environ['PATH']}"

    def ail(self, words: str) -> None:
        """Let every client fail with these words from now on; none: no more. Containers live on."""
        if words:
            self._trouble.write_text(words)
        else:
            self._trouble.unlink()

    def stranger(self, name: str) -> Container:
        """Add a container that somebody else has started."""
        process = subprocess.Popen(["sleep", "1000"])
        one = self.containers[name] = Container(name, name, "somebody=else", removes_itself=True, process=process)
        threading.Thread(target=self._wait, args=(one, lambda said: None), daemon=True).start()
        return one

    def close(self) -> None:
        """End everything."""
        self.may_remove.set()
        self.may_map.set()
        self._server.shutdown()
        self._thread.join()
        self._server.server_close()
        for container in tuple(self.containers.values()):
            container.process.kill()
            container.process.wait()

    def _answer(self, client: socketserver.StreamRequestHandler) -> None:
        words = json.loads(client.rfile.readline())
        self.asked.append(words)

        def say(said: object) -> None:
            client.wfile.write(json.dumps(said).encode() + b"\n")

        match words:
            case ["run", *rest]:
                self._run(client, rest, say)
            case ["ps", "--all", *_, "--filter", wanted] | ["ps", "--all", "--filter", wanted, *_]:
                for one in tuple(self.containers.values()):
                    if wanted == f"label={one.label}" or (wanted.startswith("name=") and wanted[5:] in one.name):
                        say(one.name if "{{.Names}}" in words else one.id)
                say(0)
            case ["rm", "--force", *ids]:
                say(
                    max(
                        [self._remove(self.containers[known], say) for known in ids if known in self.containers],
                        default=0,
                    )
                )
            case _:
                say(f"docker: not understood here: {words}")
                say(1)

    def _remove(self, one: Container, say) -> int:
        one.process.kill()
        one.process.wait()
        if not self.may_remove.is_set():
            say(f"Error response from daemon: removal of container {one.id} is already in progress")
            return 1
        self.containers.pop(one.id, None)
        return 0

    def _run(self, client: socketserver.StreamRequestHandler, words: list[str], say) -> None:
        given: dict[str, str] = {}
        while words[0].startswith("-"):
            option = words.pop(0)
            given[option] = "" if option == "--rm" else words.pop(0)
        with self._lock:
            name = given.get("--name", f"box{len(self.asked)}")
            if any(one.name == name for one in self.containers.values()):
                say(f"docker: Error response from daemon: Conflict. The container name {name!r} is already in use")
                say(125)
                return
            command = fake(words[1], *self.flags).replace("${PORT}", given["--publish"].partition(":")[0])
            self._map(int(given["--publish"].partition(":")[0]))
            env = {**os.environ, TAG: self.tag}
            process = subprocess.Popen(shlex.split(command), env=env, stdin=subprocess.DEVNULL)
            one = Container(f"{process.pid:064x}", name, given.get("--label", ""), "--rm" in given, process)
            self.containers[one.id] = one
        threading.Thread(target=self._wait, args=(one, say), daemon=True).start()
        while client.rfile.readline() == b"TERM\n":
            process.terminate()

    def _map(self, port: int) -> None:
        """Take connections on a published port, and close them, until it leads somewhere."""
        if self.may_map.is_set():
            return
        with socket.create_server(("127.0.0.1", port)) as proxy:
            proxy.settimeout(0.01)
            while not self.may_map.is_set():
                with contextlib.suppress(TimeoutError):
                    proxy.accept()[0].close()
                    self.turned_away += 1

    def _wait(self, one: Container, say) -> None:
        code = one.process.wait()
        with contextlib.suppress(OSError, ValueError):
            say(code if code >= 0 else 128 - code)
        self.may_remove.wait(30)
        if one.removes_itself:
            self.containers.pop(one.id, None)
