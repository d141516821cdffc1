"""Lives of upstreams, with real processes. The fault rows are in tests/faults/test_process.py."""

import asyncio
import errno
import os
import signal
import time
from pathlib import Path

import psutil
import pytest

from llmswap.core.events import Generation, StartFailed, StopFailed, UpstreamExited, UpstreamReady, UpstreamStopped
from llmswap.core.fleet import ModelId
from llmswap.runtime import life, stopping
from llmswap.runtime.tree import Tree
from tests.runtime.children import server, sh
from tests.runtime.rig import M, Rig, alive, free_port, names_in, until


async def test_upstream_comes_up_and_goes_down(rig: Rig):
    rig.start(server())
    ready = await rig.next(UpstreamReady)
    assert (ready.model, ready.generation) == (M, 1)
    assert rig.url().startswith("http://127.0.0.1:")
    pid = rig.pid()
    rig.stop()
    await rig.next(UpstreamStopped)
    assert not psutil.pid_exists(pid)
    assert rig.supervisor.pid(M) is None


async def test_child_leads_its_own_session_with_stdin_empty_and_the_tag(rig: Rig):
    rig.start(sh('read x; echo "[$x]"; echo $LLMSWAP_INSTANCE; sleep 60'), generation=7, check_path=None)
    await rig.next(UpstreamReady)
    await rig.printed(f"[]\n{rig.instance}:7:m\n")
    assert os.getsid(rig.pid()) == os.getpgid(rig.pid()) == rig.pid()


async def test_child_gets_no_descriptors_of_ours(rig: Rig):
    reading, writing = os.pipe()
    os.set_inheritable(writing, True)
    rig.start("sleep 60", check_path=None)
    await rig.next(UpstreamReady)
    await until(lambda: psutil.Process(rig.pid()).cmdline()[1:] == ["60"], "setpriv has become sleep")
    await until(lambda: names_in(Path(f"/proc/{rig.pid()}/fd")) == ["0", "1", "2"], "its libraries are loaded")
    os.close(reading)
    os.close(writing)


async def test_output_of_both_streams_is_kept_in_order(rig: Rig):
    rig.start(sh("echo one; echo two >&2; echo three; sleep 60"), check_path=None)
    await rig.next(UpstreamReady)
    await rig.printed("one\ntwo\nthree\n")
    assert rig.logs.upstream.history() == b"one\ntwo\nthree\n"


async def test_two_upstreams_run_side_by_side(rig: Rig):
    other = ModelId("other/x")
    rig.start(server())
    rig.start(server(), model=other)
    ready = {(await rig.next(UpstreamReady)).model for _ in range(2)}
    assert ready == {M, other}
    rig.stop(model=other)
    assert (await rig.next(UpstreamStopped)).model == other
    rig.stop()
    assert (await rig.next(UpstreamStopped)).model == M


async def test_model_named_like_a_life_of_another_is_left_alone(rig: Rig):
    lookalike = ModelId(f"{M}:1")
    rig.start(server(), generation=1)
    rig.start(server(), generation=2, model=lookalike)
    for _ in range(2):
        await rig.next(UpstreamReady)
    rig.stop(generation=1)
    await rig.next(UpstreamStopped)
    other = rig.supervisor.pid(lookalike)
    assert other is not None
    assert alive(psutil.Process(other))


async def test_stop_of_an_older_generation_is_ignored(rig: Rig):
    rig.start(server(), generation=2)
    await rig.next(UpstreamReady)
    rig.stop(generation=1)
    rig.stop(generation=2)
    assert (await rig.next(UpstreamStopped)).generation == 2


async def test_restart_from_within_the_last_event_of_a_life(rig: Rig):
    """The scheduler may answer UpstreamStopped with the next Start before `post` returns."""
    rig.start(server())
    await rig.next(UpstreamReady)
    post = rig.supervisor._house.post

    def restart(event):
        if isinstance(event, UpstreamStopped) and event.generation == 1:
            rig.start(server(), generation=2)
        post(event)

    object.__setattr__(rig.supervisor._house, "post", restart)
    rig.stop()
    await rig.next(UpstreamStopped)
    assert (await rig.next(UpstreamReady)).generation == 2


