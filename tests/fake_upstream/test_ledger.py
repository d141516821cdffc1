"""The shared GPU ledger: never over its total, whoever asks, and nothing of the dead stays."""

import fcntl
import itertools
import json
import os
import signal
import subprocess
import sys

import psutil
import pytest
from hypothesis import settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, initialize, invariant, rule

from llmswap.fake_upstream import book, gpus
from llmswap.fake_upstream.book import LedgerStuck
from llmswap.fake_upstream.gpus import GIB
from llmswap.fake_upstream.ledger import Holder, Ledger, OutOfMemory, birth
from tests.fake_upstream.harness import spawned, until

TOTAL = 80.0
LAG_S = 2.0


@pytest.fixture
def path(tmp_path):
    return tmp_path / "gpu.json"


def test_holds_what_fits_and_refuses_what_does_not(path):
    ledger = Ledger(path, TOTAL, 0.0, Holder("a"))
    ledger.hold(50)
    other = Ledger(path, TOTAL, 0.0, Holder("b", {0: os.getppid()}))
    with pytest.raises(OutOfMemory, match=r"30\.00/80\.00 GiB"):
        other.hold(31)
    other.hold(30)
    assert ledger.used_gib() == TOTAL
    ledger.release()
    assert [(entry.name, entry.gib) for entry in ledger.entries()] == [("b", 30)]


def test_given_back_memory_lingers_for_the_lag(path):
    ledger = Ledger(path, TOTAL, LAG_S, Holder("a"))
    now_s = 100.0
    ledger.clock = lambda: now_s
    ledger.hold(40)
    ledger.hold(10)
    assert ledger.used_gib() == 40
    with pytest.raises(OutOfMemory):
        ledger.hold(60)
    now_s += LAG_S
    assert ledger.used_gib() == 10
    ledger.hold(60)


def test_what_a_dead_process_held_is_reclaimed(path):
    child = subprocess.Popen(["sleep", "60"])
    Ledger(path, TOTAL, 0.0, Holder("gone", {0: child.pid})).hold(70)
    mine = Ledger(path, TOTAL, 0.0, Holder("a"))
    with pytest.raises(OutOfMemory):
        mine.hold(20)
    child.kill()
    child.wait()
    mine.hold(20)
    assert mine.used_gib() == 20


def test_what_the_dead_held_lingers_from_when_their_death_is_seen(path):
    ledger = Ledger(path, TOTAL, LAG_S, Holder("a"))
    now_s = 100.0
    ledger.clock = lambda: now_s
    ledger.hold(40, host_gib=9)
    ledger.birth_of = lambda pid: 0
    assert ledger.used_gib() == 40
    now_s += LAG_S - 0.1
    assert ledger.used_gib() == 40
    assert [entry.host_gib for entry in ledger.entries()] == [0]
    now_s += 0.2
    assert ledger.used_gib() == 0


def test_a_lag_of_its_own_overrules_the_usual_one(path):
    ledger = Ledger(path, TOTAL, 0.0, Holder("a"))
    now_s = 100.0
    ledger.clock = lambda: now_s
    ledger.hold(40)
    ledger.hold(1, lag_s=5.0)
    assert ledger.used_gib() == 40
    now_s += 5
    assert ledger.used_gib() == 1


def test_several_gpus_are_taken_all_or_none(path):
    pair = Ledger(path, TOTAL, 0.0, Holder("pair", {0: os.getpid(), 1: os.getpid()}))
    second = Ledger(path, TOTAL, 0.0, Holder("second", {1: os.getppid()}))
    second.hold(50)
    with pytest.raises(OutOfMemory, match=r"cuda:1 \(30\.00/80\.00"):
        pair.hold(60)
    assert [(entry.name, entry.gpu) for entry in pair.entries()] == [("second", 1)]
    pair.hold(30)
    assert [gpu.used_bytes / GIB for gpu in gpus.read(path).gpus] == [30, 80]


def test_the_peak_and_who_made_it_and_every_refusal_are_kept(path):
    a = Ledger(path, TOTAL, 0.0, Holder("a"))
    b = Ledger(path, TOTAL, 0.0, Holder("b", {0: os.getppid()}))
    a.hold(50)
    b.hold(20)
    a.hold(10)
    for _ in range(book.REFUSALS_MAX + 5):
        with pytest.raises(OutOfMemory):
            b.hold(71)
    seen = gpus.read(path)
    assert (seen.gpus[0].peak_bytes, seen.gpus[0].used_bytes) == (70 * GIB, 30 * GIB)
    assert seen.gpus[0].peak_of == {"a": 50 * GIB, "b": 20 * GIB}
    assert (seen.refused, len(seen.refusals)) == (book.REFUSALS_MAX + 5, book.REFUSALS_MAX)
    last = seen.refusals[-1]
    assert (last.name, last.pid, last.gpu, last.wanted_gib, last.free_gib) == ("b", os.getppid(), 0, 71, 70)


