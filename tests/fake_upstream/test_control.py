"""What tests look into: journal, state, knobs, echo; and how requests share the engine."""

import asyncio
import gzip
import hashlib

import pytest

from tests.fake_upstream.harness import CHAT, parse, served, until

PATH = "/v1/chat/completions"


async def test_the_journal_tells_calls_in_order_with_headers_and_body_size():
    async with served() as fake:
        await fake.get("/health?probe=1")
        trace = "00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01"
        await fake.post(PATH, CHAT, headers={"traceparent": trace, "Authorization": "Bearer secret"})
        probe, chat = await fake.calls()
        assert (probe["seq"], probe["method"], probe["path"], probe["status"]) == (1, "GET", "/health?probe=1", 200)
        assert ["traceparent", trace] in chat["headers"]
        assert ["Authorization", "Bearer secret"] in chat["headers"]
        assert (chat["body_bytes"], chat["outcome"], chat["tokens"]) == (58, "done", 6)
        async with fake.http.delete("/_fake/journal") as response:
            emptied = await response.json()
        assert (emptied["count"], emptied["calls"], emptied["operations"]) == (2, [], [])


async def test_a_client_that_leaves_is_noticed_and_its_slot_freed():
    async with served("--time-scale", "1", "--itl", "50", "--output-tokens", "exact:500") as fake:
        async with fake.http.post(PATH, json={**CHAT, "stream": True}) as response:
            await response.content.readline()
            response.close()
        await until(lambda: fake.fake.journal.show()["calls"][0]["outcome"] == "client_gone")
        assert fake.fake.engine.running == 0


async def test_a_client_that_leaves_before_its_turn_leaves_the_queue():
    async with served("--time-scale", "1", "--prefill-ms-per-token", "60000", "--max-num-seqs", "1") as fake:
        first, second = (asyncio.create_task(fake.post(PATH, CHAT)) for _ in range(2))
        await until(lambda: len(fake.fake.engine.waiting) == 1)
        second.cancel()
        await until(lambda: not fake.fake.engine.waiting)
        assert fake.fake.engine.running == 1
        first.cancel()
        await until(lambda: fake.fake.engine.running == 0)


async def test_requests_beyond_the_limit_queue_and_are_all_served():
    async with served("--max-num-seqs", "2", "--time-scale", "1", "--ttft", "20") as fake:
        most = 0

        async def watch():
            nonlocal most
            while True:
                most = max(most, fake.fake.engine.running)
                await asyncio.sleep(0)

        watcher = asyncio.create_task(watch())
        answers = await asyncio.gather(*(fake.post(PATH, CHAT) for _ in range(7)))
        watcher.cancel()
        assert [status for status, _ in answers] == [200] * 7
        assert most == 2
        assert fake.fake.engine.idle.is_set()


async def test_knobs_turn_live_all_or_none():
    async with served() as fake:
        async with fake.http.patch("/_fake/config", json={"output_tokens": "exact:2", "itl_ms": 1}) as response:
            assert (await response.json())["output_tokens"] == "exact:2"
        assert (await fake.post(PATH, CHAT))[1]["usage"]["completion_tokens"] == 2
        async with fake.http.patch("/_fake/config", json={"itl_ms": 5, "nope": 1}) as response:
            assert response.status == 400
            assert "no knob 'nope'" in (await response.json())["error"]
        assert (await fake.get("/_fake/config"))[1]["itl_ms"] == 1


@pytest.mark.parametrize("value", [None, True, "x", -1, float("inf"), [1]])
async def test_knobs_refuse_what_they_cannot_take(value):
    async with served() as fake, fake.http.patch("/_fake/config", json={"itl_ms": value}) as response:
        assert response.status == 400


async def test_echo_says_what_was_on_the_wire():
    async with served() as fake:
        body = gzip.compress(b"packed")
        headers = {"Content-Encoding": "gzip", "X-Twice": "1"}
        async with fake.http.put("/any/%2Fthing?x=%20", data=body, headers=headers) as response:
            told = await response.json()
        assert (told["method"], told["path"]) == ("PUT", "/any/%2Fthing?x=%20")
        assert (told["body_bytes"], told["body_sha256"]) == (len(body), hashlib.sha256(body).hexdigest())
        assert ["X-Twice", "1"] in told["headers"]


async def test_other_personas_do_not_echo():
    async with served("--persona", "vllm") as fake:
        assert (await fake.get("/any"))[0] == 404


@pytest.mark.parametrize("query", ["n=200000", "n=200000&chunked=1"])
async def test_big_bodies_have_their_size(query):
    async with served() as fake, fake.http.get(f"/_fake/bytes?{query}") as response:
        assert len(await response.read()) == 200_000
        assert ("Content-Length" in response.headers) is ("chunked" not in query)


async def test_websockets_echo_and_close_as_asked():
    async with served() as fake, fake.http.ws_connect("/ws") as socket:
        await socket.send_str("hello")
        assert await socket.receive_str() == "hello"
        await socket.send_bytes(b"\0\1")
        assert await socket.receive_bytes() == b"\0\1"
        await socket.send_str("close:4001")
        await socket.receive()
        assert socket.close_code == 4001


async def test_request_ids_come_back():
    async with served() as fake, fake.http.post(PATH, json=CHAT, headers={"X-Request-Id": "abc"}) as response:
        assert response.headers["X-Request-Id"] == "abc"


async def test_totals_are_what_the_clients_got():
    async with served("--output-tokens", "lognormal:20") as fake:
        bodies = [(await fake.post(PATH, {"messages": [{"role": "user", "content": f"n {i}"}]}))[1] for i in range(5)]
        totals = (await fake.state())["totals"]
        assert totals["output_tokens"] == sum(body["usage"]["completion_tokens"] for body in bodies)
        assert totals["prompt_tokens"] == sum(body["usage"]["prompt_tokens"] for body in bodies)
        assert totals["finished"] == {"stop": 5}


def test_time_to_first_token_grows_with_the_prompt_from_the_profile_s_figure():
    _, knobs, _ = parse("--model-profile", "8b")
    assert knobs.prefill_ms(256) == pytest.approx(100)
    assert knobs.prefill_ms(0) == pytest.approx(30)
    _, knobs, _ = parse("--model-profile", "8b", "--prefill-ms-per-token", "1")
    assert knobs.prefill_ms(256) == pytest.approx(30 + 256)


async def test_answers_take_the_time_their_knobs_say_scaled():
    flags = ("--time-scale", "0.1", "--ttft", "30", "--itl", "100", "--ttft-std", "0", "--itl-std", "0",
             "--prefill-ms-per-token", "0", "--output-tokens", "exact:11", "--load-factor", "1")  # fmt: skip
    async with served(*flags) as fake:
        loop = asyncio.get_running_loop()
        began = loop.time()
        await fake.post(PATH, CHAT)
        whole_s = 0.030 + 10 * 0.100
        assert 0.1 * whole_s <= loop.time() - began < 0.9 * whole_s
