"""Reading /proc, and signals that only reach whom they are meant for."""

import os
import signal
import subprocess
import uuid
from pathlib import Path

import pytest

from llmswap.runtime.tree import TAG_NAME, Proc, Tree, bears, describe, everyone, is_alive, look_up, send
from tests.runtime.rig import until


@pytest.fixture
def instance() -> str:
    """An instance that no other test has, though it runs at the same time."""
    return uuid.uuid4().hex


@pytest.fixture
def spawned(instance):
    """Gives a function that starts a command with a tag in its environment; all it led to is killed at the end."""
    processes = []

    def start(*words: str, tag: str = instance, **options) -> subprocess.Popen[bytes]:
        env = {**os.environ, TAG_NAME: tag}
        process = subprocess.Popen(words, env=env, stdout=subprocess.PIPE, **options)
        processes.append((process, Tree(tag, [look_up(process.pid)], None)))
        return process

    yield start
    for process, tree in processes:
        for proc in tree.look():
            send(proc, signal.SIGKILL)
        process.wait()
        process.stdout.close()


def test_process_is_read_whatever_its_name(spawned, tmp_path):
    odd = tmp_path / "a) S 1 (b"
    odd.symlink_to("/bin/sleep")
    process = spawned(str(odd), "60", start_new_session=True)
    proc = look_up(process.pid)
    assert (proc.parent, proc.group, proc.session) == (os.getpid(), process.pid, process.pid)
    assert is_alive(proc)


def test_dead_and_reused_pids_are_not_alive(spawned):
    process = spawned("true")
    proc = look_up(process.pid)
    os.waitid(os.P_PID, process.pid, os.WEXITED | os.WNOWAIT)
    assert look_up(process.pid).zombie
    assert not is_alive(proc)
    process.wait()
    assert look_up(process.pid) is None
    here = look_up(os.getpid())
    assert not is_alive(Proc(here.pid, here.parent, here.group, here.session, here.started + 1, zombie=False))


def test_signal_to_somebody_who_is_gone_does_nothing(spawned):
    process = spawned("true")
    proc = look_up(process.pid)
    process.wait()
    send(proc, signal.SIGKILL)


@pytest.mark.parametrize(
    ("rest", "found"),
    [(":m:1", True), (":m", True), ("", True), (":m:1:x", False), (":m:", False), (":m:12", False), ("x", False)],
)
async def test_tag_is_matched_by_whole_parts(spawned, instance, rest, found):
    process = spawned("sleep", "60", tag=f"{instance}:m:1")
    await until(lambda: bears(process.pid, f"{instance}:m:1"), "its environment")
    assert bears(process.pid, instance + rest) is found


async def test_tag_of_generation_12_is_not_that_of_generation_1(spawned, instance):
    process = spawned("sleep", "60", tag=f"{instance}:m:12")
    await until(lambda: bears(process.pid, f"{instance}:m:12"), "its environment")
    assert not bears(process.pid, f"{instance}:m:1")


async def test_members_are_found_by_session_by_descent_and_by_tag(spawned, instance):
    script = "sleep 61 & setsid sleep 62 & env -i setsid sleep 63 & wait"
    leader = spawned("sh", "-c", script, tag=f"{instance}:m:1", start_new_session=True)
    spawned("sleep", "64", tag=f"{instance}:m:2")
    tree = Tree(f"{instance}:m:1", [look_up(leader.pid)], leader.pid)
    wanted = [f"sh -c {script})", "sleep 61)", "sleep 62)", "sleep 63)"]
    await until(lambda: sorted(describe(proc.pid).partition("(")[2] for proc in tree.look()) == wanted, "all four")


async def test_member_seen_once_is_remembered_though_it_left(spawned, instance):
    """It has no tag, no session and no parent of ours any more: only memory ties it."""
    leader = spawned(
        "sh", "-c", "env -i setsid sleep 62 & echo $!; wait", tag=f"{instance}:m:1", start_new_session=True
    )
    escaped = int(leader.stdout.readline())
    tree = Tree(f"{instance}:m:1", [look_up(leader.pid)], leader.pid)
    await until(lambda: not bears(escaped, instance) and look_up(escaped).session == escaped, "it is away")
    assert escaped in {proc.pid for proc in tree.look()}
    os.kill(leader.pid, signal.SIGKILL)
    await until(lambda: [proc.pid for proc in tree.look()] == [escaped], "only it is left")
    send(look_up(escaped), signal.SIGKILL)
    await until(lambda: tree.look() == [], "nobody is left")


def test_without_a_session_only_tags_and_known_members_count(spawned, instance):
    leader = spawned("sleep", "60", tag="other", start_new_session=True)
    assert Tree(instance, [], None).look() == []
    assert [proc.pid for proc in Tree(instance, [look_up(leader.pid)], None).look()] == [leader.pid]
    assert [proc.pid for proc in Tree(instance, [], leader.pid).look()] == [leader.pid]


async def test_description_is_one_short_line_without_secrets(spawned):
    process = spawned("sh", "-c", "sleep 60\n: --api-key abcdef " + "x" * 500)
    await until(lambda: "sleep 60" in describe(process.pid), "its command line")
    text = describe(process.pid)
    assert text.startswith(f"pid {process.pid} (sh -c sleep 60 : --api-key *** x")
    assert "\n" not in text
    assert len(text) < 200
    assert describe(2**22 + 1) == f"pid {2**22 + 1}"


def test_processes_that_may_not_be_seen_are_none(monkeypatch):
    """As with /proc mounted hidepid=1, where the processes of others are listed but cannot be read."""
    read = Path.read_bytes

    def refuse(path: Path) -> bytes:
        if path == Path("/proc/1/stat"):
            raise PermissionError(1, "Operation not permitted", str(path))
        return read(path)

    monkeypatch.setattr(Path, "read_bytes", refuse)
    pids = {proc.pid for proc in everyone()}
    assert os.getpid() in pids
    assert 1 not in pids
