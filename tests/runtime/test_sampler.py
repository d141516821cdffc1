"""The sampler: what it publishes, what it does without GPUs, and that nobody waits for it."""

import asyncio
import dataclasses
import logging
import os
import threading
import time

import pytest

from llmswap.config.settings import PerformanceSettings
from llmswap.core.events import Generation
from llmswap.core.fleet import ModelId
from llmswap.core.snapshot import UpstreamView
from llmswap.core.states import State
from llmswap.runtime import sampler as module
from llmswap.runtime.amd import AmdReader
from llmswap.runtime.drivers import Drivers
from llmswap.runtime.gpu import Gpu, GpuWatch, Sample
from llmswap.runtime.nvml import NvmlReader
from llmswap.runtime.sampler import Sampler
from tests.runtime.fake_nvml import GPU_IS_LOST, LIBRARY_NOT_FOUND, Card, FakeNvml
from tests.runtime.rig import until

GIB = 1 << 30
A = ModelId("a")


class Rig:
    """A sampler of one model, of a driver that is made of parts."""

    def __init__(self, folder, read, read_fully=None, *, limit_s: float = 2.0) -> None:
        self.state = State.STOPPED
        self.pid: int | None = None
        self.generation = 1
        self.settings = PerformanceSettings()
        self.gpus = GpuWatch(read, limit_s, read_fully)
        self.cards = folder / "drm"
        self.cards.mkdir()
        self.sampler = Sampler(
            Drivers(self.gpus, amd=AmdReader(self.cards)), lambda: self, lambda model: self.pid, lambda: self.settings
        )

    @property
    def upstreams(self):
        return {A: UpstreamView(A, self.state, Generation(self.generation), 0, 0, 0.0)}

    def up(self, pid: int | None, generation: int = 1) -> None:
        self.pid, self.generation = pid, generation
        self.state = State.READY if pid else State.STOPPED

    async def look(self):
        await self.sampler.look()
        machine = self.sampler.latest()
        assert machine is not None
        return machine


@pytest.fixture
def rig(tmp_path):
    made = []

    def make(read, read_fully=None, **options) -> Rig:
        made.append(Rig(tmp_path, read, read_fully, **options))
        return made[-1]

    yield make
    for one in made:
        one.sampler.close()
        one.gpus.close()


def nvml_rig(rig, *cards: Card) -> tuple[Rig, FakeNvml]:
    nvml = FakeNvml(*cards)
    reader = NvmlReader(lambda: nvml)
    return rig(reader, reader.fully), nvml


async def test_a_look_is_one_frozen_value(rig) -> None:
    card = Card(used=2 * GIB)
    box, _ = nvml_rig(rig, card)
    first = await box.look()
    assert first.models[A].processes == 0
    card.compute[os.getpid()], card.used = 5 * GIB, 7 * GIB
    box.up(os.getpid())
    machine = await box.look()
    use = machine.models[A]
    assert use.processes >= 1
    assert use.host_bytes["anon"] > 1 << 20
    assert use.cpu_s > 0
    assert (use.device.by_gpu, use.device.estimated) == ({"0": 5 * GIB}, False)
    assert machine.unattributed == {"0": 2 * GIB}
    assert (machine.problem, sum(machine.polls.counts)) == ("", 2)
    assert abs(machine.polled_at - time.time()) < 60
    assert machine.memory_available_bytes <= machine.memory_total_bytes
    assert first.models[A].processes == 0  # it has stayed as it was
    with pytest.raises(dataclasses.FrozenInstanceError):
        machine.problem = "x"


async def test_pids_that_cannot_be_matched_make_an_estimate_against_the_empty_gpu(rig) -> None:
    card = Card(used=2 * GIB)
    box, _ = nvml_rig(rig, card)
    await box.look()
    card.compute[1 << 22], card.used = 8 * GIB, 10 * GIB
    box.up(os.getpid())
    device = (await box.look()).models[A].device
    assert (device.by_gpu, device.estimated) == ({"0": 8 * GIB}, True)


async def test_time_of_a_models_lives_adds_up(rig) -> None:
    box, _ = nvml_rig(rig, Card())
    box.up(os.getpid())
    one = (await box.look()).models[A].cpu_s
    box.up(None)
    assert (await box.look()).models[A].cpu_s == one
    box.up(os.getpid(), generation=2)
    assert (await box.look()).models[A].cpu_s >= 2 * one


async def test_without_a_driver_there_are_no_gpus_and_one_line_says_why(rig, caplog) -> None:
    caplog.set_level(logging.INFO)
    box, nvml = nvml_rig(rig, Card())
    nvml.fails["nvmlInit"] = LIBRARY_NOT_FOUND
    for _ in range(3):
        machine = await box.look()
        assert (machine.gpus, machine.polled_at, sum(machine.polls.counts)) == ((), None, 0)
        assert "libnvidia-ml.so.1" in machine.problem
        assert machine.memory_total_bytes
    said = [record.getMessage() for record in caplog.records if "GPU" in record.getMessage()]
    assert said == ["no GPU metrics: no NVIDIA driver here (libnvidia-ml.so.1 is missing)"]


