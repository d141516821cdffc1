"""Models that are containers: llmswap asks the engine through a proxy that lets through just what it needs."""

import json
import tarfile
import urllib.error
import urllib.request
from collections.abc import Iterator
from pathlib import Path

import pytest
import yaml

from tests.deploy.files import DEPLOY, compose
from tests.real_stack.clone import Stack
from tests.real_stack.engine import HERE, told
from tests.stack import until_now

pytestmark = [pytest.mark.real, pytest.mark.timeout(900)]

CLI_IMAGE = "docker:28.5.2-cli"
RUN = "docker run --rm --name llmswap-${MODEL_ID} --network llmswap-engines --cap-drop ALL"
ENGINE = "llmswap:local fake-upstream --host 0.0.0.0 --port 8000 --model ${MODEL_ID}"
CONFIG = {
    "allowUnauthenticated": True,
    "allowedHosts": ["llmswap"],
    "models": {
        "first": {
            "cmd": f"{RUN} --volume ${{env.LLMSWAP_MODELS}}:/models:ro {ENGINE}",
            "proxy": "http://llmswap-first:8000",
        },
        "second": {"cmd": f"{RUN} {ENGINE}", "proxy": "http://llmswap-second:8000"},
        "thief": {"cmd": f"{RUN} --volume /etc:/stolen {ENGINE}", "proxy": "http://llmswap-thief:8000"},
    },
}


def make_images(stack: Stack, folder: Path) -> None:
    """Put Docker's own client, and a stand-in of ours for the proxy, under the names that are pulled."""
    assert f"ARG DOCKER_CLI_IMAGE={CLI_IMAGE}" in (DEPLOY / "Dockerfile").read_text()
    engine = stack.engine
    client = Path(engine.environ["DK"]) / "bin" / "docker"
    with tarfile.open(folder / "cli.tar", "w") as tar:
        tar.add(client.resolve(), "usr/local/bin/docker")
    engine.run("docker", "import", "--change", "LABEL llmswap.standin=1", str(folder / "cli.tar"), CLI_IMAGE)
    image = compose(DEPLOY / "compose.docker.yml")["services"]["docker-proxy"]["image"]
    build = ("docker", "build", "--quiet", "--build-arg", "LLMSWAP_IMAGE=llmswap:local", "--target", "socket-proxy")
    engine.run(*build, "--tag", image, str(HERE / "standins"))
    told(f"a stand-in, not the real thing: {image}; {CLI_IMAGE} holds Debian's client")


@pytest.fixture
def docker(stack: Stack, tmp_path) -> Iterator[Stack]:
    """Run llmswap with Docker's client, on the engine that it runs on itself."""
    make_images(stack, tmp_path)
    socket = Path(stack.engine.environ["DK"]) / "docker.sock"
    (stack.root / "deploy" / "containers.yaml").write_text(yaml.safe_dump(CONFIG))
    given = {
        "COMPOSE_FILE": "docker-compose.yml:deploy/compose.docker.yml",
        "LLMSWAP_CONFIG": "containers.yaml",
        "LLMSWAP_MODELS": str(tmp_path),
        "DOCKER_SOCKET": str(socket),
        "DOCKER_GID": str(socket.stat().st_gid),
    }
    with stack.otherwise(**given):
        stack.up("llmswap")
        yield stack


def ask(stack: Stack, model: str) -> tuple[int, str]:
    """Ask a model; gives the status and the body."""
    body = {"model": model, "messages": [{"role": "user", "content": "hello"}], "max_tokens": 3}
    request = urllib.request.Request(stack.llmswap + "/v1/chat/completions", json.dumps(body).encode())
    request.add_header("Content-Type", "application/json")
    try:
        with urllib.request.urlopen(request, timeout=90) as answer:
            return answer.status, answer.read().decode()
    except urllib.error.HTTPError as error:
        with error:
            return error.code, error.read().decode()


def running(stack: Stack) -> set[str]:
    """Give the names of the models' containers."""
    listed = stack.engine.run("docker", "ps", "--all", "--format", "{{.Names}}", "--filter", "network=llmswap-engines")
    return {name for name in listed.split() if name != "llmswap-llmswap-1"}


def test_models_in_containers_come_and_go_and_take_nothing_that_is_not_theirs(docker: Stack):
    for model in ("first", "second"):
        code, said = ask(docker, model)
        assert code == 200, said + docker.logs("llmswap") + docker.logs("docker-proxy")
        assert running(docker) == {f"llmswap-{model}"}
    code, said = ask(docker, "thief")
    assert code == 502, said
    assert running(docker) <= {"llmswap-second"}
    assert "forbidden: POST" in docker.logs("docker-proxy")
    assert docker.logs("docker-proxy").count("forbidden:") == 1, "nothing else was asked in vain"
    ask(docker, "first")
    docker.compose("stop", "llmswap")
    until_now(lambda: running(docker) == set(), "its containers are gone with it", 30)


def test_the_proxy_for_logs_shows_what_containers_print_and_lets_nothing_else_be_done(docker: Stack):
    """Alloy itself cannot be had here; what it asks, Docker's client asks, too."""
    docker.compose("--profile", "logs", "up", "--detach", "--wait", "--no-deps", "docker-logs")
    number = docker.container("llmswap")["Id"]

    def asked(*words: str, alias: str = "alloy") -> tuple[int, str]:
        run = ("docker", "run", "--rm", "--network", "llmswap_logs", "--network-alias", alias, "--entrypoint", "docker")
        return docker.engine.attempt(
            *run, "--env", "DOCKER_HOST=tcp://docker-logs:2375", "llmswap-docker:local", *words
        )

    for words in (("ps", "--all"), ("network", "ls"), ("inspect", number), ("logs", number)):
        code, said = asked(*words)
        assert code == 0, said
    for words in (
        ("stop", number),
        ("rm", "--force", number),
        ("exec", number, "id"),
        ("run", "llmswap:local", "--help"),
    ):
        code, said = asked(*words)
        assert code != 0
        assert "Forbidden" in said
    assert asked("ps", alias="somebody")[0] != 0
    assert docker.container("llmswap")["State"]["Running"] is True