def test_shrinking_is_never_refused(path):
    ledger = Ledger(path, TOTAL, 0.0, Holder("a"))
    ledger.hold(70)
    ledger.total_gib = 30.0  # as if the GPU had shrunk under it
    ledger.hold(60)
    assert ledger.used_gib() == 60


def test_the_reader_shows_bytes_by_living_process_and_the_dead_only_in_the_sum(path):
    child = subprocess.Popen(["sleep", "60"])
    Ledger(path, TOTAL, 60.0, Holder("gone", {0: child.pid})).hold(20)
    Ledger(path, TOTAL, 60.0, Holder("a")).hold(5, host_gib=2)
    assert gpus.read(path).gpus[0].by_pid == {child.pid: 20 * GIB, os.getpid(): 5 * GIB}
    child.kill()
    child.wait()
    seen = gpus.read(path)
    assert seen.gpus[0].by_pid == {os.getpid(): 5 * GIB}
    assert seen.gpus[0].used_bytes == 25 * GIB
    assert seen.host_by_pid == {os.getpid(): 2 * GIB}
    assert seen.of(os.getpid()) == 5 * GIB


def test_what_lingers_of_the_living_counts_as_theirs(path):
    ledger = Ledger(path, TOTAL, 60.0, Holder("a"))
    ledger.hold(40)
    ledger.hold(1)
    assert gpus.read(path).of(os.getpid()) == 40 * GIB


def test_no_ledger_yet_is_a_machine_without_gpus(path):
    assert gpus.read(path).gpus == ()


def test_the_reader_is_a_command_too(path):
    Ledger(path, TOTAL, 0.0, Holder("a")).hold(5)
    out = subprocess.run([sys.executable, "-m", "llmswap.fake_upstream.gpus", path], capture_output=True, check=True)
    assert json.loads(out.stdout)["gpus"][0]["by_pid"] == {str(os.getpid()): 5 * GIB}


KEEPER = """
import fcntl, sys, time
with open(sys.argv[1] + ".lock", "w") as lock:
    fcntl.flock(lock, fcntl.LOCK_EX)
    open(sys.argv[1] + ".new", "w").write("half a led")
    print("locked", flush=True)
    time.sleep(60)
"""


def test_a_process_killed_with_the_lock_in_hand_leaves_the_ledger_whole(path):
    ledger = Ledger(path, TOTAL, 0.0, Holder("a"))
    ledger.hold(5)
    keeper = subprocess.Popen([sys.executable, "-c", KEEPER, path], stdout=subprocess.PIPE)
    with keeper, keeper.stdout:
        assert keeper.stdout.readline() == b"locked\n"
        keeper.send_signal(signal.SIGKILL)
        ledger.hold(7)
    assert ledger.used_gib() == 7


