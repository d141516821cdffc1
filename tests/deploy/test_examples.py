"""Every config that is handed out is one that llmswap takes without a word."""

import re

import pytest

from llmswap.cli import main
from llmswap.config.load import load
from tests.deploy.files import CONFIGS, DEPLOY, ROOT, compose

ENVIRON = {"LLMSWAP_MODELS": "/models"}


@pytest.mark.parametrize("path", CONFIGS, ids=lambda path: path.stem)
def test_llmswap_check_has_nothing_to_say(path, capsys, monkeypatch):
    monkeypatch.setenv("LLMSWAP_MODELS", "/models")
    assert main(["check", "--config", str(path)]) == 0
    assert capsys.readouterr().out.endswith("model(s), 0 warning(s)\n")


@pytest.mark.parametrize("path", CONFIGS, ids=lambda path: path.stem)
def test_it_fits_into_the_stack(path):
    """Prometheus gets in by the name it uses; traces go to Tempo; the journal lies on a volume."""
    settings = load(path, None, ENVIRON).settings
    assert "llmswap" in settings.access.allowed_hosts
    assert settings.access.allow_unauthenticated
    assert settings.telemetry.endpoint == "http://tempo:4318"
    (data,) = [word for word in compose()["services"]["llmswap"]["volumes"] if word.startswith("llmswap-data:")]
    assert str(settings.journal.path).startswith(data.partition(":")[2] + "/")


def test_the_examples_are_those_that_were_promised():
    text = {path.stem: path.read_text() for path in CONFIGS}
    assert "llama-server" in text["llama-cpp"]
    assert {"vllm-l1", "vllm-l2"} <= set(re.findall(r"preset: ([\w-]+)", text["vllm-sleep"]))
    assert all(word in text["mixed-matrix"] for word in ("--embeddings", "--reranking", "use: matrix"))
    assert text["docker-run"].count("docker run") == 1
    assert "fake-upstream" in text["llmswap"]
    assert "examples/" in (DEPLOY / "README.md").read_text()


def test_an_engine_listens_to_nobody_but_llmswap():
    for path in CONFIGS:
        for model in load(path, None, ENVIRON).settings.models.values():
            if " --host " in model.launch.cmd and "docker run" not in model.launch.cmd:
                assert " --host 127.0.0.1 " in model.launch.cmd, path.name


def test_the_docker_example_names_what_its_override_makes():
    text = (DEPLOY / "examples" / "docker-run.yaml").read_text()
    network = compose(DEPLOY / "compose.docker.yml")["networks"]["engines"]["name"]
    assert f"--network {network} " in text
    assert "--publish" not in text


def test_the_systemd_unit_starts_what_is_there_and_closes_the_rest():
    lines = (DEPLOY / "llmswap.service").read_text().splitlines()
    start = next(line for line in lines if line.startswith("ExecStart="))
    assert start.endswith("llmswap serve --config /etc/llmswap/config.yaml --state-dir /var/lib/llmswap/state")
    closed = {"NoNewPrivileges=yes", "CapabilityBoundingSet=", "ProtectSystem=strict", "RestrictSUIDSGID=yes"}
    assert closed | {"User=llmswap", "KillMode=mixed", "RestartPreventExitStatus=2 78"} <= set(lines)
    assert not any(line.startswith("MemoryDenyWriteExecute=") for line in lines), "engines compile at run time"


def test_the_image_is_built_on_any_base_and_runs_as_nobody_special():
    text = (DEPLOY / "Dockerfile").read_text()
    assert "ARG BASE_IMAGE=python:3.13-slim" in text
    assert re.findall(r"^FROM (\S+)", text, re.MULTILINE)[0] == "${BASE_IMAGE}"
    assert re.findall(r"^FROM .* AS (\S+)", text, re.MULTILINE)[-1] == "llmswap", "the last one is built by default"
    assert re.findall(r"^USER (\S+)", text, re.MULTILINE)[-1] == "10001:10001"
    assert "HEALTHCHECK" in text
    assert not re.search(r"^# *syntax=", text, re.MULTILINE)
    sent = (DEPLOY / "Dockerfile.dockerignore").read_text().splitlines()
    assert "*" in sent
    for line in sent:
        if line.startswith("!"):
            assert (ROOT / line[1:]).exists()
