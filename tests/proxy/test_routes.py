"""The URL table: every route is declared, and each asks for what it declares."""

import re

import pytest
from aiohttp import web
from aiohttp.test_utils import make_mocked_request

from llmswap.config.settings import AccessSettings
from llmswap.proxy import pages
from llmswap.proxy.door import Route, Scope
from llmswap.proxy.routes import table
from tests.proxy.front import KEY, ask, front

LINES = list(table())


def sample(line: Route) -> tuple[str, str]:
    """Give a method and a path that the route matches."""
    path = re.sub(r"\{[^}]*\}", "x", line.path)
    return ("GET" if line.method == "*" else line.method), path


LLAMA_SWAP = """
POST /v1/chat/completions /v1/responses /v1/completions /v1/messages /v1/messages/count_tokens /v1/embeddings
POST /reranking /rerank /v1/rerank /v1/reranking /infill /completion /v1/audio/speech /v1/audio/voices
POST /v1/images/generations /sdapi/v1/txt2img /sdapi/v1/img2img /audioapi/v1/tasks/run
POST /v/chat/completions /v/responses /v/completions /v/messages /v/messages/count_tokens /v/embeddings
POST /v/rerank /v/reranking /v1/audio/transcriptions /v1/images/edits
GET /v1/audio/voices /sdapi/v1/loras /props
GET /v1/models /models /health /wol-health / /favicon.ico /logs /logs/stream /logs/stream/a/b /running /unload /metrics
GET /upstream /upstream/m/x /api/version /api/hardware /api/performance
POST /api/models/unload /api/models/unload/a/b /api/inflight/1/cancel /upstream/m/x
GET /ui /ui/x /api/profiles /api/events /api/metrics/activity /api/metrics/stats /api/captures/1 /comfyui /comfyui/x
PUT /api/profiles/active
"""


async def test_the_table_has_every_route_of_llama_swap() -> None:
    async with front() as served:
        for line in LLAMA_SWAP.split("\n"):
            method, *paths = line.split() or [""]
            for path in paths:
                request = make_mocked_request(method, path)
                match = await served.app.router.resolve(request)
                assert match.handler is not pages.nothing_here, (method, path)


@pytest.mark.parametrize("line", LINES, ids=lambda line: f"{line.method} {line.path}")
async def test_each_route_asks_for_a_key_unless_it_is_open(line: Route) -> None:
    method, path = sample(line)
    async with front(access=AccessSettings(api_keys=(KEY,))) as served:
        for headers in ({}, {"Authorization": "Bearer wrong"}, {"x-api-key": KEY[:-1]}):
            answer = await ask(served, method, path, headers)
            assert (answer.status == 401) == (line.scope is not Scope.OPEN), answer.text
            if answer.status == 401:
                assert answer.headers["www-authenticate"].startswith("Basic realm=")
        if path == "/logs/stream":
            return  # never ends by itself
        answer = await ask(served, method, path, {"Authorization": f"Bearer {KEY}"})
        assert answer.status != 401


def test_only_harmless_routes_are_open() -> None:
    assert {line.path for line in LINES if line.scope is Scope.OPEN} == {
        "/",
        "/favicon.ico",
        "/health",
        "/wol-health",
        "/ready",
        "/upstream",
        "/{rest:.*}",
    }


@pytest.mark.parametrize(
    "path",
    [
        "/%72unning",
        "//running",
        "/running/",
        "/./running",
        "/health/../running",
        "/running;x",
        "/RUNNING",
        "/v1/../running",
        "http://localhost/running",
        "/running?x=/health",
        "/running#/health",
    ],
)
async def test_no_spelling_of_a_protected_path_gets_past_its_scope(path: str) -> None:
    async with front(access=AccessSettings(api_keys=(KEY,))) as served:
        reply = await served.raw(f"GET {path} HTTP/1.1\r\nHost: localhost\r\nConnection: close\r\n\r\n".encode())
        assert reply.status in {400, 401, 404}, reply.data
        assert b'"running"' not in reply.body


async def test_a_route_outside_the_table_fails_the_start() -> None:
    async def backdoor(request: web.Request) -> web.Response:
        return web.Response(text="in")

    with pytest.raises(RuntimeError, match="no declared scope"):
        async with front(extend=lambda app: app.router.add_get("/backdoor", backdoor)):
            pass


async def test_unknown_paths_and_methods_are_told_apart_in_json() -> None:
    async with front() as served:
        missing = await ask(served, "GET", "/v1/files")
        assert missing.status == 404
        assert b'"code":"not_found"' in missing.body
        wrong = await ask(served, "DELETE", "/v1/models")
        assert wrong.status == 405
        assert wrong.headers["allow"] == "GET, HEAD"
        assert wrong.headers["content-type"] == "application/json"
        for method in ("TRACE", "CONNECT"):
            reply = await served.raw(f"{method} / HTTP/1.1\r\nHost: localhost\r\nConnection: close\r\n\r\n".encode())
            assert reply.status == 405
            assert reply.headers["allow"]


async def test_get_routes_answer_head_unless_that_would_act() -> None:
    async with front() as served:
        served.load("m1")
        for path in ("/", "/health", "/v1/models", "/running", "/metrics", "/logs"):
            answer = await ask(served, "HEAD", path)
            assert (answer.status, answer.body) == (200, b""), path
        for path in ("/unload", "/logs/stream", "/props"):
            assert (await ask(served, "HEAD", path)).status == 405, path
        assert served.state("m1") == "ready"


@pytest.mark.parametrize(
    "path",
    ["/ui", "/ui/models", "/api/events", "/api/metrics/activity", "/api/captures/1", "/api/profiles", "/comfyui/x"],
)
async def test_what_llama_swap_has_and_we_do_not_yet_is_said_so(path: str) -> None:
    async with front() as served:
        answer = await ask(served, "GET", path)
        assert answer.status == 404
        assert "not available yet" in answer.text


async def test_the_front_page_names_where_to_go() -> None:
    async with front() as served:
        answer = await ask(served, "GET", "/")
        assert answer.status == 200
        for place in ("/v1/models", "/health", "/metrics", "llmswap"):
            assert place in answer.text
        moved = await ask(served, "GET", "/upstream")
        assert (moved.status, moved.headers["location"]) == (302, "/")
        assert (await ask(served, "GET", "/favicon.ico")).status == 204


async def test_every_answer_carries_its_request_id_and_not_our_software() -> None:
    async with front() as served:
        seen = set()
        for method, path in (
            ("GET", "/health"),
            ("GET", "/nowhere"),
            ("OPTIONS", "/x"),
            ("DELETE", "/"),
            ("GET", "/upstream"),
        ):
            answer = await ask(served, method, path)
            seen.add(answer.headers["x-request-id"])
            assert answer.headers["x-content-type-options"] == "nosniff"
            assert "server" not in answer.headers
        assert len(seen) == 5


@pytest.mark.parametrize(
    ("offered", "taken"),
    [
        ("abc-123", True),
        ("6f1c:2/3=.+_", True),
        ("x" * 128, True),
        ("x" * 129, False),
        ("", False),
        ("has space", False),
        ('"><script>', False),
        ("caf\u00e9", False),
    ],
)
async def test_a_client_may_bring_its_own_request_id_if_it_is_sane(offered: str, *, taken: bool) -> None:
    async with front() as served:
        answer = await ask(served, "GET", "/health", {"X-Request-Id": offered})
        assert (answer.headers["x-request-id"] == offered) == taken
        assert answer.headers["x-request-id"]
