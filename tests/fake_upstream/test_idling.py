"""llama-server's idle sleep and its router mode."""

import asyncio

import pytest

from llmswap.fake_upstream.engine import Phase
from tests.fake_upstream.harness import CHAT, served, until

PATH = "/v1/chat/completions"
BOOT = (
    "--boot",
    "import=0,weights=0.05,compile=0,profile=0,graphs=0",
    "--time-scale",
    "1",
    "--ttft",
    "0",
    "--itl",
    "0",
)


def llamacpp(*flags):
    return served("--persona", "llamacpp", "--model", "m", *BOOT, *flags)


async def asleep(fake):
    await until(lambda: fake.fake.engine.phase is Phase.SLEEPING)


async def test_it_falls_asleep_after_its_first_idle_time_and_wakes_for_a_request_as_if_cold():
    async with llamacpp("--sleep-idle-seconds", "0.05") as fake:
        await fake.post(PATH, CHAT)
        assert (await fake.state())["gpu_gib"] == 6.5
        await asleep(fake)
        assert (await fake.state())["gpu_gib"] == 0
        loop = asyncio.get_running_loop()
        began = loop.time()
        assert (await fake.post(PATH, CHAT))[0] == 200
        assert loop.time() - began > 0.05
        told = (await fake.get("/_fake/journal"))[1]
        assert [operation["kind"] for operation in told["operations"]][:3] == ["boot", "sleep", "wake"]
        assert told["asleep_requests"] == 1


async def test_it_falls_asleep_without_ever_having_worked():
    async with llamacpp("--sleep-idle-seconds", "0.02") as fake:
        await asleep(fake)


async def test_it_never_falls_asleep_unasked():
    async with llamacpp() as fake:
        await fake.post(PATH, CHAT)
        assert fake.fake.engine.phase is Phase.READY
        assert (await fake.get("/props"))[1]["is_sleeping"] is False


async def test_exempt_routes_answer_and_do_not_wake_it_and_all_others_do():
    async with llamacpp("--sleep-idle-seconds", "0.02", "--metrics") as fake:
        await asleep(fake)
        for path in ("/health", "/v1/health", "/models", "/v1/models", "/metrics"):
            assert (await fake.get(path))[0] == 200
        assert (await fake.get("/props"))[1]["is_sleeping"] is True
        assert (await fake.state())["phase"] == "sleeping"
        await fake.get("/slots")
        assert fake.fake.journal.show()["operations"][-1]["kind"] in ("wake", "sleep")
        assert [operation["kind"] for operation in fake.fake.journal.show()["operations"]].count("wake") == 1


async def test_work_keeps_it_awake():
    async with llamacpp("--sleep-idle-seconds", "0.05", "--itl", "10", "--output-tokens", "exact:15") as fake:
        await fake.post(PATH, CHAT)
        assert [operation["kind"] for operation in fake.fake.journal.show()["operations"]] == ["boot"]


def router(*flags):
    return served("--persona", "llamacpp", "--models-dir", "x", "--model", "a", "b", "c", *BOOT, *flags)


def chat(model):
    return {**CHAT, "model": model}


async def statuses(fake):
    _, body = await fake.get("/models")
    return {row["id"]: row["status"]["value"] for row in body["data"]}


async def reach(fake, model, status):
    async with asyncio.timeout(5):
        while (await statuses(fake))[model] != status:  # noqa: ASYNC110  told by an HTTP server
            await asyncio.sleep(0.005)


async def test_a_router_starts_empty_and_loads_what_is_asked_for():
    async with router() as fake:
        assert (await fake.get("/health"))[0] == 200
        assert await statuses(fake) == {"a": "unloaded", "b": "unloaded", "c": "unloaded"}
        assert (await fake.state())["gpu_gib"] == 0
        answers = await asyncio.gather(*(fake.post(PATH, chat("a")) for _ in range(3)))
        assert [status for status, _ in answers] == [200] * 3
        assert await statuses(fake) == {"a": "loaded", "b": "unloaded", "c": "unloaded"}
        assert (await fake.state())["gpu_gib"] == 6.5


async def test_load_and_unload_answer_at_once_and_the_list_tells_how_far_it_is():
    async with router() as fake:
        assert await fake.post("/models/load", {"model": "b"}) == (200, {"success": True})
        assert (await statuses(fake))["b"] == "loading"
        await reach(fake, "b", "loaded")
        assert await fake.post("/models/unload", {"model": "b"}) == (200, {"success": True})
        await reach(fake, "b", "unloaded")
        assert (await fake.state())["gpu_gib"] == 0
        assert (await fake.post("/models/load", {"model": "z"}))[0] == 404


async def test_unloading_a_loading_model_kills_it():
    async with router("--boot", "600") as fake:
        await fake.post("/models/load", {"model": "a"})
        await reach(fake, "a", "loading")
        await fake.post("/models/unload", {"model": "a"})
        await reach(fake, "a", "unloaded")
        assert (await fake.state())["gpu_gib"] == 0


async def test_the_least_recently_used_idle_model_leaves_for_one_too_many():
    async with router("--models-max", "2", "--sigterm-delay", "0") as fake:
        for model in "abac":
            assert (await fake.post(PATH, chat(model)))[0] == 200
        assert await statuses(fake) == {"a": "loaded", "b": "unloaded", "c": "loaded"}


async def test_without_autoload_only_an_order_loads():
    async with router("--no-models-autoload") as fake:
        assert (await fake.post(PATH, chat("a")))[0] == 400
        await fake.post("/models/load", {"model": "a"})
        await reach(fake, "a", "loaded")
        assert (await fake.post(PATH, chat("a")))[0] == 200


async def test_a_model_without_room_fails_and_says_so(tmp_path):
    async with router("--gpu-ledger", str(tmp_path / "gpu.json"), "--gpu-total", "10") as fake:
        assert (await fake.post(PATH, chat("a")))[0] == 200
        assert (await fake.post(PATH, chat("b")))[0] == 500
        _, body = await fake.get("/models")
        assert body["data"][1]["status"] == {"value": "unloaded", "failed": True, "exit_code": 1}


@pytest.mark.parametrize(("fault", "path"), [("wake_500", "/models/load"), ("sleep_500", "/models/unload")])
async def test_orders_to_a_router_can_fail(fault, path):
    async with router("--fail", fault) as fake:
        assert (await fake.post(path, {"model": "a"}))[0] == 500
