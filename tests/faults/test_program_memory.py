"""Fault rows of device memory in the whole program: real processes, their ledger, and a driver that may be ill."""

import asyncio
import time
from pathlib import Path
from typing import Any

import aiohttp
import pytest

from llmswap.fake_upstream.book import opened
from llmswap.fake_upstream.gpus import read
from llmswap.fake_upstream.ledger import Holder, Ledger
from tests.dialogue import ask
from tests.stack import Program, Stack, fake, until
from tests.stub_gpu import StubGpu

TOTAL_GIB = 10.0


class Box(StubGpu):
    """A llmswap on one simulated GPU that has room for one of its models."""

    def __init__(self, stack: Stack, folder: Path) -> None:
        super().__init__(folder, TOTAL_GIB)
        self.stack = stack
        stack.environ |= self.environ

    def give_back(self) -> None:
        """End the lingering of what the dead have left behind."""
        with opened(self.ledger, lambda _: None) as book:
            book.entries = [entry for entry in book.entries if entry.until_s is None]

    def start(self, lag_s: float = 0.3, gib: float = 8.0, a: tuple[str, ...] = (), **config) -> Program:
        options = {
            "gpu_ledger": self.ledger,
            "gpu_total": TOTAL_GIB,
            "gpu_ready": gib,
            "gpu_release_lag": lag_s,
            "boot": 0.05,
        }
        models = {name: {"cmd": fake(name, **options, fail=list(a) if name == "a" else [])} for name in "ab"}
        return self.stack.start({"models": models, **config})


@pytest.fixture
def box(stack, tmp_path):
    return Box(stack, tmp_path)


async def serves(http: aiohttp.ClientSession, program: Program, model: str) -> None:
    status, answer = await ask(http, program, model, max_tokens=1)
    assert status == 200, f"{answer}\n{program.log_text()}"


async def test_the_next_model_starts_only_when_the_memory_of_the_last_is_really_free(box, http):
    program = box.start()
    for model in "aba":
        await serves(http, program, model)
    machine = read(box.ledger)
    assert machine.refused == 0, machine.refusals
    assert machine.gpus[0].peak_bytes <= machine.gpus[0].total_bytes


async def test_F016_without_a_driver_to_ask_a_start_that_finds_no_room_says_so(box, http):
    box.ail("missing")
    program = box.start(lag_s=3.0)
    await serves(http, program, "a")
    status, answer = await ask(http, program, "b", max_tokens=1)
    assert status in {502, 503}
    assert "is less than desired" in str(answer)
    assert read(box.ledger).refused == 1


@pytest.mark.parametrize(("fault", "within_s"), [("missing", 0.5), ("lost", 3.0), ("hidden", 3.0), ("hang", 5.0)])
async def test_F118_a_driver_that_cannot_be_asked_costs_a_swap_little_and_nothing_else(box, http, fault, within_s):
    program = box.start(lag_s=0.1, gib=1.0)
    if fault == "missing":
        box.ail(fault)
    await serves(http, program, "a")
    box.ail(fault)
    swap = asyncio.create_task(serves(http, program, "b"))
    slowest_s = 0.0
    while not swap.done():
        asked_s = time.monotonic()
        async with http.get(program.url + "/running") as answer:
            assert answer.status == 200
        slowest_s = max(slowest_s, time.monotonic() - asked_s)
        await asyncio.sleep(0.02)
    await swap
    waits = "llmswap_swap_phase_duration_seconds"
    assert await program.metric(f"{waits}_count", phase="free_wait") == 1
    assert await program.metric(f"{waits}_sum", phase="free_wait") < within_s
    assert slowest_s < 2.0  # so long a driver's answer is waited for
    if fault == "hang":
        box.ail("")
        await serves(http, program, "a")


SLEEPY = {"env": ["VLLM_SERVER_DEV_MODE=1"], "sleep": {"preset": "vllm-l1"}}


