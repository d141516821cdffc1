"""Which commands run a container, and what becomes of one whose daemon cannot be asked or whose name stays taken."""

import os

import pytest

from llmswap.config.command import split
from llmswap.core.events import StartFailed, StopFailed, UpstreamReady, UpstreamStopped
from llmswap.runtime import containers
from llmswap.runtime.containers import find
from tests.faults.docker import Docker
from tests.runtime.rig import supervised, until

RUN = "docker run --rm --name box --publish ${PORT}:8000 engine m"
PLACE = {"proxy": "http://localhost:${PORT}", "check_path": "/health", "trust_proxy": True}


@pytest.fixture
def docker(tmp_path, monkeypatch):
    docker = Docker(tmp_path / "bin", "")
    monkeypatch.setenv("PATH", docker.path + os.pathsep + os.environ["PATH"])
    monkeypatch.setattr(containers, "NAME_LIMIT_S", 0.2)
    monkeypatch.setattr(containers, "REMOVE_LIMIT_S", 0.2)
    monkeypatch.setattr(containers, "_STUCK_POLL_S", 0.05)
    yield docker
    docker.close()


@pytest.mark.parametrize(
    ("cmd", "argv"),
    [
        ("docker run image", "docker run --label llmswap.life=t image"),
        ("/usr/bin/podman run -it image x", "/usr/bin/podman run --label llmswap.life=t -it image x"),
        (
            "sudo -E env A=1 docker -H=h --context c run i",
            "sudo -E env A=1 docker -H=h --context c run --label llmswap.life=t i",
        ),
        ("docker container run i", "docker container run --label llmswap.life=t i"),
    ],
)
def test_a_plain_run_gets_our_label(cmd, argv):
    found = find(split(cmd), "t", lambda *_: None)
    assert found is not None
    assert found.argv == argv.split()


@pytest.mark.parametrize(
    "cmd", ["", "docker", "docker start box", "docker compose run x", "bash -c 'docker run i'", "serve docker run i"]
)
def test_anything_else_is_left_as_it_is(cmd):
    assert find(split(cmd), "t", lambda *_: None) is None


@pytest.mark.parametrize(
    ("options", "name"),
    [("--rm --name a i", "a"), ("--name=a i", "a"), ("-p 1:2 --rm i serve --name x", ""), ("i", ""), ("--name", "")],
)
def test_a_name_is_found_before_the_images_own_arguments(options, name):
    assert containers._name(options.split()) == name


async def test_a_name_that_stays_taken_fails_the_start_and_its_holder_is_left_alone(docker):
    strange = docker.stranger("box")
    async with supervised() as rig:
        rig.start(RUN, **PLACE)
        failed = await rig.next(StartFailed)
        assert failed.reason == "the name box is taken by another container; remove that"
    assert strange.process.poll() is None
    assert list(docker.containers) == ["box"]


async def test_a_container_whose_daemon_cannot_be_asked_is_stuck_until_it_can(docker):
    async with supervised() as rig:
        rig.start(RUN, **PLACE)
        await rig.next(UpstreamReady)
        docker.ail("no daemon today")
        rig.stop()
        failed = await rig.next(StopFailed)
        assert failed.reason.startswith("its container cannot be removed: ")
        assert "no daemon today" in failed.reason
        docker.ail("")
        await rig.next(UpstreamStopped)
    assert docker.containers == {}


async def test_a_daemon_that_stays_away_does_not_keep_llmswap_from_ending(docker):
    async with supervised() as rig:
        rig.start(RUN, **PLACE)
        await rig.next(UpstreamReady)
        docker.ail("no daemon today")
        rig.stop(force=True)
        await rig.next(UpstreamStopped, within_s=5)
    await until(lambda: docker.containers, "nobody could remove it")
