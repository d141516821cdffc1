"""Golden traces of swaps: their phases, whom they link, what a failed wake looks like, and what a start inherits."""

import asyncio

import psutil
import pytest

from llmswap.core.events import UnloadRequested
from llmswap.core.fleet import ModelId
from tests.stack import fake, until
from tests.telemetry.traced import CHAT, Spans, seconds, status, traced, uncovered

ENGINE = {"persona": "vllm", "enable_sleep_mode": True, "time_scale": 0.01, "sleep_l1": 10, "wake_l1": 10}
SERVER = f"POST {CHAT}"


def sleeper(name: str, **more):
    """A model that sleeps for others."""
    return {
        "cmd": fake(name, **{**ENGINE, **more}),
        "env": ["VLLM_SERVER_DEV_MODE=1"],
        "sleepMode": "enable",
        "sleep": {"preset": "vllm-l1"},
    }


@pytest.fixture
def serving(http, tmp_path, monkeypatch):
    def start(models, **config):
        return traced(models, http, tmp_path, monkeypatch, **config)

    return start


def swaps_to(spans: Spans, model: str):
    return [span for span in spans.named("llmswap.swap") if span.attributes["llmswap.swap.to_model"] == model]


async def test_a_cold_swap_tells_the_stop_the_wait_for_memory_the_start_and_the_health(serving) -> None:
    async with serving({"a": {"cmd": fake("a", sigterm_delay=0.3)}, "b": {"cmd": fake("b", boot=0.5)}}) as program:
        await program.ask("a")
        assert await program.ask("b") == 200
        (swap,) = swaps_to(program.spans, "b")
        outline = program.spans.outline(swap)
        children = program.spans.children(swap)
        pid = program.app._supervisor.pid(ModelId("b"))
    assert outline == [
        "llmswap.swap",
        "llmswap.upstream.stop",
        "llmswap.swap.free_wait",
        "llmswap.upstream.start",
        "llmswap.upstream.health_wait",
    ]
    told = dict(swap.attributes)
    assert told.pop("llmswap.swap.id") == "2"
    assert told.pop("llmswap.generation") == 2
    assert told == {
        "llmswap.swap.from_model": "a",
        "llmswap.swap.to_model": "b",
        "llmswap.swap.kind": "cold",
        "llmswap.swap.reason": "request",
        "llmswap.swap.joined_requests": 1,
        "llmswap.swap.outcome": "ok",
        "llmswap.swap.thrash": False,
    }
    assert status(swap) == ("unset", None)
    assert uncovered(swap, children) <= 0.02
    stop, _, start, health = children
    assert (stop.attributes["llmswap.model"], health.attributes["llmswap.model"]) == ("a", "b")
    assert stop.attributes["process.exit.code"] == 0
    assert start.attributes["process.pid"] == health.attributes["process.pid"] == pid
    answers = [event.attributes["llmswap.health.answer"] for event in health.events]
    assert answers[-1] == "answered 200"
    assert "answered 503" in answers
    assert len(answers) == len({*answers}), "an event per change, not per probe"


async def test_a_swap_begins_with_the_wait_for_who_was_busy_and_both_sides_tell_how_long_that_was(serving) -> None:
    models = {"a": {"cmd": fake("a", itl=50, output_tokens="exact:20")}, "b": {"cmd": fake("b")}}
    async with serving(models) as program:
        await program.ask("a", max_tokens=1)
        busy = asyncio.create_task(program.ask("a", max_tokens=20))
        await until(lambda: program.app.loop.snapshot().upstreams[ModelId("a")].in_flight, "a is busy")
        assert await program.ask("b") == 200
        await busy
        (swap,) = swaps_to(program.spans, "b")
        drain, *others = program.spans.children(swap)
        queues = await program.spans.until("llmswap.queue", 2)
        queue = next(span for span in queues if span.attributes["llmswap.model"] == "b")
        metrics = await program.metrics()
    assert drain.name == "llmswap.swap.drain"
    assert drain.attributes == {"llmswap.model": "a"}
    assert drain.start_time == swap.start_time
    (decided,) = swap.events
    assert decided.name == "decided"
    assert drain.end_time <= decided.timestamp <= others[0].start_time
    assert seconds(drain) == pytest.approx(
        metrics['llmswap_swap_phase_duration_seconds_sum{kind="cold",phase="drain"}'], abs=1e-6
    )
    assert queue.links[0].context.span_id == swap.context.span_id
    waited = {cause: queue.attributes[f"llmswap.wait.{cause}_s"] for cause in ("drain", "swap")}
    assert queue.attributes["llmswap.wait.cause"] == max(waited, key=waited.__getitem__)
    assert waited["drain"] == pytest.approx(seconds(drain), abs=1e-6)
    for cause, spent_s in waited.items():
        counted = metrics[f'llmswap_request_wait_seconds_total{{cause="{cause}",model="b"}}']
        assert spent_s == pytest.approx(counted, abs=1e-6), cause


