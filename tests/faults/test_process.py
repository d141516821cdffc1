"""Fault rows of processes: start, stop, and llmswap's own death; with a supervisor and real processes."""

import os
import shlex
import signal
import socket
import subprocess
import sys
import textwrap
import time
from pathlib import Path

import psutil
import pytest

from llmswap.core.events import StartFailed, UpstreamExited, UpstreamReady, UpstreamStopped
from llmswap.runtime.output import LINE_BYTES
from llmswap.runtime.ports import is_free
from llmswap.runtime.tree import look_up, send
from tests.runtime.children import python, server, sh
from tests.runtime.rig import Rig, alive, free_port, names_in, supervised, tagged, until


@pytest.fixture
async def rig():
    async with supervised() as rig:
        yield rig


@pytest.fixture
def stranger():
    """Somebody else's server: answers 200 to everything, on a port we want. Gives the port and its process."""
    port = free_port()
    env = {key: value for key, value in os.environ.items() if key != "LLMSWAP_INSTANCE"}
    words = shlex.split(server("foreign", port=str(port)))
    with subprocess.Popen(words, env=env, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL) as process:
        deadline_s = time.monotonic() + 10
        while True:
            with socket.socket() as probe:
                if probe.connect_ex(("127.0.0.1", port)) == 0:
                    break
            assert time.monotonic() < deadline_s
            time.sleep(0.01)
        yield port, process
        process.kill()


@pytest.mark.parametrize(
    ("cmd", "reason"),
    [
        ("/nope/nothing --port ${PORT}", "cannot start /nope/nothing: command not found"),
        ("no-such-command-anywhere", "cannot start no-such-command-anywhere: command not found"),
        (__file__, f"cannot start {__file__}: not executable"),
        ("/etc", "cannot start /etc: it is a directory"),
        ("", "the command is empty"),
        ("sh \0", "cannot start sh: embedded null byte"),
    ],
)
async def test_F001_command_that_cannot_be_started_fails_within_200_ms(rig: Rig, cmd: str, reason: str):
    began_s = rig.start(cmd)
    assert (await rig.next(StartFailed)).reason == reason
    assert rig.last_s - began_s < 0.2


async def test_F002_exit_with_an_error_at_once(rig: Rig):
    began_s = rig.start(sh("echo out of luck >&2; exit 4"))
    assert (await rig.next(StartFailed)).reason == "exited with code 4 during start: out of luck"
    assert rig.last_s - began_s < 1


async def test_F003_command_that_puts_itself_in_the_background_fails_and_leaves_nothing(rig: Rig):
    rig.start(sh("sleep 60 &"))
    assert (await rig.next(StartFailed)).reason == "exited with code 0 during start (it must stay in the foreground)"
    assert rig.survivors() == []


async def test_F004_crash_while_loading_is_seen_at_once(rig: Rig):
    rig.start(server("ready_after=60", "exit_after=0.6"))
    await rig.printed("listening")
    leader = psutil.Process(rig.pid())
    await until(lambda: not alive(leader), "its death")
    died_s = time.monotonic()
    assert "exited with code 7 during start" in (await rig.next(StartFailed)).reason
    assert rig.last_s - died_s < 0.1


async def test_F005_health_that_is_never_200_ends_at_the_timeout(rig: Rig):
    began_s = rig.start(server("status=503"), ready_timeout_s=0.7)
    failed = await rig.next(StartFailed)
    assert failed.reason.startswith("not ready after 0.7 s: http://localhost:")
    assert failed.reason.endswith("/health answered 503")
    assert 0.7 < rig.last_s - began_s < 2.7
    assert rig.survivors() == []


async def test_F006_health_that_hangs_ends_at_the_timeout(rig: Rig):
    began_s = rig.start(server("hang"), ready_timeout_s=2.5)
    assert (await rig.next(StartFailed)).reason.endswith("did not answer within 2 s")
    assert 2.5 < rig.last_s - began_s < 4.5


async def test_F006_exit_is_seen_while_health_hangs(rig: Rig):
    began_s = rig.start(server("hang", "exit_after=0.4"))
    assert "exited with code 7" in (await rig.next(StartFailed)).reason
    assert rig.last_s - began_s < 1.5


async def test_F009_taken_port_is_left_alone_if_another_can_be_used(rig: Rig, stranger):
    port, _ = stranger
    rig.start(server(), port=port)
    await rig.next(UpstreamReady)
    assert rig.url() != f"http://127.0.0.1:{port}"
    assert "in use" not in rig.text(), "it was not even tried"


async def test_F009_taken_fixed_port_fails_naming_its_owner(rig: Rig, stranger):
    port, owner = stranger
    began_s = rig.start(server(port=str(port)), proxy=f"http://localhost:{port}")
    failed = await rig.next(StartFailed)
    assert failed.reason.startswith(f"port {port} is taken by pid {owner.pid} (")
    assert "\n" not in failed.reason
    assert rig.last_s - began_s < 1
    assert rig.text() == "", "nothing was spawned"


