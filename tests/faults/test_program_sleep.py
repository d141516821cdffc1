"""What a client and the API see when sleeping goes wrong: the whole program, simulated engines, one simulated GPU.

What the driver makes of each fault by itself: test_sleep.py.
"""

import asyncio
import os
import random
import signal
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import aiohttp
import psutil
import pytest

from llmswap.fake_upstream.gpus import read
from tests.dialogue import ask, listening
from tests.stack import Stack, fake, listening_ports, one
from tests.stub_gpu import StubGpu

TOTAL_GIB = 10.0
SLEEPY = {
    "vllm": {"enable_sleep_mode": True},
    "sglang": {"enable_memory_saver": True, "enable_weights_cpu_backup": True},
}


class Box(StubGpu):
    """A llmswap whose models sleep for one another on one GPU that has room for one of them."""

    def __init__(self, stack: Stack, folder: Path, http: aiohttp.ClientSession) -> None:
        super().__init__(folder, TOTAL_GIB)
        self.stack, self.http = stack, http
        stack.environ |= {**self.environ, "VLLM_SERVER_DEV_MODE": "1"}

    def start(
        self,
        names: str = "ab",
        *,
        preset: str = "vllm-l1",
        fault: str = "",
        kept_gib: float = 0.2,
        speed: Mapping[str, Any] | None = None,
        **more: Any,
    ) -> None:
        """Start it; the fault is that of `a`, and whatever else is given. Each keeps so much of the GPU asleep."""
        persona = "sglang" if preset == "sglang" else "vllm"
        engine: dict[str, Any] = {
            "persona": persona,
            **SLEEPY[persona],
            "time_scale": 0.001,
            "gpu_ledger": self.ledger,
            "gpu_total": TOTAL_GIB,
            "gpu_ready": 8,
            "gpu_weights": 4,
            "gpu_l1": kept_gib,
            "gpu_l2": kept_gib,
            "gpu_release_lag": 20,
            **(speed or {}),
        }
        models = {
            name: {
                "cmd": fake(name, **engine, fail=[fault] if fault and name == "a" else []),
                "checkEndpoint": "/ready" if persona == "sglang" else "/health",
                "sleepMode": "enable",
                "sleep": {"preset": preset, **({"sleepTimeout": 1, "wakeTimeout": 1} if "hang" in fault else {})},
            }
            for name in names
        }
        models["a"].update(more)
        self.program = self.stack.start(
            {
                "models": models,
                "gpuMemory": {"timeout": 1},
                "routing": {"scheduler": {"use": "fifo"}},
            }
        )

    async def serves(self, model: str) -> None:
        status, answer = await ask(self.http, self.program, model, max_tokens=1)
        assert status == 200, f"{answer}\n{self.program.log_text()}"

    async def status(self, model: str) -> dict[str, Any]:
        async with self.http.get(self.program.url + "/api/status") as answer:
            return one([entry for entry in (await answer.json())["models"] if entry["model"] == model], model)

    async def book(self, model: str) -> dict[str, Any]:
        """What its engine has noted."""
        port = one(listening_ports(self.program.upstream_pid(model)), f"port of {model}")
        async with self.http.get(f"http://127.0.0.1:{port}/_fake/journal") as answer:
            return await answer.json()

    async def asleep_requests(self, model: str) -> int:
        """How many requests its engine had while it slept, by its own count."""
        return (await self.book(model))["asleep_requests"]

    def never_over(self) -> None:
        """Nobody ever wanted memory that was not there."""
        machine = read(self.ledger)
        assert machine.refused == 0, machine.refusals
        assert machine.gpus[0].peak_bytes <= machine.gpus[0].total_bytes


@pytest.fixture
def box(stack, tmp_path, http):
    return Box(stack, tmp_path, http)


SLEEP_FAULTS = [
    ("sleep_hang", "sleep step 1 of 1 did not answer within 1 s"),
    ("sleep_partial_free", "device memory is not free after every step"),
    ("sleep_200_awake", "it is still awake"),
]


@pytest.mark.parametrize(("fault", "reason"), SLEEP_FAULTS, ids=[row[0] for row in SLEEP_FAULTS])
async def test_F045_to_F048_a_sleep_that_fails_costs_the_next_model_a_stop_and_its_client_nothing_else(
    box, fault, reason
):
    box.start(fault=fault)
    await box.serves("a")
    await box.serves("b")
    status = await box.status("a")
    assert (status["state"], status["stuck"]) == ("stopped", False)
    assert reason in status["sleep_failure"]
    await box.serves("a")
    box.never_over()


async def test_F047_a_sleep_of_which_the_second_step_fails_is_a_stop(box):
    steps = [{"endpoint": "/sleep?level=1"}, {"endpoint": "/reset_prefix_cache"}]
    box.start(fault="sleep_step_500", sleep={}, sleepEndpoints=steps, wakeEndpoints=[{"endpoint": "/wake_up"}])
    await box.serves("a")
    await box.serves("b")
    status = await box.status("a")
    assert (status["state"], status["stuck"]) == ("stopped", False)
    assert status["sleep_failure"].startswith("sleep step 2 of 2 answered 500: POST /reset_prefix_cache: ")
    await box.serves("a")
    box.never_over()


