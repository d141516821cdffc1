"""`deploy/up.sh` with commands that are not there: what it finds, what it writes, what it leaves alone."""

import os
import shutil
import socket
import stat
import subprocess
from dataclasses import dataclass, field
from pathlib import Path

import pytest

from tests.deploy.files import DEPLOY

TOOLS = ("bash", "dirname", "find", "head", "paste", "grep", "sed", "tail", "stat", "awk", "cat", "mkdir", "mv", "id")
DOCKER = """#!/bin/sh
echo "$*" >>{log}
case "$*" in
  "compose version") exit {compose};;
  info) exit {engine};;
  "info --format"*) echo "runc {runtimes}";;
  "compose up"*) exit {up};;
  "compose exec -T grafana cat "*) echo the-password;;
  "compose port llmswap 8080") echo 127.0.0.1:8080;;
  "compose port grafana 3000") echo 127.0.0.1:3000;;
esac
"""
MAIN_ONLY = "docker-compose.yml"
NVIDIA = "docker-compose.yml:deploy/compose.gpu.yml"
AMD = "docker-compose.yml:deploy/compose.amd.yml"


@dataclass
class Box:
    """A clone of the repository, as far as the script looks at it, on a machine of its own."""

    root: Path
    environ: dict[str, str] = field(default_factory=dict)
    said: str = ""

    def __post_init__(self) -> None:
        for folder in ("deploy", "prometheus", "grafana", "loadtests", "bin", "dev"):
            (self.root / folder).mkdir()
        shutil.copy(DEPLOY / "up.sh", self.root / "deploy")
        for tool in TOOLS:
            (self.root / "bin" / tool).symlink_to(shutil.which(tool))
        (self.root / "meminfo").write_text("MemTotal:       10485760 kB\nMemFree: 1 kB\n")
        self.docker()

    def docker(self, *, compose: int = 0, engine: int = 0, up: int = 0, runtimes: str = "") -> None:
        """Install a docker with these exit codes."""
        log = self.root / "asked"
        self.command("docker", DOCKER.format(log=log, compose=compose, engine=engine, up=up, runtimes=runtimes))

    def command(self, name: str, text: str = "#!/bin/sh\n") -> None:
        path = self.root / "bin" / name
        path.write_text(text)
        path.chmod(0o755)

    def up(self, *arguments: str) -> int:
        """Run it."""
        own = {
            "PATH": str(self.root / "bin"),
            "LLMSWAP_DEV": str(self.root / "dev"),
            "LLMSWAP_MEMINFO": str(self.root / "meminfo"),
            "DOCKER_SOCKET": str(self.root / "docker.sock"),
        }
        done = subprocess.run(
            ["bash", self.root / "deploy" / "up.sh", *arguments],
            check=False,
            env=own | self.environ,
            cwd="/",
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
            timeout=30,
        )
        self.said = done.stdout
        return done.returncode

    @property
    def asked(self) -> list[str]:
        """What docker has been asked."""
        log = self.root / "asked"
        return log.read_text().splitlines() if log.exists() else []

    @property
    def env(self) -> dict[str, str]:
        """The settings in .env."""
        lines = (self.root / ".env").read_text().splitlines()
        return dict(line.split("=", 1) for line in lines if line and not line.startswith("#"))


@pytest.fixture
def box(tmp_path):
    return Box(tmp_path)


def test_without_a_gpu_the_main_file_is_all(box):
    assert box.up() == 0, box.said
    assert box.env == {"COMPOSE_FILE": MAIN_ONLY}
    assert "compose up --detach --wait --wait-timeout 300" in box.asked
    assert "http://127.0.0.1:8080/v1" in box.said
    assert "http://127.0.0.1:3000" in box.said
    assert "note:" not in box.said


@pytest.mark.parametrize("toolkit", ["nvidia-ctk", "nvidia-container-runtime-hook", "a runtime"])
def test_an_nvidia_gpu_that_docker_can_hand_out_is_used(box, toolkit):
    (box.root / "dev" / "nvidiactl").touch()
    if toolkit == "a runtime":
        box.docker(runtimes="nvidia")
    else:
        box.command(toolkit)
    assert box.up() == 0, box.said
    assert box.env == {"COMPOSE_FILE": NVIDIA, "LLMSWAP_MEMORY": "9216m"}


def test_an_nvidia_gpu_is_also_found_by_its_tool(box):
    """WSL has no /dev/nvidiactl."""
    box.command("nvidia-smi")
    box.command("nvidia-ctk")
    assert box.up() == 0, box.said
    assert box.env["COMPOSE_FILE"] == NVIDIA


def test_a_tool_that_finds_no_gpu_is_none(box):
    box.command("nvidia-smi", "#!/bin/sh\nexit 9\n")
    box.command("nvidia-ctk")
    assert box.up() == 0, box.said
    assert box.env == {"COMPOSE_FILE": MAIN_ONLY}


def test_a_gpu_that_docker_cannot_hand_out_does_not_keep_the_stack_down(box):
    (box.root / "dev" / "nvidiactl").touch()
    assert box.up() == 0, box.said
    assert box.env == {"COMPOSE_FILE": MAIN_ONLY}
    assert "NVIDIA Container Toolkit" in box.said


