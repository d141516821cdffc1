"""The log of the whole program in each form: every line is an event of the page's, and no secret is in any."""

import asyncio
import json
from collections import Counter
from typing import Any

import aiohttp
import pytest

from tests.dialogue import CHAT, HELLO, ask
from tests.proxy.test_canaries import API_KEY, CANARIES, COOKIE, HF_TOKEN, UPSTREAM_KEY, WRONG_KEY
from tests.runtime.test_logevents import read_logfmt
from tests.stack import Program, Stack, fake, until

PROMPT = "canary-prompt-5d02c7"
NOBODY = "http://127.0.0.1:9"  # a receiver that is never there


def config(form: str, **more: Any) -> dict[str, Any]:
    models = {name: {"cmd": fake(name, persona="vllm", time_scale=0.001)} for name in ("good", "other")}
    return {"telemetry": {"logFormat": form}, "models": models, **more}


def lines(program: Program, form: str) -> list[dict[str, Any]]:
    """Read every line of the log; what is no event of that form fails."""
    read = json.loads if form == "json" else read_logfmt
    return [read(line) for line in program.log_text().splitlines()]


def named(program: Program, form: str, event: str) -> list[dict[str, Any]]:
    return [line for line in lines(program, form) if line["event"] == event]


@pytest.mark.parametrize("form", ["json", "logfmt"])
async def test_every_line_is_an_event_and_no_secret_or_prompt_is_in_any(
    stack: Stack, http: aiohttp.ClientSession, form: str
) -> None:
    bad = f"sh -c 'echo starting with --api-key {UPSTREAM_KEY}; exit 3' --api-key {UPSTREAM_KEY}"
    secret = config(form, apiKeys=[API_KEY], logLevel="debug")
    secret["models"]["bad"] = {"cmd": bad, "proxy": "http://127.0.0.1:9", "env": [f"HF_TOKEN={HF_TOKEN}"]}
    program = stack.start(secret)
    asked: Counter[str] = Counter()

    async def note(method: str, path: str, key: str, **options: Any) -> int:
        headers = {"Authorization": f"Bearer {key}", "Cookie": f"session={COOKIE}", "User-Agent": f"agent {API_KEY}"}
        asked[method] += 1
        async with http.request(method, program.url + path, headers=headers, **options) as answer:
            await answer.read()
            return answer.status

    body = {"messages": [{"role": "user", "content": PROMPT}], "max_tokens": 2}
    for model, status in (("bad", 502), ("good", 200), ("other", 200), ("good", 200), (f"no {API_KEY}", 404)):
        assert await note("POST", CHAT, API_KEY, json={"model": model, **body}) == status
    assert await note("POST", CHAT, WRONG_KEY, json={"model": "good", **body}) == 401
    assert await note("POST", CHAT, API_KEY, data=b'{"model":"good", ' + PROMPT.encode()) == 400
    assert await note("GET", f"/v1/models?api_key={API_KEY}", API_KEY) == 200
    assert await note("GET", "/upstream/good/v1/models", API_KEY) == 200
    program.reload("models: [")
    await until(lambda: "config.rejected" in program.log_text(), "the refusal")
    program.reload(secret)
    await until(lambda: "config.reloaded" in program.log_text(), "the reload")
    program.terminate()
    await program.exited()
    requests = named(program, form, "request.completed")
    assert Counter(line["method"] for line in requests) == asked, "one line for each, never two"
    assert len({line["id"] for line in requests}) == asked.total()
    events = {line["event"] for line in lines(program, form)}
    assert events >= {
        *("server.listening", "swap.started", "upstream.ready", "swap.finished", "upstream.stopping"),
        *("upstream.stopped", "config.rejected", "config.reloaded", "server.draining", "upstream.failed"),
    }
    for canary in (*CANARIES, PROMPT):
        assert canary not in program.log_text()


async def test_a_reload_changes_the_form_of_the_lines_that_follow(stack: Stack, http: aiohttp.ClientSession) -> None:
    program = stack.start(config("text"))
    assert (await ask(http, program, "good", max_tokens=1))[0] == 200
    await until(lambda: '"POST /v1/chat/completions HTTP/1.1" 200' in program.log_text(), "the line")
    program.reload(config("json"))
    await until(lambda: '"event":"config.reloaded"' in program.log_text(), "the reload, told in the new form")
    assert (await ask(http, program, "good", max_tokens=1))[0] == 200
    await until(lambda: '"event":"request.completed"' in program.log_text(), "the event")
    async with http.get(program.url + "/logs") as answer:
        history = await answer.text()
    assert history == program.log_text()[-len(history) :]
    program.reload(config("text"))
    await until(lambda: "[INFO] config reloaded" in program.log_text(), "the reload back")
    said = [line for line in program.log_text().splitlines() if line.startswith("{")]
    done = [event["path"] for event in map(json.loads, said) if event["event"] == "request.completed"]
    assert done == [CHAT, "/logs"]


async def test_a_wait_in_vain_is_an_event_beside_the_requests_line(stack: Stack, http: aiohttp.ClientSession) -> None:
    slow = {"cmd": fake("slow", persona="vllm", time_scale=1), "concurrencyLimit": 1}
    program = stack.start(config("json", queueTimeout=1, models={"slow": slow}))
    headers = {"X-LLMSwap-Caller": "agent"}
    body = {"model": "slow", "messages": HELLO}
    async with http.post(program.url + CHAT, json=body, headers=headers) as answer:
        assert answer.status == 503, await answer.text()
    await until(lambda: "request.completed" in program.log_text(), "the line")
    (vain,), (over,) = (named(program, "json", name) for name in ("queue.timeout", "request.completed"))
    assert (vain["level"], vain["model"], vain["caller"], vain["id"]) == ("warn", "slow", "agent", over["id"])
    assert 0.9 < vain["waited_s"] < 5
    assert (over["outcome"], over["refusal"], over["status"]) == ("queue_timeout", "queue_timeout", 503)
    assert "residency" not in over


async def test_followers_of_the_log_get_events_as_they_happen(stack: Stack, http: aiohttp.ClientSession) -> None:
    program = stack.start(config("json"))
    async with http.get(program.url + "/logs/stream/proxy?no-history") as answer:
        assert (await ask(http, program, "good", max_tokens=1))[0] == 200
        events: list[str] = []
        async with asyncio.timeout(10):
            while "request.completed" not in events:
                events.append(json.loads(await answer.content.readline())["event"])
    assert events.index("swap.started") < events.index("upstream.ready") < events.index("swap.finished")


async def test_lines_name_the_trace_that_tells_more(stack: Stack, http: aiohttp.ClientSession) -> None:
    program = stack.start(config("json") | {"telemetry": {"logFormat": "json", "traces": {"endpoint": NOBODY}}})
    trace = "4bf92f3577b34da6a3ce929d0e0e4736"
    headers = {"traceparent": f"00-{trace}-00f067aa0ba902b7-01"}
    body = {"model": "good", "messages": HELLO, "max_tokens": 2}
    async with http.post(program.url + CHAT, json=body, headers=headers) as answer:
        assert answer.status == 200
    await until(lambda: "request.completed" in program.log_text(), "the line")
    (request,), (swap,) = (named(program, "json", name) for name in ("request.completed", "swap.finished"))
    assert (request["trace_id"], request["trace_flags"]) == (trace, "01")
    assert len(request["span_id"]) == 16
    assert request["span_id"] != "00f067aa0ba902b7", "its own span, not the client's"
    assert len(swap["trace_id"]) == 32
    assert swap["trace_id"] != trace, "a swap is a trace of its own"