@pytest.mark.parametrize("on_timeout", ["fail", "start-anyway"])
async def test_F056_a_model_that_the_hosts_memory_has_no_room_for_is_neither_woken_nor_started_over_it(
    box, http, on_timeout
):
    """Its GPU takes the host's memory, as GB10's does, and no host has as much as this model is said to hold."""
    box.ail("shared")
    options = {"persona": "vllm", "enable_sleep_mode": True, "time_scale": 0.001, "boot": 0, "gpu_l1": 1}
    engine = {"gpu_ledger": box.ledger, "gpu_total": 99_000, "gpu_ready": 90_000, "gpu_release_lag": 0}
    models = {"a": {"cmd": fake("a", **options, **engine), **SLEEPY}, "b": {"cmd": fake("b", boot=0)}}
    program = box.stack.start({"models": models, "gpuMemory": {"onTimeout": on_timeout}})
    for model in "ab":
        await serves(http, program, model)
    assert (await program.running())["a"] == "asleep"
    code, answer = await ask(http, program, "a", max_tokens=1)
    shown = await status(http, program, "a")
    assert "too little host memory for a wake: " in shown["sleep_failure"]
    if on_timeout == "start-anyway":
        assert (code, shown["state"]) == (200, "ready")
        return
    assert (code, shown["state"]) == (502, "failed")
    assert "too little host memory for a start: " in answer["error"]["message"]
    code, answer = await ask(http, program, "a", max_tokens=1)
    assert code == 503
    assert "too little host memory for a start: " in answer["error"]["message"]
    assert read(box.ledger).refused == 0


async def status(http: aiohttp.ClientSession, program: Program, model: str) -> dict[str, Any]:
    async with http.get(program.url + "/api/status") as answer:
        return {entry["model"]: entry for entry in (await answer.json())["models"]}[model]


async def test_F118_a_driver_that_hangs_does_not_keep_the_program_from_ending(box, http):
    program = box.start(gib=1.0)
    box.ail("hang")
    await serves(http, program, "a")
    program.terminate()
    assert await program.exited(within_s=8.0) == 0


async def test_F119_memory_that_is_not_free_after_a_stop_refuses_who_needs_it_until_it_is(box, http):
    program = box.start(a=("memory_stuck:600",), gpuMemory={"timeout": 1})
    await serves(http, program, "a")
    status, answer = await ask(http, program, "b", max_tokens=1)
    assert status == 503
    assert "8.0 GiB of GPU 0 held by nobody who can be seen" in str(answer)
    assert read(box.ledger).refused == 0  # never a blind start

    box.give_back()
    await program.until_state("a", "stopped")
    await serves(http, program, "b")
    assert read(box.ledger).refused == 0


async def test_F119_start_anyway_starts_and_says_so(box, http):
    program = box.start(gib=4.0, a=("memory_stuck:20",), gpuMemory={"timeout": 1, "onTimeout": "start-anyway"})
    await serves(http, program, "a")
    await serves(http, program, "b")
    assert "going on as configured" in program.log_text()


async def test_F120_another_program_that_takes_the_memory_is_not_waited_for(box, http):
    program = box.start(gib=4.0)
    await serves(http, program, "a")
    foreign = Ledger(box.ledger, TOTAL_GIB, 0.0, Holder("a game"))
    began_s = time.monotonic()
    swap = asyncio.create_task(serves(http, program, "b"))
    await until(lambda: foreign.hold(5.5) is None, "the game has its memory")
    await swap
    assert time.monotonic() - began_s < 10  # the cap on waiting is 30


@pytest.mark.parametrize("version", ["", "apart", "moving"])
async def test_F121_what_a_driver_counts_as_its_own_neither_delays_a_swap_nor_changes_what_a_model_holds(
    box, http, version
):
    """Models that are small beside the reserve: what moves there would be all of what must be free again."""
    box.ail(version)
    program = box.start(gib=0.3)
    for model in "aba":
        began_s = time.monotonic()
        await serves(http, program, model)
        assert time.monotonic() - began_s < 10  # the cap on waiting is 30

        async def told(model: str = model) -> int | None:
            async with http.get(program.url + "/api/status") as answer:
                of = {entry["model"]: entry for entry in (await answer.json())["models"]}
            assert [entry["failure"] for entry in of.values()] == [None, None]
            return of[model]["memory"].get("ready", {}).get("gpu_bytes")

        held = await until(told, f"what {model} holds is known")
        assert held == pytest.approx(0.3 * (1 << 30), rel=0.01), "the driver's own is nobody's"
    assert await program.running() == {"a": "ready"}
    assert read(box.ledger).refused == 0
