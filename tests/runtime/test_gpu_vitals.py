"""What NVML says of a GPU beside its memory: every reading, and each one failing by itself."""

from dataclasses import replace

import pytest

from llmswap.runtime.gpu import Vitals
from llmswap.runtime.nvml import NvmlReader
from tests.runtime.fake_nvml import (
    FUNCTION_NOT_FOUND,
    GIB,
    GPU_IS_LOST,
    NO_PERMISSION,
    NOT_SUPPORTED,
    READINGS,
    Card,
    FakeNvml,
    fields,
)

HEALTHY = Vitals(
    utilization=0.37,
    power_w=215.5,
    power_limit_w=700.0,
    energy_j=123_456.0,
    temperatures_c={"gpu": 41.0, "memory": 50},
    clocks_hz={"sm": 1.98e9, "memory": 2.619e9},
    throttled={
        "sw_power_cap": True,
        "hw_slowdown": False,
        "hw_thermal": True,
        "sw_thermal": False,
        "power_brake": False,
    },
    pcie_bytes={"tx": 1000, "rx": 2000},
    ecc_errors={"corrected": 3, "uncorrected": 1},
    remapped_rows={"corrected": 2, "uncorrected": 1, "pending": 0, "failed": 1},
    fan_ratio=0.3,
)
# What is missing where a call does not answer.
WITHOUT = {
    "nvmlDeviceGetUtilizationRates": {"utilization": None},
    "nvmlDeviceGetPowerUsage": {"power_w": None},
    "nvmlDeviceGetEnforcedPowerLimit": {"power_limit_w": None},
    "nvmlDeviceGetTotalEnergyConsumption": {"energy_j": None},
    "nvmlDeviceGetTemperatureV(0)": {"temperatures_c": {"memory": 50}},
    "nvmlDeviceGetClockInfo(1)": {"clocks_hz": {"memory": 2.619e9}},
    "nvmlDeviceGetClockInfo(2)": {"clocks_hz": {"sm": 1.98e9}},
    "nvmlDeviceGetCurrentClocksEventReasons": {"throttled": {}},
    "nvmlDeviceGetFieldValues([82, 197, 198])": {"temperatures_c": {"gpu": 41.0}, "pcie_bytes": {}},
    "nvmlDeviceGetTotalEccErrors(0, 0)": {"ecc_errors": {"uncorrected": 1}},
    "nvmlDeviceGetTotalEccErrors(1, 0)": {"ecc_errors": {"corrected": 3}},
    "nvmlDeviceGetRemappedRows": {"remapped_rows": {}},
    "nvmlDeviceGetFanSpeed": {"fan_ratio": None},
}


def vitals(**card) -> Vitals:
    (gpu,) = NvmlReader(lambda: FakeNvml(Card(used=GIB, **card))).fully().gpus
    assert gpu.used_bytes == GIB
    assert gpu.vitals is not None
    return gpu.vitals


def test_every_reading_of_a_healthy_card() -> None:
    assert set(WITHOUT) == set(READINGS) - {"nvmlDeviceGetArchitecture"}
    assert vitals() == HEALTHY


def test_who_asks_for_memory_only_reads_nothing_else() -> None:
    nvml = FakeNvml(Card())
    (gpu,) = NvmlReader(lambda: nvml)().gpus
    assert gpu.vitals is None
    assert not set(nvml.called) & {key.partition("(")[0] for key in READINGS}


@pytest.mark.parametrize("code", [NOT_SUPPORTED, NO_PERMISSION, FUNCTION_NOT_FOUND, 999, GPU_IS_LOST])
@pytest.mark.parametrize("function", sorted({key.partition("(")[0] for key in WITHOUT}))
def test_a_reading_that_fails_is_absent_and_takes_no_other_with_it(function, code) -> None:
    expected = HEALTHY
    for key, missing in WITHOUT.items():
        if key.partition("(")[0] == function:
            expected = replace(expected, **missing)
    if function in {"nvmlDeviceGetClockInfo", "nvmlDeviceGetTotalEccErrors"}:  # one function, two readings
        (name,) = next(missing for key, missing in WITHOUT.items() if key.startswith(function))
        expected = replace(HEALTHY, **{name: {}})
    assert vitals(fails={function: code}) == expected