async def test_a_lost_gpu_is_a_failure_and_the_others_are_shown(rig, caplog) -> None:
    caplog.set_level(logging.INFO)
    lost = Card("GPU-a")
    box, _ = nvml_rig(rig, lost, Card("GPU-b"))
    good = await box.look()
    lost.fails["*"] = GPU_IS_LOST
    machine = await box.look()
    assert [gpu.label for gpu in machine.gpus] == ["1"]
    assert (machine.problem, machine.polled_at) == ("GPU 0: NVML: error 15", good.polled_at)
    lost.fails.clear()
    await box.look()
    said = [(record.levelname, record.getMessage()) for record in caplog.records if record.name == module.__name__]
    assert said == [("WARNING", "no GPU metrics: GPU 0: NVML: error 15"), ("INFO", "the GPUs can be read")]


async def test_a_driver_that_hangs_costs_its_limit_once_and_the_host_is_still_seen(rig, caplog) -> None:
    caplog.set_level(logging.INFO)
    gate = threading.Event()

    def read() -> Sample:
        assert gate.wait(20)
        return Sample((Gpu(0, "GPU-0"),))

    box = rig(read, limit_s=0.1)
    box.up(os.getpid())
    for _ in range(3):
        began_s = time.monotonic()
        machine = await box.look()
        assert "has not answered" in machine.problem
        assert machine.models[A].processes >= 1
    assert time.monotonic() - began_s < 1.5
    assert len([1 for record in caplog.records if "has not answered" in record.getMessage()]) == 1
    gate.set()
    await until(lambda: box.gpus._under_way is None, "the end of the hung call")
    assert [gpu.label for gpu in (await box.look()).gpus] == ["0"]


async def test_a_binding_that_raises_is_a_reason(rig) -> None:
    def read() -> Sample:
        raise OSError("no such symbol")

    machine = await rig(read).look()
    assert (machine.gpus, machine.problem) == ((), "cannot ask the GPU driver: OSError: no such symbol")


async def test_several_vendors_add_up(tmp_path) -> None:
    (tmp_path / "drm" / "card0" / "device").mkdir(parents=True)
    for name, text in {"vendor": "0x1002", "device": "0x74a1", "mem_info_vram_used": "5", "unique_id": "x"}.items():
        (tmp_path / "drm" / "card0" / "device" / name).write_text(text)
    for nvidia, labels in ((Sample((Gpu(0, "GPU-0"),)), ["0", "amd0"]), (Sample(problem="x", driver=False), ["amd0"])):
        watch = GpuWatch(lambda nvidia=nvidia: nvidia)
        snapshot = type("S", (), {"upstreams": {}})()
        sampler = Sampler(Drivers(watch, amd=AmdReader(tmp_path / "drm")), lambda s=snapshot: s, lambda model: None)
        await sampler.look()
        machine = sampler.latest()
        assert ([gpu.label for gpu in machine.gpus], machine.problem) == (labels, "")
        sampler.close()
        watch.close()


async def test_history_has_a_sample_every_so_often_for_an_hour(rig, monkeypatch) -> None:
    box, _ = nvml_rig(rig, Card())
    box.settings = PerformanceSettings(every_s=1200.0)
    now_s = [1000.0]
    monkeypatch.setattr(module.time, "monotonic", lambda: now_s[0])
    seen = []
    for _ in range(10):
        await box.look()
        seen.append(len(box.sampler.history()))
        now_s[0] += 600.0
    assert seen == [0, 0, 1, 1, 2, 2, 3, 3, 3, 3]
    ats = [moment.load.at for moment in box.sampler.history()]
    assert ats == sorted(ats)
    assert len(set(ats)) == 3


async def test_it_is_switched_off_and_on_while_it_runs(rig, monkeypatch) -> None:
    monkeypatch.setattr(module, "EVERY_S", 0.1)
    box, nvml = nvml_rig(rig, Card())
    running = asyncio.create_task(box.sampler.run())
    await until(box.sampler.latest, "the first look")
    box.settings = PerformanceSettings(disabled=True)
    await until(lambda: box.sampler.latest() is None, "the switch")
    nvml.called.clear()
    await asyncio.sleep(0.3)
    assert (box.sampler.latest(), nvml.called) == (None, [])
    box.settings = PerformanceSettings()
    await until(box.sampler.latest, "a look")
    running.cancel()
    await asyncio.gather(running, return_exceptions=True)


async def test_a_look_that_fails_ends_nothing(rig, monkeypatch, caplog) -> None:
    monkeypatch.setattr(module, "EVERY_S", 0.1)
    box, _ = nvml_rig(rig, Card())
    running = asyncio.create_task(box.sampler.run())
    await until(box.sampler.latest, "the first look")
    with monkeypatch.context() as broken:
        broken.setattr(module, "look", lambda leaders: 1 / 0)
        await until(lambda: box.sampler.latest() is None, "the failure")
        assert "looking at the machine failed" in caplog.text
    await until(box.sampler.latest, "the next look")
    running.cancel()
    await asyncio.gather(running, return_exceptions=True)


async def test_a_look_costs_the_event_loop_little(rig) -> None:
    box, _ = nvml_rig(rig, *(Card(f"GPU-{number}") for number in range(8)))
    box.up(os.getpid())
    await box.look()
    began_s = time.thread_time()
    for _ in range(20):
        await box.look()
    each_s = (time.thread_time() - began_s) / 20
    assert each_s < 0.002, f"{each_s * 1e6:.0f} us"  # some 300 us on an idle machine
