"""What upstreams take of the host."""

import os
import subprocess
import sys

import pytest

from llmswap.core.fleet import ModelId
from llmswap.runtime.upkeep import CpuBook, look, measure
from tests.stack import until_now

M = ModelId("m")
TICKS = os.sysconf("SC_CLK_TCK")

PARENT = """
import subprocess, sys
child = subprocess.Popen([sys.executable, "-c", "keep = bytearray(32 << 20); print(flush=True); input()"],
                         stdin=subprocess.PIPE, stdout=subprocess.PIPE)
child.stdout.readline()
print(child.pid, flush=True)
input()
sum(range(3 * 10 ** 6))
child.communicate(b"\\n")
print("reaped", flush=True)
input()
"""


@pytest.fixture
def parent():
    process = subprocess.Popen([sys.executable, "-c", PARENT], stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True)
    with process:
        yield process
        process.kill()


def test_a_tree_is_measured_with_its_children(parent) -> None:
    child = int(parent.stdout.readline())
    before = look({M: parent.pid})[M]
    assert before.pids == {parent.pid, child}
    assert before.host_bytes["anon"] > 32 << 20
    assert before.host_bytes["file"] > 1 << 20
    assert set(before.host_bytes) == {"anon", "shmem", "file"}
    parent.stdin.write("\n")
    parent.stdin.flush()
    assert parent.stdout.readline() == "reaped\n"
    after = look({M: parent.pid})[M]
    assert after.pids == {parent.pid}
    assert after.cpu_s >= before.cpu_s + 1 / TICKS  # what the child had used is still in it
    assert after.host_bytes["anon"] < 32 << 20


def test_who_has_ended_is_left_out(parent) -> None:
    assert look({}) == {}
    parent.kill()
    until_now(lambda: not look({M: parent.pid}), "its end")


def process(folder, pid: int, status: str, cpu: str) -> None:
    (folder / str(pid)).mkdir()
    (folder / str(pid) / "status").write_text(status)
    (folder / str(pid) / "stat").write_text(f"{pid} (a) b) x) S 1 1 1 0 -1 4194304 9 0 0 0 {cpu} 20 0 1 0 100 0 0\n")


def test_kinds_numbers_in_containers_and_time_are_read(tmp_path) -> None:
    process(tmp_path, 70, "NSpid:\t70\t9\t1\nRssAnon:\t 10 kB\nRssFile:\t 200 kB\nRssShmem:\t 3000 kB\n", "1 2 3 4")
    process(tmp_path, 71, "NSpid:\t71\nRssAnon:\t 1 kB\n", "100 0 0 0")
    found = measure([70, 71, 72], tmp_path)
    assert found.pids == {70, 71}
    assert found.aliases == {(9, 70), (1, 70)}
    assert found.host_bytes == {"anon": 11 * 1024, "file": 200 * 1024, "shmem": 3000 * 1024}
    assert found.cpu_s == 110 / TICKS


def test_time_of_all_lives_adds_up_and_never_falls() -> None:
    book = CpuBook()
    assert book.total_s(M) == 0
    for generation, cpu_s, total_s in ((1, 2.0, 2.0), (1, 5.0, 5.0), (1, 4.0, 5.0), (2, 1.0, 6.0), (4, 0.5, 6.5)):
        book.note(M, generation, cpu_s)
        assert book.total_s(M) == total_s
    book.keep([M])
    assert book.total_s(M) == 6.5
    book.keep([])
    assert book.total_s(M) == 0
