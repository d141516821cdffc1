"""What goes wrong in a sleep, a wake or their steps, each fault by its name; under vLLM's contract."""

import asyncio

import aiohttp
import pytest

from llmswap.fake_upstream.engine import Phase
from tests.fake_upstream.harness import CHAT, served, spawned, until

PATH = "/v1/chat/completions"
RELOAD = {"method": "reload_weights"}


@pytest.fixture(autouse=True)
def dev_mode(monkeypatch):
    monkeypatch.setenv("VLLM_SERVER_DEV_MODE", "1")


def sleeper(*flags):
    return served("--persona", "vllm", "--model", "m", "--enable-sleep-mode", *flags)


@pytest.mark.parametrize(("fault", "before", "path"), [
    ("sleep_hang", [], "/sleep"), ("wake_hang", ["/sleep"], "/wake_up"), ("reload_hang", [], "/collective_rpc"),
])  # fmt: skip
async def test_hangs_end_only_when_the_client_leaves_and_change_nothing(fault, before, path):
    async with sleeper("--fail", f"{fault}@1") as fake:
        for call in before:
            await fake.post(call)
        state = await fake.state()
        with pytest.raises(TimeoutError):
            await asyncio.wait_for(fake.post(path, RELOAD), 0.1)
        await until(lambda: fake.fake.journal.show()["calls"][-1]["outcome"] == "client_gone")
        assert (await fake.state())["phase"] == state["phase"]
        assert (await fake.post(path, RELOAD))[0] == 200


async def test_a_sleep_that_lies_leaves_it_awake_and_serving():
    async with sleeper("--fail", "sleep_200_awake") as fake:
        assert (await fake.post("/sleep"))[1]["status"] == "sleeping"
        assert (await fake.get("/is_sleeping"))[1] == {"is_sleeping": False}
        assert (await fake.state())["gpu_gib"] == 40
        assert (await fake.post(PATH, CHAT))[0] == 200


async def test_a_partial_free_lasts_until_the_next_wake():
    async with sleeper("--fail", "sleep_partial_free@1", "--gpu-ready", "41.3", "--gpu-weights", "10") as fake:
        await fake.post("/sleep")
        assert (await fake.state())["gpu_gib"] == pytest.approx(1.3 + 40 / 2)
        await fake.post("/wake_up?tags=weights")
        assert (await fake.state())["gpu_gib"] == pytest.approx(1.3 + 10 + 30 / 2)
        await fake.post("/wake_up")
        await fake.post("/sleep")
        assert (await fake.state())["gpu_gib"] == pytest.approx(1.3)


async def test_a_later_step_may_fail_where_the_sleep_itself_did_not():
    async with sleeper("--fail", "sleep_step_500") as fake:
        assert (await fake.post("/sleep"))[0] == 200
        assert (await fake.post("/reset_prefix_cache"))[0] == 500


async def test_a_failed_reload_leaves_nonsense():
    async with sleeper("--fail", "reload_500@1") as fake:
        await fake.post("/sleep?level=2")
        await fake.post("/wake_up")
        assert (await fake.post("/collective_rpc", RELOAD))[0] == 500
        assert (await fake.state())["garbage"]
        assert (await fake.post("/collective_rpc", RELOAD))[0] == 200
        assert not (await fake.state())["garbage"]


async def test_a_wake_without_memory_may_leak_half_of_what_it_wanted():
    async with sleeper("--fail", "wake_leak@1", "--fail", "wake_oom@1") as fake:
        await fake.post("/sleep")
        assert (await fake.post("/wake_up"))[0] == 500
        assert (await fake.state())["gpu_gib"] == pytest.approx(1.3)
        assert (await fake.post("/wake_up"))[0] == 500
        assert (await fake.state())["gpu_gib"] == pytest.approx((40 + 1.3) / 2)
        assert (await fake.get("/is_sleeping"))[1] == {"is_sleeping": True}
        assert (await fake.post("/wake_up"))[0] == 200
        assert (await fake.state())["gpu_gib"] == 40


async def test_garbage_after_a_wake_lasts_until_the_next():
    async with sleeper("--fail", "wake_garbage@1") as fake:
        _, sane = await fake.post(PATH, CHAT)
        answers = []
        for _ in range(2):
            await fake.post("/sleep")
            await fake.post("/wake_up")
            answers.append((await fake.post(PATH, CHAT))[1]["choices"])
        assert answers[0] != sane["choices"]
        assert answers[1] == sane["choices"]


@pytest.mark.parametrize(("kind", "status", "body"), [
    ("500", 500, None), ("404", 404, None), ("shape", 200, {"sleeping": {"weights": True}}),
    ("lie", 200, {"is_sleeping": False}),
])  # fmt: skip
async def test_asking_whether_it_sleeps_may_fail_or_mislead(kind, status, body):
    async with sleeper("--fail", f"state_query:{kind}") as fake:
        await fake.post("/sleep")
        answer = await fake.get("/is_sleeping")
        assert answer[0] == status
        assert body is None or answer[1] == body


async def test_asking_whether_it_sleeps_may_hang():
    async with sleeper("--fail", "state_query:hang") as fake:
        with pytest.raises(TimeoutError):
            await asyncio.wait_for(fake.get("/is_sleeping"), 0.1)


async def test_an_engine_may_die_asleep_behind_a_living_server(tmp_path):
    ledger = ("--gpu-ledger", str(tmp_path / "gpu.json"))
    async with sleeper("--fail", "engine_dead_asleep", *ledger) as fake:
        await fake.post("/sleep")
        await until(lambda: fake.fake.engine.phase is Phase.DEAD)
        assert (await fake.get("/health"))[0] == 503
        assert (await fake.post("/wake_up"))[0] == 500
        assert (await fake.get("/is_sleeping"))[0] == 500
        assert (await fake.post(PATH, CHAT))[0] == 500
        assert fake.fake.engine.ledger.used_gib() == 0


async def test_one_that_is_awake_again_in_time_does_not_die():
    async with sleeper("--fail", "engine_dead_asleep:0") as fake:
        await fake.post("/sleep")
        await fake.post("/wake_up")
        await asyncio.sleep(0.05)  # the fault strikes after 0.02 s
        assert fake.fake.engine.phase is Phase.READY


@pytest.mark.parametrize("fault", ["die_asleep", "sleep_200_die"])
async def test_a_process_may_die_asleep(fault, tmp_path):
    path = tmp_path / "gpu.json"
    flags = ("--persona", "vllm", "--enable-sleep-mode", "--time-scale", "0", "--fail", fault)
    async with spawned(*flags, "--gpu-ledger", str(path)) as fake, aiohttp.ClientSession(fake.url) as http:
        async with http.post("/sleep") as response:
            assert response.status == 200
        assert await fake.exit_code() == 1


async def test_given_back_memory_may_be_stuck_while_it_sleeps(tmp_path):
    ledger = ("--gpu-ledger", str(tmp_path / "gpu.json"))
    async with sleeper("--fail", "memory_stuck:60", "--time-scale", "1", "--boot", "0", "--sleep-l1", "0",
                       "--first-sleep-extra", "0", *ledger) as fake:  # fmt: skip
        await fake.post("/sleep")
        assert fake.fake.engine.held_gib == pytest.approx(1.3)
        status, seen = await fake.get("/_fake/gpus")
        assert status == 200
        assert seen["gpus"][0]["used_bytes"] == 40 * 1024**3
