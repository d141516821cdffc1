"""The hop continuing a stream that is already under way: the loading stream."""

import pytest
from aiohttp import web

from tests.proxy.raw_upstream import LAST, OK, SSE, chunk, front, raw_upstream, says, says_and_closes
from tests.raw import request

GET = request("GET", "/v1/x")
REFUSAL = b"HTTP/1.1 400 Bad Request\r\nContent-Length: 17\r\n\r\ntoo long a prompt"


async def prepared(asked: web.BaseRequest) -> web.StreamResponse:
    stream = web.StreamResponse(headers={"Content-Type": "text/event-stream"})
    await stream.prepare(asked)
    await stream.write(b"data: loading\n\n")
    return stream


async def test_a_prepared_stream_is_continued_with_the_upstreams_events() -> None:
    one = says(SSE, chunk(b"data: 1\n\n"), LAST)
    async with raw_upstream(one) as upstream, front(upstream.url, into=prepared) as proxy:
        reply = await proxy.exchange(GET)
        assert reply.body == chunk(b"data: loading\n\n") + chunk(b"data: 1\n\n") + LAST
        assert (proxy.delivery.status, proxy.delivery.bytes_out) == (200, 9)


@pytest.mark.parametrize(("wire", "status"), [(REFUSAL, 400), (OK, 502)])
async def test_an_answer_that_is_no_stream_is_told_as_an_error(wire: bytes, status: int) -> None:
    async with raw_upstream(says(wire)) as upstream, front(upstream.url, into=prepared) as proxy:
        reply = await proxy.exchange(GET)
        assert reply.body.endswith(LAST)
        assert b"HTTP/1.1" not in reply.body
        assert proxy.errors[0].status == status
        if status == 400:
            assert b"too long a prompt" in reply.body


async def test_a_prepared_stream_whose_upstream_dies_is_cut_after_an_error_event() -> None:
    half = says_and_closes(SSE, chunk(b"data: 1\n\n"))
    async with raw_upstream(half) as upstream, front(upstream.url, into=prepared) as proxy:
        reply = await proxy.exchange(GET)
        assert b'data: {"error":' in reply.body
        assert not reply.body.endswith(LAST)
