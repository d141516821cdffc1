"""Fault rows of `docker run` as a command: the client, the container and the daemon each have a fate of their own."""

import asyncio
import time

import aiohttp
import psutil
import pytest

from tests.dialogue import ask
from tests.faults.docker import Container, Docker
from tests.runtime.rig import free_port
from tests.stack import Program, fake, until

RUN = "docker run --rm --name box --publish ${PORT}:8000 engine m"


@pytest.fixture
def docker(tmp_path, stack):
    docker = Docker(tmp_path / "bin", stack.tag)
    stack.environ["PATH"] = docker.path
    yield docker
    stack.close()  # its clients need the daemon for their end
    docker.close()


async def status(http: aiohttp.ClientSession, program: Program, model: str = "m") -> dict:
    async with http.get(program.url + "/api/status") as answer:
        return next(entry for entry in (await answer.json())["models"] if entry["model"] == model)


def client_of(program: Program) -> psutil.Process:
    """The `docker run` of a program."""
    (client,) = [one for one in program.family() if "run" in one.cmdline() and "engine" in one.cmdline()]
    return client


def one_of(docker: Docker) -> Container:
    (container,) = docker.containers.values()
    return container


def upstream(**config) -> dict:
    # A port of its own: that of a container cannot be moved once it is taken, and tests run side by side.
    return {"startPort": free_port(), "models": {"m": {"cmd": RUN, **config}, "other": {"cmd": fake("other")}}}


@pytest.mark.parametrize("name", ["--name box ", ""])
async def test_F041_a_container_whose_client_died_is_removed_before_anything_else_starts(stack, http, docker, name):
    program = stack.start(upstream(cmd=RUN.replace("--name box ", name)))
    assert (await ask(http, program, "m"))[0] == 200
    first = one_of(docker)
    client_of(program).kill()
    await until(lambda: first.process.poll() is not None, "the container is ended")
    assert (await ask(http, program, "other"))[0] == 200
    assert docker.containers == {}
    assert "was killed by SIGKILL" in (await status(http, program))["failure"]
    assert await program.running() == {"other": "ready"}
    assert (await ask(http, program, "m"))[0] == 200
    assert one_of(docker).id != first.id
    async with http.post(program.url + "/api/models/unload") as answer:
        assert answer.status == 200
    assert docker.containers == {}
    assert (await status(http, program))["failure"] is None


async def test_F041_a_container_that_ignores_sigterm_is_gone_when_unload_returns(stack, http, docker):
    """Its client is killed after the grace, and would leave it behind; what is somebody else's stays."""
    docker.flags = ("--ignore-sigterm",)
    strange = docker.stranger("box-2")
    program = stack.start(upstream(unloadTimeout=1))
    assert (await ask(http, program, "m"))[0] == 200
    async with http.post(program.url + "/api/models/unload/m") as answer:
        assert answer.status == 200
    assert list(docker.containers) == ["box-2"]
    assert strange.process.poll() is None
    assert await program.running() == {}


async def test_F042_a_name_is_not_used_again_before_its_removal_is_over(stack, http, docker):
    program = stack.start(upstream())
    assert (await ask(http, program, "m"))[0] == 200
    docker.may_remove.clear()
    unload = asyncio.create_task(http.post(f"{program.url}/api/models/unload/m"))
    await until(lambda: ["rm", "--force"] in [words[:2] for words in docker.asked], "the container is to go")
    again = asyncio.create_task(ask(http, program, "m"))
    await until(lambda: waiting(program), "a request waits")
    assert not unload.done()
    assert (await program.running())["m"] == "stopping"
    docker.may_remove.set()
    assert (await again)[0] == 200
    assert (await unload).status == 200
    assert "Conflict" not in program.log_text()
    assert (await status(http, program))["failure"] is None


async def waiting(program: Program) -> bool:
    return await program.metric("llmswap_queue_depth", model="m") == 1


async def test_F042_a_name_that_somebody_else_is_about_to_give_back_is_waited_for(stack, http, docker):
    strange = docker.stranger("box")
    program = stack.start(upstream())
    asked = asyncio.create_task(ask(http, program, "m"))
    await until(lambda: sum(words[0] == "ps" for words in docker.asked) > 2, "it asks whether the name is free")
    assert await program.running() == {"m": "starting"}
    strange.process.kill()
    assert (await asked)[0] == 200
    assert "Conflict" not in program.log_text()
    assert len(docker.containers) == 1


@pytest.mark.parametrize(
    "words",
    [
        "Cannot connect to the Docker daemon at unix:///var/run/docker.sock. Is the docker daemon running?",
        "permission denied while trying to connect to the Docker daemon socket at unix:///var/run/docker.sock",
    ],
)
async def test_F043_a_daemon_that_cannot_be_asked_fails_the_start_at_once_in_its_own_words(stack, http, docker, words):
    program = stack.start(upstream())
    assert (await ask(http, program, "other"))[0] == 200
    docker.ail(words)
    began_s = time.monotonic()
    code, answer = await ask(http, program, "m")
    assert time.monotonic() - began_s < 3
    assert (code, answer["error"]["code"]) == (502, "start_failed")
    assert words in answer["error"]["message"]
    told = await status(http, program)
    assert told["state"] == "failed"
    assert words in told["failure"]
    assert (await ask(http, program, "m"))[0] == 503, "it backs off"
    assert (await ask(http, program, "other"))[0] == 200
    docker.ail("")

    async def served() -> bool:
        return (await ask(http, program, "m"))[0] == 200

    await until(served, "the daemon is back, and so is the model")


async def test_F044_a_port_that_leads_nowhere_yet_is_not_ready(stack, http, docker):
    """The port takes connections from the first moment on, and the container calls itself healthy."""
    docker.may_map.clear()
    program = stack.start(upstream())
    asked = asyncio.create_task(ask(http, program, "m"))
    await until(lambda: docker.turned_away > 3, "readiness is asked for, over and over")
    assert not asked.done()
    assert await program.running() == {"m": "starting"}
    docker.may_map.set()
    assert (await asked)[0] == 200
    assert (await status(http, program))["failure"] is None
    assert await program.running() == {"m": "ready"}
    assert await program.metric("llmswap_swaps_total", to_model="m", outcome="ok") == 1
