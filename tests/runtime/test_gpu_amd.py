"""AMD's cards in a sysfs that is not there."""

from pathlib import Path

import pytest

from llmswap.runtime.amd import AmdReader
from llmswap.runtime.gpu import Vitals

GIB = 1 << 30


class Machine:
    def __init__(self, folder: Path) -> None:
        self.drm, self.proc, self.version = folder / "drm", folder / "proc", folder / "version"
        self.drm.mkdir()
        self.version.write_text("6.12.12\n")
        self._devices = folder / "devices"

    def card(self, number: int, address: str, vendor: str = "0x1002", **files: object) -> Path:
        device = self._devices / address
        sensors = device / "hwmon" / "hwmon3"
        sensors.mkdir(parents=True)
        (device / "ras").mkdir()
        (self.drm / f"card{number}").mkdir()
        (self.drm / f"card{number}" / "device").symlink_to(device)
        (self.drm / f"card{number}-DP-1").mkdir()
        for name, text in {"vendor": vendor, "device": "0x74a1", **files}.items():
            path = sensors / name if (sensors / "x").with_name(name).suffix == "" and "_" in name else device / name
            path = device / name if name.startswith(("mem_", "gpu_", "unique", "product")) else path
            (device / "ras" / name if name == "umc_err_count" else path).write_text(f"{text}\n")
        return device

    def opens(self, pid: int, *infos: str) -> None:
        folder = self.proc / str(pid) / "fdinfo"
        folder.mkdir(parents=True)
        (folder / "0").write_text("pos:\t0\nflags:\t02\n")
        for number, text in enumerate(infos, 3):
            (folder / str(number)).write_text(text)

    def reader(self) -> AmdReader:
        return AmdReader(self.drm, self.proc, self.version)


def info(address: str, client: int, kib: int) -> str:
    return (
        f"pos:\t0\ndrm-driver:\tamdgpu\ndrm-pdev:\t{address}\ndrm-client-id:\t{client}\n"
        f"drm-memory-vram:\t{kib} KiB\ndrm-memory-gtt: \t7 KiB\n"
    )


@pytest.fixture
def machine(tmp_path) -> Machine:
    return Machine(tmp_path)


def test_a_card_with_all_its_sensors(machine) -> None:
    machine.card(
        1,
        "0000:03:00.0",
        mem_info_vram_used=5 * GIB,
        mem_info_vram_total=24 * GIB,
        gpu_busy_percent=42,
        unique_id="abc123",
        product_name="Instinct MI300X",
        power1_average=88_000_000,
        power1_cap=300_000_000,
        temp1_label="edge",
        temp1_input=40_000,
        temp2_label="junction",
        temp2_input=55_000,
        temp3_label="mem",
        temp3_input=60_500,
        freq1_label="sclk",
        freq1_input=2_100_000_000,
        freq2_label="mclk",
        freq2_input=900_000_000,
        umc_err_count="ue: 1\nce: 4",
        pwm1_x=0,
    )
    (gpu,) = machine.reader()().gpus
    assert (gpu.label, gpu.uuid, gpu.name, gpu.problem) == ("amd0", "abc123", "Instinct MI300X", "")
    assert (gpu.total_bytes, gpu.used_bytes, gpu.by_pid) == (24 * GIB, 5 * GIB, {})
    assert (gpu.maker.vendor, gpu.maker.driver) == ("amd", "6.12.12")
    assert gpu.vitals == Vitals(
        utilization=0.42,
        power_w=88.0,
        power_limit_w=300.0,
        temperatures_c={"gpu": 40.0, "memory": 60.5},
        clocks_hz={"sm": 2.1e9, "memory": 9e8},
        ecc_errors={"corrected": 4, "uncorrected": 1},
    )


def test_a_card_without_sensors_says_nothing_of_them(machine) -> None:
    machine.card(0, "0000:03:00.0", mem_info_vram_used=1, mem_info_vram_total=2)
    (gpu,) = machine.reader()().gpus
    assert (gpu.uuid, gpu.name, gpu.vitals) == ("0000:03:00.0", "AMD 0x74a1", Vitals())


def test_a_card_that_does_not_answer_is_a_reason(machine) -> None:
    device = machine.card(0, "0000:03:00.0", mem_info_vram_used=1)
    reader = machine.reader()
    (device / "mem_info_vram_used").unlink()
    (gpu,) = reader().gpus
    assert (gpu.uuid, gpu.problem) == ("", "AMD GPU 0: the driver does not answer")


def test_other_vendors_cards_and_connectors_are_none_of_amds(machine) -> None:
    machine.card(0, "0000:01:00.0", vendor="0x10de")
    reader = machine.reader()
    assert not reader.present
    sample = reader()
    assert (sample.gpus, sample.driver, sample.problem) == ((), False, "no AMD GPU here")


def test_memory_of_a_process_counts_once_for_each_client_and_on_its_card(machine) -> None:
    first, second = "0000:03:00.0", "0000:83:00.0"
    machine.card(10, second, mem_info_vram_used=9)
    machine.card(2, first, mem_info_vram_used=9)
    machine.opens(7, info(first, 1, 100), info(first, 1, 100), info(first, 2, 50), info(second, 1, 8))
    machine.opens(8, info(first, 1, 100), info(first, 9, 3))  # an inherited descriptor is the same client
    machine.opens(9, info(first, 77, 1000))
    reader = machine.reader()
    reader.pids = (7, 8, 4711)
    one, two = reader().gpus
    assert (one.label, one.by_pid) == ("amd0", {7: 150 * 1024, 8: 3 * 1024})
    assert (two.label, two.by_pid) == ("amd1", {7: 8 * 1024})
