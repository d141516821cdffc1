"""SGLang's release and resume: what it frees, what it loses, and what kills it."""

import asyncio
import signal

import aiohttp
import pytest

from llmswap.fake_upstream.engine import Phase
from llmswap.fake_upstream.ledger import Holder, Ledger
from tests.fake_upstream.harness import CHAT, served, spawned, until

PATH = "/v1/chat/completions"
RELEASE, RESUME = "/release_memory_occupation", "/resume_memory_occupation"
PAUSE, CONTINUE = "/pause_generation", "/continue_generation"
MEMORY = ("--enable-memory-saver", "--enable-weights-cpu-backup")


def sglang(*flags):
    return served("--persona", "sglang", "--model", "m", *flags)


async def test_release_and_resume_free_and_take_back_the_memory_with_null_bodies():
    async with sglang(*MEMORY) as fake:
        _, sane = await fake.post(PATH, CHAT)
        assert await fake.post(PAUSE, {"mode": "abort"}) == (200, {"status": "ok", "message": "Generation is paused."})
        assert await fake.post(RELEASE, {}) == (200, None)
        asleep = await fake.state()
        assert (asleep["phase"], asleep["gpu_gib"]) == ("sleeping", pytest.approx(1.3))
        assert asleep["host_gib"] == pytest.approx(21.42)
        assert await fake.post(RESUME, {}) == (200, None)
        assert (await fake.get("/ready"))[0] == 503
        assert (await fake.post(CONTINUE, {}))[0] == 200
        assert (await fake.get("/ready"))[0] == 200
        awake = await fake.state()
        assert (awake["phase"], awake["gpu_gib"], awake["host_gib"]) == ("ready", 40, 0)
        assert (await fake.post(PATH, CHAT))[1]["choices"] == sane["choices"]


async def test_it_works_with_get_too_but_never_without_a_body():
    async with sglang(*MEMORY) as fake:
        assert (await fake.post(RELEASE))[0] == 400
        async with fake.http.get(RELEASE, json={"tags": ["kv_cache"]}) as response:
            assert response.status == 200
        assert (await fake.state())["asleep_tags"] == ["kv_cache"]
        assert (await fake.post(RELEASE, {"tags": ["all"]}))[0] == 400


async def test_tags_come_and_go_by_themselves():
    async with sglang(*MEMORY, "--gpu-weights", "15.3") as fake:
        await fake.post(RELEASE, {"tags": ["weights"]})
        assert (await fake.state())["gpu_gib"] == pytest.approx(40 - 15.3)
        await fake.post(RELEASE, {"tags": ["kv_cache", "cuda_graph"]})
        assert (await fake.state())["gpu_gib"] == pytest.approx(1.3)
        await fake.post(RESUME, {"tags": ["weights", "cuda_graph"]})
        assert (await fake.state())["asleep_tags"] == ["kv_cache"]
        await fake.post(RESUME, {"tags": ["kv_cache"]})
        assert (await fake.state())["gpu_gib"] == 40


async def test_without_the_memory_saver_nothing_is_freed():
    async with sglang() as fake:
        assert (await fake.post(RELEASE, {}))[0] == 200
        assert (await fake.state())["gpu_gib"] == 40
        assert (await fake.post(PATH, CHAT))[0] == 200


async def test_without_a_backup_it_talks_nonsense_until_the_weights_are_read_again():
    async with sglang("--enable-memory-saver") as fake:
        _, sane = await fake.post(PATH, CHAT)
        await fake.post(RELEASE, {})
        assert (await fake.post("/update_weights_from_disk", {"model_path": "m"}))[0] == 400
        await fake.post(RESUME, {})
        assert (await fake.post(PATH, CHAT))[1]["choices"] != sane["choices"]
        assert (await fake.post("/update_weights_from_disk", {}))[0] == 400
        assert (await fake.post("/update_weights_from_disk", {"model_path": "m"}))[1]["success"] is True
        assert (await fake.post(PATH, CHAT))[1]["choices"] == sane["choices"]


async def test_requests_wait_out_a_pause():
    async with sglang(*MEMORY) as fake:
        await fake.post(PAUSE, {})
        await fake.post(RELEASE, {})
        request = asyncio.create_task(fake.post(PATH, CHAT))
        await until(lambda: fake.fake.engine.parked == 1)
        await fake.post(RESUME, {})
        await fake.post(CONTINUE, {})
        assert (await request)[0] == 200
        assert (await fake.get("/_fake/journal"))[1]["asleep_requests"] == 1


SLOW = ("--time-scale", "1", "--itl", "5", "--boot", "0", "--sleep-l1", "0", "--output-tokens", "exact:40")


@pytest.mark.parametrize(("mode", "finish", "tokens"), [("in_place", "stop", 40), ("retract", "stop", 40),
                                                       ("abort", "abort", None)])  # fmt: skip
async def test_a_pause_ends_or_freezes_what_is_in_flight(mode, finish, tokens):
    async with sglang(*MEMORY, *SLOW) as fake:
        request = asyncio.create_task(fake.post(PATH, CHAT))
        await until(lambda: fake.fake.engine.running == 1)
        await fake.post(PAUSE, {"mode": mode})
        assert fake.fake.engine.busy is (mode != "abort")
        await fake.post(CONTINUE, {})
        _, body = await request
        assert body["choices"][0]["finish_reason"] == finish
        assert tokens in (None, body["usage"]["completion_tokens"])