async def test_F009_foreign_server_on_our_port_never_becomes_ready(rig: Rig, stranger, monkeypatch):
    """It answers 200 before our child has even tried to bind: the check before the spawn is blinded here."""
    port, owner = stranger
    monkeypatch.setattr("llmswap.runtime.life.is_free", lambda _: True)
    rig.start(server("bind_after=30", port=str(port)), proxy=f"http://localhost:{port}")
    assert f"port {port} is taken by pid {owner.pid} (" in (await rig.next(StartFailed)).reason
    assert rig.survivors() == []


async def test_F009_foreign_server_is_accepted_where_the_config_trusts_it(rig: Rig, stranger):
    port, _ = stranger
    rig.start("sleep 60", proxy=f"http://localhost:{port}", trust_proxy=True, check_path="/")
    await rig.next(UpstreamReady)


SUPERVISOR = """
import asyncio, sys, uuid
from pathlib import Path
sys.path.insert(0, {root!r})
from tests.runtime.rig import Rig
from llmswap.core.events import UpstreamReady

async def main():
    rig = Rig(Path(sys.argv[1]))
    await rig.supervisor.reclaim_orphans()
    rig.start(sys.argv[2], **({{}} if "PORT" in sys.argv[2] else {{"check_path": None}}))
    await rig.next(UpstreamReady)
    print(rig.instance, rig.pid(), rig.url(), flush=True)
    await asyncio.sleep(60)

asyncio.run(main())
"""


def another_llmswap(state: Path, cmd: str) -> tuple[subprocess.Popen[str], str, psutil.Process, str]:
    """Run a supervisor in a process of its own. Gives it, its instance, its upstream and where that listens."""
    root = str(Path(__file__).parents[2])
    words = [sys.executable, "-c", textwrap.dedent(SUPERVISOR.format(root=root)), str(state), cmd]
    process = subprocess.Popen(words, stdout=subprocess.PIPE, text=True)
    assert process.stdout is not None
    instance, pid, url = process.stdout.readline().split()
    return process, instance, psutil.Process(int(pid)), url


def kill(process: subprocess.Popen[str]) -> None:
    process.kill()
    process.wait()
    assert process.stdout is not None
    process.stdout.close()


# A wrapper that the kernel kills with us, and a server below it that then lives on, its port in hand.
ORPHANING = sh(server("ignore_term") + " & wait")


async def test_F010_orphan_of_a_killed_llmswap_is_ended_by_the_next_one(tmp_path: Path):
    before, instance, leader, url = another_llmswap(tmp_path, ORPHANING)
    kill(before)
    await until(lambda: not alive(leader), "the kernel to end the wrapper")
    [orphan] = tagged(instance)
    assert alive(orphan)
    port = int(url.rpartition(":")[2])
    async with supervised(tmp_path) as rig:
        assert tagged(instance) == []
        rig.start(server(port=str(port)), proxy=f"http://localhost:{port}")
        await rig.next(UpstreamReady)
    assert names_in(tmp_path) == []


async def test_F010_running_llmswap_of_somebody_else_is_left_alone(tmp_path: Path):
    other, instance, leader, _ = another_llmswap(tmp_path, server())
    try:
        async with supervised(tmp_path):
            assert [process.pid for process in tagged(instance)] == [leader.pid]
        assert alive(leader)
        assert names_in(tmp_path) == [f"{instance}.json", f"{instance}.lock"]
    finally:
        kill(other)


async def test_F011_port_stolen_between_check_and_bind_is_replaced_once(rig: Rig, stranger, monkeypatch):
    port, _ = stranger
    answers = iter([True])  # the first look misses the thief
    monkeypatch.setattr("llmswap.runtime.life.is_free", lambda number: next(answers, None) or is_free(number))
    rig.start(server(), port=port)
    await rig.next(UpstreamReady)
    assert rig.url() != f"http://127.0.0.1:{port}"


async def test_F015_endless_line_is_cut_and_flagged(rig: Rig):
    rig.start(python("import sys; sys.stderr.write('x' * 300000 + '\\nnext\\n')") + "; exit 1")
    await rig.next(StartFailed)
    lines = rig.logs.upstream.history().splitlines()
    assert lines[-1] == b"next"
    assert lines[-2] == b"x" * LINE_BYTES + b" [truncated]"


async def test_F030_crash_while_idle_is_told_at_once(rig: Rig):
    rig.start(server())
    await rig.next(UpstreamReady)
    killed_s = time.monotonic()
    os.kill(rig.pid(), signal.SIGKILL)
    exited = await rig.next(UpstreamExited)
    assert exited.reason.startswith("was killed by SIGKILL")
    assert rig.last_s - killed_s < 0.1
    await rig.next(UpstreamStopped)
    rig.start(server(), generation=2)
    await rig.next(UpstreamReady)


async def test_F032_ignored_sigterm_ends_in_sigkill_after_the_grace(rig: Rig):
    rig.start(server("ignore_term"), stop_grace_s=0.5)
    await rig.next(UpstreamReady)
    began_s = rig.stop()
    await rig.next(UpstreamStopped)
    assert 0.5 < rig.last_s - began_s < 1.5


