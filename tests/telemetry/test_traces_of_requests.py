"""Golden traces of requests: hit, miss, joined swap, refusals, clients that leave, upstreams that die."""

import asyncio
from urllib.parse import urlsplit

import aiohttp
import pytest
from opentelemetry.trace import SpanKind

from llmswap.runtime.logevents import events_of
from tests.raw import RawClient
from tests.stack import fake, until
from tests.telemetry.traced import CHAT, seconds, status, traced, uncovered

SERVER = f"POST {CHAT}"
PARENT = "00-0123456789abcdef0123456789abcdef-0123456789abcdef-01"
PROMPT = "a secret prompt"
HELLO = {"model": "a", "messages": [{"role": "user", "content": "Hello!"}]}


@pytest.fixture
def serving(http, tmp_path, monkeypatch):
    """`async with serving(a="flag") as program`: one simulated model per keyword, its value more flags."""

    def start(config=None, **models):
        commands = {name: {"cmd": fake(name, **flags)} for name, flags in models.items()}
        return traced(commands, http, tmp_path, monkeypatch, **(config or {}))

    return start


async def test_a_hit_is_two_spans_and_the_upstream_continues_the_second(serving) -> None:
    async with serving(a={"ttft": 20}) as program:
        await program.ask("a")
        program.spans.exporter.clear()
        assert await program.ask("a", stream=True, max_tokens=20) == 200
        server = program.spans.one(SERVER)
        (client,) = program.spans.children(server)
        calls = [call for call in await program.journal("a") if call["path"] == CHAT]
    assert server.parent is None
    assert (server.kind, client.kind) == (SpanKind.SERVER, SpanKind.CLIENT)
    assert client.name == "chat a"
    header = dict(calls[-1]["headers"])["traceparent"]
    assert header == f"00-{client.context.trace_id:032x}-{client.context.span_id:016x}-01"
    told = server.attributes
    expected = {
        "http.request.method": "POST",
        "http.route": CHAT,
        "url.path": CHAT,
        "url.scheme": "http",
        "client.address": "127.0.0.1",
        "llmswap.model": "a",
        "llmswap.residency": "hit",
        "llmswap.outcome": "ok",
        "http.response.status_code": 200,
        "gen_ai.request.model": "a",
    }
    assert {name: told[name] for name in expected} == expected
    assert told["llmswap.stream.bytes"] > 1000
    assert (status(server), status(client)) == (("unset", None), ("unset", None))
    expected = {
        "gen_ai.operation.name": "chat",
        "gen_ai.provider.name": "unknown",
        "gen_ai.request.model": "a",
        "gen_ai.request.stream": True,
        "http.request.method": "POST",
        "http.response.status_code": 200,
        "server.address": "127.0.0.1",
    }
    assert {name: client.attributes[name] for name in expected} == expected
    (event,) = client.events
    assert event.name == "first_chunk"
    assert client.start_time <= event.timestamp <= client.end_time
    assert server.start_time <= client.start_time
    assert client.end_time <= server.end_time
    assert uncovered(server, [client]) <= 0.02


async def test_a_miss_waits_in_a_span_that_is_linked_to_the_swap_and_the_swap_to_it(serving) -> None:
    async with serving(a={"boot": 0.5}) as program:
        assert await program.ask("a", max_tokens=200) == 200
        server = program.spans.one(SERVER)
        queue, client = program.spans.children(server)
        swap = program.spans.one("llmswap.swap")
    assert (queue.name, client.name) == ("llmswap.queue", "chat a")
    assert server.attributes["llmswap.residency"] == "miss"
    told = dict(queue.attributes)
    assert told.pop("llmswap.wait.swap_s") == pytest.approx(seconds(queue), abs=0.01)
    assert told == {
        "llmswap.model": "a",
        "llmswap.queue.depth": 1,
        "llmswap.wait.cause": "swap",
        "llmswap.queue.outcome": "admitted",
    }
    (there,), (back,) = queue.links, swap.links
    assert (there.context.trace_id, there.context.span_id) == (swap.context.trace_id, swap.context.span_id)
    assert (back.context.trace_id, back.context.span_id) == (server.context.trace_id, server.context.span_id)
    assert swap.parent is None
    assert swap.context.trace_id != server.context.trace_id
    assert uncovered(server, [queue, client]) <= 0.02
    assert server.attributes["llmswap.queue.wait_s"] == pytest.approx(seconds(queue), abs=0.01)


