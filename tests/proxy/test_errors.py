"""What clients see when something fails, and what they never see."""

import asyncio
import logging

import aiohttp
import pytest
from aiohttp import web

from llmswap.proxy.dialects import Dialect
from llmswap.proxy.door import Door, Handler, Route, Scope
from llmswap.proxy.errors import RequestError
from llmswap.proxy.rendering import error_response
from llmswap.proxy.routes import DOOR
from tests.proxy.front import ask, front, session

ERROR = RequestError(404, "no <such> thing")


def serving(handler: Handler, dialect: Dialect = Dialect.OPENAI) -> "type[None] | object":
    """Give a function that adds a declared route for the handler to an application."""

    def extend(app: web.Application) -> None:
        door: Door = app[DOOR]
        route = app.router.add_get("/test", handler)
        for one in route.resource or ():
            door._routes[one] = Route("GET", "/test", Scope.OPEN, handler, dialect=dialect)  # type: ignore[index]

    return extend


@pytest.mark.parametrize(
    ("accept", "kind"),
    [
        ("", "application/json"),
        ("*/*", "application/json"),
        ("text/plain", "text/plain"),
        ("text/html,application/xhtml+xml,*/*;q=0.8", "text/html"),
        ("application/json, text/plain, */*", "application/json"),
    ],
)
def test_the_form_of_an_error_follows_what_the_client_accepts(accept: str, kind: str) -> None:
    response = error_response(ERROR, Dialect.OPENAI, accept)
    assert response.content_type == kind
    assert isinstance(response.body, bytes)
    assert (b"<such>" in response.body) == (kind != "text/html")
    assert (b"&lt;such&gt;" in response.body) == (kind == "text/html")


def test_a_429_is_json_whatever_the_client_accepts() -> None:
    refused = error_response(RequestError(429, "slow down", headers={"Retry-After": "1"}), Dialect.OPENAI, "text/html")
    assert refused.content_type == "application/json"
    assert refused.headers["Retry-After"] == "1"


async def test_a_refusal_is_answered_in_the_dialect_of_its_route() -> None:
    async def refuse(request: web.Request) -> web.Response:
        raise RequestError(503, "no room", headers={"Retry-After": "7"})

    async with front(extend=serving(refuse)) as served:
        answer = await ask(served, "GET", "/test")
        assert answer.status == 503
        assert answer.headers["retry-after"] == "7"
        assert b'"src":"llmswap"' in answer.body
    async with front(extend=serving(refuse, Dialect.ANTHROPIC)) as served:
        answer = await ask(served, "GET", "/test")
        assert b'{"type":"error","error":{"type":"overloaded_error","message":"no room"}}' in answer.body


async def test_an_unknown_model_on_messages_is_refused_anthropic_style() -> None:
    async with front() as served:
        for path in ("/v1/messages", "/v/messages", "/v1/messages/count_tokens"):
            answer = await ask(served, "POST", path, {"Content-Type": "application/json"}, b'{"model":"nope"}')
            assert answer.status == 404
            assert b'{"type":"error","error":{"type":"not_found_error"' in answer.body


async def test_a_bug_is_logged_with_the_request_id_and_told_without_details(caplog: pytest.LogCaptureFixture) -> None:
    async def broken(request: web.Request) -> web.Response:
        raise KeyError("internal-detail")

    async with front(extend=serving(broken)) as served:
        answer = await ask(served, "GET", "/test", {"X-Request-Id": "my-request-7"})
        assert answer.status == 500
        assert "internal-detail" not in answer.text
        assert "my-request-7" in answer.text
        assert (await ask(served, "GET", "/health")).status == 200
    records = [record for record in caplog.records if record.levelno == logging.ERROR]
    assert ["my-request-7" in record.getMessage() for record in records] == [True]
    assert records[0].exc_info is not None


@pytest.mark.parametrize(
    ("error", "status"), [(TimeoutError(), 504), (web.HTTPConflict(), 409), (web.HTTPFound("/x"), 302)]
)
async def test_other_exceptions_become_the_answer_they_mean(error: Exception, status: int) -> None:
    async def fail(request: web.Request) -> web.Response:
        raise error

    async with front(extend=serving(fail)) as served:
        answer = await ask(served, "GET", "/test")
        assert answer.status == status
        assert answer.headers["x-request-id"]


@pytest.mark.parametrize("error", [ConnectionResetError("the upstream died"), KeyError("a bug")])
async def test_a_failure_after_the_head_breaks_the_connection(error: Exception) -> None:
    async def die(request: web.Request) -> web.StreamResponse:
        response = web.StreamResponse()
        await response.prepare(request)
        await response.write(b"data: 1\n\n")
        raise error

    async with front(extend=serving(die)) as served:
        async with session() as client, client.get(served.url + "/test") as response:
            assert response.status == 200
            with pytest.raises(aiohttp.ClientPayloadError):
                await response.read()
        # In HTTP/1.0 the end of the connection is the end of the body, so it has to be a reset.
        reply = await served.raw(b"GET /test HTTP/1.0\r\nHost: localhost\r\n\r\n")
        assert reply.closed == "reset"


async def test_a_client_that_leaves_cancels_its_handler() -> None:
    entered, cancelled = asyncio.Event(), asyncio.Event()

    async def wait(request: web.Request) -> web.Response:
        entered.set()
        try:
            await asyncio.Event().wait()
        except asyncio.CancelledError:
            cancelled.set()
            raise
        return web.Response()

    async with front(extend=serving(wait)) as served:
        client = await served.connect()
        await client.send(b"GET /test HTTP/1.1\r\nHost: localhost\r\n\r\n")
        await asyncio.wait_for(entered.wait(), 5)
        client.reset()
        await asyncio.wait_for(cancelled.wait(), 5)
