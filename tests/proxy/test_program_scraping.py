"""Metrics of real processes, scraped through the whole program: they stop on time, and sleepers sleep on."""

import time

import aiohttp
import orjson

from tests.dialogue import ask as chat
from tests.stack import Program, Stack, fake, until


async def said(http: aiohttp.ClientSession, program: Program, path: str) -> tuple[int, str]:
    async with http.get(program.url + path) as answer:
        return answer.status, await answer.text()


async def target_models(http: aiohttp.ClientSession, program: Program) -> list[str]:
    status, text = await said(http, program, "/sd/prometheus")
    assert status == 200
    return [entry["labels"]["model"] for entry in orjson.loads(text)]


async def test_an_idle_model_stops_on_time_although_it_is_scraped_all_the_time(
    stack: Stack, http: aiohttp.ClientSession
) -> None:
    ttl_s = 1
    program = stack.start({"models": {"m": {"cmd": fake("m", persona="vllm", time_scale=0.001), "ttl": ttl_s}}})
    assert (await chat(http, program, "m", max_tokens=1))[0] == 200
    idle_since_s, scrapes = time.monotonic(), 0
    while (answer := await said(http, program, "/upstream-metrics/m"))[0] == 200:
        assert "vllm:num_requests_running" in answer[1]
        scrapes += 1
        assert time.monotonic() - idle_since_s < ttl_s + 10, "it is still up"
    took_s = time.monotonic() - idle_since_s
    assert answer[0] == 404
    assert "not_ready" in answer[1]
    assert scrapes >= 10
    assert took_s >= ttl_s * 0.9
    assert took_s < ttl_s + 3
    await until(lambda: "m: stopping (ttl)" in program.log_text(), "the reason in the log")


async def test_targets_come_and_go_with_swaps_and_a_sleeper_is_left_alone(
    stack: Stack, http: aiohttp.ClientSession
) -> None:
    sleeps = {"sleepMode": "enable", "sleep": {"preset": "vllm-l1"}}
    engine = {"persona": "vllm", "enable_sleep_mode": True, "time_scale": 0.001}
    stack.environ["VLLM_SERVER_DEV_MODE"] = "1"
    program = stack.start(
        {
            "models": {
                "sleepy": {"cmd": fake("sleepy", **engine), **sleeps},
                "cpp": {"cmd": fake("cpp", "--metrics", persona="llamacpp", time_scale=0.01)},
                "mute": {"cmd": fake("mute", persona="llamacpp", time_scale=0.01)},
            }
        }
    )
    assert await target_models(http, program) == []
    assert (await chat(http, program, "sleepy", max_tokens=1))[0] == 200
    assert await target_models(http, program) == ["sleepy"]
    assert (await chat(http, program, "cpp", max_tokens=1))[0] == 200
    assert await target_models(http, program) == ["cpp"]
    status, text = await said(http, program, "/upstream-metrics/cpp")
    assert (status, "llamacpp:" in text) == (200, True)
    assert (await program.running())["sleepy"] == "asleep"
    before = await program.journal("sleepy")
    for _ in range(20):
        status, text = await said(http, program, "/upstream-metrics/sleepy")
        assert (status, "not_ready" in text) == (404, True)
    assert (await program.running())["sleepy"] == "asleep"
    asked = [call["path"] for call in await program.journal("sleepy")]
    assert asked == [call["path"] for call in before]
    assert "/metrics" not in asked
    assert (await chat(http, program, "mute", max_tokens=1))[0] == 200
    status, text = await said(http, program, "/upstream-metrics/mute")
    assert (status, "--metrics" in text) == (501, True)
    assert "/metrics" in [call["path"] for call in await program.journal("mute")]