@pytest.mark.parametrize("answer", [None, "garbage", ValueError("bad"), UnicodeDecodeError("utf-8", b"", 0, 1, "")])
@pytest.mark.parametrize("key", sorted(WITHOUT))
def test_an_answer_that_is_none_or_nonsense_is_absent_too(key, answer) -> None:
    assert vitals(readings={key: answer}) == replace(HEALTHY, **WITHOUT[key])


def test_what_the_field_values_withhold_is_absent() -> None:
    key = "nvmlDeviceGetFieldValues([82, 197, 198])"
    assert vitals(readings={key: fields(memory_c=0)}).temperatures_c == {"gpu": 41.0}
    assert vitals(readings={key: fields(memory_c=None)}).temperatures_c == {"gpu": 41.0}
    assert vitals(readings={key: fields(tx=None)}).pcie_bytes == {"rx": 2000}
    assert vitals(readings={key: fields(rx=0)}).pcie_bytes == {"tx": 1000, "rx": 0}


def test_older_drivers_are_asked_by_older_names(monkeypatch) -> None:
    monkeypatch.setitem(READINGS, "nvmlDeviceGetTemperature(0)", 43)
    monkeypatch.setitem(READINGS, "nvmlDeviceGetCurrentClocksThrottleReasons", 0x80)
    old = dict.fromkeys(("nvmlDeviceGetTemperatureV", "nvmlDeviceGetCurrentClocksEventReasons"), FUNCTION_NOT_FOUND)
    told = vitals(fails=old)
    assert told.temperatures_c["gpu"] == 43
    assert [reason for reason, active in told.throttled.items() if active] == ["power_brake"]


def test_what_does_not_change_is_asked_once_and_again_after_a_reset() -> None:
    nvml = FakeNvml(Card())
    now_s = [100.0]
    reader = NvmlReader(lambda: nvml, lambda: now_s[0])
    for _ in range(3):
        (gpu,) = reader.fully().gpus
    assert (gpu.maker.driver, gpu.maker.cuda, gpu.maker.architecture, gpu.maker.profile) == (
        *("580.65.06", "13.0", "Hopper"),
        "",
    )
    assert nvml.called.count("nvmlSystemGetDriverVersion") == 1
    nvml.fails["nvmlDeviceGetCount"] = GPU_IS_LOST
    reader.fully()
    nvml.fails.clear()
    now_s[0] += 60
    reader.fully()
    assert nvml.called.count("nvmlSystemGetDriverVersion") == 2


def test_a_card_that_is_cut_up_has_the_vitals_and_its_instances_the_memory() -> None:
    one = Card("MIG-1", total=10 * GIB, used=GIB, name="NVIDIA H100 MIG 1g.10gb")
    two = Card("MIG-2", total=20 * GIB, used=2 * GIB, name="NVIDIA H100 MIG 2g.20gb")
    sample = NvmlReader(lambda: FakeNvml(Card("GPU-0", instances=[one, None, two]), Card("GPU-1"))).fully()
    assert [(gpu.label, gpu.maker.profile, gpu.used_bytes, gpu.vitals) for gpu in sample.gpus[:2]] == [
        ("0:0", "1g.10gb", GIB, None),
        ("0:2", "2g.20gb", 2 * GIB, None),
    ]
    assert (sample.gpus[2].label, sample.gpus[2].vitals) == ("1", HEALTHY)
    (board,) = sample.boards
    assert (board.label, board.maker.profile, board.used_bytes, board.vitals) == ("0", "on", None, HEALTHY)
