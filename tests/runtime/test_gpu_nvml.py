"""What NVML says, and what it refuses to say."""

import itertools

import pytest

from llmswap.runtime.nvml import RETRY_MOST_S, RETRY_S, NvmlReader
from tests.runtime.fake_nvml import (
    DRIVER_NOT_LOADED,
    FUNCTION_NOT_FOUND,
    GIB,
    GPU_IS_LOST,
    LIBRARY_MISMATCH,
    LIBRARY_NOT_FOUND,
    NO_PERMISSION,
    NOT_SUPPORTED,
    Card,
    FakeNvml,
)


class Clock:
    def __init__(self) -> None:
        self.now_s = 100.0

    def __call__(self) -> float:
        return self.now_s


def reader(nvml: FakeNvml) -> tuple[NvmlReader, Clock]:
    clock = Clock()
    return NvmlReader(lambda: nvml, clock), clock


def read(*cards: Card):
    return reader(FakeNvml(*cards))[0]()


def test_reads_devices_and_who_uses_them() -> None:
    sample = read(Card("GPU-a", used=9 * GIB, compute={7: 5 * GIB}), Card("GPU-b", graphics={8: GIB}))
    first, second = sample.gpus
    assert (first.index, first.uuid, first.name, first.mig) == (0, "GPU-a", "Fake GPU-a", False)
    assert (first.total_bytes, first.used_bytes) == (80 * GIB, 9 * GIB)
    assert first.by_pid == {7: 5 * GIB}
    assert second.by_pid == {8: GIB}
    assert (sample.problem, sample.driver, first.problem) == ("", True, "")


def test_a_process_that_computes_and_draws_counts_once() -> None:
    (gpu,) = read(Card(compute={7: 5 * GIB}, graphics={7: 5 * GIB, 9: GIB})).gpus
    assert gpu.by_pid == {7: 5 * GIB, 9: GIB}


def test_an_old_driver_is_asked_in_its_own_version() -> None:
    old = {f"nvmlDeviceGet{kind}RunningProcesses_v3": FUNCTION_NOT_FOUND for kind in ("Compute", "Graphics")}
    (gpu,) = read(Card(compute={7: GIB}, graphics={8: GIB}, fails=old)).gpus
    assert gpu.by_pid == {7: GIB, 8: GIB}


@pytest.mark.parametrize("code", [NOT_SUPPORTED, NO_PERMISSION])
def test_what_is_withheld_is_none_and_has_a_reason(code) -> None:
    withheld = {f"nvmlDeviceGetComputeRunningProcesses_{version}": code for version in ("v2", "v3")}
    nvml = FakeNvml(Card(used=GIB, fails=withheld), Card("GPU-1", fails={"nvmlDeviceGetMemoryInfo": code}))
    read_all, clock = reader(nvml)
    first, second = read_all().gpus
    assert first.by_pid is None
    assert "which processes" in first.problem
    assert (second.total_bytes, second.used_bytes, second.by_pid) == (None, None, {})
    clock.now_s += 1000
    read_all()
    assert nvml.called.count("nvmlInit") == 1  # it is not lost: opening it anew would not help


def test_unknown_shares_are_none_and_have_a_reason() -> None:
    (gpu,) = read(Card(compute={7: None})).gpus
    assert gpu.by_pid == {7: None}
    assert "how much" in gpu.problem


@pytest.mark.parametrize(
    ("code", "driver", "said"),
    [
        (LIBRARY_NOT_FOUND, False, "libnvidia-ml.so.1"),
        (DRIVER_NOT_LOADED, False, "not loaded"),
        (LIBRARY_MISMATCH, True, "reboot"),
        (999, True, "error 999"),
    ],
)
def test_a_driver_that_cannot_be_opened_is_a_reason(code, driver, said) -> None:
    nvml = FakeNvml(Card())
    nvml.fails["nvmlInit"] = code
    sample = reader(nvml)[0]()
    assert (sample.gpus, sample.driver) == ((), driver)
    assert said in sample.problem


