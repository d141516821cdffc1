"""The shared GPU ledger: never over its total, whoever asks, and nothing of the dead stays."""

import itertools
import os
import subprocess
import sys

import pytest
from hypothesis import settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, initialize, invariant, rule

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
wins = 0
for _ in range(200):
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
