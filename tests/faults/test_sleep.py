"""Fault rows of sleep and wake: what the driver makes of each, with simulated engines as real processes.

What the client and the API see of them: test_program_sleep.py. Rows 49 and 55 are decided by the core.
"""

import os
import signal
from dataclasses import replace
from pathlib import Path

import aiohttp
import pytest

from llmswap.config.settings import Sleeping, SleepStep
from llmswap.core.events import (
    SleepFailed,
    StartFailed,
    UpstreamAsleep,
    UpstreamExited,
    UpstreamReady,
    UpstreamStopped,
    WakeFailed,
)
from llmswap.fake_upstream.gpus import GIB
from tests.runtime.rig import until
from tests.runtime.sleepers import L1, L2, QUERY, RELOAD, RESET, SGLANG, SLEEP_1, WAKE, Bed, bed, impatient


@pytest.fixture
async def bunk(tmp_path: Path, monkeypatch):
    monkeypatch.setattr("llmswap.runtime.sleeping.SETTLE_S", 0.1)
    monkeypatch.setattr("llmswap.runtime.sleeping.FIRST_LOOK_S", 0.01)
    async with bed(tmp_path, cap_s=0.3) as bunk:
        yield bunk


async def sleep_fails(bunk: Bed, how: Sleeping, *flags: str, **up) -> SleepFailed:
    """Bring one up, have its sleep fail, and stop it as the core would."""
    await bunk.up(how, *flags, **up)
    bunk.rig.sleep()
    return await bunk.rig.next(SleepFailed)


async def wake_fails(bunk: Bed, how: Sleeping, *flags: str, **up) -> WakeFailed:
    """Bring one up and to sleep, and have its wake fail."""
    await bunk.asleep(how, *flags, **up)
    bunk.rig.wake()
    return await bunk.rig.next(WakeFailed)


async def stopped(bunk: Bed) -> None:
    """Stop it: nothing may be left of it, and of its memory."""
    bunk.rig.stop()
    await bunk.rig.next(UpstreamStopped)
    assert bunk.watch.used() == 0


async def test_F045_a_sleep_that_hangs_fails_at_its_time_limit_and_is_not_asked_again(bunk: Bed):
    failed = await sleep_fails(bunk, impatient(L1), "--fail", "sleep_hang")
    assert failed.reason == "sleep step 1 of 1 did not answer within 0.3 s: POST /sleep?level=1&mode=wait"
    assert not failed.lasting
    assert await bunk.calls() == ["/sleep?level=1&mode=wait"]
    await stopped(bunk)


async def test_F046_a_sleep_that_is_answered_with_an_error_fails(bunk: Bed):
    failed = await sleep_fails(bunk, L1, "--fail", "sleep_500")
    assert failed.reason.startswith("sleep step 1 of 1 answered 500: POST /sleep?level=1&mode=wait: ")
    assert "simulated failure of sleep" in failed.reason
    assert not failed.lasting
    await stopped(bunk)


async def test_F046_without_dev_mode_it_will_never_sleep_and_the_reason_says_how_it_would(bunk: Bed):
    failed = await sleep_fails(bunk, L1, env=("VLLM_SERVER_DEV_MODE=0",))
    assert failed.lasting
    assert failed.reason.startswith("sleep step 1 of 1 answered 404: POST /sleep")
    assert "VLLM_SERVER_DEV_MODE=1" in failed.reason
    await stopped(bunk)


@pytest.mark.parametrize(("how", "persona"), [(L1, "vllm"), (SGLANG, "sglang")])
async def test_F046_without_its_flag_an_engine_frees_nothing_under_200(bunk: Bed, how: Sleeping, persona: str):
    bunk.start(how, persona=persona, check_path="/ready" if persona == "sglang" else "/health")
    await bunk.rig.next(UpstreamReady)
    bunk.rig.sleep()
    failed = await bunk.rig.next(SleepFailed)
    assert failed.lasting
    assert failed.reason.startswith("device memory is not free after every step, 40.0 of 40.0 GiB left")
    assert "--enable-sleep-mode" in failed.reason
    await stopped(bunk)


