"""Readiness probing against small servers in this process."""

import asyncio
import time
from contextlib import asynccontextmanager, suppress

import pytest

from llmswap.config.settings import Launch
from llmswap.core.fleet import ModelId
from llmswap.runtime import readiness
from llmswap.runtime.readiness import Prober, Target
from tests.runtime.rig import free_port, until


def launch(proxy: str, **fields) -> Launch:
    return Launch(model=ModelId("m"), cmd="x", proxy=proxy, **fields)


class Answers(asyncio.Protocol):
    """A server that gives its answers to successive requests, the last one for ever; None means silence."""

    def __init__(self, *answers: bytes | None) -> None:
        self.answers = answers
        self.requests: list[str] = []
        self.open: set[asyncio.BaseTransport] = set()

    def connected(self) -> asyncio.Protocol:
        outer = self

        class Connection(asyncio.Protocol):
            def connection_made(self, transport):
                self.transport = transport
                outer.open.add(transport)

            def data_received(self, data):
                outer.requests.append(data.decode())
                answer = outer.answers[min(len(outer.requests), len(outer.answers)) - 1]
                if answer is not None:
                    self.transport.write(answer)
                    self.transport.close()

            def connection_lost(self, error):
                outer.open.discard(self.transport)

        return Connection()


@asynccontextmanager
async def answering(*answers: bytes | None, host: str = "127.0.0.1"):
    """Run such a server; yields its port and the requests it got."""
    behaviour = Answers(*answers)
    server = await asyncio.get_running_loop().create_server(behaviour.connected, host, 0)
    try:
        yield server.sockets[0].getsockname()[1], behaviour.requests
    finally:
        server.close()
        for transport in behaviour.open:
            transport.abort()
        await until(lambda: not behaviour.open, "connections closed")


@asynccontextmanager
async def asking(proxy: str):
    """Run a prober for as long as the block lasts."""
    prober = Prober(Target(launch(proxy)))
    task = asyncio.create_task(prober.until_ready())
    try:
        yield prober
        assert not task.done()
    finally:
        task.cancel()
        with suppress(asyncio.CancelledError):
            await task


OK = b"HTTP/1.1 200 OK\r\n\r\n"
BUSY = b"HTTP/1.1 503 Loading\r\n\r\n"


async def test_asks_until_200_and_says_who_answered():
    async with answering(BUSY, BUSY, OK) as (port, requests), asyncio.timeout(5):
        peer = await Prober(Target(launch(f"http://localhost:{port}"))).until_ready()
    assert str(peer) == "127.0.0.1"
    assert len(requests) == 3


async def test_localhost_that_only_listens_on_ipv6_is_found_and_pinned():
    async with answering(OK, host="::1") as (port, _), asyncio.timeout(5):
        target = Target(launch(f"http://localhost:{port}/v1/"))
        peer = await Prober(target).until_ready()
    assert target.pinned(peer) == f"http://[::1]:{port}/v1"


async def test_request_has_the_configured_path_and_host():
    async with answering(OK) as (port, requests), asyncio.timeout(5):
        target = Target(launch(f"http://127.0.0.1:{port}/base", check_path="/up?deep=1", check_host="model.example"))
        await Prober(target).until_ready()
    lines = requests[0].split("\r\n")
    assert lines[0] == "GET /base/up?deep=1 HTTP/1.1"
    assert "Host: model.example" in lines


async def test_host_is_the_proxys_unless_configured_and_an_empty_path_is_the_base():
    async with answering(OK) as (port, requests), asyncio.timeout(5):
        await Prober(Target(launch(f"http://127.0.0.1:{port}", check_path=""))).until_ready()
    lines = requests[0].split("\r\n")
    assert lines[0] == "GET / HTTP/1.1"
    assert f"Host: 127.0.0.1:{port}" in lines


@pytest.mark.parametrize(
    ("answer", "words"),
    [
        (b"HTTP/1.1 302 Found\r\nLocation: /\r\n\r\n", "answered 302"),
        (b"HTTP/1.1 204 No Content\r\n\r\n", "answered 204"),
        (b"HTTP/1.0 503\r\n\r\n", "answered 503"),
        (b"SSH-2.0-OpenSSH\r\n", "answered something that is not HTTP"),
        (b"", "answered something that is not HTTP"),
        (b"x" * 100_000, "cannot be asked: "),
    ],
)
async def test_anything_but_200_is_not_ready_and_is_told(answer, words):
    async with answering(answer) as (port, requests), asking(f"http://127.0.0.1:{port}") as prober:
        await until(lambda: len(requests) >= 3, "several probes")
        await until(lambda: prober.asked >= 3, "they are counted")
        assert prober.last.startswith(words)
        assert len(prober.changes) == 1


async def test_silent_server_is_given_up_after_the_probes_own_timeout(monkeypatch):
    monkeypatch.setattr(readiness, "PROBE_TIMEOUT_S", 0.1)
    async with answering(None) as (port, requests), asking(f"http://127.0.0.1:{port}") as prober:
        await until(lambda: len(requests) >= 2, "a second probe")
        assert prober.last == "did not answer within 0.1 s"


async def test_closed_port_is_tried_within_20_ms_and_then_often(monkeypatch):
    times: list[float] = []

    async def refuse(prober, address):
        times.append(time.monotonic())
        raise ConnectionRefusedError

    monkeypatch.setattr(Prober, "_ask", refuse)
    began_s = time.monotonic()
    async with asking(f"http://127.0.0.1:{free_port()}") as prober:
        await until(lambda: times and times[-1] - began_s > 0.3, "0.3 s of probes")
        assert prober.last == "refuses connections"
    assert times[0] - began_s < 0.05, "the first comes after 10 ms (and what a busy machine adds)"
    assert len(times) > 8


@pytest.mark.parametrize(
    ("proxy", "here"),
    [("http://localhost:1", True), ("http://127.0.0.3:1", True), ("http://[::1]:1", True), ("http://gpu2:1", False)],
)
def test_only_loopback_is_surely_here(proxy, here):
    assert Target(launch(proxy)).is_here is here


@pytest.mark.parametrize(("proxy", "port"), [("http://h", 80), ("https://h", 443), ("http://h:8000/x", 8000)])
def test_port_defaults_to_the_schemes(proxy, port):
    assert Target(launch(proxy)).port == port


@pytest.mark.parametrize(("has_ipv6", "addresses"), [(True, ("127.0.0.1", "::1")), (False, ("127.0.0.1",))])
def test_localhost_is_asked_at_the_addresses_there_are(has_ipv6, addresses, monkeypatch):
    """Without IPv6 `::1` fails in another way than a closed port, which would make probes rare."""
    monkeypatch.setattr(readiness, "is_local", lambda address: has_ipv6)
    assert Target(launch("http://localhost:1")).addresses == addresses
