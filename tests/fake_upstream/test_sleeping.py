"""vLLM's sleep and wake, with what they lose, keep, and lie about."""

import asyncio

import pytest

from llmswap.fake_upstream.engine import Phase
from tests.fake_upstream.harness import CHAT, served, until

PATH = "/v1/chat/completions"


@pytest.fixture(autouse=True)
def dev_mode(monkeypatch):
    monkeypatch.setenv("VLLM_SERVER_DEV_MODE", "1")


def sleeper(*flags):
    return served("--persona", "vllm", "--model", "m", "--enable-sleep-mode", *flags)


async def test_without_dev_mode_there_are_no_sleep_routes(monkeypatch):
    monkeypatch.delenv("VLLM_SERVER_DEV_MODE")
    async with sleeper() as fake:
        assert (await fake.post("/sleep"))[0] == 404
        assert (await fake.get("/is_sleeping"))[0] == 404


async def test_sleep_frees_the_gpu_and_wake_takes_it_back():
    async with sleeper() as fake:
        assert (await fake.state())["gpu_gib"] == 40
        assert await fake.post("/sleep?level=1") == (200, {"status": "sleeping", "level": 1})
        asleep = await fake.state()
        assert (asleep["phase"], asleep["gpu_gib"], asleep["host_gib"]) == ("sleeping", 1.3, pytest.approx(21.42))
        assert (await fake.get("/is_sleeping"))[1] == {"is_sleeping": True}
        assert (await fake.get("/health"))[0] == 200
        assert await fake.post("/wake_up") == (200, {"status": "awake", "tags": None})
        awake = await fake.state()
        assert (awake["phase"], awake["gpu_gib"], awake["host_gib"]) == ("ready", 40, 0)


async def test_requests_while_asleep_wait_for_the_wake_and_are_then_served():
    async with sleeper() as fake:
        await fake.post("/sleep?level=1")
        request = asyncio.create_task(fake.post(PATH, CHAT))
        await until(lambda: fake.fake.engine.parked == 1)
        await fake.post("/wake_up")
        status, body = await request
        assert (status, body["usage"]["completion_tokens"]) == (200, 6)


async def test_a_wake_too_short_to_be_used_leaves_requests_parked():
    async with sleeper() as fake:
        await fake.post("/sleep")
        request = asyncio.create_task(fake.post(PATH, CHAT))
        engine = fake.fake.engine
        await until(lambda: engine.parked == 1)
        engine.gate.set()
        engine.gate.clear()
        await fake.get("/health")  # some turns of the loop
        assert (engine.parked, engine.busy) == (1, False)
        await fake.post("/wake_up")
        assert (await request)[0] == 200


async def test_requests_while_asleep_can_be_refused_or_kill_the_engine():
    async with sleeper("--asleep-requests", "503") as fake:
        await fake.post("/sleep?level=1")
        assert (await fake.post(PATH, CHAT))[0] == 503
    async with sleeper("--asleep-requests", "crash") as fake:
        await fake.post("/sleep?level=1")
        assert (await fake.post(PATH, CHAT))[0] == 500
        assert (await fake.get("/health"))[0] == 503


async def test_level_2_gives_nonsense_until_the_weights_are_reloaded():
    async with sleeper() as fake:
        _, sane = await fake.post(PATH, CHAT)
        await fake.post("/sleep?level=2")
        await fake.post("/wake_up")
        _, mad = await fake.post(PATH, CHAT)
        assert mad["choices"] != sane["choices"]
        assert (await fake.post("/collective_rpc", {"method": "reload_weights"}))[0] == 200
        _, healed = await fake.post(PATH, CHAT)
        assert healed["choices"] == sane["choices"]


async def test_tags_wake_one_after_the_other_and_only_the_last_opens_the_gate():
    async with sleeper() as fake:
        await fake.post("/sleep?level=2")
        assert (await fake.post("/wake_up?tags=weights"))[1] == {"status": "sleeping", "tags": ["weights"]}
        assert (await fake.get("/is_sleeping"))[1] == {"is_sleeping": True}
        half = (await fake.state())["gpu_gib"]
        assert 1.3 < half < 40
        await fake.post("/collective_rpc", {"method": "reload_weights"})
        assert (await fake.post("/wake_up?tags=kv_cache"))[1]["status"] == "awake"
        assert (await fake.state())["gpu_gib"] == 40
        assert not (await fake.state())["garbage"]