async def test_F047_the_second_step_fails(bunk: Bed):
    how = Sleeping(sleep=(SLEEP_1, RESET), wake=(WAKE,), query=QUERY)
    failed = await sleep_fails(bunk, how, "--fail", "sleep_step_500")
    assert failed.reason.startswith("sleep step 2 of 2 answered 500: POST /reset_prefix_cache: ")
    await stopped(bunk)


async def test_F048_half_of_the_memory_stays(bunk: Bed):
    failed = await sleep_fails(bunk, L1, "--fail", "sleep_partial_free")
    assert failed.reason.startswith("device memory is not free after every step, 20.7 of 40.0 GiB left, 4.0 GiB may")
    assert not failed.lasting
    await stopped(bunk)


async def test_F048_a_200_of_an_engine_that_says_it_is_awake(bunk: Bed):
    failed = await sleep_fails(bunk, L1, "--fail", "sleep_200_awake")
    assert failed.reason == "every step succeeded, but it is still awake: GET /is_sleeping says so"
    await stopped(bunk)


async def test_F048_a_200_of_an_engine_that_cannot_say_is_found_out_by_its_memory(bunk: Bed):
    failed = await sleep_fails(bunk, SGLANG, "--fail", "sleep_200_awake", persona="sglang", check_path="/ready")
    assert failed.reason.startswith("device memory is not free after every step, 40.0 of 40.0 GiB left")
    await stopped(bunk)


@pytest.mark.parametrize("kind", ["404", "shape"])
async def test_F048_a_state_query_that_tells_nothing_is_noted_once_and_held_against_nobody(
    bunk: Bed, kind: str, caplog
):
    await bunk.asleep(L1, "--fail", f"state_query:{kind}")
    bunk.rig.wake()
    await bunk.rig.next(UpstreamReady)
    assert caplog.text.count("cannot tell whether it sleeps: GET /is_sleeping answered") == (1 if kind == "404" else 2)


@pytest.mark.parametrize(
    ("kind", "reason"),
    [
        ("500", "the state query answered 500: GET /is_sleeping: "),
        ("hang", "the state query did not answer within 0.2 s: GET /is_sleeping"),
        ("lie", "every step succeeded, but it is still awake: GET /is_sleeping says so"),
    ],
)
async def test_F048_a_state_query_that_fails_or_denies_it_is_a_sleep_that_failed(
    bunk: Bed, kind: str, reason: str, monkeypatch
):
    monkeypatch.setattr("llmswap.runtime.sleeping.QUERY_TIMEOUT_S", 0.2)
    failed = await sleep_fails(bunk, L1, "--fail", f"state_query:{kind}")
    assert failed.reason.startswith(reason)
    await stopped(bunk)


async def test_F048_an_engine_that_answers_200_and_dies_is_an_exit(bunk: Bed):
    await bunk.up(SGLANG, "--fail", "sleep_200_die", persona="sglang", check_path="/ready")
    bunk.rig.sleep()
    # Which comes first, the proof that its memory is free or its exit, is the engine's own race.
    await until(lambda: isinstance(bunk.rig.posted[-1][1], UpstreamStopped), "its end")
    told = [type(event) for _, event in bunk.rig.posted[bunk.rig.read :]]
    assert told[-2:] == [UpstreamExited, UpstreamStopped]
    assert told[:-2] in ([], [UpstreamAsleep])


async def test_F049_a_release_that_was_not_idle_kills_sglang_and_is_an_exit(bunk: Bed):
    await bunk.up(SGLANG, "--fail", "release_busy_assert", persona="sglang", check_path="/ready")
    bunk.rig.sleep()
    exited = await bunk.rig.next(UpstreamExited)
    assert "release_memory_occupation while requests are at work" in exited.reason
    await bunk.rig.next(UpstreamStopped)
    assert bunk.watch.used() == 0


async def test_F050_a_sleeper_that_dies_is_an_exit(bunk: Bed):
    await bunk.asleep(L1)
    await until(lambda: bunk.watch.seen < 2 * GIB, "somebody noted what it holds asleep")
    os.kill(bunk.rig.pid(), signal.SIGKILL)
    assert (await bunk.rig.next(UpstreamExited)).reason.startswith("was killed by SIGKILL")
    await bunk.rig.next(UpstreamStopped)
    assert bunk.watch.used() == 0


