"""Fault rows of processes as a client of the whole program sees them."""

import asyncio
import os
import signal
import sys
import time

import aiohttp
import psutil
import pytest

from tests.dialogue import ask
from tests.runtime.children import server, sh
from tests.runtime.rig import alive, free_port
from tests.stack import Program, fake, listening_ports, one, until


async def unload(http: aiohttp.ClientSession, program: Program, model: str) -> float:
    """Unload a model; gives how long that took."""
    began_s = time.monotonic()
    async with http.post(f"{program.url}/api/models/unload/{model}") as answer:
        assert answer.status == 200, await answer.text()
    return time.monotonic() - began_s


async def test_F001_command_not_found_is_a_502_within_200_ms_and_others_are_unaffected(stack, http):
    program = stack.start({"models": {"bad": {"cmd": "/nope ${PORT}"}, "good": {"cmd": fake("good")}}})
    await ask(http, program, "nobody")  # the first request of all warms up more than this one row
    began_s = time.monotonic()
    status, answer = await ask(http, program, "bad")
    took_s = time.monotonic() - began_s
    assert (status, answer["error"]["code"]) == (502, "start_failed")
    assert "cannot start /nope: command not found" in answer["error"]["message"]
    assert took_s < 0.2
    began_s = time.monotonic()
    async with http.post(program.url + "/v1/chat/completions", json={"model": "bad", "messages": []}) as again:
        assert again.status == 503, "it backs off"
        assert int(again.headers["Retry-After"]) >= 1
    assert time.monotonic() - began_s < 0.1
    assert (await ask(http, program, "good"))[0] == 200


async def test_F002_exit_at_once_is_a_502_with_exit_code_and_redacted_tail(stack, http):
    script = sh('echo "loading with $HF_TOKEN" >&2; exit 9 # ${PORT}')
    program = stack.start({"models": {"bad": {"cmd": script, "env": ["HF_TOKEN=hf-is-secret"]}}})
    status, answer = await ask(http, program, "bad")
    assert (status, answer["error"]["code"]) == (502, "start_failed")
    assert "exited with code 9 during start: loading with ***" in answer["error"]["message"]
    assert "hf-is-secret" not in str(answer)
    assert "hf-is-secret" not in program.log_text()


@pytest.mark.parametrize("probe", ["status=503", "hang"])
async def test_F005_F006_health_that_never_is_200_or_hangs_answers_all_waiters_504(stack, http, probe):
    program = stack.start({"models": {"bad": {"cmd": server(probe), "healthCheckTimeout": 1}}})
    began_s = time.monotonic()
    answers = await asyncio.gather(*(ask(http, program, "bad") for _ in range(3)))
    assert 1.0 <= time.monotonic() - began_s < 4.0
    for status, answer in answers:
        assert (status, answer["error"]["code"]) == (504, "start_timeout")
        assert "not ready after 1 s" in answer["error"]["message"]
    assert (await ask(http, program, "bad"))[0] == 503, "it backs off"
    assert program.family() == []


async def test_F004_crash_while_loading_answers_all_waiters_at_once(stack, http):
    program = stack.start({"models": {"bad": {"cmd": server("status=503")}}})
    waiting = [asyncio.create_task(ask(http, program, "bad")) for _ in range(5)]
    upstreams = await until(lambda: [p for p in program.family() if listening_ports(p.pid)], "a loading upstream")
    [loading] = upstreams
    os.kill(loading.pid, signal.SIGKILL)
    killed_s = time.monotonic()
    answers = await asyncio.gather(*waiting)
    assert time.monotonic() - killed_s < 0.3
    assert {status for status, _ in answers} == {502}
    assert all("was killed by SIGKILL during start" in answer["error"]["message"] for _, answer in answers)


