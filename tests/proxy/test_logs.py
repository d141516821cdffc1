"""Log routes, and the access log."""

import asyncio
import logging

import pytest
from aiohttp import web

from llmswap.config.settings import AccessSettings
from llmswap.core.fleet import ModelId
from tests.proxy.front import KEY, Front, ask, front
from tests.proxy.rig import model, rig_of
from tests.raw import RawClient, request
from tests.stack import until


async def follow(served: Front, path: str, version: str = "1.1") -> RawClient:
    client = await served.connect()
    await client.send(f"GET {path} HTTP/{version}\r\nHost: localhost\r\n\r\n".encode())
    await client.read_until(b"\r\n\r\n")
    return client


async def test_history_is_the_combined_log_as_text() -> None:
    async with front() as served:
        served.context.logs.write_proxy(b"[INFO] hello\n")
        answer = await ask(served, "GET", "/logs")
        assert answer.headers["content-type"] == "text/plain; charset=utf-8"
        assert answer.text == "[INFO] hello\n"


async def test_a_browser_is_sent_to_the_live_log() -> None:
    async with front() as served:
        answer = await ask(served, "GET", "/logs", {"Accept": "text/html,*/*;q=0.8"})
        assert (answer.status, answer.headers["location"]) == (302, "/logs/stream")


async def test_a_stream_gives_history_then_what_comes() -> None:
    async with front() as served:
        logs = served.context.logs
        logs.write_upstream(ModelId("author/model"), b"old line\n")
        async with await follow(served, "/logs/stream/author/model") as client:
            await client.read_until(b"old line\n")
            logs.write_upstream(ModelId("author/model"), b"new line\n")
            await client.read_until(b"new line\n")


async def test_a_stream_without_history_gives_only_what_comes() -> None:
    async with front() as served:
        logs = served.context.logs
        logs.write_upstream(ModelId("m1"), b"old line\n")
        async with await follow(served, "/logs/stream/alias-1?no-history") as client:
            logs.write_upstream(ModelId("m1"), b"new line\n")
            assert b"old" not in await client.read_until(b"new line\n")


@pytest.mark.parametrize(("name", "expected"), [("", b"[INFO] p\n"), ("proxy", b"[INFO] p\n"), ("upstream", b"u\n")])
async def test_each_source_has_its_stream(name: str, expected: bytes) -> None:
    async with front() as served:
        served.context.logs.write_proxy(b"[INFO] p\n")
        served.context.logs.write_upstream(ModelId("m1"), b"u\n")
        async with await follow(served, f"/logs/stream/{name}".rstrip("/")) as client:
            await client.read_until(expected)


async def test_a_stream_of_an_unknown_source_is_refused() -> None:
    async with front() as served:
        assert (await ask(served, "GET", "/logs/stream/nope")).status == 400


async def test_a_stream_is_told_to_pass_unbuffered() -> None:
    async with front() as served:
        client = await served.connect()
        async with client:
            await client.send(b"GET /logs/stream HTTP/1.1\r\nHost: localhost\r\n\r\n")
            head = await client.read_until(b"\r\n\r\n")
            for line in (b"X-Accel-Buffering: no", b"X-Content-Type-Options: nosniff", b"Transfer-Encoding: chunked"):
                assert line in head


async def test_a_reader_that_left_is_forgotten() -> None:
    async with front() as served:
        client = await follow(served, "/logs/stream")
        ring = served.context.logs.combined
        assert len(ring._subscribers) == 1
        client.reset()
        await until(lambda: not ring._subscribers, "the end of the subscription")


async def test_a_stream_ends_cleanly_when_the_server_does() -> None:
    async with front() as served:
        client = await follow(served, "/logs/stream")
        reading = asyncio.create_task(client.read_to_end())
        assert served.server is not None
        await asyncio.wait_for(served.server.close(5), 3)
        reply = await reading
        assert reply.data.endswith(b"0\r\n\r\n")
        await client.close()


async def test_one_line_is_logged_for_each_request(caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level(logging.INFO, "llmswap.proxy.access_log")
    access = AccessSettings(trusted_proxies=("127.0.0.1",))
    async with front(access=access) as served:
        await ask(
            served, "GET", "/health?key=secret", {"User-Agent": 'curl/8 "x"\u00e9', "X-Forwarded-For": "203.0.113.9"}
        )
        for quiet in ("/wol-health", "/metrics", "/api/performance"):
            await ask(served, "GET", quiet)
    lines = [record.getMessage() for record in caplog.records if record.name == "llmswap.proxy.access_log"]
    assert len(lines) == 1
    assert lines[0].startswith('Request 203.0.113.9 "GET /health HTTP/1.1" 200 2 "curl/8 \\x22x\\x22\\xe9" 0.')


async def test_a_request_whose_client_left_is_logged_as_499(caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level(logging.INFO, "llmswap.proxy.access_log")
    async with front() as served:
        client = await follow(served, "/logs/stream")
        client.reset()
        line = '"GET /logs/stream HTTP/1.1" 499'
        await until(lambda: any(line in record.getMessage() for record in caplog.records), "the line")


async def test_nothing_is_built_while_the_level_is_off(caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level(logging.WARNING, "llmswap.proxy.access_log")
    async with front() as served:
        await ask(served, "GET", "/health")
    assert not [record for record in caplog.records if record.name == "llmswap.proxy.access_log"]


async def test_secrets_never_show_in_logs_errors_or_metrics(caplog: pytest.LogCaptureFixture) -> None:
    """Canaries in every input; none may sing."""
    caplog.set_level(logging.DEBUG)
    wrong = "canary-wrong-key-0123456789"
    seen = []
    async with front(access=AccessSettings(api_keys=(KEY,))) as served:
        for key in (KEY, wrong):
            headers = {"Authorization": f"Bearer {key}", "x-api-key": key, "Cookie": f"session={key}"}
            for method, path in (
                ("GET", "/running"),
                ("GET", "/metrics"),
                ("GET", "/ready"),
                ("GET", "/api/status"),
                ("GET", "/v1/models"),
                ("GET", f"/nowhere?key={key}"),
                ("POST", f"/v1/chat/completions?api_key={key}"),
                ("DELETE", "/running"),
                ("GET", "/logs"),
            ):
                answer = await ask(served, method, path, headers)
                seen.append(f"{answer.headers} {answer.text}")
            malformed = f"GET /x HTTP/1.1\r\nHost: localhost\r\nAuthorization: Bearer {key}\r\nbad header\r\n\r\n"
            seen.append(repr(await served.raw(malformed.encode())))
    seen += [f"{record.getMessage()} {record.exc_info}" for record in caplog.records]
    for text in seen:
        assert KEY not in text
        assert wrong not in text


async def test_the_access_log_counts_what_was_streamed_past_aiohttp(caplog: pytest.LogCaptureFixture) -> None:
    async def streams(asked: web.Request) -> web.StreamResponse:
        response = web.StreamResponse()
        await response.prepare(asked)
        await response.write(bytes(100_000))
        return response

    caplog.set_level(logging.INFO, "llmswap.proxy.access_log")
    async with rig_of(model("m")) as rig:
        rig.upstream.answer = streams
        await rig.raw(request("POST", "/v1/completions", b'{"model":"m"}'))
        await until(lambda: "/v1/completions" in caplog.text, "the line is written")
    assert '"POST /v1/completions HTTP/1.1" 200 100000 "' in caplog.text
