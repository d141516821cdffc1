"""Orders to sleep and to wake: what really happened is what the operator is told."""

import asyncio
import time
from dataclasses import replace
from typing import Any

import orjson
import pytest

from llmswap.config.settings import AccessSettings
from llmswap.core.events import (
    DrainRequested,
    SleepFailed,
    StartFailed,
    WakeFailed,
)
from llmswap.core.fleet import ModelId
from llmswap.core.states import State
from llmswap.proxy import sleep_orders
from tests.proxy.beds import STEPS, beds, sleepy
from tests.proxy.front import KEY, Answer, ask
from tests.stack import until


def said(answer: Answer) -> tuple[int, Any, Any]:
    """Give status, state and code or reason."""
    body = orjson.loads(answer.body)
    return answer.status, body.get("state"), body.get("error", {}).get("code")


def reason(answer: Answer) -> str:
    body = orjson.loads(answer.body)
    assert "error" not in body or body["reason"] in body["error"]["message"]
    return str(body["reason"])


async def test_sleep_answers_when_the_model_is_asleep_and_wake_when_it_is_up() -> None:
    async with beds(quick=False) as made:
        asking = made.ordering("sleep")
        await until(lambda: made.sleeping, "the sleep")
        assert not asking.done()
        made.fall_asleep()
        answer = await asking
        assert (answer.status, orjson.loads(answer.body)) == (200, {"model": "m1", "state": "asleep"})
        asking = made.ordering("wake")
        await until(lambda: made.waking, "the wake")
        assert not asking.done()
        made.rise()
        answer = await asking
        assert (answer.status, orjson.loads(answer.body)) == (200, {"model": "m1", "state": "ready"})


async def test_orders_take_aliases_and_are_fine_with_what_is_so_already() -> None:
    async with beds() as made:
        assert said(await made.order("wake", "m1-alias")) == (200, "ready", None)
        for _ in range(2):
            assert said(await made.order("sleep", "m1-alias")) == (200, "asleep", None)
        assert said(await made.order("wake", "m1-alias")) == (200, "ready", None)


async def test_two_orders_at_once_make_one_sleep_and_one_wake() -> None:
    async with beds(quick=False) as made:
        asking = [made.ordering("sleep") for _ in range(2)]
        await until(lambda: len(made.orders) == 2, "both orders")
        waking = made.ordering("wake")  # wakes it as soon as it sleeps
        await until(lambda: made.served.context.loop.snapshot().upstreams[ModelId("m1")].wanted, "the wish")
        made.fall_asleep()
        assert {said(answer) for answer in await asyncio.gather(*asking)} == {(409, "waking", "woken")}
        made.rise()
        assert said(await waking) == (200, "ready", None)
        assert (made.sleeping, made.waking) == ([], [])


async def test_a_model_that_was_woken_at_once_is_not_said_to_sleep() -> None:
    async with beds(quick=False) as made:
        asking = made.ordering("sleep")
        await until(lambda: made.sleeping, "the sleep")
        with made.busy() as waiting:
            made.quick = True  # its wake
            made.fall_asleep()
            assert waiting.dispatched
            assert said(await asking) == (409, "ready", "woken")


async def test_who_cannot_sleep_is_not_up_or_unknown_is_refused_with_the_reason() -> None:
    async with beds() as made:
        await ask(made.served, "POST", "/api/models/unload/m1")
        for verb, code in (("sleep", "not_ready"), ("wake", "not_asleep")):
            cannot = await made.order(verb, "awake")
            assert said(cannot) == (409, "ready", "cannot_sleep")
            assert "sleepMode" in reason(cannot)
            down = await made.order(verb)
            assert said(down) == (409, "stopped", code)
            assert "stopped" in reason(down)
            assert said(await made.order(verb, "nobody")) == (404, None, "model_not_found")


async def test_a_model_that_is_busy_is_slept_when_it_is_done() -> None:
    async with beds() as made:
        with made.busy():
            asking = made.ordering("sleep")
            await until(lambda: made.orders, "the order")
            assert not asking.done()
            assert made.served.state("m1") is State.READY
        assert said(await asking) == (200, "asleep", None)