async def test_running_process_keeps_its_launch_over_a_reload(rig: Rig):
    rig.start(server(), cmd_stop=sh("echo old way; kill ${PID}"))
    await rig.next(UpstreamReady)
    rig.supervisor.configure({})
    rig.stop()
    await rig.next(UpstreamStopped)
    assert "old way" in rig.text()


async def test_forced_stop_kills_at_once(rig: Rig):
    rig.start(server("ignore_term"), stop_grace_s=60)
    await rig.next(UpstreamReady)
    began_s = rig.stop(force=True)
    await rig.next(UpstreamStopped)
    assert rig.last_s - began_s < 1


async def test_force_cuts_a_running_grace_short(rig: Rig):
    rig.start(server("ignore_term"), stop_grace_s=60)
    await rig.next(UpstreamReady)
    rig.stop()
    await asyncio.sleep(0.05)
    assert psutil.Process(rig.pid()).is_running()
    began_s = rig.stop(force=True)
    await rig.next(UpstreamStopped)
    assert rig.last_s - began_s < 1


async def test_stopped_process_is_woken_to_hear_sigterm(rig: Rig):
    rig.start(server(), stop_grace_s=60)
    await rig.next(UpstreamReady)
    leader = psutil.Process(rig.pid())
    leader.suspend()
    await until(lambda: leader.status() == psutil.STATUS_STOPPED, "it stands still")
    began_s = rig.stop()
    await rig.next(UpstreamStopped)
    assert rig.last_s - began_s < 2


