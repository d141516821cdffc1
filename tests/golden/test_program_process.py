"""Golden rows of processes (llama-swap.md 8.4) as a client of the whole program sees them."""

import asyncio

from tests.dialogue import ask
from tests.runtime.children import server
from tests.stack import fake


async def test_g098_running_shows_stopping_while_a_stubborn_process_has_its_grace(stack, http):
    program = stack.start({"models": {"deaf": {"cmd": fake("deaf", "--ignore-sigterm"), "unloadTimeout": 1}}})
    assert (await ask(http, program, "deaf"))[0] == 200
    unloading = asyncio.create_task(http.post(program.url + "/api/models/unload/deaf"))
    await program.until_state("deaf", "stopping")
    assert (await unloading).status == 200
    assert await program.running() == {}
    assert program.family() == []


async def test_g102_with_check_endpoint_none_a_request_before_the_port_opens_is_a_502(stack, http):
    program = stack.start({"models": {"a": {"cmd": server("bind_after=30"), "checkEndpoint": "none"}}})
    status, answer = await ask(http, program, "a")
    assert status == 502, answer
    assert await program.running() == {"a": "ready"}


async def test_g104_crash_while_ready_shows_as_stopped_and_the_next_request_restarts_it(stack, http):
    program = stack.start({"models": {"a": {"cmd": fake("a")}}})
    assert (await ask(http, program, "a"))[0] == 200
    program.upstream("a").kill()
    await program.until_state("a", "stopped", within_s=1)
    assert (await ask(http, program, "a"))[0] == 200


async def test_g105_env_of_a_model_reaches_its_process_with_macros_filled_in(stack, http):
    stack.environ["INHERITED"] = "ours"
    show = server("show=INHERITED,NAME,PORT_TEXT")
    env = ["INHERITED=theirs", "NAME=${MODEL_ID}", "PORT_TEXT=port ${PORT}"]
    program = stack.start({"startPort": 30211, "models": {"org/a": {"cmd": show, "env": env}}})
    async with http.get(program.url + "/upstream/org/a/x") as answer:
        assert answer.status == 200
    async with http.get(program.url + "/logs/stream/org/a") as stream:
        lines: list[str] = []
        while not lines or not lines[-1].startswith("PORT_TEXT"):
            lines.append((await stream.content.readline()).decode().strip())
    assert "INHERITED=theirs" in lines
    assert "NAME=org/a" in lines
    assert lines[-1].removeprefix("PORT_TEXT=port ").isdigit()
