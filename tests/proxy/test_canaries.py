"""Secrets planted in every input of a running llmswap; none may come out anywhere."""

import aiohttp

from tests.dialogue import CHAT, HELLO
from tests.stack import Stack, fake

API_KEY = "canary-api-key-4f1d9a"
WRONG_KEY = "canary-wrong-key-77c2e0"
COOKIE = "canary-cookie-0b6e55"
HF_TOKEN = "hf_canary0123456789abcdef"
UPSTREAM_KEY = "canary-upstream-key-e93a71"
CANARIES = (API_KEY, WRONG_KEY, COOKIE, HF_TOKEN, UPSTREAM_KEY)
READ = ("/running", "/api/status", "/v1/models", "/metrics", "/ready", "/logs", "/v1/models/good", "/nowhere")


async def test_no_secret_comes_out_of_any_answer_log_or_metric(stack: Stack, http: aiohttp.ClientSession) -> None:
    secrets = {"env": [f"HF_TOKEN={HF_TOKEN}"]}
    bad = f"sh -c 'echo starting with --api-key {UPSTREAM_KEY}; exit 3' --api-key {UPSTREAM_KEY}"
    models = {
        "good": {"cmd": f"env UPSTREAM_API_KEY={UPSTREAM_KEY} {fake('good')}", **secrets},
        "bad": {"cmd": bad, "proxy": "http://127.0.0.1:9", **secrets},
    }
    program = stack.start({"apiKeys": [API_KEY], "logLevel": "debug", "models": models})
    said: list[str] = []

    async def note(method: str, path: str, key: str, **options: object) -> int:
        headers = {"Authorization": f"Bearer {key}", "x-api-key": key, "Cookie": f"session={COOKIE}"}
        async with http.request(method, program.url + path, headers=headers, **options) as answer:  # type: ignore[arg-type]
            said.append(f"{answer.status} {answer.headers} {await answer.text()}")
            return answer.status

    assert await note("POST", CHAT, API_KEY, json={"model": "bad", "messages": HELLO}) == 502
    assert await note("POST", CHAT, API_KEY, json={"model": "good", "messages": HELLO}) == 200
    assert await note("POST", CHAT, API_KEY, data=b'{"model":') == 400
    assert await note("POST", CHAT, WRONG_KEY, json={"model": "good", "messages": HELLO}) == 401
    assert await note("GET", f"/running?api_key={API_KEY}", WRONG_KEY) == 401
    for path in READ:
        await note("GET", path, API_KEY)
    # What the upstream got: its own journal, read through llmswap, so that the answer is one of those looked at.
    assert await note("GET", "/upstream/good/_fake/journal", API_KEY) == 200
    assert CHAT in said[-1]
    said.append(program.log_text())
    for canary in CANARIES:
        for text in said:
            assert canary not in text, text[max(0, text.index(canary) - 300) :][:400]
