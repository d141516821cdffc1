"""Every family of GPUs and host, from a driver that is not there; and which of them go when something fails."""

import dataclasses
import os
import threading

import pytest
from prometheus_client.parser import text_string_to_metric_families

from llmswap.core.events import Generation
from llmswap.core.fleet import ModelId
from llmswap.core.snapshot import UpstreamView
from llmswap.core.states import State
from llmswap.runtime.amd import AmdReader
from llmswap.runtime.drivers import Drivers
from llmswap.runtime.gpu import Gpu, GpuWatch, Sample
from llmswap.runtime.load import Load
from llmswap.runtime.machine import POLL_BOUNDS_S, Machine, ModelUse, Xid
from llmswap.runtime.nvml import NvmlReader
from llmswap.runtime.sampler import Sampler
from llmswap.runtime.xids import XidWatch
from llmswap.telemetry import exposition, names
from llmswap.telemetry.hardware import STALE_S, Hardware
from tests.runtime.fake_nvml import GPU_IS_LOST, LIBRARY_NOT_FOUND, NOT_SUPPORTED, READINGS, Card, FakeNvml
from tests.stack import until

GIB = 1 << 30
A, B = ModelId("a"), ModelId("b")
GPU_FAMILIES = {metric.name for metric in names.EVERY if metric.name.startswith("llmswap_gpu_")} - {
    names.GPU_PHASE.name  # told by the scheduler's steps
}
HOST_FAMILIES = {
    *("llmswap_host_memory_total_bytes", "llmswap_host_memory_available_bytes", "llmswap_model_processes"),
    *("llmswap_model_host_memory_bytes", "llmswap_model_cpu_seconds_total"),
}

Samples = dict[tuple[str, frozenset[tuple[str, str]]], float]


def shown(hardware: Hardware) -> Samples:
    """Write the families, read them as Prometheus does."""
    text = exposition.write(hardware.freeze(), openmetrics=False)
    return {
        (sample.name, frozenset(sample.labels.items())): sample.value
        for family in text_string_to_metric_families(text)
        for sample in family.samples
    }


def at(samples: Samples, name: str, /, **labels: str) -> float | None:
    return samples.get((f"llmswap_{name}", frozenset(labels.items())))


def of(samples: Samples, prefix: str) -> set[str]:
    found = {name for name, _ in samples if name.startswith(prefix)}
    return {name.removesuffix("_bucket").removesuffix("_count").removesuffix("_sum") for name in found}


class Box:
    """A sampler over a fake of NVML, and what is shown of it."""

    def __init__(self, folder, *cards: Card, read=None, limit_s: float = 2.0) -> None:
        self.nvml = FakeNvml(*cards)
        reader = NvmlReader(lambda: self.nvml)
        self.gpus = GpuWatch(read or reader, limit_s, read or reader.fully)
        self.xids = XidWatch(lambda: self.nvml, lambda: reader.well, lambda: 1700.5)
        drivers = Drivers(self.gpus, None if read else self.xids, AmdReader(folder))
        self.upstreams = {
            A: UpstreamView(A, State.READY, Generation(1), 0, 0, 0.0),
            B: UpstreamView(B, State.STOPPED, Generation(0), 0, 0, 0.0),
        }
        self.sampler = Sampler(drivers, lambda: self, {A: os.getpid()}.get)
        self.hardware = Hardware(self.sampler.latest)

    async def show(self) -> Samples:
        await self.sampler.look()
        return shown(self.hardware)


@pytest.fixture
def box(tmp_path):
    made = []

    def make(*cards: Card, **options) -> Box:
        made.append(Box(tmp_path, *cards, **options))
        return made[-1]

    yield make
    for one in made:
        one.sampler.close()
        one.gpus.close()


