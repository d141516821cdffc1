"""Upstreams' own metrics: who is listed, what is passed on, and that looking changes nothing."""

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import Any
from urllib.parse import quote, unquote

import orjson
import pytest
from aiohttp import web

from llmswap.config.settings import AccessSettings
from llmswap.core.events import UpstreamExited, UpstreamStopped
from llmswap.core.fleet import ModelId
from llmswap.core.states import State
from llmswap.proxy import scraping
from tests.proxy.beds import beds, sleepy
from tests.proxy.front import KEY, Answer, Front, ask, front, loaded, model
from tests.proxy.rig import Upstream, recording_upstream
from tests.stack import until

ODD = ("author/model", "my model", "modèle-ü", "100%", "a%20b", "q?x#y", "dots/../up")


async def listed(served: Front, **headers: str) -> list[dict[str, Any]]:
    answer = await ask(served, "GET", "/sd/prometheus", headers)
    assert (answer.status, answer.headers["content-type"]) == (200, "application/json")
    found: list[dict[str, Any]] = orjson.loads(answer.body)
    return found


def code(answer: Answer) -> str:
    return str(orjson.loads(answer.body)["error"]["code"])


# Targets.


async def test_only_ready_upstreams_are_targets_and_each_is_a_path_of_ours() -> None:
    async with front() as served:
        assert await listed(served) == []
        served.load("author/model")
        labels = {"__metrics_path__": "/upstream-metrics/author/model", "model": "author/model"}
        assert await listed(served) == [{"targets": [f"127.0.0.1:{served.port}"], "labels": labels}]
        served.load("m1")
        assert [entry["labels"]["model"] for entry in await listed(served)] == ["author/model", "m1"]


async def test_a_sleeper_and_one_that_starts_are_no_targets() -> None:
    async with beds() as made:
        await made.order("sleep", "m1")
        await made.order("sleep", "m2")
        assert [entry["labels"]["model"] for entry in await listed(made.served)] == ["awake"]
    async with front() as served:
        served.starts = False
        served.load("m1")
        assert served.state("m1") is State.STARTING
        assert await listed(served) == []


@pytest.mark.parametrize("host", ["localhost", "gpu-box.localhost:8080", "[::1]:9999"])
async def test_the_address_is_the_one_that_the_scraper_came_by(host: str) -> None:
    async with front() as served:
        served.load("m1")
        assert (await listed(served, Host=host))[0]["targets"] == [host]


async def test_without_a_host_header_the_address_is_the_sockets() -> None:
    async with front() as served:
        served.load("m1")
        reply = await served.raw(b"GET /sd/prometheus HTTP/1.0\r\n\r\n")
        assert orjson.loads(reply.body)[0]["targets"] == [f"127.0.0.1:{served.port}"]


async def test_a_malformed_host_names_no_target() -> None:
    async with front() as served:
        served.load("m1")
        assert (await ask(served, "GET", "/sd/prometheus", {"Host": "evil\u00e9 host"})).status == 400


async def test_a_proxys_word_for_the_address_counts_only_if_it_is_trusted() -> None:
    said = {"X-Forwarded-Host": "swap.example:443", "X-Forwarded-Proto": "https"}
    async with front() as served:
        served.load("m1")
        entry = (await listed(served, **said))[0]
        assert (entry["targets"], "__scheme__" in entry["labels"]) == ([f"127.0.0.1:{served.port}"], False)
        served.configure(AccessSettings(trusted_proxies=("127.0.0.1",)))
        entry = (await listed(served, **said))[0]
        assert (entry["targets"], entry["labels"]["__scheme__"]) == (["swap.example:443"], "https")
        entry = (await listed(served, **{**said, "X-Forwarded-Host": "two words"}))[0]
        assert entry["targets"] == [f"127.0.0.1:{served.port}"]