async def test_failed_start_gets_a_short_grace_only(rig: Rig, monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setattr(life, "FAILED_GRACE_S", 0.2)
    began_s = rig.start(server("ignore_term", "status=503"), ready_timeout_s=0.3, stop_grace_s=60)
    await rig.next(StartFailed)
    assert 0.5 < rig.last_s - began_s < 1.5


async def test_port_given_to_a_starting_upstream_is_not_given_to_another(rig: Rig):
    """Nobody listens on it yet, so it looks free."""
    other, port = ModelId("other"), free_port()
    rig.start(server("bind_after=0.3"), port=port)
    rig.start(server(), port=port, model=other)
    await rig.next(UpstreamReady)
    await rig.next(UpstreamReady)
    assert rig.url() == f"http://127.0.0.1:{port}"
    assert rig.supervisor.base_url(other, Generation(1)) != rig.url()
    assert "in use" not in rig.text() + rig.text(other)


async def test_no_descriptors_left_fails_the_start_and_leaks_nothing(rig: Rig, monkeypatch: pytest.MonkeyPatch):
    def none_left(*_):
        raise OSError(errno.EMFILE, os.strerror(errno.EMFILE))

    before = names_in(Path("/proc/self/fd"))
    for generation, call in enumerate(("pipe2", "pidfd_open"), 1):
        with monkeypatch.context() as patch:
            patch.setattr(os, call, none_left)
            rig.start(server(), generation)
            assert "Too many open files" in (await rig.next(StartFailed)).reason
    assert rig.survivors() == []
    assert names_in(Path("/proc/self/fd")) == before
    rig.start(server(), generation=3)
    await rig.next(UpstreamReady)


async def test_fork_that_fails_fails_the_start(rig: Rig, monkeypatch: pytest.MonkeyPatch):
    def no_process(*_, **__):
        raise BlockingIOError(errno.EAGAIN, os.strerror(errno.EAGAIN))

    monkeypatch.setattr("llmswap.runtime.spawn.subprocess.Popen", no_process)
    rig.start(server())
    assert "Resource temporarily unavailable" in (await rig.next(StartFailed)).reason


async def test_no_port_left_fails_the_start(rig: Rig, monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setattr("llmswap.runtime.life.is_free", lambda _: False)
    monkeypatch.setattr("llmswap.runtime.ports.is_free", lambda _: False)
    rig.start(server())
    assert "no free port" in (await rig.next(StartFailed)).reason


async def test_port_beyond_the_last_is_replaced(rig: Rig):
    rig.start(server(), port=70000)
    await rig.next(UpstreamReady)


async def test_empty_proxy_fails_the_start(rig: Rig):
    rig.start("sleep 60", proxy="")
    assert (await rig.next(StartFailed)).reason == "its proxy URL is empty"


async def test_close_kills_whatever_is_left(rig: Rig):
    rig.start(server("ignore_term"), stop_grace_s=60)
    await rig.next(UpstreamReady)
    began_s = time.monotonic()
    await rig.supervisor.close()
    assert time.monotonic() - began_s < 2
    assert rig.survivors() == []


async def test_proxy_adds_little_to_a_start(rig: Rig):
    """The server is up after some time of its own; what we add on top is under 50 ms."""
    rig.start(server())
    await rig.next(UpstreamReady)
    ready_s = rig.last_s
    began = psutil.Process(rig.pid())
    lines = rig.text().splitlines()
    assert lines[0] == "listening"
    # One probe was enough once it listened, and none came late: at most two connections were made.
    assert len(lines) <= 3
    assert ready_s - (began.create_time() - time.time() + time.monotonic()) < 0.5


async def test_stuck_tree_is_reported_and_then_stopped_after_all(rig: Rig, monkeypatch: pytest.MonkeyPatch):
    """A process in D state: it still shows in /proc whatever is sent. Here the look is faked until we relent."""
    monkeypatch.setattr(stopping, "STUCK_AFTER_S", 0.1)
    monkeypatch.setattr(stopping, "_KILL_AGAIN_S", 0.05)
    real, stuck = Tree.look, [True]
    rig.start(server())
    await rig.next(UpstreamReady)
    monkeypatch.setattr(Tree, "look", lambda tree: list(tree._known.values()) if stuck else real(tree))
    rig.stop()
    failed = await rig.next(StopFailed)
    assert "cannot be killed" in failed.reason
    stuck.clear()
    await rig.next(UpstreamStopped)


async def test_a_start_that_failed_and_cannot_be_killed_says_so(rig: Rig, monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setattr(stopping, "STUCK_AFTER_S", 0.1)
    monkeypatch.setattr(stopping, "_KILL_AGAIN_S", 0.05)
    real, stuck = Tree.look, [True]
    monkeypatch.setattr(Tree, "look", lambda tree: list(tree._known.values()) if stuck else real(tree))
    rig.start("false")
    await rig.next(StopFailed)
    stuck.clear()
    assert (await rig.next(StartFailed)).reason.startswith("exited with code 1 during start")


async def test_reason_of_a_failed_start_shows_its_last_line_without_secrets(rig: Rig):
    rig.start(sh("echo loading; echo bad token $HF_TOKEN; exit 3"), env=("HF_TOKEN=hunter22hunter22",))
    failed = await rig.next(StartFailed)
    assert failed.reason == "exited with code 3 during start: bad token ***"


async def test_reason_shows_only_lines_of_this_life(rig: Rig):
    rig.start(sh("echo first life; exit 1"))
    await rig.next(StartFailed)
    rig.start("false", generation=2)
    assert (await rig.next(StartFailed)).reason == "exited with code 1 during start"


async def test_upstream_that_becomes_ready_late_is_found_soon_after(rig: Rig):
    began_s = rig.start(server("ready_after=0.5"))
    await rig.next(UpstreamReady)
    assert 0.5 < rig.last_s - began_s < 1.0


async def test_fixed_port_is_used_as_it_is(rig: Rig):
    port = free_port()
    rig.start(server(port=str(port)), proxy=f"http://127.0.0.1:{port}/base/", check_path="/health?x=1")
    await rig.next(UpstreamReady)
    assert rig.url() == f"http://127.0.0.1:{port}/base"
    assert "GET /base/health?x=1 HTTP/1.1" in rig.text()


async def test_exit_of_a_ready_upstream_names_signal_and_last_line(rig: Rig):
    rig.start(server())
    await rig.next(UpstreamReady)
    os.kill(rig.pid(), signal.SIGKILL)
    exited = await rig.next(UpstreamExited)
    assert exited.reason.startswith("was killed by SIGKILL: ")
    await rig.next(UpstreamStopped)
