"""A Docker engine of our own, with stand-in images under the names that the stack uses; nothing comes from a registry.

Everything of it lives in one folder outside of the repository ($DK), which `engine.sh` and `images.sh` fill.
"""

import os
import re
import signal
import subprocess
import tempfile
import time
from collections.abc import Mapping
from pathlib import Path

import psutil
import pytest

ROOT = Path(__file__).resolve().parents[2]
HERE = Path(__file__).parent
BUILD_LIMIT_S = 400
STANDINS = {"grafana": "grafana/grafana", "tempo": "grafana/tempo"}
TOLD: list[str] = []
# What images.sh calls each of its images.
VARIABLES = {"prom/prometheus": "PROM_IMAGE", "prom/alertmanager": "AM_IMAGE", "prom/node-exporter": "NE_IMAGE"}
# Docker offers GPUs if it finds this program when it starts, and runs it in a container that asked for one.
GPU_HOOK = "nvidia-container-runtime-hook"


def stack_scripts() -> Path:
    """Find the scripts; without them nothing here can run, which is a failure where it counts."""
    folder = Path(os.environ.get("LLMSWAP_STACK") or ROOT.parent / "shared" / "stack").resolve()
    if not (folder / "engine.sh").exists():
        message = f"{folder / 'engine.sh'} is not there: the stack cannot be tested (LLMSWAP_STACK names another place)"
        pytest.fail(message) if os.environ.get("CI") else pytest.skip(message)
    return folder


def told(text: str) -> None:
    """Say something that stands in the output of the run (conftest.py), whatever pytest captures."""
    TOLD.append(text)


class Engine:
    """The engine, running.

    Attributes:
        environ: With what its client finds it.
        began_s: When it was begun with.
    """

    def __init__(self) -> None:
        self.began_s = time.monotonic()
        self._scripts = stack_scripts()
        place = Path(os.environ.get("DK") or Path(tempfile.gettempdir()) / "llmswap-stack")
        self._pidfile = place / "dockerd.pid"
        inherited = {key: value for key, value in os.environ.items() if not key.startswith(("COMPOSE_", "DOCKER_"))}
        self.environ: dict[str, str] = inherited | {
            "DK": str(place),
            "DOCKER_HOST": f"unix://{place}/docker.sock",
            "DOCKER_CONFIG": f"{place}/cfg",
            "PATH": f"{place}/bin:{os.environ['PATH']}",
        }
        hook = place / "bin" / GPU_HOOK
        if not hook.exists():  # an engine that runs already has not seen it
            self._script("engine.sh", "down")
            hook.parent.mkdir(parents=True, exist_ok=True)
            hook.write_text(
                "#!/bin/sh\n# Does nothing: there is no GPU. Lets a container that asks for one start.\nexit 0\n"
            )
            hook.chmod(0o755)
        self.up()

    def up(self) -> None:
        """Start it, if it does not run."""
        self._script("engine.sh", "up")

    def down(self) -> None:
        """Remove every container and stop it."""
        self._script("engine.sh", "down")

    def kill(self) -> None:
        """End it as a power cut would, as far as it is concerned: it cannot stop a container any more."""
        pid = int(self._pidfile.read_text())
        process = psutil.Process(pid)
        assert process.name() == "dockerd"
        process.send_signal(signal.SIGKILL)
        process.wait(20)

    def _script(self, name: str, *arguments: str, **more: str) -> None:
        began_s = time.monotonic()
        command = ["bash", self._scripts / name, *arguments]
        done = subprocess.run(
            command,
            env=self.environ | more,
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
            timeout=BUILD_LIMIT_S,
            check=False,
        )
        assert done.returncode == 0, f"{name} {arguments}\n{done.stdout}"
        told(f"{name} {' '.join(arguments)}: {time.monotonic() - began_s:.0f} s")

    def run(self, *words: str, within_s: float = BUILD_LIMIT_S, cwd: Path = ROOT, **environ: str) -> str:
        """Run a command with this engine as Docker's; gives what it prints.

        Raises:
            AssertionError: It failed.
        """
        code, said = self.attempt(*words, within_s=within_s, cwd=cwd, **environ)
        assert code == 0, f"{' '.join(words)}: exit {code}\n{said}"
        return said

    def attempt(
        self, *words: str, within_s: float = BUILD_LIMIT_S, cwd: Path = ROOT, **environ: str
    ) -> tuple[int, str]:
        """Run a command that may fail; gives its exit code and what it prints, errors at the end."""
        done = subprocess.run(
            words,
            env=self.environ | environ,
            cwd=cwd,
            stdin=subprocess.DEVNULL,
            capture_output=True,
            text=True,
            timeout=within_s,
            check=False,
        )
        return done.returncode, done.stdout + (done.stderr if done.returncode else "")

    def make_images(self, names: Mapping[str, str]) -> None:
        """Make images, which cannot be pulled, of real programs, and of Python's own.

        Args:
            names: Service -> image.
        """
        known = {repository: image for image in names.values() if (repository := image.split(":")[0]) in VARIABLES}
        self._script("images.sh", **{VARIABLES[repository]: image for repository, image in known.items()})
        told(f"the real programs, in images made here: {', '.join(known.values())}")

    def make_standins(self, names: Mapping[str, str], llmswap: str) -> None:
        """Make images of ours in place of programs that cannot be had at all.

        Args:
            names: Service -> image.
            llmswap: The image of llmswap, on which they are built.
        """
        for service, repository in STANDINS.items():
            assert re.fullmatch(rf"{repository}:[\w.]+", names[service])
            build = ("docker", "build", "--quiet", "--build-arg", f"LLMSWAP_IMAGE={llmswap}", "--target", service)
            self.run(*build, "--tag", names[service], str(HERE / "standins"))
        told(f"stand-ins, not the real thing: {', '.join(names[service] for service in STANDINS)}")