def test_an_amd_gpu_brings_the_groups_of_its_devices(box):
    (box.root / "dev" / "dri").mkdir()
    for device in ("kfd", "dri/card1"):
        (box.root / "dev" / device).touch()
        os.chown(box.root / "dev" / device, -1, os.getgid())
    assert box.up() == 0, box.said
    group = str(os.getgid())
    assert box.env == {
        "COMPOSE_FILE": AMD,
        "LLMSWAP_VIDEO_GID": group,
        "LLMSWAP_RENDER_GID": group,
        "LLMSWAP_MEMORY": "9216m",
    }


def test_an_amd_gpu_without_a_card_gets_the_usual_group(box):
    (box.root / "dev" / "kfd").touch()
    assert box.up() == 0, box.said
    assert box.env["LLMSWAP_VIDEO_GID"] == "44"


def test_what_the_user_set_stays_as_it_is(box):
    (box.root / "dev" / "kfd").touch()
    written = "# mine\nexport COMPOSE_FILE=docker-compose.yml:mine.yml\nLLMSWAP_MEMORY=\nLLMSWAP_PORT=9000"
    (box.root / ".env").write_text(written)
    assert box.up() == 0, box.said
    text = (box.root / ".env").read_text()
    assert text.startswith(written + "\n")
    assert text.count("COMPOSE_FILE=") == 1
    assert text.count("LLMSWAP_MEMORY=") == 1
    assert "leaves deploy/compose.amd.yml out" in box.said


def test_what_the_environment_says_is_not_written_down(box):
    (box.root / "dev" / "kfd").touch()
    box.environ = {"COMPOSE_FILE": "docker-compose.yml", "LLMSWAP_MEMORY": "1g"}
    assert box.up() == 0, box.said
    assert box.env.keys() == {"LLMSWAP_VIDEO_GID", "LLMSWAP_RENDER_GID"}
    assert "leaves deploy/compose.amd.yml out" in box.said


def test_doing_it_again_changes_nothing(box):
    (box.root / "dev" / "kfd").touch()
    assert box.up() == 0, box.said
    before = (box.root / ".env").read_text()
    assert box.up() == 0, box.said
    assert (box.root / ".env").read_text() == before


def test_an_override_that_compose_would_read_by_itself_is_still_read(box):
    (box.root / "docker-compose.override.yml").touch()
    assert box.up() == 0, box.said
    assert box.env["COMPOSE_FILE"] == "docker-compose.yml:docker-compose.override.yml"


def test_the_group_of_the_engines_socket_is_noted(box):
    with socket.socket(socket.AF_UNIX) as listener:
        os.chdir(box.root)  # a socket's path must be short
        listener.bind("docker.sock")
        assert box.up() == 0, box.said
    assert box.env["DOCKER_GID"] == str((box.root / "docker.sock").stat().st_gid)


def test_the_password_is_for_its_owner_alone(box):
    os.umask(os.umask(0o022))
    assert box.up() == 0, box.said
    password = box.root / ".secrets" / "grafana_admin_password"
    assert password.read_text() == "the-password\n"
    assert stat.S_IMODE(password.stat().st_mode) == 0o600
    assert stat.S_IMODE(password.parent.stat().st_mode) == 0o700
    assert "the-password" not in box.said
    assert str(password.relative_to(box.root)) in box.said


def test_secrets_and_settings_are_not_for_git():
    ignored = (DEPLOY.parent / ".gitignore").read_text().splitlines()
    assert {"/.env", "/.secrets/"} <= set(ignored)


def test_further_arguments_are_composes(box):
    assert box.up("--profile-less", "llmswap") == 0, box.said
    assert "compose up --detach --wait --wait-timeout 300 --profile-less llmswap" in box.asked


def test_no_docker_no_compose_or_no_engine_is_said_before_anything_is_written(box):
    box.docker(engine=1)
    assert box.up() == 1
    assert "the Docker engine does not answer" in box.said
    box.docker(compose=1)
    assert box.up() == 1
    assert "without its compose plugin" in box.said
    (box.root / "bin" / "docker").unlink()
    assert box.up() == 1
    assert "Docker is not installed" in box.said
    assert not (box.root / ".env").exists()


def test_files_that_containers_cannot_read_are_named_with_the_cure(box):
    closed = box.root / "prometheus" / "prometheus.yml"
    closed.touch(0o600)
    assert box.up() == 1
    assert "cannot read prometheus/prometheus.yml: chmod -R o+rX" in box.said
    closed.chmod(0o644)
    (box.root / "grafana").chmod(0o700)
    assert box.up() == 1
    assert "cannot read grafana: chmod" in box.said
    (box.root / "grafana").chmod(0o755)
    (box.root / "deploy" / ".editor-swap").touch(0o600)
    assert box.up() == 0, box.said


def test_a_stack_that_does_not_come_up_is_a_failure_that_says_where_to_look(box):
    box.docker(up=1)
    assert box.up() == 1
    assert "docker compose logs SERVICE says why" in box.said
    assert not (box.root / ".secrets").exists()
