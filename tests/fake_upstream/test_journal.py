"""The journal of the engine: the proof that nothing was sent to a sleeper, and the time the engine itself took."""

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


async def journal(fake):
    return (await fake.get("/_fake/journal"))[1]


async def test_requests_in_the_right_places_leave_no_mark():
    async with sleeper() as fake:
        await fake.post(PATH, CHAT)
        await fake.post("/sleep")
        await fake.get("/health")
        await fake.get("/is_sleeping")
        await fake.post("/wake_up")
        await fake.post(PATH, CHAT)
        told = await journal(fake)
        assert told["asleep_requests"] == 0
        assert [call["phase"] for call in told["calls"]] == [
            "ready",
            "ready",
            "sleeping",
            "sleeping",
            "sleeping",
            "ready",
        ]
        assert [call["handed"] for call in told["calls"]] == ["ready", "", "", "", "", "ready"]


async def test_a_request_to_a_sleeper_is_marked_for_good():
    async with sleeper("--asleep-requests", "503") as fake:
        await fake.post("/sleep")
        await fake.post(PATH, CHAT)
        await fake.post("/wake_up")
        told = await journal(fake)
        assert told["asleep_requests"] == 1
        assert [call["path"] for call in told["calls"] if call["asleep"]] == [PATH]


async def test_a_request_that_comes_awake_and_is_handed_over_asleep_is_marked():
    async with sleeper("--fail", "slow_headers:0.1", "--time-scale", "1", "--boot", "0", "--sleep-l1", "0",
                       "--first-sleep-extra", "0", "--asleep-requests", "503") as fake:  # fmt: skip
        late = asyncio.create_task(fake.post(PATH, CHAT))
        await until(lambda: fake.fake.journal.count == 1)
        await fake.post("/sleep")
        assert (await late)[0] == 503
        (call, _) = (await journal(fake))["calls"]
        assert (call["phase"], call["handed"], call["asleep"]) == ("ready", "sleeping", True)


async def test_a_request_while_it_falls_asleep_is_marked():
    async with sleeper("--time-scale", "1", "--boot", "0", "--sleep-l1", "0.1", "--first-sleep-extra", "0",
                       "--asleep-requests", "503") as fake:  # fmt: skip
        call = asyncio.create_task(fake.post("/sleep"))
        await until(lambda: fake.fake.engine.phase is Phase.FALLING_ASLEEP)
        assert (await fake.post(PATH, CHAT))[0] == 503
        await call
        assert (await journal(fake))["asleep_requests"] == 1


async def test_operations_tell_how_long_the_engine_took_and_what_it_held():
    async with sleeper("--time-scale", "1", "--boot", "0.03", "--sleep-l1", "0.05", "--first-sleep-extra", "0",
                       "--wake-l1", "0.04", "--fail", "wake_500@1") as fake:  # fmt: skip
        await fake.post("/sleep?level=1&mode=wait")
        await fake.post("/wake_up")
        await fake.post("/wake_up")
        boot, sleep, wake = (await journal(fake))["operations"]
        took = [operation["ended_s"] - operation["began_s"] for operation in (boot, sleep, wake)]
        assert [seconds >= least for seconds, least in zip(took, (0.03, 0.05, 0.04), strict=True)] == [True] * 3
        assert (boot["kind"], sleep["kind"], wake["kind"]) == ("boot", "sleep", "wake")
        assert (sleep["detail"], wake["detail"]) == ("level 1, mode wait", "tags kv_cache, weights")
        assert (sleep["gpu_before_gib"], sleep["gpu_after_gib"]) == (40, pytest.approx(1.3))
        assert (wake["gpu_before_gib"], wake["gpu_after_gib"]) == (pytest.approx(1.3), 40)
        assert [operation["result"] for operation in (boot, sleep, wake)] == ["ok"] * 3


async def test_a_sleep_tells_what_was_at_work_when_it_began_and_how_long_it_waited():
    async with sleeper("--time-scale", "1", "--boot", "0", "--sleep-l1", "0", "--first-sleep-extra", "0", "--itl", "10",
                       "--output-tokens", "exact:10", "--max-num-seqs", "1") as fake:  # fmt: skip
        requests = [asyncio.create_task(fake.post(PATH, CHAT)) for _ in range(2)]
        await until(lambda: fake.fake.engine.waiting)
        await fake.post("/sleep?mode=wait")
        await asyncio.gather(*requests)
        sleep = (await journal(fake))["operations"][-1]
        assert (sleep["running"], sleep["waiting"]) == (1, 1)
        assert sleep["quiet_s"] > 0.05
        told = (await journal(fake))["calls"][-1]
        assert (told["path"], told["running"], told["waiting"]) == ("/sleep?mode=wait", 1, 1)


async def test_failed_operations_say_why(tmp_path):
    async with sleeper("--gpu-ledger", str(tmp_path / "gpu.json"), "--gpu-total", "80") as fake:
        await fake.post("/sleep")
        fake.fake.engine.ledger.total_gib = 30
        await fake.post("/wake_up")
        assert "out of memory" in (await journal(fake))["operations"][-1]["result"]


async def test_what_is_under_way_shows_in_the_metrics():
    async with sleeper("--time-scale", "1", "--boot", "0", "--sleep-l1", "0.1", "--first-sleep-extra", "0") as fake:
        call = asyncio.create_task(fake.post("/sleep"))
        await until(lambda: fake.fake.engine.phase is Phase.FALLING_ASLEEP)
        line = 'vllm:sleep_mode_operations_in_flight{model_name="m",engine="0",operation="sleep"}'
        assert f"{line} 1.0" in (await fake.get("/metrics"))[1]
        await call
        assert f"{line} 0.0" in (await fake.get("/metrics"))[1]