async def test_two_hundred_who_wait_for_one_swap_are_told_of_it_and_it_of_the_first_127(serving) -> None:
    async with serving(a={"boot": 2.0}) as program:
        first = asyncio.create_task(program.ask("a", max_tokens=1))
        await until(lambda: program.app.context.gate.occupants == 1, "the first one waits")
        others = [asyncio.create_task(program.ask("a", max_tokens=1)) for _ in range(199)]
        assert set(await asyncio.gather(first, *others)) == {200}
        swap = program.spans.one("llmswap.swap")
        queues = await program.spans.until("llmswap.queue", 200)
        servers = program.spans.named(SERVER)
    assert swap.attributes["llmswap.swap.joined_requests"] == 200
    assert len(swap.links) == 128
    assert swap.dropped_links == 0
    assert swap.links[0].context.span_id == servers[0].context.span_id
    assert {link.context.span_id for link in swap.links} <= {span.context.span_id for span in servers}
    assert {span.links[0].context.span_id for span in queues} == {swap.context.span_id}
    assert len(servers) == 200


async def test_who_waits_too_long_leaves_a_queue_span_that_failed_and_a_warning(serving, caplog) -> None:
    config = {"queueTimeout": 1}
    async with serving(config, a={"boot": 30}) as program:
        refused = await program.ask("a")
        server = program.spans.one(SERVER)
        (queue,) = program.spans.children(server)
    assert refused >= 400
    assert (server.attributes["llmswap.outcome"], server.attributes["llmswap.residency"]) == ("queue_timeout", "miss")
    assert status(queue) == ("error", "queue_timeout")
    assert queue.attributes["llmswap.queue.outcome"] == "timeout"
    (told,) = (record for record in caplog.records if " in vain" in record.getMessage())
    assert (told.levelname, [event.name for event in events_of(told)]) == ("WARNING", ["queue.timeout"])
    assert told.getMessage().startswith("a: a request waited 1.")
    assert uncovered(server, [queue]) <= 0.02


async def test_a_start_that_fails_is_an_error_of_the_swap_and_of_the_request(serving) -> None:
    async with serving(a={"fail": ["crash_at_start"]}) as program:
        assert await program.ask("a") == 502
        server = program.spans.one(SERVER)
        (queue,) = program.spans.children(server)
        swap = program.spans.one("llmswap.swap")
    assert status(server) == ("error", "swap_failed")
    assert queue.attributes["llmswap.queue.outcome"] == "rejected"
    assert queue.links[0].context.span_id == swap.context.span_id
    assert status(swap) == ("error", "exit")
    assert swap.status.description.startswith("exited with code 1 during start")


async def test_a_client_that_leaves_while_it_waits_is_no_error(serving) -> None:
    async with serving(a={"boot": 30}) as program:
        asked = asyncio.create_task(program.ask("a"))
        await until(lambda: program.app.context.gate.occupants == 1, "it waits")
        await asyncio.sleep(0.05)  # a wait that is long enough to be told
        asked.cancel()
        (server,) = await program.spans.until(SERVER)
        (queue,) = program.spans.children(server)
    assert status(server) == ("unset", "client_disconnect")
    assert "http.response.status_code" not in server.attributes
    assert queue.attributes["llmswap.queue.outcome"] == "disconnect"
    assert status(queue) == ("unset", None)


