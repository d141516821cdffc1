"""`/metrics` of the whole program: swaps, a reload, callers, and what upstreams themselves say they were asked."""

import re

import aiohttp
from prometheus_client.openmetrics.parser import text_string_to_metric_families as read_openmetrics

from tests.dialogue import ask
from tests.stack import Program, Stack, fake, until
from tests.telemetry.counted import sum_of

OPENMETRICS = "application/openmetrics-text;version=1.0.0;q=0.5,text/plain;version=0.0.4;q=0.3"


async def scraped(http: aiohttp.ClientSession, program: Program, key: str = "") -> dict[str, float]:
    """Give every sample as of now: of an exposition after the one that may have been made before."""
    first = await read(http, program, key)

    async def newer() -> dict[str, float] | None:
        samples = await read(http, program, key)
        return (
            samples if of(samples, "metrics_render_seconds_count") > of(first, "metrics_render_seconds_count") else None
        )

    samples: dict[str, float] = await until(newer, "another exposition")
    return samples


async def read(http: aiohttp.ClientSession, program: Program, key: str = "") -> dict[str, float]:
    headers = {"Accept": OPENMETRICS} | ({"Authorization": f"Bearer {key}"} if key else {})
    async with http.get(program.url + "/metrics", headers=headers) as response:
        assert response.status == 200
        assert response.content_type == "application/openmetrics-text"
        families = read_openmetrics(await response.text())
    return {
        s.name + "{" + ",".join(f'{k}="{v}"' for k, v in sorted(s.labels.items())) + "}": s.value
        for family in families
        for s in family.samples
    }


def of(samples: dict[str, float], name: str, *labels: str) -> float:
    return sum_of(samples.items(), f"llmswap_{name}", *labels)


async def test_swaps_a_reload_and_the_upstreams_own_counts(stack: Stack, http: aiohttp.ClientSession) -> None:
    commands = {name: {"cmd": fake(name, boot=0.2)} for name in "abc"}
    program = stack.start({"models": {name: commands[name] for name in "ab"}})
    for name in "aabab":
        status, _ = await ask(http, program, name, max_tokens=2)
        assert status == 200
    asked = [entry for entry in await program.journal("b") if entry.get("path") == "/v1/chat/completions"]
    status, _ = await ask(http, program, "nobody", max_tokens=2)
    assert status == 404

    before = await scraped(http, program)
    assert of(before, "requests_total", 'model="a"', 'outcome="ok"') == 3
    assert of(before, "requests_total", 'model="b"', 'outcome="ok"') == 2
    assert len(asked) == 1, "b was started twice and asked once in each life"
    assert of(before, "requests_total", 'model="_unknown"', 'code="404"') == 1
    assert of(before, "unknown_model_requests_total") == 1
    assert of(before, "swaps_total", 'outcome="ok"') == 4 == of(before, "swaps_total")
    assert of(before, "swap_transitions_total", 'from_model="a"', 'to_model="b"') == 2
    assert of(before, "swap_thrash_total") == 2
    assert of(before, "swaps_by_caller_total", 'caller_class="_other"') == 4
    waited_s = of(before, "queue_wait_seconds_sum")
    assert abs(of(before, "request_wait_seconds_total") - waited_s) < 1e-6 < waited_s
    assert of(before, "swap_phase_duration_seconds_count", 'phase="health_wait"') >= 4, "a port may have been taken"
    assert of(before, "swap_phase_duration_seconds_count", 'phase="stop"') == 3
    assert of(before, "upstream_health_checks_total", 'result="ok"') == 4
    assert of(before, "upstream_health_checks_total", 'result="fail"') > 4, "it is asked before it listens"
    assert of(before, "event_loop_lag_seconds_count") > 5
    assert before["llmswap_config_last_reload_successful{}"] == 1
    assert before["process_resident_memory_bytes{}"] > 1e6

    program.reload({"models": {name: commands[name] for name in "bc"}})
    await until(lambda: is_gone(http, program, "a"), "a is gone from the metrics", every_s=0.2)
    after = await scraped(http, program)
    assert [series for series in after if re.search('model="a"', series)] == []
    assert of(after, "requests_total", 'model="b"') == 2
    assert of(after, "requests_total", 'model="c"') == 0
    assert 'llmswap_model_info{backend="unknown",context="",gpus="",model="c",quantization="",sleep_level="0"}' in after
    spent = [of(s, "gpu_phase_seconds_total", 'gpu="0"') for s in (before, after)]
    assert spent[0] < spent[1], "time goes on"


async def is_gone(http: aiohttp.ClientSession, program: Program, model: str) -> bool:
    async with http.get(program.url + "/metrics") as response:
        return f'model="{model}"' not in await response.text()


async def test_swaps_are_put_down_to_keys_and_to_nobody(stack: Stack, http: aiohttp.ClientSession) -> None:
    keys = ["first-key-of-two", "second-key-of-two"]
    models = {name: {"cmd": fake(name, boot=0.3)} for name in "ab"}
    program = stack.start({"apiKeys": keys, "models": models, "hooks": {"on_startup": {"preload": ["a"]}}})

    async def preloaded() -> bool:
        return of(await scraped(http, program, keys[0]), "swaps_total", 'outcome="ok"') == 1

    await until(preloaded, "a is up", every_s=0.2)
    body = {"model": "b", "messages": [{"role": "user", "content": "x"}], "max_tokens": 2}
    headers = {"Authorization": f"Bearer {keys[1]}", "X-LLMSwap-Caller": "somebody"}
    async with http.post(program.url + "/v1/chat/completions", json=body, headers=headers) as response:
        assert response.status == 200
        await response.read()

    samples = await scraped(http, program, keys[0])
    classes = [s for s in samples if s.startswith("llmswap_swaps_by_caller_total")]
    assert len(classes) == 4, "two keys, others, nobody"
    assert sorted(samples[s] for s in classes) == [0, 0, 1, 1]
    assert of(samples, "swaps_by_caller_total", 'caller_class="_none"') == 1
    by_key = {s: v for s, v in samples.items() if "swap_lost_gpu_seconds_total" in s and "key:" in s}
    assert sorted(value > 0.2 for value in by_key.values()) == [False, True]
    assert "somebody" not in " ".join(samples)