async def test_abort_mode_ends_streams_with_a_200_and_finish_reason_abort():
    async with sleeper("--output-tokens", "exact:1000", "--time-scale", "1", "--itl", "5", "--sleep-l1", "0",
                       "--boot", "0", "--first-sleep-extra", "0") as fake:  # fmt: skip
        streams = [asyncio.create_task(fake.events(PATH, CHAT)) for _ in range(20)]  # 16 run, 4 queue
        await until(lambda: fake.fake.engine.running == 16 and len(fake.fake.engine.waiting) == 4)
        assert (await fake.post("/sleep?level=1&mode=abort"))[0] == 200
        for events in await asyncio.gather(*streams):
            assert events[-2][1]["choices"][0]["finish_reason"] == "abort"
        assert fake.fake.engine.running == 0


async def test_wait_mode_lets_everything_finish_first():
    async with sleeper("--output-tokens", "exact:20", "--time-scale", "1", "--itl", "2", "--boot", "0",
                       "--sleep-l1", "0", "--first-sleep-extra", "0", "--max-num-seqs", "1") as fake:  # fmt: skip
        requests = [asyncio.create_task(fake.post(PATH, CHAT)) for _ in range(2)]
        await until(lambda: len(fake.fake.engine.waiting) == 1)
        await fake.post("/sleep?level=1&mode=wait")
        for status, body in await asyncio.gather(*requests):
            assert (status, body["choices"][0]["finish_reason"]) == (200, "stop")


async def test_keep_mode_freezes_a_stream_and_the_wake_continues_it():
    async with sleeper("--output-tokens", "exact:30", "--time-scale", "1", "--itl", "5", "--boot", "0",
                       "--sleep-l1", "0", "--first-sleep-extra", "0", "--wake-l1", "0") as fake:  # fmt: skip
        request = asyncio.create_task(fake.post(PATH, CHAT))
        await until(lambda: fake.fake.engine.running == 1)
        await fake.post("/sleep?level=1&mode=keep")
        assert fake.fake.engine.running == 1
        assert not request.done()
        await fake.post("/wake_up")
        status, body = await request
        assert (status, body["usage"]["completion_tokens"]) == (200, 30)


async def test_a_second_sleep_answers_200_changes_nothing_and_makes_the_gauge_lie():
    async with sleeper() as fake:
        await fake.post("/sleep?level=1")
        assert await fake.post("/sleep?level=2") == (200, {"status": "sleeping", "level": 2})
        assert (await fake.state())["sleep_level"] == 1
        assert 'sleep_state="discard_all"} 1.0' in (await fake.get("/metrics"))[1]


async def test_waking_what_is_awake_or_unknown_answers_200():
    async with sleeper() as fake:
        assert (await fake.post("/wake_up"))[0] == 200
        await fake.post("/sleep")
        assert (await fake.post("/wake_up?tags=nonsense"))[1]["status"] == "sleeping"


@pytest.mark.parametrize("query", ["level=3", "level=x", "mode=never"])
async def test_bad_sleep_arguments_are_400(query):
    async with sleeper() as fake:
        assert (await fake.post(f"/sleep?{query}"))[0] == 400


@pytest.mark.parametrize("fault", ["sleep_500", "wake_500", "wake_oom"])
async def test_failed_sleep_or_wake_is_a_500_and_changes_nothing(fault):
    async with sleeper("--fail", f"{fault}@1") as fake:
        if fault.startswith("wake"):
            await fake.post("/sleep")
        before = (await fake.state())["phase"]
        path = "/sleep" if fault.startswith("sleep") else "/wake_up"
        assert (await fake.post(path))[0] == 500
        assert (await fake.state())["phase"] == before
        assert (await fake.post(path))[0] == 200