async def test_a_model_that_stays_busy_is_a_504_and_goes_on_serving() -> None:
    async with beds(sleepy(drain_s=0.1)) as made:
        with made.busy():
            began_s = time.monotonic()
            answer = await made.order("sleep")
            assert 0.1 <= time.monotonic() - began_s < 3
            assert said(answer) == (504, "ready", "busy")
            with made.busy() as another:
                assert another.dispatched
    assert made.sleeping == []


async def test_a_sleep_that_fails_is_a_502_that_says_stopped_and_why() -> None:
    async with beds(quick=False) as made:
        made.served.stops = False
        asking = made.ordering("sleep")
        await until(lambda: made.sleeping, "the sleep")
        order = made.sleeping.pop()
        why = "POST /sleep?level=1 answered 500"
        made.served.context.loop.post(SleepFailed(order.model, order.generation, why))
        await until(lambda: made.served.held, "the stop")
        assert (await ask(made.served, "GET", "/running")).status == 200  # time enough to answer too early
        assert not asking.done()
        made.served.let_go()
        answer = await asking
        assert said(answer) == (502, "stopped", "sleep_failed")
        assert reason(answer) == why


async def test_who_turned_out_to_be_unable_to_sleep_is_refused_with_what_was_found_out() -> None:
    async with beds(quick=False) as made:
        asking = made.ordering("sleep")
        await until(lambda: made.sleeping, "the sleep")
        order = made.sleeping.pop()
        why = "POST /sleep answered 404: start it with VLLM_SERVER_DEV_MODE=1"
        made.served.context.loop.post(SleepFailed(order.model, order.generation, why, lasting=True))
        assert said(await asking) == (502, "stopped", "sleep_failed")
        made.served.load("m1")
        answer = await made.order("sleep")
        assert said(answer) == (409, "ready", "cannot_sleep")
        assert why in reason(answer)


