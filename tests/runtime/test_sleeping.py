"""Lives that sleep and wake, with simulated engines as real processes. What goes wrong: tests/faults/test_sleep.py."""

import asyncio
import os
import signal
from dataclasses import replace
from pathlib import Path

import pytest

from llmswap.config.settings import MemorySettings, Sleeping
from llmswap.core.commands import StopCause
from llmswap.core.events import (
    SleepFailed,
    StartFailed,
    StopFailed,
    UpstreamAsleep,
    UpstreamExited,
    UpstreamReady,
    UpstreamStopped,
)
from llmswap.fake_upstream.gpus import GIB
from llmswap.runtime.freeing import Unwatched
from tests.runtime.children import server
from tests.runtime.rig import M, Rig, until
from tests.runtime.sleepers import L1, L2, RESET, SGLANG, WAKE, Bed, LedgerWatch, bed


@pytest.fixture
async def bunk(tmp_path: Path):
    async with bed(tmp_path) as bunk:
        yield bunk


async def test_level_1_frees_the_gpu_and_comes_back(bunk: Bed):
    asleep = await bunk.asleep(L1)
    assert asleep.host_bytes is not None
    assert asleep.host_bytes > 15 * GIB
    assert bunk.watch.used() < 2 * GIB
    bunk.rig.wake()
    await bunk.rig.next(UpstreamReady)
    assert bunk.watch.used() == 40 * GIB
    assert await bunk.calls() == ["/sleep?level=1&mode=wait", "/is_sleeping", "/wake_up", "/is_sleeping"]


async def test_level_2_reloads_the_weights_before_the_cache_is_back_and_is_warmed_up(bunk: Bed):
    assert (await bunk.asleep(L2)).host_bytes == 0
    bunk.rig.wake()
    await bunk.rig.next(UpstreamReady)
    assert await bunk.operations() == [("sleep", "ok"), ("wake", "ok"), ("reload", "ok"), ("wake", "ok")]
    assert (await bunk.calls())[-2:] == ["/v1/models", "/v1/completions"]
    assert (await bunk.get("/_fake/journal"))["asleep_requests"] == 0


async def test_steps_of_the_users_own_run_in_order(bunk: Bed):
    how = Sleeping(sleep=(RESET, *L2.sleep), wake=(WAKE, L2.wake[1], RESET))
    await bunk.asleep(how)
    bunk.rig.wake()
    await bunk.rig.next(UpstreamReady)
    steps = [step.endpoint for step in (*how.sleep, *how.wake)]
    assert await bunk.calls() == steps


async def test_sglang_is_never_asked_for_its_health_while_its_memory_is_released(bunk: Bed, monkeypatch):
    monkeypatch.setattr("llmswap.runtime.sleeping.FIRST_LOOK_S", 0.0)
    monkeypatch.setattr("llmswap.runtime.sleeping.VIGIL_S", 0.01)
    await bunk.asleep(SGLANG, "--enable-weights-cpu-backup", persona="sglang", check_path="/ready")
    assert bunk.watch.used() < 2 * GIB
    looks = bunk.watch.looks
    await until(lambda: bunk.watch.looks >= looks + 5, "somebody looks after it")
    bunk.rig.wake()
    await bunk.rig.next(UpstreamReady)
    calls = (await bunk.get("/_fake/journal"))["calls"]
    assert not [call for call in calls if call["path"] == "/health"]
    assert await bunk.operations() == [("pause", "ok"), ("sleep", "ok"), ("wake", "ok"), ("resume", "ok")]


async def test_sleeps_and_wakes_many_times(bunk: Bed):
    await bunk.up(L1)
    for _ in range(5):
        bunk.rig.sleep()
        await bunk.rig.next(UpstreamAsleep)
        bunk.rig.wake()
        await bunk.rig.next(UpstreamReady)
    assert await bunk.operations() == [("sleep", "ok"), ("wake", "ok")] * 5


