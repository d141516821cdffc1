"""What of a client's head reaches the upstream."""

import pytest

from llmswap.config.settings import AccessSettings
from tests.proxy.rig import Rig, model, rig_of
from tests.raw import request

CHAT = "/v1/chat/completions"
JSON = "Content-Type: application/json\r\n"


async def sent(rig: Rig, lines: str, host: str = "localhost") -> int:
    return (await rig.raw(request("POST", CHAT, b'{"model":"m"}', host=host, headers=JSON + lines))).status


async def test_end_to_end_headers_pass_and_keep_their_order_and_spelling() -> None:
    async with rig_of(model("m")) as rig:
        lines = (
            "X-Session-ID: 1\r\nAccept: a\r\nx-twice: 1\r\nX-Twice: 2\r\nAccept-Encoding: zstd, br\r\nX-Odd: \xe9\r\n"
        )
        assert await sent(rig, lines) == 200
        seen = rig.upstream.last.headers
        assert seen.getall("X-Twice") == ["1", "2"]
        assert (seen["X-Session-ID"], seen["Accept"], seen["Accept-Encoding"]) == ("1", "a", "zstd, br")
        assert seen["Content-Type"] == "application/json"
        assert seen["Host"] == "localhost"
        assert "User-Agent" not in seen


async def test_nothing_about_this_hop_reaches_the_next() -> None:
    lines = (
        "Connection: X-Private, Host\r\nX-Private: 1\r\nKeep-Alive: timeout=5\r\nTE: trailers\r\nTrailer: X\r\n"
        "Proxy-Authorization: Basic eA==\r\nProxy-Connection: close\r\nProxy-Anything: 1\r\nUpgrade: h2c\r\n"
        "HTTP2-Settings: AAMAAABkAAQAAP__\r\nExpect: 100-continue\r\n"
    )
    async with rig_of(model("m")) as rig:
        reply = await rig.raw(request("POST", CHAT, b'{"model":"m"}', headers=JSON + lines))
        assert b"200 OK" in reply.data
        seen = rig.upstream.last.headers
        gone = ["X-Private", "Keep-Alive", "TE", "Trailer", "Upgrade", "Expect", "Transfer-Encoding"]
        gone += ["Proxy-Authorization", "Proxy-Connection", "Proxy-Anything"]
        assert [name for name in gone if name in seen] == []
        assert seen["Host"]
        assert seen.getall("Content-Length") == ["13"]


@pytest.mark.parametrize("forward_auth", [False, True])
async def test_credentials_reach_the_upstream_only_if_it_is_meant_so(forward_auth: bool) -> None:
    lines = "Authorization: Bearer k\r\nx-api-key: k\r\nCookie: a=b\r\n"
    async with rig_of(model("m"), access=AccessSettings(api_keys=("k",), forward_auth=forward_auth)) as rig:
        assert await sent(rig, lines) == 200
        seen = rig.upstream.last.headers
        assert [name in seen for name in ("Authorization", "x-api-key", "Cookie")] == [forward_auth] * 3


async def test_forwarding_headers_are_ours() -> None:
    lines = (
        "X-Forwarded-For: 6.6.6.6\r\nX-Forwarded-Proto: https\r\nX-Forwarded-Host: evil\r\nX-Forwarded-Port: 1\r\n"
        "Forwarded: for=6.6.6.6\r\nX-Real-IP: 6.6.6.6\r\n"
    )
    async with rig_of(model("m")) as rig:
        assert await sent(rig, lines) == 200
        seen = rig.upstream.last.headers
        assert seen.getall("X-Forwarded-For") == ["127.0.0.1"]
        assert (seen["X-Forwarded-Proto"], seen["X-Forwarded-Host"]) == ("http", "localhost")
        assert [name for name in ("Forwarded", "X-Real-IP", "X-Forwarded-Port") if name in seen] == []


async def test_a_trusted_proxys_word_is_passed_on() -> None:
    lines = "X-Forwarded-For: 6.6.6.6, 7.7.7.7\r\nX-Forwarded-Proto: https\r\nX-Forwarded-Host: llm.example\r\n"
    async with rig_of(model("m"), access=AccessSettings(trusted_proxies=("127.0.0.0/8",))) as rig:
        assert await sent(rig, lines) == 200
        seen = rig.upstream.last.headers
        assert seen["X-Forwarded-For"] == "6.6.6.6, 7.7.7.7, 127.0.0.1"
        assert (seen["X-Forwarded-Proto"], seen["X-Forwarded-Host"]) == ("https", "llm.example")


async def test_a_request_id_goes_through_or_is_made() -> None:
    async with rig_of(model("m")) as rig:
        reply = await rig.raw(request("POST", CHAT, b'{"model":"m"}', headers=JSON + "X-Request-Id: my.id-1\r\n"))
        assert reply.headers["x-request-id"] == rig.upstream.last.headers["X-Request-Id"] == "my.id-1"
        reply = await rig.raw(request("POST", CHAT, b'{"model":"m"}', headers=JSON + 'X-Request-Id: a "b"\r\n'))
        made = rig.upstream.last.headers.getall("X-Request-Id")
        assert [reply.headers["x-request-id"]] == made
        assert '"' not in made[0]


async def test_a_name_with_an_underscore_is_refused() -> None:
    async with rig_of(model("m")) as rig:
        assert await sent(rig, "x_forwarded_for: 1\r\n") == 400
        assert not rig.starts