async def test_a_client_that_leaves_while_it_sends_leaves_one_span(serving) -> None:
    async with serving(a={}) as program:
        address = urlsplit(program.url)
        async with await RawClient.connect(str(address.hostname), address.port or 80) as client:
            await client.send(
                f"POST {CHAT} HTTP/1.1\r\nHost: {address.netloc}\r\nContent-Length: 99\r\n\r\n{{".encode()
            )
        await program.spans.until(SERVER)
        (server,) = program.spans.all()
    assert status(server) == ("unset", "client_disconnect")
    assert server.attributes["llmswap.model"] == "_unknown"
    assert "llmswap.residency" not in server.attributes


async def test_a_client_that_leaves_while_another_is_busy_waited_for_that_and_for_no_swap(serving) -> None:
    async with serving(a={"itl": 20, "output_tokens": "exact:5000"}, b={}) as program:
        busy = asyncio.create_task(program.stream("a", 5000, max_tokens=5000))
        await until(lambda: any(view.in_flight for view in program.app.loop.snapshot().upstreams.values()), "a is busy")
        asked = asyncio.create_task(program.ask("b"))
        await until(lambda: program.app.context.gate.occupants == 2, "b is waited for")
        await asyncio.sleep(0.05)  # a wait that is long enough to be told
        asked.cancel()
        (server,) = await program.spans.until(SERVER)
        (queue,) = program.spans.children(server)
        busy.cancel()
    assert status(server) == ("unset", "client_disconnect")
    assert queue.attributes["llmswap.wait.cause"] == "drain"
    assert queue.attributes["llmswap.wait.drain_s"] == pytest.approx(seconds(queue), abs=0.005)
    assert queue.links == ()


async def test_a_client_that_leaves_before_the_first_byte_is_no_error_of_the_upstream_either(serving) -> None:
    async with serving(a={"fail": ["slow_headers:30"]}) as program:
        asked = asyncio.create_task(program.ask("a"))
        await until(
            lambda: any(view.in_flight for view in program.app.loop.snapshot().upstreams.values()), "it is sent"
        )
        await asyncio.sleep(0.05)
        asked.cancel()
        (server,) = await program.spans.until(SERVER)
        client = program.spans.one("chat a")
    assert status(server) == ("unset", "client_disconnect")
    assert status(client) == ("unset", None)
    assert client.events == ()
    assert "gen_ai.response.time_to_first_chunk" not in client.attributes


async def test_a_client_that_leaves_in_mid_stream_leaves_a_span_with_its_first_chunk(serving) -> None:
    async with serving(a={"itl": 20, "output_tokens": "exact:5000"}) as program:
        await program.stream("a", 3, max_tokens=5000)
        (server,) = await program.spans.until(SERVER)
        client = program.spans.one("chat a")
    assert status(server) == ("unset", "client_disconnect")
    assert status(client) == ("unset", None)
    assert [event.name for event in client.events] == ["first_chunk"]
    assert client.attributes["gen_ai.response.time_to_first_chunk"] <= seconds(client)
    assert 2 <= client.attributes["gen_ai.usage.output_tokens"] < 5000, "what had come by then"
    assert client.attributes["llmswap.usage.estimated"]


async def test_an_upstream_that_dies_in_mid_stream_is_an_error_of_both(serving) -> None:
    async with serving(a={"fail": ["die_midstream:3"]}) as program:
        with pytest.raises(aiohttp.ClientPayloadError):
            await program.stream("a", 100)
        (server,) = await program.spans.until(SERVER)
        client = program.spans.one("chat a")
    assert status(server) == ("error", "upstream_error")
    assert server.attributes["http.response.status_code"] == 200
    assert status(client) == ("error", "reset")
    assert uncovered(server, program.spans.children(server)) <= 0.02


async def test_an_upstreams_error_is_an_error_there_and_a_4xx_is_none_of_ours(serving) -> None:
    async with serving(a={"fail": ["http_status:418"]}, b={"fail": ["http_503"]}) as program:
        assert await program.ask("a") == 418
        assert await program.ask("b") == 503
        of_a, of_b = program.spans.named(SERVER)
        to_a, to_b = program.spans.one("chat a"), program.spans.one("chat b")
    assert (status(of_a), status(to_a)) == (("unset", None), ("error", "418"))
    assert (status(of_b), status(to_b)) == (("error", "upstream_error"), ("error", "503"))