async def test_a_sleep_needs_no_look_at_what_was_seen_awake_and_no_look_asleep_replaces_that(bunk: Bed, monkeypatch):
    """It would delay the swap; and what a sleeper holds says nothing about what its next sleep has to free."""
    await bunk.asleep(L1)
    monkeypatch.setattr("llmswap.runtime.sleeping.FIRST_LOOK_S", 0.0)
    bunk.rig.wake()
    await bunk.rig.next(UpstreamReady)
    await until(lambda: bunk.watch.seen == 40 * GIB, "it was looked at awake")
    bunk.rig.sleep()
    await bunk.rig.next(UpstreamAsleep)
    await until(lambda: (bunk.watch.seen or 0) < 2 * GIB, "it was looked at asleep")
    monkeypatch.setattr("llmswap.runtime.sleeping.FIRST_LOOK_S", 60.0)
    bunk.rig.wake()
    await bunk.rig.next(UpstreamReady)
    looks = bunk.watch.looks
    bunk.rig.sleep()
    await bunk.rig.next(UpstreamAsleep)
    assert bunk.watch.looks == looks
    bunk.rig.wake()
    await bunk.rig.next(UpstreamReady)
    assert bunk.watch.asked_for[-1] > 35 * GIB, "what came free is what a wake takes back"


async def test_the_driver_is_asked_while_the_engine_is(tmp_path: Path):
    """Whether its memory is free and whether it sleeps: the swap waits for both, not for one after the other."""
    driver_asked = asyncio.Event()

    class Noting(LedgerWatch):
        async def freed(self, *args, **kwargs):
            driver_asked.set()
            return await super().freed(*args, **kwargs)

    async with bed(tmp_path, Noting(tmp_path / "gpus.json")) as bunk:
        await bunk.up(L1, "--fail", "state_query:hang")
        bunk.rig.sleep()
        await asyncio.wait_for(driver_asked.wait(), 4.0)  # the engine never answers
        assert len(bunk.rig.posted) == bunk.rig.read, "it is neither asleep nor given up yet"


async def test_a_sleeper_that_says_it_is_awake_ends_the_wait_for_its_memory(tmp_path: Path):
    """What its engine says of itself is the reason, and nobody is left asking the driver."""
    ended = asyncio.Event()

    class Endless(LedgerWatch):
        async def freed(self, *args, **kwargs):
            try:
                await asyncio.sleep(60)
            finally:
                ended.set()

    async with bed(tmp_path, Endless(tmp_path / "gpus.json")) as bunk:
        await bunk.up(L1, "--fail", "sleep_200_awake")
        bunk.rig.sleep()
        assert "still awake" in (await bunk.rig.next(SleepFailed)).reason
        assert ended.is_set()


async def test_an_order_may_follow_from_within_the_answer_to_the_last(bunk: Bed):
    """The scheduler may answer UpstreamAsleep with Wake before `post` returns."""
    post = bunk.rig.supervisor._house.post

    def wake_at_once(event):
        post(event)
        if isinstance(event, UpstreamAsleep):
            bunk.rig.wake()

    object.__setattr__(bunk.rig.supervisor._house, "post", wake_at_once)
    await bunk.asleep(L1)
    await bunk.rig.next(UpstreamReady)


async def test_a_small_model_may_keep_what_every_process_keeps(bunk: Bed):
    """1.1 of 8 GiB is more than a tenth, but that is what a CUDA context and graphs need."""
    await bunk.asleep(L1, "--model-profile", "0.6b")


async def test_the_users_own_bound_on_what_may_stay_counts(bunk: Bed):
    await bunk.up(replace(L1, residual_bytes=GIB))
    bunk.rig.sleep()
    failed = await bunk.rig.next(SleepFailed)
    assert failed.reason.startswith(
        "device memory is not free after every step, 1.3 of 40.0 GiB left, 1.0 GiB may stay"
    )
    assert not failed.lasting


async def test_who_had_to_move_to_another_port_is_measured_by_its_new_processes(bunk: Bed, monkeypatch):
    """A stranger answers for it before it has bound its port; what was begun there is ended, and begun elsewhere."""
    monkeypatch.setattr("llmswap.runtime.life.is_free", lambda _: True)

    async def answer(reader, writer):
        await reader.readuntil(b"\r\n\r\n")
        writer.write(b"HTTP/1.1 200 OK\r\nContent-Length: 0\r\nConnection: close\r\n\r\n")
        writer.close()

    async with await asyncio.start_server(answer, "127.0.0.1", 0) as stranger:
        port = stranger.sockets[0].getsockname()[1]
        await bunk.up(L1, "--fail", "sleep_partial_free", port=port)
    assert bunk.rig.url() != f"http://127.0.0.1:{port}"
    bunk.rig.sleep()
    assert "20.7 of 40.0 GiB left" in (await bunk.rig.next(SleepFailed)).reason