async def test_a_sleep_that_never_ends_is_a_504(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(sleep_orders, "MARGIN_S", 0.0)
    quickly = tuple(replace(step, timeout_s=0.01) for step in STEPS.sleep)
    bed = sleepy(sleep=quickly, drain_s=0.01)
    bed = replace(bed, launch=replace(bed.launch, stop_grace_s=0.0))
    async with beds(bed, quick=False) as made:
        answer = await made.order("sleep")
        assert said(answer) == (504, "sleepPending", "sleep_timeout")


async def test_no_room_among_the_sleepers_is_a_409() -> None:
    async with beds(sleepers_max=1, quick=False) as made:
        first = made.ordering("sleep", "m2")
        await until(lambda: made.sleeping, "the first sleep")
        answer = await made.order("sleep")
        assert said(answer) == (409, "ready", "cannot_sleep")
        assert "sleepers" in reason(answer)
        made.fall_asleep()
        assert said(await first) == (200, "asleep", None)


async def test_a_failed_wake_that_ends_in_a_cold_start_is_told_as_that() -> None:
    async with beds(quick=False) as made:
        made.quick = True
        await made.order("sleep")
        made.quick = False
        asking = made.ordering("wake")
        await until(lambda: made.waking, "the wake")
        order = made.waking.pop()
        made.served.context.loop.post(WakeFailed(order.model, order.generation, "POST /wake_up answered 500: OOM"))
        answer = await asking
        assert (answer.status, orjson.loads(answer.body)) == (
            200,
            {"model": "m1", "state": "ready", "cold_start": True, "reason": "POST /wake_up answered 500: OOM"},
        )


async def test_a_failed_wake_whose_cold_start_fails_as_well_is_a_502_with_both_reasons() -> None:
    async with beds() as made:
        await made.order("sleep")
        made.quick = made.served.starts = False
        asking = made.ordering("wake")
        await until(lambda: made.waking, "the wake")
        loop, order = made.served.context.loop, made.waking.pop()
        loop.post(WakeFailed(order.model, order.generation, "wake hung"))
        await until(lambda: made.served.state("m1") is State.STARTING, "the cold start")
        cold = loop.snapshot().upstreams[ModelId("m1")].generation
        loop.post(StartFailed(order.model, cold, "exited with code 1"))
        answer = await asking
        assert said(answer) == (502, "failed", "wake_failed")
        assert reason(answer) == "wake hung; then: exited with code 1"


async def test_who_is_unloaded_while_it_wakes_is_a_502() -> None:
    async with beds() as made:
        await made.order("sleep")
        made.quick = False
        asking = made.ordering("wake")
        await until(lambda: made.waking, "the wake")
        await ask(made.served, "POST", "/api/models/unload/m1")
        answer = await asking
        assert said(answer) == (502, "stopped", "wake_failed")


async def test_a_shutdown_ends_the_waiting() -> None:
    async with beds(quick=False) as made:
        made.served.stops = False
        with made.busy():
            asking = made.ordering("sleep")
            await until(lambda: made.orders, "the order")
            made.served.context.loop.post(DrainRequested(time.monotonic() + 30))
            assert said(await asking) == (503, None, "draining")
        assert said(await made.order("wake")) == (503, None, "draining")
        made.served.let_go()


@pytest.mark.parametrize("verb", ["sleep", "wake"])
async def test_orders_ask_for_a_key_and_are_not_taken_from_other_sites(verb: str) -> None:
    async with beds(access=AccessSettings(api_keys=(KEY,))) as made:
        assert (await made.order(verb)).status == 401
        key = {"Authorization": f"Bearer {KEY}"}
        assert said(await made.order(verb, **key, Origin="https://evil.example"))[0] == 403
        assert said(await made.order(verb, **key, **{"Sec-Fetch-Site": "cross-site"}))[0] == 403
        assert (await ask(made.served, "GET", f"/api/models/{verb}/m1", key)).status in (404, 405)
        assert made.served.state("m1") is State.READY
        assert (await made.order(verb, **key)).status == 200


async def test_sleepers_are_running_and_their_state_and_last_trouble_are_in_the_status() -> None:
    async with beds() as made:
        await made.order("sleep")
        running = orjson.loads((await ask(made.served, "GET", "/running")).body)["running"]
        assert {entry["model"]: entry["state"] for entry in running} == {
            "awake": "ready",
            "m1": "asleep",
            "m2": "ready",
        }
        assert running[1]["proxy"] == "http://localhost:9"  # the port in use, not the configured one
        made.quick = False
        asking = made.ordering("sleep", "m2")
        await until(lambda: made.sleeping, "the sleep")
        order = made.sleeping.pop()
        made.served.context.loop.post(SleepFailed(order.model, order.generation, "asked for 20 GiB back, got 1"))
        await asking
        made.served.load("m2")
        status = orjson.loads((await ask(made.served, "GET", "/api/status")).body)["models"]
        assert [(one["state"], one["sleeps"], one["sleep_failure"]) for one in status] == [
            ("asleep", True, None),
            ("ready", True, "asked for 20 GiB back, got 1"),
            ("ready", False, None),
        ]


async def test_the_status_tells_when_an_idle_model_sleeps_and_when_a_sleeper_goes() -> None:
    async with beds(sleep_after_s=30.0, idle_ttl_s=90.0) as made:

        async def left() -> tuple[float | None, float | None]:
            status = orjson.loads((await ask(made.served, "GET", "/api/status")).body)["models"]
            return status[0]["sleep_left_s"], status[0]["ttl_left_s"]

        sleeps_s, goes_s = await left()
        assert sleeps_s is not None
        assert 20 < sleeps_s <= 30
        assert goes_s is not None
        assert 80 < goes_s <= 90
        await made.order("sleep")
        sleeps_s, later_s = await left()
        assert sleeps_s is None
        assert later_s is not None
        assert 80 < later_s <= goes_s  # counted from when it last served, not from its sleep


async def test_an_order_to_a_busy_model_that_cannot_sleep_any_more_is_answered_at_once_with_the_reason():
    async with beds(sleepy(drain_s=60.0), quick=False) as made:
        asking = made.ordering("sleep")
        await until(lambda: made.sleeping, "the sleep")
        order = made.sleeping.pop()
        made.served.context.loop.post(SleepFailed(order.model, order.generation, "answered 404", lasting=True))
        await asking
        made.served.load("m1")
        with made.served.context.gate.enter(ModelId("m1")):
            answer = await asyncio.wait_for(made.order("sleep"), 5)
    assert said(answer) == (409, "ready", "cannot_sleep")
    assert "answered 404" in reason(answer)