def test_no_gpu_is_no_driver() -> None:
    sample = read()
    assert (sample.gpus, sample.driver) == ((), False)
    assert "no GPU" in sample.problem


def test_opening_backs_off_and_comes_back() -> None:
    nvml = FakeNvml(Card())
    nvml.fails["nvmlInit"] = DRIVER_NOT_LOADED
    read_all, clock = reader(nvml)
    tries = []
    for _ in range(2000):
        before = nvml.called.count("nvmlInit")
        assert read_all().gpus == ()
        if nvml.called.count("nvmlInit") > before:
            tries.append(clock.now_s)
        clock.now_s += 0.25
    pauses = [after - before for before, after in itertools.pairwise(tries)]
    assert pauses[:4] == [RETRY_S, 2 * RETRY_S, 4 * RETRY_S, 8 * RETRY_S]
    assert max(pauses) == RETRY_MOST_S
    del nvml.fails["nvmlInit"]
    clock.now_s += RETRY_MOST_S
    assert len(read_all().gpus) == 1
    assert nvml.opened == 1
    nvml.fails["nvmlDeviceGetCount"] = GPU_IS_LOST
    assert read_all().gpus == ()
    nvml.fails.clear()
    clock.now_s += RETRY_S  # the next time it begins anew
    assert len(read_all().gpus) == 1


def test_a_driver_reset_is_closed_before_it_is_opened_anew() -> None:
    nvml = FakeNvml(Card())
    read_all, clock = reader(nvml)
    read_all()
    nvml.fails["nvmlDeviceGetCount"] = GPU_IS_LOST
    assert "error 15" in read_all().problem
    del nvml.fails["nvmlDeviceGetCount"]
    assert read_all().gpus == ()  # not before its time
    clock.now_s += RETRY_S
    assert len(read_all().gpus) == 1
    assert [name for name in nvml.called if name in {"nvmlInit", "nvmlShutdown"}] == [
        "nvmlInit",
        "nvmlShutdown",
        "nvmlInit",
    ]


def test_a_lost_gpu_leaves_the_others_readable_and_comes_back() -> None:
    lost, well = Card("GPU-a"), Card("GPU-b", used=GIB, compute={7: GIB})
    nvml = FakeNvml(lost, well)
    read_all, clock = reader(nvml)
    read_all()
    lost.fails["*"] = GPU_IS_LOST
    nvml.fails["nvmlShutdown"] = GPU_IS_LOST
    for _ in range(3):
        first, second = read_all().gpus
        assert (first.uuid, first.by_pid) == ("", None)
        assert first.problem == "GPU 0: NVML: error 15"
        assert second.by_pid == {7: GIB}
        clock.now_s += RETRY_S
    lost.fails.clear()
    clock.now_s += RETRY_MOST_S
    assert [gpu.uuid for gpu in read_all().gpus] == ["GPU-a", "GPU-b"]
    assert 2 <= nvml.called.count("nvmlInit") <= 4
    clock.now_s += RETRY_MOST_S
    opened = nvml.called.count("nvmlInit")
    read_all()
    assert nvml.called.count("nvmlInit") == opened  # all is well again


def test_each_mig_instance_is_a_gpu_of_its_own() -> None:
    one = Card("MIG-1", total=10 * GIB, used=GIB, compute={7: GIB})
    two = Card("MIG-2", total=20 * GIB, compute={8: GIB})
    gpus = read(Card("GPU-0", instances=[one, None, two]), Card("GPU-1")).gpus
    assert [(gpu.index, gpu.uuid, gpu.mig) for gpu in gpus] == [
        (0, "MIG-1", True),
        (0, "MIG-2", True),
        (1, "GPU-1", False),
    ]
    assert gpus[0].by_pid == {7: GIB}
    assert gpus[1].total_bytes == 20 * GIB


def test_mig_whose_instances_cannot_be_seen_is_a_reason() -> None:
    (gpu,) = read(Card(instances=[None, None])).gpus
    assert gpu.by_pid is None
    assert "MIG" in gpu.problem