async def test_memory_that_nobody_can_measure_is_noted_once_and_not_held_against_it(tmp_path: Path, caplog):
    async with bed(tmp_path, Unwatched()) as bunk:
        await bunk.up(L1)
        for _ in range(2):
            bunk.rig.sleep()
            assert (await bunk.rig.next(UpstreamAsleep)).host_bytes is None
            bunk.rig.wake()
            await bunk.rig.next(UpstreamReady)
    assert caplog.text.count("cannot tell whether its device memory is free: device memory is not watched") == 1


async def test_an_engine_that_serves_no_text_is_left_as_it_is_after_a_wake(rig: Rig, caplog):
    """A plain server answers 200 to everything, but lists no model."""
    rig.start(server(), sleeping=Sleeping(sleep=(WAKE,), wake=(WAKE,), warmup=True))
    await rig.next(UpstreamReady)
    rig.sleep()
    await rig.next(UpstreamAsleep)
    rig.wake()
    await rig.next(UpstreamReady)
    assert "it cannot be warmed up, or heard: it serves no completions" in caplog.text


async def test_a_canary_is_asked_before_the_first_sleep_and_after_each_wake_and_who_says_the_same_is_ready(bunk: Bed):
    await bunk.up(replace(L1, canary=True))
    for _ in range(2):
        bunk.rig.sleep()
        await bunk.rig.next(UpstreamAsleep)
        bunk.rig.wake()
        await bunk.rig.next(UpstreamReady)
    heard = "/v1/completions"
    steps = ("/sleep?level=1&mode=wait", "/wake_up", heard)
    assert [call for call in await bunk.calls() if call in steps] == [heard, *steps * 2]
    assert (await bunk.get("/_fake/journal"))["asleep_requests"] == 0


async def test_a_life_that_was_started_without_a_way_to_sleep_cannot(rig: Rig):
    rig.start(server())
    await rig.next(UpstreamReady)
    rig.sleep()
    failed = await rig.next(SleepFailed)
    assert (failed.reason, failed.lasting) == ("it was started without a way to sleep", True)


@pytest.mark.parametrize("fault", ["sleep_hang", "wake_hang", ""])
async def test_stop_ends_it_whatever_it_is_doing(bunk: Bed, fault: str):
    await bunk.up(L1, *(["--fail", fault] if fault else []))
    bunk.rig.sleep()
    if fault != "sleep_hang":
        await bunk.rig.next(UpstreamAsleep)
    if fault == "wake_hang":
        bunk.rig.wake()
    if fault:
        last = {"sleep_hang": "/sleep?level=1&mode=wait", "wake_hang": "/wake_up"}[fault]
        await bunk.asked(lambda calls: calls[-1:] == [last])
    bunk.rig.stop()
    await bunk.rig.next(UpstreamStopped)
    assert bunk.watch.used() == 0


async def test_orders_to_an_older_life_are_ignored(rig: Rig):
    rig.start(server(), generation=2, sleeping=Sleeping(sleep=(WAKE,), wake=(WAKE,)))
    await rig.next(UpstreamReady)
    rig.sleep(generation=1)
    rig.wake(generation=1)
    rig.stop(generation=2)
    await rig.next(UpstreamStopped)
    assert "/wake_up" not in rig.text()


async def test_a_stop_is_over_only_when_memory_that_lingers_is_free(bunk: Bed):
    await bunk.up(None, "--fail", "memory_stuck:400")
    bunk.rig.stop()
    await bunk.rig.next(UpstreamStopped)
    assert bunk.watch.used() == 0


async def test_a_crash_is_over_only_when_memory_that_lingers_is_free(bunk: Bed):
    await bunk.up(None, "--fail", "memory_stuck:400")
    await until(lambda: bunk.watch.seen, "somebody noted what it holds")
    os.kill(bunk.rig.pid(), signal.SIGKILL)
    await bunk.rig.next(UpstreamExited)
    assert bunk.watch.used() == 40 * GIB
    await bunk.rig.next(UpstreamStopped)
    assert bunk.watch.used() == 0