async def test_F033_grandchild_that_outlives_its_leader_and_holds_the_pipe_is_ended(rig: Rig):
    rig.start(
        sh("sh -c 'trap \"\" TERM; echo deaf; while :; do sleep 60; done' & trap 'exit 0' TERM; wait"), check_path=None
    )
    await rig.next(UpstreamReady)
    await rig.printed("deaf")
    began_s = rig.stop()
    await rig.next(UpstreamStopped)
    assert rig.last_s - began_s < 2
    assert rig.survivors() == []


async def test_F033_tree_of_a_crashed_leader_is_ended(rig: Rig):
    rig.start(sh("sleep 60 & echo up; wait"), check_path=None)
    await rig.next(UpstreamReady)
    await rig.printed("up")
    began_s = time.monotonic()
    os.kill(rig.pid(), signal.SIGKILL)
    await rig.next(UpstreamExited)
    await rig.next(UpstreamStopped)
    assert rig.last_s - began_s < 2
    assert rig.survivors() == []


async def test_F034_grandchild_in_a_session_of_its_own_is_found(rig: Rig):
    rig.start(
        sh("setsid sh -c 'trap \"\" TERM; echo $$ away; while :; do sleep 60; done' & exec sleep 60"), check_path=None
    )
    await rig.next(UpstreamReady)
    await rig.printed("away")
    escaped = psutil.Process(int(rig.text().split()[0]))
    assert os.getsid(escaped.pid) == escaped.pid
    rig.stop()
    await rig.next(UpstreamStopped)
    assert not alive(escaped)


async def test_F034_double_forked_daemon_without_its_tag_is_found_by_ancestry(rig: Rig):
    """It has left the session and wiped its environment; its parent still links it to the leader when we look."""
    rig.start(sh("env -i setsid sleep 61 & exec sleep 60"), check_path=None)
    await rig.next(UpstreamReady)
    leader = psutil.Process(rig.pid())
    [escaped] = await until(lambda: [p for p in leader.children() if p.cmdline() == ["sleep", "61"]], "it is away")
    assert "LLMSWAP_INSTANCE" not in escaped.environ()
    rig.stop()
    await rig.next(UpstreamStopped)
    assert not alive(escaped)


async def test_F035_stray_grandchild_is_adopted_and_reaped(rig: Rig):
    rig.start(sh("sh -c 'setsid sleep 0.2 &'; echo left; exec sleep 60"), check_path=None)
    await rig.next(UpstreamReady)
    await rig.printed("left")
    strays = [p for p in psutil.Process().children() if p.pid != rig.pid() and "sleep" in p.name()]
    await until(lambda: not any(stray.is_running() for stray in strays), "strays buried", within_s=1.2)
    rig.stop()
    await rig.next(UpstreamStopped)


async def test_F037_stop_while_starting_answers_once_and_no_ghost_becomes_ready(rig: Rig):
    rig.start(server("ready_after=0.3"))
    await rig.printed("listening")
    rig.stop()
    await rig.next(UpstreamStopped)
    assert rig.survivors() == []
    assert [type(event) for _, event in rig.posted] == [UpstreamStopped]


async def test_F037_stop_before_anything_was_spawned(rig: Rig):
    rig.start(server())
    rig.stop()
    await rig.next(UpstreamStopped)
    assert [type(event) for _, event in rig.posted] == [UpstreamStopped]


@pytest.mark.parametrize(
    ("cmd_stop", "at_least_s", "at_most_s"),
    [
        ("sleep 999", 0.5, 1.5),
        ("/nope/nothing", 0.0, 0.5),
        ("false", 0.0, 0.5),
        ("sh -c 'echo asked for ${PID}'", 0.5, 1.5),
    ],
)
async def test_F039_cmd_stop_that_hangs_fails_or_is_missing(rig: Rig, cmd_stop, at_least_s, at_most_s):
    """One that fails is followed by SIGTERM, one that does nothing by SIGKILL when the grace is over."""
    rig.start(server(), cmd_stop=cmd_stop, stop_grace_s=0.5)
    await rig.next(UpstreamReady)
    began_s = rig.stop()
    await rig.next(UpstreamStopped)
    assert at_least_s <= rig.last_s - began_s < at_most_s


def test_F040_reused_pid_is_not_signalled():
    with subprocess.Popen(["sleep", "60"]) as process:
        now = look_up(process.pid)
        assert now is not None
        earlier = type(now)(now.pid, now.parent, now.group, now.session, now.started - 1, zombie=False)
        send(earlier, signal.SIGKILL)
        send(now, signal.SIGTERM)
        assert process.wait() == -signal.SIGTERM


async def test_F088_children_die_when_llmswap_is_killed(tmp_path: Path):
    process, instance, leader, _ = another_llmswap(tmp_path, server("ignore_term"))
    kill(process)
    await until(lambda: not alive(leader), "death of the child", within_s=1)
    assert tagged(instance) == []