async def test_ready_and_the_infos_generate_nothing_and_health_generates(monkeypatch):
    async with sglang(*MEMORY, "--prefill-ms-per-token", "0") as fake:
        for path in ("/ready", "/server_info", "/model_info", "/get_server_info", "/get_model_info"):
            assert (await fake.get(path))[0] == 200
        assert all(not call["handed"] for call in await fake.calls())
        assert (await fake.get("/health"))[0] == 200
        assert (await fake.calls())[-1]["handed"] == "ready"
    monkeypatch.setenv("SGLANG_ENABLE_HEALTH_ENDPOINT_GENERATION", "false")
    async with sglang(*MEMORY) as fake:
        await fake.post(RELEASE, {})
        assert (await fake.get("/health"))[0] == 200
        assert (await fake.get("/_fake/journal"))[1]["asleep_requests"] == 0


async def test_health_while_paused_gives_up_with_503_and_is_marked():
    async with sglang(*MEMORY) as fake:
        await fake.post(PAUSE, {})
        assert (await fake.get("/health"))[0] == 503
        assert (await fake.get("/_fake/journal"))[1]["asleep_requests"] == 1


async def test_the_cache_is_flushed_only_when_idle():
    async with sglang(*MEMORY, *SLOW) as fake:
        assert (await fake.post("/flush_cache"))[0] == 200
        request = asyncio.create_task(fake.post(PATH, CHAT))
        await until(lambda: fake.fake.engine.running == 1)
        assert (await fake.post("/flush_cache"))[0] == 400
        await request


async def test_control_routes_ask_for_the_admin_key_if_there_is_one():
    async with sglang(*MEMORY, "--admin-api-key", "geheim") as fake:
        assert (await fake.post(RELEASE, {}))[0] == 401
        assert (await fake.post(RELEASE, {}, headers={"Authorization": "Bearer geheim"}))[0] == 200


@pytest.mark.parametrize("fault", ["sleep_500", "wake_500"])
async def test_release_and_resume_can_fail(fault):
    async with sglang(*MEMORY, "--fail", f"{fault}@1") as fake:
        if fault == "wake_500":
            await fake.post(RELEASE, {})
        path = RELEASE if fault == "sleep_500" else RESUME
        phase = fake.fake.engine.phase
        assert (await fake.post(path, {}))[0] == 500
        assert fake.fake.engine.phase is phase
        assert (await fake.post(path, {}))[0] == 200
        assert fake.fake.engine.phase is (Phase.SLEEPING if fault == "sleep_500" else Phase.READY)


async def test_its_metrics_and_usage_have_its_own_names():
    async with sglang(*MEMORY, "--enable-metrics", "--enable-cache-report", "--reasoning-tokens", "2") as fake:
        _, body = await fake.post(PATH, CHAT)
        assert body["usage"]["reasoning_tokens"] == 2
        assert body["usage"]["prompt_tokens_details"] == {"cached_tokens": 0}
        _, text = await fake.get("/metrics")
        assert 'sglang:generation_tokens_total{model_name="m"' in text
    async with sglang(*MEMORY) as fake:
        assert (await fake.get("/metrics"))[0] == 404


@pytest.mark.parametrize("death", ["busy", "busy_fault", "unreleased", "health", "request", "no_room"])
async def test_what_it_does_not_guard_against_kills_the_process(death, tmp_path):
    flags = ["--persona", "sglang", "--time-scale", "0", *MEMORY, "--gpu-ledger", str(tmp_path / "gpu.json")]
    flags += ["--fail", "release_busy_assert"] if death == "busy_fault" else []
    flags += ["--fail", "stall:1:600", "--time-scale", "1", "--boot", "0"] if death == "busy" else []
    async with spawned(*flags) as fake, aiohttp.ClientSession(fake.url) as http:

        async def post(path, body):
            async with http.post(path, json=body) as response:
                return await response.read()

        stream = await http.post(PATH, json={**CHAT, "stream": True}) if death == "busy" else None
        if death in ("health", "request", "no_room"):
            await post(RELEASE, {})
        if death == "no_room":
            Ledger(tmp_path / "gpu.json", 80, 0.0, Holder("stranger")).hold(70)
        deadly = {
            "health": lambda: http.get("/health"),
            "request": lambda: post(PATH, CHAT),
            "unreleased": lambda: post(RESUME, {"tags": ["weights"]}),
            "no_room": lambda: post(RESUME, {"tags": ["weights"]}),
        }
        with pytest.raises(aiohttp.ClientConnectionError):
            await deadly.get(death, lambda: post(RELEASE, {}))()
        assert await fake.exit_code() == -signal.SIGKILL
        if stream:
            stream.close()


async def test_sigterm_drains_and_health_says_so():
    flags = ("--persona", "sglang", "--boot", "0", "--itl", "10", "--output-tokens", "exact:40", "--sigterm-delay", "0")
    async with spawned(*flags) as fake, aiohttp.ClientSession(fake.url) as http:
        async with http.post(PATH, json={**CHAT, "stream": True}) as response:
            await response.content.readline()
            fake.process.terminate()
            await fake.logged("Shutting down")
            async with http.get("/ready") as ready:
                assert ready.status == 503
            assert b"[DONE]" in await response.content.read()
        assert await fake.exit_code() == 0