async def test_coming_back_too_soon_is_told_of_the_swap_as_it_is_counted(serving) -> None:
    async with serving({"a": {"cmd": fake("a")}, "b": {"cmd": fake("b")}}) as program:
        for model in ("a", "b", "a"):
            await program.ask(model)
        thrash = [span.attributes["llmswap.swap.thrash"] for span in program.spans.named("llmswap.swap")]
        metrics = await program.metrics()
    assert thrash == [False, False, True]
    assert metrics['llmswap_swap_thrash_total{to_model="a"}'] == 1


async def test_a_wake_tells_the_sleep_of_who_went_and_each_call_to_their_control_apis(serving) -> None:
    async with serving({"a": sleeper("a"), "b": sleeper("b")}) as program:
        await program.ask("a")
        await program.ask("b")
        assert await program.ask("a") == 200
        _, swap = swaps_to(program.spans, "a")
        outline = program.spans.outline(swap)
        children = program.spans.children(swap)
        wake = next(span for span in children if span.name == "llmswap.upstream.wake")
        call = program.spans.children(wake)[-1]
    assert outline[:3] == ["llmswap.swap", ["llmswap.upstream.sleep", "POST /sleep"], "llmswap.swap.free_wait"]
    assert outline[3][:2] == ["llmswap.upstream.wake", "POST /wake_up"]
    assert (swap.attributes["llmswap.swap.kind"], swap.attributes["llmswap.swap.from_model"]) == ("wake1", "b")
    assert uncovered(swap, children) <= 0.02
    assert (call.kind.name, call.attributes["http.response.status_code"]) == ("CLIENT", 200)
    assert children[0].attributes["llmswap.backend"] == "unknown"


async def test_a_failed_wake_and_the_cold_start_after_it_are_two_swaps_and_the_request_knows_both(serving) -> None:
    async with serving({"a": sleeper("a", fail=["wake_500"]), "b": sleeper("b")}) as program:
        await program.ask("a")
        await program.ask("b")
        program.spans.exporter.clear()
        assert await program.ask("a") == 200
        woken, started = swaps_to(program.spans, "a")
        server = program.spans.one(SERVER)
        queue, client = program.spans.children(server)
        wake = program.spans.outline(woken)
        start = program.spans.outline(started)
        of_wake = program.spans.children(woken)
    assert [woken.attributes["llmswap.swap.kind"], started.attributes["llmswap.swap.kind"]] == ["wake1", "cold"]
    assert status(woken) == ("error", "unhealthy")
    assert woken.status.description.startswith("wake step 1 of")
    assert status(started) == ("unset", None)
    assert ["llmswap.upstream.wake", "POST /wake_up"] in wake
    assert wake[-2:] == ["llmswap.upstream.stop", "llmswap.swap.free_wait"], "over when what it left is gone"
    assert start[1:] == ["llmswap.upstream.start", "llmswap.upstream.health_wait"]
    assert status(next(span for span in of_wake if span.name == "llmswap.upstream.wake"))[0] == "error"
    assert woken.end_time <= started.start_time + 1_000_000
    assert [link.context.span_id for link in queue.links] == [woken.context.span_id, started.context.span_id]
    assert [link.context.span_id for link in woken.links] == [server.context.span_id]
    assert [link.context.span_id for link in started.links] == [server.context.span_id]
    assert uncovered(server, [queue, client]) <= 0.02


async def test_a_swap_that_is_called_off_is_told_as_aborted(serving) -> None:
    async with serving({"a": {"cmd": fake("a", boot=30)}}) as program:
        asked = asyncio.create_task(program.ask("a"))
        await until(lambda: program.app._supervisor.pid(ModelId("a")), "it is spawned")
        program.app.loop.post(UnloadRequested())
        (swap,) = await program.spans.until("llmswap.swap")
        await asked
        outline = program.spans.outline(swap)
    assert status(swap) == ("error", "aborted")
    assert outline[1:4] == ["llmswap.upstream.start", "llmswap.upstream.health_wait", "llmswap.upstream.stop"]
    assert swap.attributes["llmswap.swap.joined_requests"] == 1


async def test_a_start_inherits_the_context_of_its_span_and_no_other(serving, monkeypatch) -> None:
    monkeypatch.setenv("TRACEPARENT", "00-" + "1" * 32 + "-" + "2" * 16 + "-01")
    models = {"a": {"cmd": fake("a")}, "b": {"cmd": fake("b"), "env": ["TRACEPARENT=as configured"]}}
    async with serving(models) as program:
        await program.ask("a")
        of_a = psutil.Process(program.app._supervisor.pid(ModelId("a"))).environ()["TRACEPARENT"]
        start = program.spans.one("llmswap.upstream.start")
        await program.ask("b")
        of_b = psutil.Process(program.app._supervisor.pid(ModelId("b"))).environ()["TRACEPARENT"]
    assert of_a == f"00-{start.context.trace_id:032x}-{start.context.span_id:016x}-01"
    assert of_b == "as configured"


async def test_a_swap_for_nobody_links_nobody(serving) -> None:
    hooks = {"on_startup": {"preload": ["a"]}}
    async with serving({"a": {"cmd": fake("a")}}, hooks=hooks) as program:
        (swap,) = await program.spans.until("llmswap.swap")
    assert (swap.attributes["llmswap.swap.reason"], swap.attributes["llmswap.swap.joined_requests"]) == ("load", 0)
    assert swap.links == ()