async def test_every_gpu_family_has_a_value(box) -> None:
    one = box(Card("GPU-a", used=9 * GIB, compute={os.getpid(): 5 * GIB, 1: GIB}, name="H100"))
    await one.show()
    await until(one.xids.seen, "somebody to listen for XIDs")
    one.nvml.xids.put((0, 79))
    await until(lambda: any(xid.count for xid in one.xids.seen()), "the XID")
    samples = await one.show()
    assert of(samples, "llmswap_gpu_") == GPU_FAMILIES
    identity = {"uuid": "GPU-a", "name": "H100", "driver_version": "580.65.06", "cuda_version": "13.0", "mig": "off"}
    assert at(samples, "gpu_info", gpu="0", **identity) == 1
    assert at(samples, "gpu_utilization_ratio", gpu="0") == 0.37
    assert at(samples, "gpu_memory_used_bytes", gpu="0") == 9 * GIB
    assert at(samples, "gpu_memory_total_bytes", gpu="0") == 80 * GIB
    assert at(samples, "gpu_memory_unattributed_bytes", gpu="0") == 4 * GIB
    assert at(samples, "gpu_power_watts", gpu="0") == 215.5
    assert at(samples, "gpu_power_limit_watts", gpu="0") == 700
    assert at(samples, "gpu_energy_joules_total", gpu="0") == 123_456
    assert [at(samples, "gpu_temperature_celsius", gpu="0", sensor=sensor) for sensor in ("gpu", "memory")] == [41, 50]
    assert [at(samples, "gpu_clock_hertz", gpu="0", clock=clock) for clock in ("sm", "memory")] == [1.98e9, 2.619e9]
    reasons = ("sw_power_cap", "hw_slowdown", "hw_thermal", "sw_thermal", "power_brake")
    assert [at(samples, "gpu_throttled", gpu="0", reason=reason) for reason in reasons] == [1, 0, 1, 0, 0]
    assert [at(samples, "gpu_pcie_bytes_total", gpu="0", direction=way) for way in ("tx", "rx")] == [1000, 2000]
    assert [at(samples, "gpu_ecc_errors_total", gpu="0", kind=kind) for kind in ("corrected", "uncorrected")] == [3, 1]
    kinds = ("corrected", "uncorrected", "pending", "failed")
    assert [at(samples, "gpu_remapped_rows", gpu="0", kind=kind) for kind in kinds] == [2, 1, 0, 1]
    assert [at(samples, "gpu_xid_errors_total", gpu="0", xid=code) for code in ("79", "48", "31")] == [1, 0, None]
    assert [at(samples, "gpu_xid_last_timestamp_seconds", gpu="0", xid=code) for code in ("79", "48")] == [1700.5, None]
    assert at(samples, "gpu_poll_success") == 1
    assert at(samples, "gpu_poll_timestamp_seconds") > 1e9
    assert at(samples, "gpu_poll_duration_seconds_count") == 2
    assert 0 < at(samples, "gpu_poll_duration_seconds_sum") < 2


async def test_host_and_model_families(box) -> None:
    samples = await box(Card(used=9 * GIB, compute={os.getpid(): 5 * GIB})).show()
    assert of(samples, "llmswap_host_") | of(samples, "llmswap_model_") == {
        *HOST_FAMILIES,
        *("llmswap_model_gpu_memory_bytes", "llmswap_model_gpu_memory_estimated"),
    }
    assert at(samples, "model_gpu_memory_bytes", model="a", gpu="0") == 5 * GIB
    assert at(samples, "model_gpu_memory_estimated", model="a") == 0
    assert at(samples, "model_processes", model="a") >= 1
    assert at(samples, "model_host_memory_bytes", model="a", kind="anon") > 1 << 20
    assert at(samples, "model_cpu_seconds_total", model="a") > 0
    # What is not up takes nothing, and of its memory nothing is said.
    assert (at(samples, "model_processes", model="b"), at(samples, "model_cpu_seconds_total", model="b")) == (0, 0)
    assert at(samples, "model_host_memory_bytes", model="b", kind="anon") is None
    assert at(samples, "host_memory_total_bytes") >= at(samples, "host_memory_available_bytes") > 0


