"""Traces of the whole program reach a real receiver; one that is dead or hangs costs neither requests nor the end."""

import time

import aiohttp
import psutil
import pytest

from tests.dialogue import CHAT, ask
from tests.runtime.rig import free_port
from tests.stack import Stack, fake, one, until
from tests.telemetry.otlp_receiver import Received, grpc_receiver, http_receiver

RECEIVERS = {"http/protobuf": http_receiver, "grpc": grpc_receiver}


def config(**traces: str) -> dict[str, object]:
    telemetry = {"telemetry": {"traces": traces}} if traces else {}
    return {"models": {"a": {"cmd": fake("a")}, "b": {"cmd": fake("b")}}, **telemetry}


@pytest.mark.parametrize("protocol", list(RECEIVERS))
@pytest.mark.parametrize("by", ["config", "environment"])
async def test_a_real_receiver_gets_the_traces(
    stack: Stack, http: aiohttp.ClientSession, protocol: str, by: str
) -> None:
    async with RECEIVERS[protocol]() as received:
        if by == "environment":
            stack.environ |= {
                "OTEL_EXPORTER_OTLP_ENDPOINT": received.endpoint,
                "OTEL_EXPORTER_OTLP_PROTOCOL": protocol,
                "OTEL_EXPORTER_OTLP_HEADERS": "x-tenant=me",
                "OTEL_SERVICE_NAME": "swapper",
                "OTEL_RESOURCE_ATTRIBUTES": "deployment.environment.name=test",
            }
            program = stack.start(config())
        else:
            program = stack.start(config(endpoint=received.endpoint, protocol=protocol))
        for model in ("a", "b"):
            assert (await ask(http, program, model))[0] == 200
        journal = await _calls(http, program, "b")
        program.terminate()
        assert await program.exited() == 0
    assert len(received.named("llmswap.swap")) == 2
    assert len(received.named(f"POST {CHAT}")) == 2
    client = one(received.named("chat b"), "CLIENT span")
    assert journal[-1]["traceparent"] == f"00-{client.trace_id.hex()}-{client.span_id.hex()}-01"
    resource = received.resource()
    if by == "environment":
        assert (resource["service.name"], resource["deployment.environment.name"]) == ("swapper", "test")
        assert received.headers[0]["x-tenant"] == "me"
    else:
        assert resource["service.name"] == "llmswap"
    assert resource["service.version"]


async def _calls(http: aiohttp.ClientSession, program, model: str) -> list[dict[str, str]]:
    async with http.get(f"{program.url}/upstream/{model}/_fake/journal") as answer:
        calls = (await answer.json())["calls"]
    return [dict(call["headers"]) for call in calls if call["path"] == CHAT]


async def test_nothing_configured_sends_nothing_and_leaves_the_clients_context_alone(
    stack: Stack, http: aiohttp.ClientSession
) -> None:
    program = stack.start(config())
    theirs = {"traceparent": "00-" + "1" * 32 + "-" + "2" * 16 + "-01", "tracestate": "v=1", "baggage": "k=v"}
    async with http.post(
        program.url + CHAT, json={"model": "a", "messages": [{"role": "user", "content": "x"}]}, headers=theirs
    ) as answer:
        assert answer.status == 200
    (seen,) = await _calls(http, program, "a")
    assert {name: seen[name] for name in theirs} == theirs
    assert not any("grpc" in entry.path for entry in psutil.Process(program.pid).memory_maps())


async def _end(program) -> float:
    began_s = time.monotonic()
    program.terminate()
    assert await program.exited() == 0
    return time.monotonic() - began_s


@pytest.mark.parametrize("protocol", list(RECEIVERS))
async def test_a_receiver_that_is_down_costs_no_request_and_three_seconds_at_the_end_at_most(
    stack: Stack, http: aiohttp.ClientSession, protocol: str
) -> None:
    program = stack.start(config(endpoint=f"http://127.0.0.1:{free_port()}", protocol=protocol))
    for _ in range(50):
        assert (await ask(http, program, "a", max_tokens=1))[0] == 200
    await until(lambda: "exporting traces" in program.log_text(), "a line in the log", within_s=20)
    assert await _end(program) < 5.0  # 3 s where nothing else runs
    assert program.log_text().count("exporting traces: ") == 1


@pytest.mark.parametrize("protocol", list(RECEIVERS))
async def test_a_receiver_that_hangs_costs_three_seconds_at_the_end_at_most(
    stack: Stack, http: aiohttp.ClientSession, protocol: str
) -> None:
    async with RECEIVERS[protocol]() as received:
        received.hangs = True
        program = stack.start(config(endpoint=received.endpoint, protocol=protocol))
        for _ in range(50):
            assert (await ask(http, program, "a", max_tokens=1))[0] == 200
        await until(lambda: received.asked > 0, "it is asked")
        assert await _end(program) < 5.0


async def test_a_reload_switches_traces_on_and_to_another_receiver(stack: Stack, http: aiohttp.ClientSession) -> None:
    async with http_receiver() as first, http_receiver() as second:
        program = stack.start(config())
        await ask(http, program, "a", max_tokens=1)
        for received in (first, second):
            program.reload(config(endpoint=received.endpoint))
            await _until_traced(http, program, received)
        count = len(first.spans())
        await ask(http, program, "a", max_tokens=1)
        await _until_traced(http, program, second)
        assert len(first.spans()) == count


async def _until_traced(http: aiohttp.ClientSession, program, received: Received) -> None:
    before = len(received.spans())

    async def more() -> bool:
        await ask(http, program, "a", max_tokens=1)
        return len(received.spans()) > before

    await until(more, "traces arrive", within_s=20, every_s=0.2)
