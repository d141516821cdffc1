"""Heads: what is written to upstreams, what is accepted from them."""

import pytest
from hypothesis import given
from hypothesis import strategies as st
from multidict import CIMultiDict

from llmswap.proxy.errors import RequestError
from llmswap.proxy.hop.body import ChunkedBody, CountedBody, Malformed, OpenBody
from llmswap.proxy.hop.head import body_after, parse_head, request_head
from llmswap.proxy.upstream import Outgoing


def head(*fields: str, status: str = "HTTP/1.1 200 OK"):
    return parse_head("\r\n".join((status, *fields)).encode("latin-1"))


def test_end_to_end_headers_keep_their_order_spelling_and_repetition() -> None:
    assert head("X-B: 1", "x-a:2\t", "Set-Cookie: a", "Set-Cookie: b", "Date: today").fields == [
        ("X-B", "1"),
        ("x-a", "2"),
        ("Set-Cookie", "a"),
        ("Set-Cookie", "b"),
        ("Date", "today"),
    ]


def test_hop_by_hop_server_and_cors_headers_are_dropped() -> None:
    parsed = head(
        "Connection: close, X-Private",
        "X-Private: 1",
        "Keep-Alive: timeout=5",
        "TE: trailers",
        "Trailer: X",
        "Upgrade: h2c",
        "Proxy-Authenticate: Basic",
        "Server: uvicorn",
        "Access-Control-Allow-Origin: *",
        "X-Kept: 1",
    )
    assert parsed.fields == [("X-Kept", "1")]
    assert not parsed.keep_alive


def test_connection_cannot_name_the_framing_away() -> None:
    assert head("Connection: content-length", "Content-Length: 2").fields == [("Content-Length", "2")]


def test_the_framing_decides_the_body() -> None:
    assert isinstance(body_after(head("Transfer-Encoding: Chunked"), "GET"), ChunkedBody)
    assert isinstance(body_after(head("Content-Length: 3"), "GET"), CountedBody)
    assert isinstance(body_after(head(), "GET"), OpenBody)
    for bodiless in (
        body_after(head("Content-Length: 3"), "HEAD"),
        body_after(head("Content-Length: 3", status="HTTP/1.1 304 Not Modified"), "GET"),
        body_after(head("Transfer-Encoding: chunked", status="HTTP/1.1 204 No Content"), "GET"),
    ):
        assert bodiless.done


def test_only_http_1_1_without_close_stays_open() -> None:
    assert head().keep_alive
    assert not head("Connection: Close").keep_alive
    assert not head(status="HTTP/1.0 200 OK").keep_alive


@pytest.mark.parametrize(
    "block",
    [
        "HTTP/2 200 OK",
        "HTTP/1.1 99 Low",
        "HTTP/1.1 600 High",
        "HTTP/1.1 2000 OK",
        "HTTP/1.1  200 OK",
        "http/1.1 200 OK",
        "HTTP/1.1 200 a\x0bb",
        "HTTP/1.1 200 OK\r\nno colon",
        "HTTP/1.1 200 OK\r\nspace : 1",
        "HTTP/1.1 200 OK\r\n folded: 1",
        "HTTP/1.1 200 OK\r\nX: 1\r\n folded",
        "HTTP/1.1 200 OK\r\nX: a\nY: b",
        "HTTP/1.1 200 OK\r\nX: a\rY: b",
        "HTTP/1.1 200 OK\r\nX: \x00",
        "HTTP/1.1 200 OK\r\n: 1",
        "HTTP/1.1 200 OK\r\nContent-Length: -1",
        "HTTP/1.1 200 OK\r\nContent-Length: +1",
        "HTTP/1.1 200 OK\r\nContent-Length: 1, 1",
        "HTTP/1.1 200 OK\r\nContent-Length: 1\r\nContent-Length: 1",
        "HTTP/1.1 200 OK\r\nContent-Length: 9999999999999999999",
        "HTTP/1.1 200 OK\r\nContent-Length: 1\r\nTransfer-Encoding: chunked",
        "HTTP/1.1 200 OK\r\nTransfer-Encoding: gzip, chunked",
        "HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\nTransfer-Encoding: chunked",
        "HTTP/1.0 200 OK\r\nTransfer-Encoding: chunked",
        "HTTP/1.1 200 OK" + "\r\nX: 1" * 65,
        "HTTP/1.1 200 OK\r\nContent-Length: \u0661",
    ],
)
def test_what_is_not_the_grammar_is_refused(block: str) -> None:
    with pytest.raises(Malformed):
        parse_head(block.encode())


@given(st.binary(max_size=200))
def test_garbage_is_refused_and_nothing_else_happens(block: bytes) -> None:
    try:
        parsed = parse_head(b"HTTP/1.1 200 OK\r\n" + block)
    except Malformed:
        return
    for name, value in parsed.fields:
        assert not set("\r\n\0") & set(name + value)


def outgoing(method: str = "POST", target: str = "/x", body=None, body_size=None, **headers: str) -> Outgoing:
    return Outgoing(method, target, CIMultiDict({k.replace("_", "-"): v for k, v in headers.items()}), body, body_size)


def written(request: Outgoing, upgrade: bool = False) -> list[str]:
    block = request_head(request, request.target, upgrade=upgrade).decode()
    assert block.endswith("\r\n\r\n")
    return block[:-4].split("\r\n")


def test_the_hop_decides_the_framing_whatever_the_caller_left_in() -> None:
    left_in = {"Content_Length": "99", "Transfer_Encoding": "chunked", "Connection": "close", "TE": "trailers"}
    lines = written(outgoing(body=b"12345", Host="h", Expect="100-continue", Upgrade="h2c", **left_in))
    assert lines == ["POST /x HTTP/1.1", "Host: h", "Content-Length: 5"]


async def no_bytes():
    yield b""


def test_each_kind_of_body_is_announced_in_its_way() -> None:
    assert written(outgoing("GET")) == ["GET /x HTTP/1.1"]
    assert written(outgoing("GET", body=b"")) == ["GET /x HTTP/1.1"]
    assert written(outgoing("POST")) == ["POST /x HTTP/1.1", "Content-Length: 0"]
    assert written(outgoing(body=no_bytes(), body_size=7)) == ["POST /x HTTP/1.1", "Content-Length: 7"]
    assert written(outgoing(body=no_bytes())) == ["POST /x HTTP/1.1", "Transfer-Encoding: chunked"]
    assert written(outgoing("GET"), upgrade=True)[1:] == ["Connection: Upgrade", "Upgrade: websocket"]


@pytest.mark.parametrize("bad", ["a\r\nX: 1", "a\nb", "a\rb", "a\r\n", "\n\r", "a\0b"])
def test_nothing_breaks_out_of_its_line(bad: str) -> None:
    with pytest.raises(RequestError) as refused:
        written(outgoing(X_Value=bad))
    assert refused.value.status == 400
    with pytest.raises(RequestError):
        written(outgoing(target="/" + bad))


def test_a_target_holds_no_space() -> None:
    with pytest.raises(RequestError):
        written(outgoing(target="/a HTTP/1.1"))


def test_bytes_that_are_no_utf_8_come_through_as_they_were() -> None:
    value = b"caf\xe9".decode("utf-8", "surrogateescape")
    assert b"X-V: caf\xe9\r\n" in request_head(outgoing(X_V=value), "/", upgrade=False)