@pytest.mark.parametrize("ailment", ["init fails", "hangs", "raises", "lost"])
async def test_a_driver_that_fails_takes_its_families_with_it_and_nothing_else(box, ailment) -> None:
    gate = threading.Event()

    def hang() -> Sample:
        gate.wait(20)
        return Sample()

    def burst() -> Sample:
        raise RuntimeError("the binding is broken")

    one = {
        "init fails": lambda: box(Card()),
        "lost": lambda: box(Card(fails={"*": GPU_IS_LOST})),
        "hangs": lambda: box(read=hang, limit_s=0.05),
        "raises": lambda: box(read=burst),
    }[ailment]()
    if ailment == "init fails":
        one.nvml.fails["nvmlInit"] = LIBRARY_NOT_FOUND
    samples = await one.show()
    gate.set()
    asked = {"llmswap_gpu_poll_duration_seconds"} if ailment != "init fails" else set()
    assert of(samples, "llmswap_") == {*HOST_FAMILIES, "llmswap_gpu_poll_success", *asked}
    assert at(samples, "gpu_poll_success") == 0


async def test_what_a_driver_does_not_tell_is_absent_and_not_0(box) -> None:
    silent = dict.fromkeys((key.partition("(")[0] for key in READINGS), NOT_SUPPORTED)
    silent |= dict.fromkeys(("nvmlDeviceGetMemoryInfo", "nvmlDeviceRegisterEvents"), NOT_SUPPORTED)
    samples = await box(Card(fails=silent)).show()
    polls = {f"llmswap_gpu_poll_{what}" for what in ("success", "timestamp_seconds", "duration_seconds")}
    assert of(samples, "llmswap_gpu_") == {"llmswap_gpu_info", *polls}
    assert at(samples, "gpu_poll_success") == 1


async def test_instances_have_memory_and_their_gpu_the_rest(box) -> None:
    part = Card("MIG-1", total=10 * GIB, used=GIB, name="H100 MIG 1g.10gb")
    samples = await box(Card("GPU-0", instances=[part], name="H100")).show()
    assert at(samples, "gpu_memory_used_bytes", gpu="0:0") == GIB
    assert at(samples, "gpu_memory_used_bytes", gpu="0") is None
    assert at(samples, "gpu_power_watts", gpu="0") == 215.5
    assert at(samples, "gpu_power_watts", gpu="0:0") is None
    migs = {dict(labels)["mig"] for name, labels in samples if name == "llmswap_gpu_info"}
    assert migs == {"on", "1g.10gb"}


def test_without_a_look_there_is_nothing_and_an_old_look_only_says_so() -> None:
    assert Hardware(lambda: None).freeze() == []
    machine = Machine(100.0, (Gpu(0, "GPU-0", used_bytes=1),), memory_total_bytes=5)
    now_s = [100.0 + STALE_S]
    hardware = Hardware(lambda: machine, clock=lambda: now_s[0])
    assert at(shown(hardware), "gpu_memory_used_bytes", gpu="0") == 1
    now_s[0] += 1
    assert shown(hardware) == {("llmswap_gpu_poll_success", frozenset()): 0}


def test_a_second_scrape_shows_the_next_look() -> None:
    machines = [Machine(0.0, memory_total_bytes=number) for number in (5, 6)]
    hardware = Hardware(lambda: machines[0], clock=lambda: 0.0)
    assert at(shown(hardware), "host_memory_total_bytes") == 5
    machines.pop(0)
    assert at(shown(hardware), "host_memory_total_bytes") == 6


def test_a_poll_falls_into_the_bucket_of_the_catalogue() -> None:
    assert names.GPU_POLL_DURATION.buckets == POLL_BOUNDS_S
    machine = Machine(0.0)
    for took_s in (0.0001, 0.003, 0.003, 7.0):
        machine = dataclasses.replace(machine, polls=machine.polls.plus(took_s))
    samples = shown(Hardware(lambda: machine, clock=lambda: 0.0))
    counts = {
        bound: at(samples, "gpu_poll_duration_seconds_bucket", le=bound) for bound in ("0.0001", "0.0025", "0.005")
    }
    assert counts == {"0.0001": 1, "0.0025": 1, "0.005": 3}
    assert at(samples, "gpu_poll_duration_seconds_bucket", le="+Inf") == 4
    assert at(samples, "gpu_poll_duration_seconds_sum") == pytest.approx(7.0061)