async def test_F050_a_sleeper_whose_engine_dies_behind_its_server_is_ended(bunk: Bed, monkeypatch):
    monkeypatch.setattr("llmswap.runtime.sleeping.VIGIL_S", 0.05)
    await bunk.asleep(L1, "--fail", "engine_dead_asleep")
    exited = await bunk.rig.next(UpstreamExited)
    assert exited.reason.startswith("its engine is dead, the state query answered 500: ")
    await bunk.rig.next(UpstreamStopped)
    assert bunk.watch.used() == 0


async def test_F050_a_sleeper_that_somebody_else_has_woken_is_ended(bunk: Bed, monkeypatch):
    monkeypatch.setattr("llmswap.runtime.sleeping.VIGIL_S", 0.05)
    await bunk.asleep(L1)
    async with aiohttp.ClientSession() as http, http.post(bunk.rig.url() + "/wake_up") as response:
        assert response.status == 200
    assert (await bunk.rig.next(UpstreamExited)).reason == "it woke without being asked: /is_sleeping says so"
    await bunk.rig.next(UpstreamStopped)


async def test_F050_a_sleeper_that_is_well_is_left_alone(bunk: Bed, monkeypatch):
    monkeypatch.setattr("llmswap.runtime.sleeping.VIGIL_S", 0.02)
    await bunk.asleep(L1)
    await bunk.asked(lambda calls: calls.count("/is_sleeping") >= 5)
    bunk.rig.wake()
    await bunk.rig.next(UpstreamReady)


@pytest.mark.parametrize("fault", ["wake_500", "wake_oom", "wake_leak"])
async def test_F051_a_wake_without_room_fails_and_all_of_its_memory_is_free_after_the_stop(bunk: Bed, fault: str):
    failed = await wake_fails(bunk, L1, "--fail", fault)
    assert failed.reason.startswith("wake step 1 of 1 answered 500: POST /wake_up: ")
    assert ("CUDA out of memory" in failed.reason) == (fault != "wake_500")
    await stopped(bunk)


@pytest.mark.parametrize("fault", ["reload_500", "reload_hang"])
async def test_F052_the_weights_cannot_be_reloaded(bunk: Bed, fault: str):
    failed = await wake_fails(bunk, impatient(L2), "--fail", fault)
    what = "answered 500" if fault == "reload_500" else "did not answer within 0.3 s"
    assert failed.reason.startswith(f"wake step 2 of 3 {what}: POST /collective_rpc")
    assert [kind for kind, _ in await bunk.operations()].count("wake") == 1
    await stopped(bunk)


@pytest.mark.parametrize(("how", "persona"), [(L1, "vllm"), (L2, "vllm"), (SGLANG, "sglang")])
async def test_F052_garbage_after_a_wake_is_heard_by_a_canary_and_is_a_failed_wake(
    bunk: Bed, how: Sleeping, persona: str
):
    flags = ("--fail", "wake_garbage@2", "--enable-weights-cpu-backup")[: 3 if persona == "sglang" else 2]
    check_path = "/ready" if persona == "sglang" else "/health"
    await bunk.asleep(replace(how, canary=True), *flags, persona=persona, check_path=check_path)
    for sings in (True, False):
        bunk.rig.wake()
        if sings:
            await bunk.rig.next(UpstreamReady)
            bunk.rig.sleep()
            await bunk.rig.next(UpstreamAsleep)
    failed = await bunk.rig.next(WakeFailed)
    assert failed.reason.startswith("after the wake, it answers a question otherwise than before it slept: ")
    assert not failed.lasting
    await stopped(bunk)


async def test_F052_weights_that_nobody_reads_again_are_heard_by_a_canary(bunk: Bed):
    how = replace(L2, wake=(WAKE,), canary=True, warmup=False)
    failed = await wake_fails(bunk, how)
    assert "what it woke with is garbage" in failed.reason
    assert [call for call in await bunk.calls() if call.startswith("/v1/")] == ["/v1/models", "/v1/completions"] * 2
    await stopped(bunk)


