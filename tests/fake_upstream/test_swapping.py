"""Several sleepers on one GPU: a driver that waits for free memory leaves no mark, one that does not is caught."""

import itertools
from contextlib import AsyncExitStack
from random import Random

import aiohttp
import pytest

from llmswap.fake_upstream import gpus
from tests.fake_upstream.harness import CHAT, spawned, until

SWAPS = 40
MODELS = 3
LAG_S = 0.02


@pytest.fixture
async def sleepers(tmp_path, monkeypatch):
    """Three engines of 40 GiB that all sleep on one GPU of 48, and their HTTP sessions."""
    monkeypatch.setenv("VLLM_SERVER_DEV_MODE", "1")
    path = tmp_path / "gpu.json"
    flags = ("--persona", "vllm", "--enable-sleep-mode", "--time-scale", "0.001", "--gpu-ledger", str(path),
             "--gpu-total", "48", "--gpu-release-lag", str(LAG_S * 1000), "--output-tokens", "exact:3")  # fmt: skip
    async with AsyncExitStack() as stack:
        sessions = []
        for number in range(MODELS):
            fake = await stack.enter_async_context(spawned(*flags, "--model", f"m{number}"))
            sessions.append(await stack.enter_async_context(aiohttp.ClientSession(fake.url)))
            await call(sessions[-1], "/sleep?level=1&mode=wait")
            await until(lambda: used_gib(path) < 8)
        yield path, sessions


def used_gib(path):
    return gpus.read(path).gpus[0].used_bytes / gpus.GIB


async def call(http, path, body=None):
    async with http.post(path, json=body) as response:
        return response.status, await response.json()


async def journal(http):
    async with http.get("/_fake/journal") as response:
        return await response.json()


async def test_random_swaps_that_wait_for_free_memory_never_meet_a_refusal(sleepers):
    path, sessions = sleepers
    rng, awake = Random(1), None
    for _ in range(SWAPS):
        target = rng.choice([http for http in sessions if http is not awake])
        if awake:
            await call(awake, "/sleep?level=1&mode=wait")
            await until(lambda: used_gib(path) < 8)
        assert (await call(target, "/wake_up"))[0] == 200
        assert (await call(target, "/v1/chat/completions", {**CHAT, "max_tokens": 1}))[0] == 200
        awake = target
    seen = gpus.read(path)
    assert seen.refused == 0
    assert 40 * gpus.GIB < seen.gpus[0].peak_bytes <= seen.gpus[0].total_bytes
    told = [await journal(http) for http in sessions]
    assert [entry["asleep_requests"] for entry in told] == [0] * MODELS
    spans = sorted(
        (entry["born_s"] + operation["began_s"], entry["born_s"] + operation["ended_s"])
        for entry in told
        for operation in entry["operations"]
        if operation["kind"] != "boot"
    )
    assert all(before[1] <= after[0] for before, after in itertools.pairwise(spans))


async def test_a_swap_that_does_not_wait_is_refused_and_remembered(sleepers):
    path, (first, second, *_) = sleepers
    await call(first, "/wake_up")
    await call(first, "/_fake/fail", {"fail": "memory_stuck:60000"})
    await call(first, "/sleep")
    status, body = await call(second, "/wake_up")
    assert (status, gpus.read(path).refused) == (500, 1)
    assert "out of memory" in body["error"]["message"]
    assert gpus.read(path).refusals[0].name == "m1"