async def test_over_tls_the_targets_say_so(monkeypatch: pytest.MonkeyPatch) -> None:
    async with front() as served:
        served.load("m1")
        monkeypatch.setattr(web.Request, "scheme", "https")  # a certificate would prove nothing more
        assert (await listed(served))[0]["labels"]["__scheme__"] == "https"


# What is passed on.


class Exposing:
    """A served llmswap whose one upstream records what it is asked."""

    def __init__(self, served: Front, upstream: Upstream) -> None:
        self.served, self.upstream = served, upstream

    async def scrape(self, name: str = "m1", **headers: str) -> Answer:
        return await ask(self.served, "GET", scraping.PREFIX + quote(name), headers)


@asynccontextmanager
async def exposing(*names: str) -> AsyncIterator[Exposing]:
    async with recording_upstream() as upstream, front(loaded(*map(model, names or ("m1",)))) as served:
        served.base_url = upstream.url
        for name in served.context.loaded.fleet.models:
            served.load(name)
        yield Exposing(served, upstream)


def gives(body: bytes, status: int = 200, **headers: str) -> Any:
    async def answer(request: web.Request) -> web.Response:
        del request
        return web.Response(body=body, status=status, headers={k.replace("_", "-"): v for k, v in headers.items()})

    return answer


async def test_the_upstreams_exposition_passes_as_it_is() -> None:
    kind = "application/openmetrics-text; version=1.0.0; charset=utf-8"
    async with exposing() as made:
        made.upstream.answer = gives(b"a_total 1\n# EOF\n", content_type=kind, set_cookie="x=1")
        answer = await made.scrape(Accept="application/openmetrics-text")
        assert (answer.status, answer.body, answer.headers["content-type"]) == (200, b"a_total 1\n# EOF\n", kind)
        assert answer.headers["content-length"] == "16"
        assert "set-cookie" not in answer.headers
        assert answer.headers["content-security-policy"] == "sandbox"
        assert (made.upstream.last.method, made.upstream.last.target) == ("GET", "/metrics")


async def test_the_upstream_learns_what_is_accepted_and_nothing_else_of_who_asks() -> None:
    async with exposing() as made:
        made.served.configure(AccessSettings(api_keys=(KEY,), forward_auth=True))
        answer = await made.scrape(
            Accept="text/plain;version=0.0.4", Authorization=f"Bearer {KEY}", Cookie=f"session={KEY}", X_Other="y"
        )
        assert answer.status == 200
        seen = made.upstream.last.headers
        assert set(seen) == {"Host", "Accept", "Accept-Encoding", "X-Request-ID"}
        assert seen["Accept"] == "text/plain;version=0.0.4"
        assert KEY not in str(seen)


async def test_a_compressed_exposition_stays_compressed_and_says_so() -> None:
    async def squeezed(request: web.Request) -> web.Response:
        assert request.headers["Accept-Encoding"] == "gzip"
        response = web.Response(text="a 1\n" * 1000)
        response.enable_compression(web.ContentCoding.gzip)
        return response

    async with exposing() as made:
        made.upstream.answer = squeezed
        answer = await made.scrape(**{"Accept-Encoding": "gzip"})
        assert answer.headers["content-encoding"] == "gzip"
        assert answer.body == b"a 1\n" * 1000  # the client unpacks it