async def test_F052_without_a_canary_nobody_hears_it(bunk: Bed):
    """As documented: neither the state query, nor the memory, nor the status of a warm-up tells."""
    await bunk.asleep(replace(L1, warmup=True), "--fail", "wake_garbage")
    bunk.rig.wake()
    await bunk.rig.next(UpstreamReady)
    assert (await bunk.get("/_fake/state"))["garbage"]


async def test_F052_a_canary_is_heard_before_the_first_sleep_only_while_all_is_well(bunk: Bed):
    await bunk.up(replace(L1, canary=True), "--fail", "health_lies:500")
    bunk.rig.sleep()
    failed = await bunk.rig.next(SleepFailed)
    assert failed.reason == ("before the sleep, a request for a few tokens was answered 500: POST /v1/completions")
    await stopped(bunk)


async def test_F053_a_wake_that_hangs_fails_at_its_time_limit_and_is_not_asked_again(bunk: Bed):
    failed = await wake_fails(bunk, impatient(L1), "--fail", "wake_hang")
    assert failed.reason == "wake step 1 of 1 did not answer within 0.3 s: POST /wake_up"
    assert (await bunk.calls())[-1] == "/wake_up"
    await stopped(bunk)


async def test_F054_a_wake_of_an_engine_that_is_awake_is_verified(bunk: Bed):
    await bunk.asleep(L1)
    async with aiohttp.ClientSession() as http, http.post(bunk.rig.url() + "/wake_up") as response:
        assert response.status == 200
    bunk.rig.wake()
    await bunk.rig.next(UpstreamReady)


async def test_F054_a_wake_that_woke_nobody_under_200(bunk: Bed):
    failed = await wake_fails(bunk, L1, "--fail", "wake_200_still_asleep")
    assert failed.reason == "every step succeeded, but it is still asleep: GET /is_sleeping says so"
    await stopped(bunk)


async def test_F054_a_wake_of_half_an_engine_is_none(bunk: Bed):
    how = replace(L1, wake=(SleepStep("/wake_up?tags=weights"), RELOAD))
    failed = await wake_fails(bunk, how)
    assert failed.reason == "every step succeeded, but it is still asleep: GET /is_sleeping says so"
    await stopped(bunk)


async def test_F054_an_engine_that_dies_at_its_first_request_does_so_before_anybody_is_served(bunk: Bed):
    await bunk.asleep(replace(L1, warmup=True), "--fail", "wake_then_die")
    bunk.rig.wake()
    await bunk.rig.next(UpstreamExited)
    await bunk.rig.next(UpstreamStopped)
    assert bunk.watch.used() == 0


async def test_F054_an_engine_that_is_not_ready_after_its_wake(bunk: Bed, monkeypatch):
    monkeypatch.setattr("llmswap.runtime.sleeping.AWAKE_TIMEOUT_S", 0.3)
    how = replace(SGLANG, wake=SGLANG.wake[:1])  # it stays paused
    failed = await wake_fails(bunk, how, persona="sglang", check_path="/ready")
    assert failed.reason == "not ready 0.3 s after the wake: GET /ready answered 503"
    await stopped(bunk)


async def test_F056_too_little_host_memory_for_a_wake_is_seen_before_the_engine_is_asked(bunk: Bed):
    bunk.watch.lack = "39 GiB wanted, 3 GiB available"
    failed = await wake_fails(bunk, L1)
    assert failed.reason == "too little host memory for a wake: 39 GiB wanted, 3 GiB available"
    assert bunk.watch.asked_for == [pytest.approx((40 - 1.3) * GIB)]
    assert "/wake_up" not in await bunk.calls()
    await stopped(bunk)
    bunk.start(L1, "--enable-sleep-mode")  # no room for the cold start either: it is not begun
    refused = await bunk.rig.next(StartFailed)
    assert refused.reason == "too little host memory for a start: 39 GiB wanted, 3 GiB available"
    assert refused.out_of_memory
    assert bunk.watch.asked_for[1:] == [40 * GIB]


async def test_F045_to_F054_before_vllm_0_17_answers_are_empty_and_that_is_enough(bunk: Bed):
    how = replace(L1, sleep=(SleepStep("/sleep?level=1"),))
    await bunk.asleep(how, "--vllm-version", "0.11")
    bunk.rig.wake()
    await bunk.rig.next(UpstreamReady)
