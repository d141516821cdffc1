"""What the machine is and does, in llama-swap's form: `/api/hardware`, `/api/performance`."""

import asyncio
import re
from collections.abc import Iterable
from datetime import datetime
from typing import Any

from aiohttp import web

from llmswap.proxy.context import CONTEXT
from llmswap.proxy.errors import RequestError
from llmswap.runtime import host
from llmswap.runtime.gpu import Gpu
from llmswap.runtime.load import Load
from llmswap.runtime.sampler import Moment

_MIB = 1 << 20
_VENDORS = {"nvidia": "NVIDIA", "amd": "AMD"}
_RFC3339 = re.compile(r"\d{4}-\d\d-\d\d[Tt]\d\d:\d\d:\d\d([.,]\d+)?([Zz]|[-+]\d\d:\d\d)")


async def hardware(request: web.Request) -> web.Response:
    """Describe the machine, and its GPUs if they could be read."""
    sampler = request.app[CONTEXT].sampler
    machine = None if sampler is None else sampler.latest()
    answer = await asyncio.to_thread(host.snapshot)
    whole = [] if machine is None else [gpu for gpu in machine.gpus if gpu.instance is None]
    answer["accelerators"] = [_accelerator(index, gpu) for index, gpu in enumerate(whole)] or None
    return web.json_response(answer)


async def performance(request: web.Request) -> web.Response:
    """Give the samples of the last hour; with `after`, those since then. What is not known is null.

    Raises:
        RequestError: 400 for an `after` that is no time.
    """
    context = request.app[CONTEXT]
    if context.sampler is None or context.loaded.settings.performance.disabled:
        return web.json_response({"enabled": False}, status=503)
    moments: Iterable[Moment] = context.sampler.history()
    after = _after(request.query.get("after", ""))
    if after is not None:
        moments = [moment for moment in moments if moment.load.at > after]
    # An hour of many CPUs and GPUs is some megabytes of JSON.
    return await asyncio.to_thread(_answer, moments, empty=None if after is None else [])


def _answer(moments: Iterable[Moment], empty: list[Any] | None) -> web.Response:
    hosts = [_host(moment.load) for moment in moments]
    gpus = [_gpu(index, gpu, moment.load) for moment in moments for index, gpu in enumerate(moment.gpus)]
    return web.json_response({"enabled": True, "sys_stats": hosts or empty, "gpu_stats": gpus or empty})


def _after(text: str) -> float | None:
    if not text:
        return None
    try:
        if not _RFC3339.fullmatch(text):
            text = ""  # other forms of ISO 8601 are read, too
        return datetime.fromisoformat(re.sub(r"(\.\d{6})\d+", r"\1", text.upper())).timestamp()
    except ValueError:
        raise RequestError(400, "invalid 'after' timestamp, use RFC3339 format") from None


def _time(at: float) -> str:
    return datetime.fromtimestamp(at).astimezone().isoformat(timespec="microseconds")


def _host(load: Load) -> dict[str, Any]:
    return {
        "timestamp": _time(load.at),
        "cpu_util_per_core": [round(used, 2) for used in load.cpu_percent],
        "mem_total_mb": load.memory_total_bytes // _MIB,
        "mem_used_mb": load.memory_used_bytes // _MIB,
        "mem_free_mb": load.memory_free_bytes // _MIB,
        "swap_total_mb": load.swap_total_bytes // _MIB,
        "swap_used_mb": load.swap_used_bytes // _MIB,
        **dict(zip(("load_avg_1", "load_avg_5", "load_avg_15"), load.averages, strict=True)),
        "net_io": [{"name": name, "bytes_recv": received, "bytes_sent": sent} for name, received, sent in load.network],
    }


def _gpu(index: int, gpu: Gpu, load: Load) -> dict[str, Any]:
    vitals = gpu.vitals
    temperatures = {} if vitals is None else vitals.temperatures_c
    used, total = gpu.used_bytes, gpu.total_bytes
    return {
        "timestamp": _time(load.at),
        "id": index,
        "name": gpu.name,
        "uuid": gpu.uuid,
        "temp_c": _whole(temperatures.get("gpu")),
        "vram_temp_c": _whole(temperatures.get("memory")),
        "gpu_util_pct": _percent(None if vitals is None else vitals.utilization),
        "mem_util_pct": _percent(used / total if used is not None and total else None),
        "mem_used_mb": None if used is None else used // _MIB,
        "mem_total_mb": None if total is None else total // _MIB,
        "fan_speed_pct": _percent(None if vitals is None else vitals.fan_ratio),
        "power_draw_w": None if vitals is None else vitals.power_w,
    }


def _whole(value: float | None) -> int | None:
    return None if value is None else round(value)


def _percent(ratio: float | None) -> float | None:
    return None if ratio is None else round(100 * ratio, 2)


def _accelerator(index: int, gpu: Gpu) -> dict[str, Any]:
    maker = gpu.maker
    driver = {"name": "NVIDIA" if maker.vendor == "nvidia" else "amdgpu", "version": maker.driver}
    # A GPU that has no memory of its own uses the host's.
    kind = "dedicated" if gpu.total_bytes else "unknown" if maker.profile else "unified"
    return {
        "index": index,
        "kind": "gpu",
        "vendor": _VENDORS.get(maker.vendor),
        "model": gpu.name or None,
        "architecture": maker.architecture or None,
        "memory": {"kind": kind, "capacity_bytes": gpu.total_bytes or None},
        "driver": driver if maker.driver else None,
        "power_limit_watts": (gpu.vitals.power_limit_w if gpu.vitals else None) or None,
    }
