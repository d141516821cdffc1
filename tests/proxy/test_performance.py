"""`/api/performance` and `/api/hardware`: llama-swap's form, from what a sampler saw."""

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

import orjson
import pytest

from llmswap.config.settings import PerformanceSettings
from llmswap.runtime.drivers import Drivers
from llmswap.runtime.gpu import GpuWatch
from llmswap.runtime.load import Load
from llmswap.runtime.nvml import NvmlReader
from llmswap.runtime.sampler import Moment, Sampler
from tests.proxy.front import Front, ask, front, loaded, model
from tests.runtime.fake_nvml import NOT_SUPPORTED, Card, FakeNvml

GIB = 1 << 30
LOAD = Load(1_700_000_000.25, (12.5, 99.996), 8 * GIB, 6 * GIB, GIB, 2 * GIB, GIB, (0.5, 1.5, 2.5), (("eth0", 7, 9),))


@asynccontextmanager
async def sampled(*cards: Card, settings: PerformanceSettings | None = None) -> AsyncIterator[tuple[Front, Sampler]]:
    reader = NvmlReader(lambda: FakeNvml(*cards))
    gpus = GpuWatch(reader, read_fully=reader.fully)
    config = loaded(model("m1"), performance=settings or PerformanceSettings())
    async with front(config) as served:
        sampler = served.context.sampler = Sampler(Drivers(gpus), served.context.loop.snapshot, lambda _: None)
        await sampler.look()
        yield served, sampler
        sampler.close()
        gpus.close()


def remember(sampler: Sampler, *seconds: float) -> None:
    machine = sampler.latest()
    for at in seconds:
        load = Load(at, *(getattr(LOAD, name) for name in Load.__slots__[1:]))
        sampler._remember(Moment(load, machine.gpus))


async def got(served: Front, path: str):
    answer = await ask(served, "GET", path)
    assert answer.status == 200, answer.text
    return orjson.loads(answer.body)


async def test_a_sample_has_llama_swaps_form() -> None:
    async with sampled(Card("GPU-a", used=20 * GIB, name="H100")) as (served, sampler):
        remember(sampler, LOAD.at)
        answer = await got(served, "/api/performance")
        assert answer["enabled"] is True
        (system,), (gpu,) = answer["sys_stats"], answer["gpu_stats"]
        assert system.pop("timestamp") == gpu.pop("timestamp")
        assert system == {
            "cpu_util_per_core": [12.5, 100.0],
            "mem_total_mb": 8192,
            "mem_used_mb": 6144,
            "mem_free_mb": 1024,
            "swap_total_mb": 2048,
            "swap_used_mb": 1024,
            "load_avg_1": 0.5,
            "load_avg_5": 1.5,
            "load_avg_15": 2.5,
            "net_io": [{"name": "eth0", "bytes_recv": 7, "bytes_sent": 9}],
        }
        assert gpu == {
            "id": 0,
            "name": "H100",
            "uuid": "GPU-a",
            "temp_c": 41,
            "vram_temp_c": 50,
            "gpu_util_pct": 37.0,
            "mem_util_pct": 25.0,
            "mem_used_mb": 20480,
            "mem_total_mb": 81920,
            "fan_speed_pct": 30.0,
            "power_draw_w": 215.5,
        }


async def test_what_a_driver_does_not_tell_is_null() -> None:
    silent = {"nvmlDeviceGetMemoryInfo": NOT_SUPPORTED, "nvmlDeviceGetFanSpeed": NOT_SUPPORTED}
    async with sampled(Card(fails=silent)) as (served, sampler):
        remember(sampler, 1.0)
        (gpu,) = (await got(served, "/api/performance"))["gpu_stats"]
        assert {name for name, value in gpu.items() if value is None} == {
            *("mem_used_mb", "mem_total_mb", "mem_util_pct", "fan_speed_pct"),
        }


async def test_after_gives_only_what_is_younger_and_null_means_nothing_yet() -> None:
    async with sampled(Card()) as (served, sampler):
        assert await got(served, "/api/performance") == {"enabled": True, "sys_stats": None, "gpu_stats": None}
        remember(sampler, 1_700_000_000.0, 1_700_000_005.25, 1_700_000_010.0)
        for after, left in (
            ("2023-11-14T22:13:19Z", 3),
            ("2023-11-14T22:13:20Z", 2),
            ("2023-11-14T22:13:25.249999999Z", 2),
            ("2023-11-15T00:13:25.250%2B02:00", 1),
            ("2023-11-14t22:13:30z", 0),
        ):
            answer = await got(served, f"/api/performance?after={after}")
            assert (len(answer["sys_stats"]), len(answer["gpu_stats"])) == (left, left), after
        newest = (await got(served, "/api/performance"))["sys_stats"][-1]["timestamp"].replace("+", "%2B")
        assert (await got(served, f"/api/performance?after={newest}"))["sys_stats"] == []


@pytest.mark.parametrize(
    "after", ["yesterday", "2023-11-14", "1700000000", "2023-11-14T22:13:20", "2023-13-14T22:13:20Z"]
)
async def test_an_after_that_is_no_time_is_400(after) -> None:
    async with sampled() as (served, _):
        answer = await ask(served, "GET", f"/api/performance?after={after}")
        assert answer.status == 400
        assert "RFC3339" in answer.text


async def test_who_has_switched_it_off_is_told_so() -> None:
    async with sampled(settings=PerformanceSettings(disabled=True)) as (served, _):
        answer = await ask(served, "GET", "/api/performance")
        assert (answer.status, orjson.loads(answer.body)) == (503, {"enabled": False})


async def test_hardware_lists_what_could_be_read() -> None:
    part = Card("MIG-1", total=10 * GIB, name="H100 MIG 1g.10gb")
    cards = (Card("GPU-a", name="H100"), Card("GPU-b", instances=[part], name="H100"))
    async with sampled(*cards) as (served, _):
        first, second = (await got(served, "/api/hardware"))["accelerators"]
        assert first == {
            "index": 0,
            "kind": "gpu",
            "vendor": "NVIDIA",
            "model": "H100",
            "architecture": "Hopper",
            "memory": {"kind": "dedicated", "capacity_bytes": 80 * GIB},
            "driver": {"name": "NVIDIA", "version": "580.65.06"},
            "power_limit_watts": 700.0,
        }
        assert (second["index"], second["memory"]) == (1, {"kind": "unknown", "capacity_bytes": None})
    async with sampled() as (served, _):
        assert (await got(served, "/api/hardware"))["accelerators"] is None
    unified = Card(fails={"nvmlDeviceGetMemoryInfo": NOT_SUPPORTED})
    async with sampled(unified) as (served, _):
        (only,) = (await got(served, "/api/hardware"))["accelerators"]
        assert only["memory"] == {"kind": "unified", "capacity_bytes": None}
