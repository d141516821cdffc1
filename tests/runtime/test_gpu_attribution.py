"""Whose device memory is whose."""

import os
import subprocess
import sys

import pytest

from llmswap.core.fleet import ModelId
from llmswap.runtime.attribution import Share, attribute, unattributed
from llmswap.runtime.gpu import Gpu
from llmswap.runtime.upkeep import Upkeep

GIB = 1 << 30
A, B = ModelId("a"), ModelId("b")
ABSENT = 1 << 22  # above every pid of this machine


def tree(*pids: int, aliases: tuple[tuple[int, int], ...] = ()) -> Upkeep:
    return Upkeep(frozenset(pids), frozenset(aliases))


def gpu(index: int = 0, used: int | None = 10 * GIB, **by_pid: int | None) -> Gpu:
    return Gpu(index, f"GPU-{index}", used_bytes=used, by_pid={int(pid[1:]): share for pid, share in by_pid.items()})


@pytest.fixture
def stranger():
    """A process younger than we are, and none of ours: its parent is gone."""
    script = "import subprocess, sys; print(subprocess.Popen(['sleep', '60'], stdout=-3, stderr=-3).pid)"
    pid = int(subprocess.run([sys.executable, "-c", script], capture_output=True, text=True, check=True).stdout)
    yield pid
    os.kill(pid, 9)


def test_each_model_gets_what_its_processes_hold_on_each_gpu() -> None:
    gpus = [gpu(0, p11=GIB, p12=2 * GIB, p21=4 * GIB, p99=GIB), gpu(1, p12=GIB)]
    shares = attribute(gpus, {A: tree(11, 12), B: tree(21)}, [A, B], {})
    assert shares == {A: Share({"0": 3 * GIB, "1": GIB}), B: Share({"0": 4 * GIB})}
    assert [unattributed(one, shares) for one in gpus] == [3 * GIB, 9 * GIB]


def test_who_holds_nothing_has_nothing_and_that_is_no_estimate() -> None:
    gpus = [gpu(p11=GIB)]
    shares = attribute(gpus, {A: tree(11), B: tree(os.getpid())}, [A, B], {"0": 0})
    assert shares[A] == Share({"0": GIB})
    assert not shares[B].by_gpu
    assert not shares[B].estimated


def test_numbers_inside_a_container_count_if_they_mean_nobody_else() -> None:
    inner = (ABSENT, 11)
    by_pid = {f"p{ABSENT}": GIB, "p1": GIB}
    trees = {A: tree(11, aliases=(inner, (1, 11)))}
    assert attribute([gpu(**by_pid)], trees, [A], {})[A].by_gpu == {"0": GIB}  # pid 1 is somebody here
    both = {A: tree(11, aliases=(inner,)), B: tree(21, aliases=((ABSENT, 21),))}
    assert [share.by_gpu for share in attribute([gpu(**by_pid)], both, [A, B], {}).values()] == [{}, {}]
    twice = {A: tree(11, 12, aliases=(inner, (ABSENT, 12)))}
    assert not attribute([gpu(**by_pid)], twice, [A], {})[A].by_gpu


def test_unknown_pids_make_an_estimate_for_the_only_one_awake(stranger) -> None:
    gpus = [gpu(0, 10 * GIB, **{f"p{stranger}": 8 * GIB}), gpu(1, 3 * GIB), gpu(2, None), gpu(3, 9 * GIB)]
    shares = attribute(gpus, {A: tree(os.getpid())}, [A], {"0": 2 * GIB, "1": 3 * GIB, "2": 0})
    assert shares[A].by_gpu == {"0": 8 * GIB}
    assert shares[A].estimated
    assert "under other pids" in shares[A].problem
    assert [unattributed(one, shares) for one in gpus] == [2 * GIB, 3 * GIB, None, 9 * GIB]


def test_an_estimate_leaves_out_what_sleepers_were_measured_to_hold(stranger) -> None:
    gpus = [gpu(0, 10 * GIB, **{f"p{stranger}": 6 * GIB, "p21": GIB})]
    shares = attribute(gpus, {A: tree(os.getpid()), B: tree(21)}, [A], {"0": 2 * GIB})
    assert shares == {A: Share({"0": 7 * GIB}, estimated=True, problem=shares[A].problem), B: Share({"0": GIB})}


def test_nothing_is_estimated_for_two_or_without_a_beginning(stranger) -> None:
    gpus = [gpu(0, 10 * GIB, **{f"p{stranger}": 8 * GIB})]
    trees = {A: tree(os.getpid()), B: tree(ABSENT)}
    for awake, before in (([A, B], {"0": 0}), ([A], {}), ([], {"0": 0}), ([A], {"0": 11 * GIB})):
        shares = attribute(gpus, trees, awake, before)
        assert [(share.by_gpu, share.estimated) for share in shares.values()] == [({}, False)] * 2
        assert shares[A].problem


def test_shares_that_the_driver_keeps_to_itself_are_estimated_too() -> None:
    blind = [gpu(0, 10 * GIB, p11=None)]
    shares = attribute(blind, {A: tree(11)}, [A], {"0": GIB})
    assert (shares[A].by_gpu, shares[A].estimated) == ({"0": 9 * GIB}, True)
    hidden = [Gpu(0, "GPU-0", used_bytes=5 * GIB, problem="it does not say")]
    shares = attribute(hidden, {A: tree(11)}, [A], {"0": GIB})
    assert shares == {A: Share({"0": 4 * GIB}, estimated=True, problem="it does not say")}


def test_more_attributed_than_used_leaves_nothing() -> None:
    assert unattributed(gpu(used=GIB), {A: Share({"0": 2 * GIB})}) == 0