async def test_F009_foreign_server_on_the_models_port_never_gets_a_request(stack, http):
    port = free_port()
    heard = stack.directory / "heard"
    script = f"""
import socket
server = socket.create_server(("127.0.0.1", {port}))
while True:
    client, _ = server.accept()
    open({str(heard)!r}, "a").write(client.recv(65536).decode())
    client.sendall(b"HTTP/1.1 200 OK\\r\\nContent-Length: 2\\r\\n\\r\\nno")
    client.close()
"""
    stranger = await asyncio.create_subprocess_exec(sys.executable, "-ISE", "-c", script)
    try:
        await until(lambda: psutil.Process(stranger.pid).net_connections("tcp"), "it listens")
        fixed = server(port=str(port))
        models = {
            "auto": {"cmd": fake("auto")},
            "fixed": {"cmd": fixed, "proxy": f"http://127.0.0.1:{port}"},
        }
        program = stack.start({"startPort": port, "models": models})
        assert (await ask(http, program, "auto"))[0] == 200
        status, answer = await ask(http, program, "fixed")
        assert status == 502
        assert f"port {port} is taken by pid {stranger.pid} (" in answer["error"]["message"]
        assert not heard.exists() or heard.read_text().count("POST") == 0
    finally:
        stranger.kill()
        await stranger.wait()


async def test_F010_F088_killed_llmswap_leaves_nothing_and_its_next_life_serves_the_first_request(stack, http):
    """The leader dies with us; what a wrapper had put below itself is found by the next life of the same config."""
    wrapped = sh(fake("wrapped", "--ignore-sigterm") + " & wait")
    config = {"models": {"direct": {"cmd": fake("direct")}, "wrapped": {"cmd": wrapped}}}
    config["groups"] = {"together": {"swap": False, "members": ["direct", "wrapped"]}}
    first = stack.start(config)
    assert (await ask(http, first, "direct"))[0] == 200
    assert (await ask(http, first, "wrapped"))[0] == 200
    leaders = [child for child in psutil.Process(first.pid).children() if child.pid != first.pid]
    first.process.kill()
    first.process.wait()
    await until(lambda: not any(map(alive, leaders)), "the kernel ends the leaders", within_s=1)
    orphan = one(first.family(), "orphan")
    second = stack.start(config)
    assert not alive(orphan)
    assert (await ask(http, second, "wrapped"))[0] == 200
    assert (await ask(http, second, "direct"))[0] == 200


async def test_F030_crash_while_idle_costs_the_next_request_no_error(stack, http):
    program = stack.start({"models": {"a": {"cmd": fake("a")}}})
    assert (await ask(http, program, "a"))[0] == 200
    for _ in range(5):  # the next request comes before, in or after the moment in which the death is noticed
        program.upstream("a").kill()
        assert (await ask(http, program, "a"))[0] == 200


async def test_F032_F033_F034_stubborn_processes_are_gone_when_unload_returns(stack, http):
    models = {
        "deaf": {"cmd": fake("deaf", "--ignore-sigterm")},
        "parent": {"cmd": fake("parent", grandchild="stubborn")},
        "escaped": {"cmd": fake("escaped", grandchild="setsid")},
    }
    config = {"models": models, "unloadTimeout": 1, "groups": {"all": {"swap": False, "members": list(models)}}}
    program = stack.start(config)
    answers = await asyncio.gather(*(ask(http, program, model) for model in models))
    assert [status for status, _ in answers] == [200] * 3
    assert len(program.family()) == 5
    assert 1.0 <= await unload(http, program, "deaf") < 2.5
    assert len(program.family()) == 4
    assert await unload(http, program, "parent") < 2.5
    assert len(program.family()) == 2
    assert await unload(http, program, "escaped") < 2.5
    assert program.family() == []


async def test_F037_unload_while_starting_answers_each_waiter_once_and_leaves_no_ghost(stack, http):
    program = stack.start({"models": {"slow": {"cmd": server("status=503")}}})
    waiting = [asyncio.create_task(ask(http, program, "slow")) for _ in range(3)]
    await until(program.family, "an upstream")
    await unload(http, program, "slow")
    answers = await asyncio.gather(*waiting)
    assert {status for status, _ in answers} == {503}
    assert program.family() == []
    assert await program.running() == {}


@pytest.mark.parametrize("cmd_stop", ["sleep 999", "false", "/nope/nothing"])
async def test_F039_bad_cmd_stop_delays_an_unload_no_longer_than_its_timeout(stack, http, cmd_stop):
    program = stack.start({"models": {"a": {"cmd": fake("a"), "cmdStop": cmd_stop, "unloadTimeout": 1}}})
    assert (await ask(http, program, "a"))[0] == 200
    assert await unload(http, program, "a") < 2.5
    assert program.family() == []