async def test_a_wake_that_lies_leaves_the_engine_asleep():
    async with sleeper("--fail", "wake_200_still_asleep") as fake:
        await fake.post("/sleep")
        assert (await fake.post("/wake_up")) == (200, {"status": "sleeping", "tags": None})
        assert fake.fake.engine.phase is Phase.SLEEPING


async def test_a_partial_free_keeps_half_of_it():
    async with sleeper("--fail", "sleep_partial_free") as fake:
        await fake.post("/sleep")
        assert (await fake.state())["gpu_gib"] == pytest.approx(1.3 + (40 - 1.3) / 2)


async def test_wake_fails_when_another_process_took_the_memory(tmp_path):
    ledger = tmp_path / "gpu.json"
    flags = ("--gpu-ledger", str(ledger), "--gpu-total", "80")
    async with sleeper(*flags) as fake:
        await fake.post("/sleep")
        fake.fake.engine.ledger.total_gib = 30  # as if somebody else held 50
        status, body = await fake.post("/wake_up")
        assert status == 500
        assert "out of memory" in body["error"]["message"]
        assert (await fake.get("/is_sleeping"))[1] == {"is_sleeping": True}
        assert fake.fake.engine.ledger.used_gib() == pytest.approx(1.3)


async def test_without_sleep_mode_it_answers_200_and_frees_and_loses_nothing():
    async with served("--persona", "vllm", "--model", "m") as fake:
        _, sane = await fake.post(PATH, CHAT)
        assert await fake.post("/sleep?level=2") == (200, {"status": "sleeping", "level": 2})
        assert (await fake.state())["gpu_gib"] == 40
        assert (await fake.get("/is_sleeping"))[1] == {"is_sleeping": True}
        await fake.post("/wake_up")
        assert (await fake.post(PATH, CHAT))[1]["choices"] == sane["choices"]


async def test_level_0_stops_scheduling_and_keeps_the_memory():
    async with sleeper() as fake:
        await fake.post("/sleep?level=0")
        assert (await fake.state())["gpu_gib"] == 40
        assert (await fake.get("/is_sleeping"))[1] == {"is_sleeping": True}
        assert 'sleep_state="awake"} 0.0' in (await fake.get("/metrics"))[1]
        assert (await fake.post("/wake_up?tags=scheduling"))[1]["status"] == "awake"


async def test_sleep_reads_the_query_and_ignores_the_body():
    async with sleeper() as fake:
        assert (await fake.post("/sleep", {"level": 2}))[1] == {"status": "sleeping", "level": 1}
        assert (await fake.state())["sleep_level"] == 1


async def test_waking_takes_memory_tag_by_tag():
    async with sleeper("--gpu-ready", "40", "--gpu-weights", "10", "--gpu-l2", "2") as fake:
        held = []
        for call in ("/sleep?level=2", "/wake_up?tags=weights", "/wake_up?tags=kv_cache"):
            await fake.post(call)
            held.append((await fake.state())["gpu_gib"])
        assert held == [pytest.approx(2), pytest.approx(12), 40]


async def test_weights_cannot_be_reloaded_before_their_memory_is_awake():
    async with sleeper() as fake:
        await fake.post("/sleep?level=2")
        assert (await fake.post("/collective_rpc", {"method": "reload_weights"}))[0] == 500
        assert (await fake.state())["garbage"]


async def test_an_old_version_gives_empty_answers_knows_no_modes_and_crashes_on_requests():
    async with sleeper("--vllm-version", "0.11.0") as fake:
        assert (await fake.get("/version"))[1] == {"version": "0.11.0"}
        for call in ("/sleep?level=1&mode=nonsense", "/wake_up", "/reset_prefix_cache"):
            assert await fake.post(call) == (200, "")
        assert await fake.post("/collective_rpc", {"method": "reload_weights"}) == (200, "")
        assert (await fake.get("/is_sleeping"))[1] == {"is_sleeping": False}
        assert (await fake.post("/pause"))[0] == 404
        await fake.post("/sleep")
        assert (await fake.post(PATH, CHAT))[0] == 500
        assert (await fake.get("/health"))[0] == 503
        assert (await fake.state())["gpu_gib"] == 0