async def test_F049_sglang_swaps_by_releasing_its_memory_and_is_asked_for_nothing_that_would_kill_it(box):
    """Its /health generates a token, also on released memory; and whoever releases while busy dies."""
    box.start(preset="sglang", speed={"itl": 1500, "output_tokens": "exact:60"})
    await box.serves("a")
    pid = box.program.upstream_pid("a")
    async with listening(box.http, box.program, "a") as stream:
        await stream.hear(1)
        asking = asyncio.create_task(box.serves("b"))
        await stream.hear_out()
    await asking
    assert (stream.complete, stream.tokens) == (True, 60)
    assert await box.program.running() == {"a": "asleep", "b": "ready"}
    await box.serves("a")
    assert box.program.upstream_pid("a") == pid
    book = await box.book("a")
    done = [(entry["kind"], entry["result"]) for entry in book["operations"]]
    assert done == [("boot", "ok"), ("pause", "ok"), ("sleep", "ok"), ("wake", "ok"), ("resume", "ok")]
    assert [(entry["running"], entry["waiting"]) for entry in book["operations"][1:3]] == [(0, 0)] * 2
    assert (book["asleep_requests"], [call for call in book["calls"] if call["path"] == "/health"]) == (0, [])
    box.never_over()


WAKE_FAULTS = [
    ("wake_500", "vllm-l1", "wake step 1 of 1 answered 500"),
    ("wake_leak", "vllm-l1", "CUDA out of memory"),
    ("reload_500", "vllm-l2", "wake step 2 of 4 answered 500"),
    ("wake_hang", "vllm-l1", "wake step 1 of 1 did not answer within 1 s"),
    ("reload_hang", "vllm-l2", "wake step 2 of 4 did not answer within 1 s"),
    ("engine_dead_asleep", "vllm-l1", "wake step 1 of 1 answered 500"),
    ("wake_garbage", "vllm-l2", "what it woke with is garbage"),
]


@pytest.mark.parametrize(("fault", "preset", "reason"), WAKE_FAULTS, ids=[row[0] for row in WAKE_FAULTS])
async def test_F051_to_F054_a_wake_that_fails_is_a_cold_start_for_whoever_waits(box, fault, preset, reason):
    box.start(preset=preset, fault=fault)
    await box.serves("a")
    before = await box.status("a")
    await box.serves("b")
    assert (await box.status("a"))["state"] == "asleep"
    await box.serves("a")
    status = await box.status("a")
    assert status["state"] == "ready"
    assert status["generation"] > before["generation"]
    assert reason in status["sleep_failure"]
    assert (await box.status("b"))["state"] == "asleep"
    box.never_over()


async def test_F050_a_sleeper_that_was_killed_starts_cold_for_the_next_request(box):
    box.start()
    await box.serves("a")
    await box.serves("b")
    os.kill(box.program.upstream_pid("a"), signal.SIGKILL)
    await box.program.until_state("a", "stopped")
    assert "was killed by SIGKILL" in (await box.status("a"))["failure"]
    await box.serves("a")
    box.never_over()


async def test_F055_no_request_reaches_an_engine_that_sleeps_and_its_gpu_is_never_over_its_total(box):
    names, rng = "abcd", random.Random(4)
    box.start(names)
    for _ in range(24):
        await box.serves(rng.choice(names))
    pids = {name: box.program.upstream_pid(name) for name in names}
    assert [await box.asleep_requests(name) for name in names] == [0] * len(names)
    box.never_over()
    assert all(psutil.pid_exists(pid) for pid in pids.values())
    states = await box.program.running()
    assert sorted(states.values()) == ["asleep", "asleep", "asleep", "ready"]


@pytest.mark.parametrize(
    ("fault", "preset"),
    [("sleep_200_die", "vllm-l1"), ("wake_then_die", "vllm-l1"), ("release_busy_assert", "sglang")],
)
async def test_F048_to_F054_an_engine_that_dies_of_sleeping_or_waking_costs_its_next_client_a_cold_start(
    box, fault, preset
):
    box.start(fault=fault, preset=preset)
    await box.serves("a")
    before = await box.status("a")
    await box.serves("b")
    await box.serves("a")
    status = await box.status("a")
    assert status["state"] == "ready"
    assert status["generation"] > before["generation"]
    box.never_over()


async def test_a_wake_that_never_works_is_not_tried_for_ever(box):
    box.start(sleep={}, sleepEndpoints=[{"endpoint": "/sleep?level=1"}], wakeEndpoints=[{"endpoint": "/rise"}])
    for model in "abab":
        await box.serves(model)
    log = box.program.log_text()
    assert log.count("a: waking") == 1
    status = await box.status("a")
    assert (status["state"], status["sleep_failure"].partition(" (")[0]) == (
        "stopped",
        "wake step 1 of 1 answered 404: POST /rise",
    )
    box.never_over()


async def test_what_sleepers_keep_is_given_up_for_a_model_that_does_not_fit_beside_it(box):
    box.start("abcd", kept_gib=0.7)
    for model in "abcd":
        await box.serves(model)  # 8 GiB beside three times 0.7 are more than 10
    assert "Free memory on device" in box.program.log_text()
    assert await box.program.running() == {"d": "ready"}
    assert (await box.status("a"))["sleep_failure"] is None


async def test_F119_memory_that_is_stuck_after_a_start_that_failed_is_told_at_once_to_who_waits(box):
    box.start(fault="memory_stuck:60000", healthCheckTimeout=2, checkEndpoint="/nowhere")
    status, answer = await ask(box.http, box.program, "a", max_tokens=1)
    assert status == 503
    assert "its device memory is not free" in answer["error"]["message"]
    seen = await box.status("a")
    assert (seen["state"], seen["stuck"]) == ("stopping", True)
    assert "GiB of GPU 0 held by" in seen["failure"]