async def test_llama_swaps_gauges_have_its_names_labels_and_units(box) -> None:
    one = box(Card("GPU-a", used=20 * GIB, name="H100"))
    await one.show()
    machine = one.sampler.latest()
    wanted = [False]
    load = Load(1.0, (12.5, 100.0), 8 * GIB, 6 * GIB, GIB, 2 * GIB, GIB, (0.5, 1.5, 2.5), (("eth0", 7, 9),))
    hardware = Hardware(lambda: machine, lambda: wanted[0])
    assert of(shown(hardware), "llamaswap_") == set()
    wanted[0] = True
    assert of(shown(hardware), "llamaswap_") == set()  # not before the first sample
    machine = dataclasses.replace(machine, load=load)
    found = {(name, tuple(sorted(labels))): value for (name, labels), value in shown(hardware).items()}
    mine = {key: value for key, value in found.items() if key[0].startswith("llamaswap_")}
    card = (("id", "0"), ("name", "H100"), ("uuid", "GPU-a"))
    assert mine == {
        ("llamaswap_cpu_util_percent", (("core", "0"),)): 12.5,
        ("llamaswap_cpu_util_percent", (("core", "1"),)): 100,
        ("llamaswap_memory_total_bytes", ()): 8 * GIB,
        ("llamaswap_memory_used_bytes", ()): 6 * GIB,
        ("llamaswap_memory_free_bytes", ()): GIB,
        ("llamaswap_swap_total_bytes", ()): 2 * GIB,
        ("llamaswap_swap_used_bytes", ()): GIB,
        ("llamaswap_load_average", (("interval", "1m"),)): 0.5,
        ("llamaswap_load_average", (("interval", "5m"),)): 1.5,
        ("llamaswap_load_average", (("interval", "15m"),)): 2.5,
        ("llamaswap_network_bytes_total", (("direction", "recv"), ("interface", "eth0"))): 7,
        ("llamaswap_network_bytes_total", (("direction", "sent"), ("interface", "eth0"))): 9,
        ("llamaswap_gpu_temperature_celsius", card): 41,
        ("llamaswap_gpu_vram_temperature_celsius", card): 50,
        ("llamaswap_gpu_util_percent", card): 37,
        ("llamaswap_gpu_memory_util_percent", card): 25,
        ("llamaswap_gpu_memory_used_bytes", card): 20 * GIB,
        ("llamaswap_gpu_memory_total_bytes", card): 80 * GIB,
        ("llamaswap_gpu_fan_speed_percent", card): 30,
        ("llamaswap_gpu_power_draw_watts", card): 215.5,
    }


async def test_an_estimate_says_so(box) -> None:
    card = Card(used=GIB)
    one = box(card)
    ready, one.upstreams[A] = one.upstreams[A], dataclasses.replace(one.upstreams[A], state=State.STOPPED)
    one.sampler._leader = lambda model: None
    await one.show()
    one.upstreams[A], one.sampler._leader = ready, {A: os.getpid()}.get
    card.compute[1 << 22], card.used = 6 * GIB, 7 * GIB
    samples = await one.show()
    assert at(samples, "model_gpu_memory_bytes", model="a", gpu="0") == 6 * GIB
    assert at(samples, "model_gpu_memory_estimated", model="a") == 1
    assert at(samples, "gpu_memory_unattributed_bytes", gpu="0") == GIB


def test_labels_from_outside_are_escaped() -> None:
    gpu = Gpu(0, "GPU-0", 'a "b"\n\\c')
    machine = Machine(0.0, (gpu,), models={ModelId('m"\n'): ModelUse(1)}, xids=(Xid("0", 79),))
    samples = shown(Hardware(lambda: machine, clock=lambda: 0.0))
    assert at(samples, "model_processes", model='m"\n') == 1
    assert {dict(labels)["name"] for name, labels in samples if name == "llmswap_gpu_info"} == {'a "b"\n\\c'}