async def test_one_that_says_no_type_is_read_as_prometheus_text() -> None:
    async def untyped(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        await reader.readuntil(b"\r\n\r\n")
        writer.write(b"HTTP/1.1 200 OK\r\n\r\na 1\n")
        writer.close()

    async with exposing() as made, await asyncio.start_server(untyped, "127.0.0.1", 0) as server:
        made.served.base_url = f"http://127.0.0.1:{server.sockets[0].getsockname()[1]}"
        answer = await made.scrape()
        assert (answer.status, answer.body, answer.headers["content-length"]) == (200, b"a 1\n", "4")
        assert answer.headers["content-type"] == "text/plain; version=0.0.4; charset=utf-8"


@pytest.mark.parametrize("name", ODD)
async def test_a_target_leads_to_its_model_whatever_its_name(name: str) -> None:
    async with exposing(name) as made:
        path = (await listed(made.served))[0]["labels"]["__metrics_path__"]
        assert unquote(path) == scraping.PREFIX + name
        for asked in (path, quote(path)):  # as it stands, and as Prometheus sends it: encoded once more
            reply = await made.served.raw(f"GET {asked} HTTP/1.0\r\nHost: localhost\r\n\r\n".encode())
            assert reply.status == 200, reply.data
        assert len(made.upstream.seen) == 2


async def test_prometheus_reaches_the_right_one_of_two_names_that_differ_by_their_encoding() -> None:
    async with exposing("a b", "a%20b") as made:
        asked: list[str] = []
        made.served.context.gate._base_url = lambda name, _generation: asked.append(name) or made.upstream.url
        for entry in await listed(made.served):
            asked.clear()
            path = quote(entry["labels"]["__metrics_path__"])
            assert (await made.served.raw(f"GET {path} HTTP/1.0\r\nHost: localhost\r\n\r\n".encode())).status == 200
            assert set(asked) == {entry["labels"]["model"]}


@pytest.mark.parametrize("status", [404, 501, 500, 401])
async def test_an_upstream_without_metrics_gives_its_status_and_a_reason(status: int) -> None:
    async with exposing() as made:
        made.upstream.answer = gives(b"<html>not here</html>", status)
        answer = await made.scrape()
        assert (answer.status, code(answer)) == (status, "no_metrics")
        assert f"m1 answers GET /metrics with {status}" in answer.text
        assert ("--metrics" in answer.text) == (status in (404, 501))
        assert "html" not in answer.text


async def test_a_redirect_is_not_followed_and_not_passed_on() -> None:
    async with exposing() as made:
        made.upstream.answer = gives(b"", 307, location="http://127.0.0.1:9/")
        answer = await made.scrape()
        assert (answer.status, code(answer), "location" in answer.headers) == (502, "no_metrics", False)


async def test_an_exposition_without_end_is_cut_at_a_size(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(scraping, "BODY_MAX", 500_000)
    cut = asyncio.Event()

    async def endless(request: web.Request) -> web.StreamResponse:
        response = web.StreamResponse()
        await response.prepare(request)
        try:
            while True:
                await response.write(b"a 1\n" * 5_000)
        finally:
            cut.set()

    async with exposing() as made:
        made.upstream.answer = endless
        answer = await made.scrape()
        assert (answer.status, code(answer)) == (502, "upstream_failed")
        assert "larger than 500000 bytes" in answer.text
        await asyncio.wait_for(cut.wait(), 5)
        made.upstream.answer = gives(b"a 1\n" * 125_000)  # as much as may be
        assert len((await made.scrape()).body) == 500_000


async def test_an_upstream_that_does_not_answer_is_given_up(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(scraping, "SCRAPE_LIMIT_S", 0.1)
    cut = asyncio.Event()

    async def silent(request: web.Request) -> web.StreamResponse:
        del request
        try:
            await asyncio.Event().wait()
        finally:
            cut.set()
        raise AssertionError

    async with exposing() as made:
        made.upstream.answer = silent
        answer = await made.scrape()
        assert (answer.status, code(answer)) == (504, "upstream_timeout")
        await asyncio.wait_for(cut.wait(), 5)


async def test_an_upstream_that_cannot_be_reached_is_502() -> None:
    async with front() as served:
        served.load("m1")
        answer = await ask(served, "GET", "/upstream-metrics/m1")
        assert (answer.status, code(answer)) == (502, "upstream_unreachable")


# That it changes nothing.


@pytest.mark.parametrize(
    ("name", "said"), [("m1", "not_ready"), ("alias-1", "not_ready"), ("nobody", "model_not_found")]
)
async def test_who_is_not_ready_or_not_known_is_404_and_stays_so(name: str, said: str) -> None:
    async with front() as served:
        steps: list[object] = []
        served.context.loop.observe(steps.append)
        answer = await ask(served, "GET", f"/upstream-metrics/{name}")
        assert (answer.status, code(answer)) == (404, said)
        assert (steps, served.state("m1")) == ([], State.STOPPED)


class Holding:
    """An upstream's answer that has begun and does not end."""

    def __init__(self) -> None:
        self.began, self.cut = asyncio.Event(), asyncio.Event()

    async def __call__(self, request: web.Request) -> web.StreamResponse:
        response = web.StreamResponse()
        await response.prepare(request)
        await response.write(b"a 1\n")
        self.began.set()
        try:
            await asyncio.Event().wait()
        finally:
            self.cut.set()
        return response


async def test_a_scrape_under_way_holds_no_sleep_up_and_is_cut_by_it() -> None:
    async with beds(sleepy(), quick=False) as made, recording_upstream() as upstream:
        made.served.base_url, upstream.answer = upstream.url, (holding := Holding())
        scraping_it = asyncio.create_task(ask(made.served, "GET", "/upstream-metrics/m1"))
        await asyncio.wait_for(holding.began.wait(), 5)
        ordered = made.ordering("sleep")
        answer = await asyncio.wait_for(scraping_it, 5)
        assert (answer.status, code(answer)) == (404, "not_ready")
        await asyncio.wait_for(holding.cut.wait(), 5)
        assert made.served.state("m1") is State.SLEEP_PENDING, "nobody waited for the scrape"
        made.fall_asleep()
        assert (await ordered).status == 200
        assert (await ask(made.served, "GET", "/upstream-metrics/m1")).status == 404
        assert len(upstream.seen) == 1


async def test_a_scrape_that_was_still_connecting_when_the_sleep_began_asks_nothing(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    connecting, connect = asyncio.Event(), scraping.connect

    async def slow(*given: Any) -> Any:
        connection = await connect(*given)
        connecting.set()
        await until(lambda: made.served.state("m1") is State.SLEEP_PENDING, "the sleep")
        return connection

    monkeypatch.setattr(scraping, "connect", slow)
    monkeypatch.setattr(scraping, "_has_left", lambda *_: False)  # the later of the two guards
    async with beds(sleepy(), quick=False) as made, recording_upstream() as upstream:
        made.served.base_url = upstream.url
        scraping_it = asyncio.create_task(ask(made.served, "GET", "/upstream-metrics/m1"))
        await asyncio.wait_for(connecting.wait(), 5)
        ordered = made.ordering("sleep")
        answer = await asyncio.wait_for(scraping_it, 5)
        assert (answer.status, code(answer)) == (404, "not_ready")
        made.fall_asleep()
        await ordered
        assert upstream.seen == []


async def test_a_scrape_of_an_upstream_that_dies_and_comes_back_is_cut() -> None:
    async with exposing() as made:
        made.upstream.answer = holding = Holding()
        scraping_it = asyncio.create_task(made.scrape())
        await asyncio.wait_for(holding.began.wait(), 5)
        loop, m1 = made.served.context.loop, ModelId("m1")
        generation = loop.snapshot().upstreams[m1].generation
        loop.post(UpstreamExited(m1, generation, "killed"))
        loop.post(UpstreamStopped(m1, generation))
        made.served.load("m1")
        assert made.served.state("m1") is State.READY
        assert (await asyncio.wait_for(scraping_it, 5)).status == 404


async def test_a_scrape_takes_no_place() -> None:
    async with exposing() as made:
        steps: list[object] = []
        made.served.context.loop.observe(steps.append)
        made.upstream.answer = holding = Holding()
        scraping_it = asyncio.create_task(made.scrape())
        await asyncio.wait_for(holding.began.wait(), 5)
        assert made.served.context.gate.occupants == 0
        assert steps == []
        scraping_it.cancel()  # Prometheus hung up
        await asyncio.gather(scraping_it, return_exceptions=True)
        await asyncio.wait_for(holding.cut.wait(), 5)
