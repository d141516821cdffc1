"""Golden rows of processes (llama-swap.md 8.4), with a supervisor and real processes."""

import asyncio
import os
import signal
import time

import psutil
import pytest

from llmswap.core.events import StartFailed, UpstreamExited, UpstreamReady, UpstreamStopped
from llmswap.runtime.logbook import SUBSCRIBER_BYTES
from tests.runtime.children import python, server, sh
from tests.runtime.rig import Rig, alive, supervised, until


@pytest.fixture
async def rig():
    async with supervised() as rig:
        yield rig


async def test_g096_stop_of_a_wrapper_ends_the_server_it_put_in_the_background(rig: Rig):
    """The server holds the inherited pipe; the stop does not wait for that."""
    rig.start(sh(server() + " & wait"))
    await rig.next(UpstreamReady)
    [child] = psutil.Process(rig.pid()).children()
    began_s = rig.stop()
    await rig.next(UpstreamStopped)
    assert rig.last_s - began_s < 2
    assert not alive(child)


async def test_g097_sigterm_handler_may_take_its_time_within_the_grace(rig: Rig):
    rig.start(server("slow_term=0.6"), stop_grace_s=5)
    await rig.next(UpstreamReady)
    began_s = rig.stop()
    await rig.next(UpstreamStopped)
    assert "cleaned up" in rig.text()
    assert 0.6 < rig.last_s - began_s < 2


async def test_g098_process_that_ignores_sigterm_is_killed_after_the_grace(rig: Rig):
    rig.start(server("ignore_term"), stop_grace_s=0.4)
    await rig.next(UpstreamReady)
    leader = psutil.Process(rig.pid())
    began_s = rig.stop()
    await until(lambda: time.monotonic() - began_s > 0.3, "most of the grace")
    assert alive(leader)
    await rig.next(UpstreamStopped)
    assert 0.4 < rig.last_s - began_s < 1.4
    assert not alive(leader)


async def test_g099_cmd_stop_replaces_sigterm_and_knows_the_pid(rig: Rig):
    """A child that would die of SIGTERM lives until `cmdStop`, in the same environment, sends what it wants."""
    cmd = sh("trap 'echo got TERM' TERM; trap 'echo got USR1; exit 0' USR1; echo up; while :; do sleep 0.05; done")
    rig.start(cmd, check_path=None, cmd_stop=sh("echo stopping $NAME; kill -USR1 ${PID}"), env=("NAME=me",))
    await rig.next(UpstreamReady)
    await rig.printed("up")
    rig.stop()
    await rig.next(UpstreamStopped)
    assert rig.text() == "up\nstopping me\ngot USR1\n"


@pytest.mark.parametrize("cmd_stop", ["sleep 999", "false"])
async def test_g099_cmd_stop_that_hangs_or_fails_ends_in_sigkill_after_the_grace(rig: Rig, cmd_stop: str):
    rig.start(server("ignore_term"), cmd_stop=cmd_stop, stop_grace_s=0.4)
    await rig.next(UpstreamReady)
    began_s = rig.stop()
    await rig.next(UpstreamStopped)
    assert 0.4 < rig.last_s - began_s < 1.4


async def test_g099_stop_during_starting_works(rig: Rig):
    rig.start(server("status=503"))
    await rig.printed("GET /health")
    rig.stop()
    await rig.next(UpstreamStopped)
    assert rig.survivors() == []


async def test_g100_exit_during_health_checks_fails_at_once(rig: Rig):
    began_s = rig.start(server("status=503", "exit_after=0.3"), ready_timeout_s=60)
    assert "exited with code 7 during start" in (await rig.next(StartFailed)).reason
    assert rig.last_s - began_s < 1.3


async def test_g101_health_503_then_200_is_ready(rig: Rig):
    began_s = rig.start(server("ready_after=0.3"))
    await rig.next(UpstreamReady)
    assert rig.last_s - began_s > 0.3
    assert rig.text().count("GET /health") > 1


@pytest.mark.parametrize("status", ["302", "204", "404"])
async def test_g101_only_200_is_ready_and_redirects_are_not_followed(rig: Rig, status: str):
    rig.start(server(f"status={status}"), ready_timeout_s=0.4)
    assert (await rig.next(StartFailed)).reason.endswith(f"answered {status}")
    assert "/elsewhere" not in rig.text()


async def test_g101_health_that_hangs_keeps_to_the_timeout(rig: Rig):
    began_s = rig.start(server("hang"), ready_timeout_s=0.5)
    await rig.next(StartFailed)
    assert 0.5 < rig.last_s - began_s < 1.5


async def test_g102_check_endpoint_none_is_ready_at_once(rig: Rig):
    began_s = rig.start(server("bind_after=30"), check_path=None)
    await rig.next(UpstreamReady)
    assert rig.last_s - began_s < 0.2


async def test_g104_crash_while_ready_leaves_it_stopped_and_the_next_start_works(rig: Rig):
    rig.start(server())
    await rig.next(UpstreamReady)
    os.kill(rig.pid(), signal.SIGSEGV)
    assert "SIGSEGV" in (await rig.next(UpstreamExited)).reason
    await rig.next(UpstreamStopped)
    rig.start(server(), generation=2)
    assert (await rig.next(UpstreamReady)).generation == 2


async def test_g105_env_overrides_what_is_inherited_and_our_path_finds_the_command(rig: Rig, monkeypatch):
    monkeypatch.setenv("INHERITED", "ours")
    monkeypatch.setenv("OVERRIDDEN", "ours")
    cmd = server("show=INHERITED,OVERRIDDEN,PORT_IN_ENV,PATH")
    env = ("OVERRIDDEN=first", "OVERRIDDEN=last", "PORT_IN_ENV=${PORT}", "PATH=/nowhere")
    rig.start("env " + cmd, env=env)
    await rig.next(UpstreamReady)
    port = rig.url().rpartition(":")[2]
    await rig.printed(f"INHERITED=ours\nOVERRIDDEN=last\nPORT_IN_ENV={port}\nPATH=/nowhere\n")


async def test_g112_slow_log_reader_stalls_nobody_and_sees_a_dropped_marker(rig: Rig):
    script = (
        "import time; [print('line', i, 'x' * 80) for i in range(20000)]; print('the end', flush=True); time.sleep(60)"
    )
    rig.start(python(script), check_path=None)
    with rig.logs.upstream.subscribe(history=True) as slow:
        await rig.next(UpstreamReady)
        await rig.printed("the end")
        assert rig.text().endswith("the end\n")
        got = b""
        async with asyncio.timeout(5):
            while b"dropped" not in got:
                got += await anext(slow)
    kept, _, marker = got.rpartition(b"\n\xe2\x80\x94 ")
    assert len(kept) <= SUBSCRIBER_BYTES
    assert marker.endswith(" bytes dropped —\n".encode())