async def test_an_upstream_that_holds_no_device_memory_is_waited_for_no_longer_than_its_tree(bunk: Bed):
    bunk.rig.start(server())
    await bunk.rig.next(UpstreamReady)
    began_s = bunk.rig.stop()
    await bunk.rig.next(UpstreamStopped)
    assert bunk.rig.last_s - began_s < 0.5


async def test_stuck_memory_fails_the_stop_once_and_is_told_when_it_is_free_after_all(tmp_path: Path, monkeypatch):
    monkeypatch.setattr("llmswap.runtime.freeing.STUCK_LOOK_S", 0.1)
    async with bed(tmp_path, cap_s=0.2) as bunk:
        await bunk.up(None, "--fail", "memory_stuck:1000")
        bunk.rig.stop()
        failed = await bunk.rig.next(StopFailed)
        assert failed.reason.startswith("its device memory is not free: ")
        assert failed.reason.endswith("held by pid 4711")
        assert bunk.rig.supervisor.pid(M) is None
        await bunk.rig.next(UpstreamStopped)
        assert bunk.watch.used() == 0


async def test_with_start_anyway_stuck_memory_is_a_warning(tmp_path: Path, caplog):
    async with bed(tmp_path, cap_s=0.1, start_anyway=True) as bunk:
        await bunk.up(None, "--fail", "memory_stuck:60000")
        bunk.rig.stop()
        await bunk.rig.next(UpstreamStopped)
    assert "held by pid 4711; going on as configured" in caplog.text


async def test_a_reload_to_start_anyway_ends_the_wait_for_stuck_memory(tmp_path: Path, monkeypatch):
    monkeypatch.setattr("llmswap.runtime.freeing.STUCK_LOOK_S", 0.1)
    async with bed(tmp_path, cap_s=0.1) as bunk:
        await bunk.up(None, "--fail", "memory_stuck:60000")
        bunk.rig.stop()
        await bunk.rig.next(StopFailed)
        bunk.rig.supervisor.configure({}, MemorySettings(cap_s=0.1, start_anyway=True))
        await bunk.rig.next(UpstreamStopped)


async def test_a_start_that_failed_with_its_memory_stuck_is_not_over_until_that_is_free(tmp_path: Path):
    async with bed(tmp_path, cap_s=0.1) as bunk:
        bunk.start(None, "--fail", "memory_stuck:500", "--fail", "health_hang", ready_timeout_s=1.5)
        stuck = await bunk.rig.next(StopFailed)
        assert "its device memory is not free" in stuck.reason
        failed = await bunk.rig.next(StartFailed)
        assert failed.timed_out
        assert bunk.watch.used() == 0


async def test_a_start_that_crashed_in_its_first_moment_is_not_over_until_what_it_took_is_free(bunk: Bed):
    """Nobody has seen it hold any; but more is used than before it was started."""
    bunk.start(None, "--fail", "memory_stuck:400", "--fail", "crash_at_start")
    failed = await bunk.rig.next(StartFailed)
    assert "exited with code 1 during start" in failed.reason
    assert bunk.watch.used() == 0


async def test_a_start_that_crashed_with_its_memory_stuck_is_told_with_who_holds_it(tmp_path: Path, monkeypatch):
    monkeypatch.setattr("llmswap.runtime.freeing.LOADING_LOOK_S", 0.02)
    async with bed(tmp_path, cap_s=0.1) as bunk:
        faults = ("--fail", "memory_stuck:1500", "--fail", "crash_at_start", "--boot", "weights=500")
        bunk.start(None, *faults)
        assert "held by pid 4711" in (await bunk.rig.next(StopFailed)).reason
        await bunk.rig.next(StartFailed)
        assert bunk.watch.used() == 0


async def test_at_shutdown_nobody_waits_for_memory(tmp_path: Path):
    async with bed(tmp_path, cap_s=30) as bunk:
        await bunk.up(None, "--fail", "memory_stuck:60000")
        began_s = bunk.rig.stop(cause=StopCause.SHUTDOWN)
        await bunk.rig.next(UpstreamStopped)
        assert bunk.rig.last_s - began_s < 5
        assert bunk.watch.used() > 0