async def test_an_old_version_that_sleeps_with_requests_in_flight_dies_behind_a_200():
    async with sleeper("--vllm-version", "0.16", *SLOW) as fake:
        request = asyncio.create_task(fake.post(PATH, CHAT))
        await until(lambda: fake.fake.engine.running == 1)
        assert (await fake.post("/sleep"))[0] == 200
        assert (await fake.get("/health"))[0] == 503
        assert (await fake.get("/is_sleeping"))[0] == 500
        assert (await request)[1]["choices"][0]["finish_reason"] == "abort"


SLOW = ("--time-scale", "1", "--itl", "5", "--boot", "0", "--sleep-l1", "0", "--first-sleep-extra", "0",
        "--output-tokens", "exact:1000")  # fmt: skip


async def test_a_client_that_leaves_does_not_stop_the_sleep():
    async with sleeper("--time-scale", "1", "--boot", "0", "--first-sleep-extra", "0", "--sleep-l1", "0.2") as fake:
        call = asyncio.create_task(fake.post("/sleep"))
        await until(lambda: fake.fake.engine.phase is Phase.FALLING_ASLEEP)
        call.cancel()
        await until(lambda: fake.fake.engine.phase is Phase.SLEEPING)
        assert fake.fake.engine.held_gib == pytest.approx(1.3)
        assert fake.fake.journal.show()["calls"][0]["outcome"] == "client_gone"


async def test_a_pause_refuses_what_a_sleep_would_park_and_may_release_the_cache():
    async with sleeper("--gpu-weights", "15.3") as fake:
        assert (await fake.post("/release_kv_cache_memory"))[0] == 500
        assert (await fake.post("/pause?mode=wait"))[0] == 200
        assert (await fake.get("/is_paused"))[1] == {"is_paused": True}
        assert (await fake.get("/is_sleeping"))[1] == {"is_sleeping": True}
        assert (await fake.post(PATH, CHAT))[0] == 503
        assert await fake.post("/release_kv_cache_memory") == (200, {"status": "kv_cache_released"})
        assert (await fake.state())["gpu_gib"] == pytest.approx(15.3 + 1.3)
        assert (await fake.post("/resume"))[0] == 500
        await fake.post("/wake_up?tags=kv_cache")
        assert (await fake.state())["gpu_gib"] == 40
        assert (await fake.post(PATH, CHAT))[0] == 503
        await fake.post("/resume")
        assert (await fake.get("/is_sleeping"))[1] == {"is_sleeping": False}
        assert (await fake.post(PATH, CHAT))[0] == 200


async def test_two_wakes_at_once_are_one():
    async with sleeper("--time-scale", "1", "--boot", "0", "--first-sleep-extra", "0", "--sleep-l1", "0",
                       "--wake-l1", "0.05") as fake:  # fmt: skip
        await fake.post("/sleep")
        answers = await asyncio.gather(fake.post("/wake_up"), fake.post("/wake_up"))
        assert [body["status"] for _, body in answers] == ["awake", "awake"]
        assert [operation["kind"] for operation in (await fake.get("/_fake/journal"))[1]["operations"]] == [
            "boot", "sleep", "wake",
        ]  # fmt: skip


async def test_the_first_answer_after_a_wake_is_late_unless_it_was_warmed_up():
    flags = ("--time-scale", "1", "--boot", "0", "--first-sleep-extra", "0", "--sleep-l1", "0", "--wake-l1", "0",
             "--ttft", "40", "--ttft-std", "0", "--prefill-ms-per-token", "0", "--itl", "0",
             "--output-tokens", "exact:1")  # fmt: skip
    async with sleeper(*flags) as fake:
        await fake.post("/sleep")
        await fake.post("/wake_up")
        loop, took = asyncio.get_running_loop(), []
        for _ in range(2):
            began = loop.time()
            await fake.post(PATH, CHAT)
            took.append(loop.time() - began)
        assert took[0] > 0.17
        assert took[1] < took[0] / 2