async def test_a_name_that_is_not_configured_is_one_span_with_the_name_shortened(serving) -> None:
    async with serving(a={}) as program:
        assert await program.ask("x" * 5000) == 404
        (server,) = program.spans.all()
    assert server.attributes["llmswap.model"] == "_unknown"
    assert server.attributes["gen_ai.request.model"] == "x" * 128
    assert status(server) == ("unset", None)
    assert "llmswap.residency" not in server.attributes


async def test_a_client_of_this_machine_is_continued(serving) -> None:
    async with serving(a={}) as program:
        await program.ask("a", headers={"traceparent": PARENT, "tracestate": "vendor=1"})
        server, client = program.spans.one(SERVER), program.spans.one("chat a")
        calls = [call for call in await program.journal("a") if call["path"] == CHAT]
    assert f"{server.context.trace_id:032x}" == PARENT[3:35]
    assert f"{server.parent.span_id:016x}" == PARENT[36:52]
    assert server.parent.is_remote
    assert client.context.trace_id == server.context.trace_id
    assert client.context.trace_state.get("vendor") == "1"
    headers = dict(calls[-1]["headers"])
    assert headers["traceparent"].startswith(PARENT[:36])
    assert headers["tracestate"] == "vendor=1"


async def test_a_stranger_is_linked_and_neither_its_ids_nor_its_state_reach_the_upstream(serving) -> None:
    async with serving({"traces": {"trustRemoteParent": False}}, a={}) as program:
        await program.ask("a", headers={"traceparent": PARENT, "tracestate": "vendor=1"})
        server = program.spans.one(SERVER)
        calls = [call for call in await program.journal("a") if call["path"] == CHAT]
    assert server.parent is None
    (link,) = server.links
    assert f"{link.context.trace_id:032x}-{link.context.span_id:016x}" == PARENT[3:52]
    headers = dict(calls[-1]["headers"])
    assert PARENT[3:35] not in headers["traceparent"]
    assert "tracestate" not in headers


async def test_what_is_not_sampled_leaves_no_span_and_says_so_to_the_upstream(serving) -> None:
    async with serving({"traces": {"sampler": "never"}}, a={}) as program:
        async with program.http.post(program.url + CHAT, json=HELLO) as answer:
            assert answer.status == 200
        calls = [call for call in await program.journal("a") if call["path"] == CHAT]
        swaps = await program.spans.until("llmswap.swap")
        names = {span.name for span in program.spans.all()}
    assert dict(calls[-1]["headers"])["traceparent"].endswith("-00")
    assert not any(name.startswith(("POST", "chat", "llmswap.queue")) for name in names)
    assert swaps[0].links == ()
    assert swaps[0].attributes["llmswap.swap.joined_requests"] == 1


async def test_by_residency_every_miss_is_kept_and_of_the_hits_the_share(serving) -> None:
    async with serving({"traces": {"sampler": "residency", "percent": 0}}, a={}) as program:
        await program.ask("a")
        async with program.http.post(program.url + CHAT, json=HELLO) as answer:
            await answer.read()
        calls = [call for call in await program.journal("a") if call["path"] == CHAT]
        servers = program.spans.named(SERVER)
    assert [dict(call["headers"])["traceparent"][-2:] for call in calls] == ["01", "00"]
    assert [server.attributes["llmswap.residency"] for server in servers] == ["miss"]


async def test_neither_prompts_nor_keys_are_in_any_span(serving) -> None:
    async with serving({"apiKeys": ["sk-very-secret-key"]}, a={}) as program:
        await program.ask("a", headers={"Authorization": "Bearer sk-very-secret-key"})
        text = "".join(span.to_json() for span in program.spans.all())
    assert "llmswap.swap" in text
    assert PROMPT not in text
    assert "sk-very" not in text