def test_a_lock_that_is_never_given_back_is_an_error_not_a_hang(path, monkeypatch):
    monkeypatch.setattr(book, "LOCK_WAIT_S", 0.05)
    ledger = Ledger(path, TOTAL, 0.0, Holder("a"))
    ledger.hold(5)
    with path.with_name(path.name + ".lock").open("w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        with pytest.raises(LedgerStuck, match="was not to be had within"):
            ledger.hold(7)
    assert ledger.used_gib() == 5


def test_looking_does_not_write(path):
    ledger = Ledger(path, TOTAL, 0.0, Holder("a"))
    ledger.hold(5)
    before = path.stat().st_ino
    gpus.read(path)
    assert path.stat().st_ino == before


def test_a_reused_pid_does_not_inherit(path):
    ledger = Ledger(path, TOTAL, 0.0, Holder("a"))
    ledger.hold(40)
    ledger.birth_of = lambda pid: birth(pid) + 1  # the pid now belongs to a younger process
    assert ledger.used_gib() == 0


def test_a_zombie_holds_nothing():
    child = subprocess.Popen(["true"])
    os.waitid(os.P_PID, child.pid, os.WEXITED | os.WNOWAIT)
    assert birth(child.pid) == 0
    child.wait()


RACER = """
import sys
from pathlib import Path
from llmswap.fake_upstream.ledger import Holder, Ledger, OutOfMemory
ledger = Ledger(Path(sys.argv[1]), 80.0, 0.0, Holder(sys.argv[2]))
print("ready", flush=True)
sys.stdin.readline()
wins = tries = 0
while tries < 200 or not wins:
    tries += 1
    try:
        ledger.hold(50)
    except OutOfMemory:
        continue
    wins += 1
    assert ledger.used_gib() <= 80, ledger.entries()
    ledger.release()
print(wins)
"""


def test_two_processes_that_race_never_hold_more_than_there_is(path):
    racers = [
        subprocess.Popen([sys.executable, "-c", RACER, path, name], stdin=subprocess.PIPE, stdout=subprocess.PIPE)
        for name in "ab"
    ]
    for racer in racers:
        assert racer.stdout.readline() == b"ready\n"
    for racer in racers:
        racer.stdin.write(b"go\n")
        racer.stdin.flush()
    results = [racer.communicate(timeout=30) for racer in racers]
    assert [racer.returncode for racer in racers] == [0, 0]
    assert all(int(out) > 0 for out, _ in results)
    assert Ledger(path, TOTAL, 0.0, Holder()).used_gib() == 0


class LedgerMachine(RuleBasedStateMachine):
    """Four holders on one file, in virtual time, with deaths; beside a plain model of what must be held."""

    pids = st.integers(1, 4)
    numbers = itertools.count()

    @initialize()
    def open(self):
        self.now_s = 0.0
        self.births = dict.fromkeys(range(1, 5), 1)
        self.held = dict.fromkeys(range(1, 5), 0.0)
        self.lingering = []
        path = self.base / f"{next(self.numbers)}.json"
        self.ledgers = {pid: Ledger(path, TOTAL, LAG_S, Holder(str(pid), {0: pid})) for pid in self.births}
        for ledger in self.ledgers.values():
            ledger.clock = lambda: self.now_s
            ledger.birth_of = lambda pid: self.births[pid]

    def used(self):
        return sum(self.held.values()) + sum(gib for gib, until_s in self.lingering if self.now_s < until_s)

    @rule(pid=pids, gib=st.integers(0, 90))
    def hold(self, pid, gib):
        fits = gib - self.held[pid] <= TOTAL - self.used()
        try:
            self.ledgers[pid].hold(gib)
        except OutOfMemory:
            assert not fits
            return
        assert fits
        if gib < self.held[pid]:
            self.lingering.append((self.held[pid] - gib, self.now_s + LAG_S))
        self.held[pid] = gib

    @rule(pid=pids)
    def die_and_be_born_again(self, pid):
        self.births[pid] += 1
        self.lingering.append((self.held[pid], self.now_s + LAG_S))  # from when the death is seen: the invariant looks
        self.held[pid] = 0.0

    @rule(seconds=st.floats(0.1, 3))
    def pass_time(self, seconds):
        self.now_s += seconds

    @invariant()
    def never_over_the_total_and_as_modelled(self):
        used = self.ledgers[1].used_gib()
        assert used <= TOTAL + 1e-6
        assert used == pytest.approx(self.used())


def test_random_histories(tmp_path):
    LedgerMachine.base = tmp_path
    case = LedgerMachine.TestCase
    case.settings = settings(max_examples=40, stateful_step_count=25, deadline=None)
    case().runTest()


async def test_every_gpu_of_a_tensor_parallel_engine_is_held_by_its_own_worker(path, monkeypatch):
    monkeypatch.setenv("CUDA_VISIBLE_DEVICES", "2,5,6")
    flags = ("--persona", "vllm", "--model-profile", "70b-fp8-tp2", "--time-scale", "0", "--gpu-ledger", str(path),
             "--worker-processes")  # fmt: skip
    async with spawned(*flags) as fake:
        seen = gpus.read(path)
        children = [child.pid for child in psutil.Process(fake.pid).children()]
        assert {gpu.index: dict(gpu.by_pid) for gpu in seen.gpus} == {
            2: {children[0]: 60 * GIB},
            5: {children[1]: 60 * GIB},
        }
        assert fake.pid not in children
        fake.process.kill()
        await fake.exit_code()
        await until(lambda: not any(psutil.pid_exists(pid) for pid in children))
        await until(lambda: [gpu.used_bytes for gpu in gpus.read(path).gpus] == [0, 0])


async def test_memory_may_be_stuck_after_the_exit(path):
    flags = ("--gpu-ledger", str(path), "--gpu-release-lag", "0", "--time-scale", "0.001", "--gpu-ready", "20")
    async with spawned(*flags, "--fail", "memory_stuck:60000") as fake:
        await fake.logged("startup complete")
        fake.process.terminate()
        assert await fake.exit_code() == 0
    seen = gpus.read(path).gpus[0]
    assert (seen.used_bytes, seen.by_pid) == (20 * GIB, {})


GPU = ("--persona", "vllm", "--model-profile", "8b", "--time-scale", "0", "--gpu-total", "79")


async def test_a_fake_that_finds_no_room_exits_with_1_and_says_so(path):
    flags = (*GPU, "--gpu-ledger", str(path))
    async with spawned(*flags) as first, spawned(*flags, listening=False) as second:
        assert await second.exit_code() == 1
        await second.logged("less than desired GPU memory (40.00 GiB)")
        ledger = Ledger(path, 79, 0.0, Holder())
        assert [(entry.pid, entry.gib) for entry in ledger.entries()] == [(first.pid, 40)]
        first.process.terminate()
        assert await first.exit_code() == 0
        assert ledger.used_gib() == 0
        async with spawned(*flags):
            assert ledger.used_gib() == 40


async def test_two_fakes_that_race_for_room_for_one_leave_exactly_one(path):
    flags = (*GPU, "--gpu-ledger", str(path))
    async with spawned(*flags, listening=False) as one, spawned(*flags, listening=False) as two:
        await until(lambda: {one.process.returncode, two.process.returncode} == {None, 1})
        winner = one if one.process.returncode is None else two
        await winner.logged("startup complete")
