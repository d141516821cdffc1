"""What runs, what is to stop, and whether it all gets anywhere."""

import asyncio
import time
from typing import Any

import orjson
import psutil
import pytest

from llmswap.config.settings import AccessSettings, Launch, MemorySettings
from llmswap.core.events import DrainRequested, Generation, RequestId, StopFailed
from llmswap.core.fleet import ModelId
from llmswap.core.snapshot import Snapshot, UpstreamView
from llmswap.core.states import State
from llmswap.proxy import admin, health
from llmswap.runtime import heartbeat
from llmswap.runtime.footprints import Seen
from tests.proxy.front import KEY, Front, ask, front, loaded, model
from tests.stack import until

SECRET = "hf_0123456789abcdefghij"


async def got(served: Front, path: str) -> Any:
    answer = await ask(served, "GET", path)
    assert answer.status == 200, answer.text
    return orjson.loads(answer.body)


async def test_running_lists_what_is_not_stopped_with_secrets_hidden() -> None:
    launch = Launch(
        ModelId("m1"), cmd=f"serve --port ${{PORT}} --api-key {SECRET}", proxy="http://localhost:${PORT}", port=5801
    )
    async with front(
        loaded(model("m2"), model("m1", launch=launch, name="One", description="first"), idle_ttl_s=90.0)
    ) as served:
        assert await got(served, "/running") == {"running": []}
        served.load("m2")
        served.load("m1")
        running = (await got(served, "/running"))["running"]
        assert [entry["model"] for entry in running] == ["m1", "m2"]
        port = served.base_url.rpartition(":")[2]
        assert running[0] == {
            "model": "m1",
            "state": "ready",
            "cmd": f"serve --port {port} --api-key ***",
            "proxy": f"http://localhost:{port}",
            "ttl": 90,
            "name": "One",
            "description": "first",
        }


async def test_status_tells_states_waits_and_times() -> None:
    async with front(loaded(model("m1"), model("m2"), idle_ttl_s=90.0)) as served:
        served.starts = False
        served.load("m1")
        status = await got(served, "/api/status")
        assert status["draining"] is False
        assert status["swaps"] == [{"target": "m1", "waiting_for": []}]
        one, two = status["models"]
        assert (one["model"], one["state"], one["generation"], one["in_flight"], one["waiting"]) == (
            "m1",
            "starting",
            1,
            0,
            0,
        )
        assert 0 <= one["since_s"] < 5
        assert one["ttl_left_s"] is None
        assert (two["state"], two["failure"], two["retry_in_s"]) == ("stopped", None, None)
        assert two["since_s"] is None  # it never ran


async def test_status_tells_what_memory_models_were_seen_to_hold() -> None:
    async with front(loaded(model("m1"), model("m2"), model("m3"))) as served:
        one, two = Generation(1), Generation(2)
        served.context.footprints = lambda: {
            ModelId("m1"): {
                State.READY: Seen(one, {"GPU-1": 5, "GPU-2": 6}, host_bytes=7),
                State.ASLEEP: Seen(one, {"GPU-1": 1}, host_bytes=9),
            },
            ModelId("m2"): {State.READY: Seen(two, problem="no NVIDIA driver")},
        }
        first, second, third = (await got(served, "/api/status"))["models"]
        ready = {"gpu_bytes": 11, "by_gpu": {"GPU-1": 5, "GPU-2": 6}, "host_bytes": 7, "problem": None}
        asleep = {"gpu_bytes": 1, "by_gpu": {"GPU-1": 1}, "host_bytes": 9, "problem": None}
        unseen = {"gpu_bytes": None, "by_gpu": {}, "host_bytes": None, "problem": "no NVIDIA driver"}
        assert first["memory"] == {"ready": ready, "asleep": asleep}
        assert (second["memory"], third["memory"]) == ({"ready": unseen}, {})


async def test_status_tells_how_long_an_idle_model_stays() -> None:
    async with front(loaded(model("m1"), idle_ttl_s=90.0)) as served:
        served.load("m1")
        one = (await got(served, "/api/status"))["models"][0]
        assert 80 < one["ttl_left_s"] <= 90


@pytest.mark.parametrize(
    ("method", "path", "body"),
    [
        ("GET", "/unload", b"OK"),
        ("POST", "/api/models/unload", b'{"msg":"ok"}'),
        ("POST", "/api/models/unload/m1", b"OK"),
    ],
)
async def test_unload_answers_only_when_the_upstream_is_gone(method: str, path: str, body: bytes) -> None:
    async with front(loaded(model("m1"))) as served:
        served.load("m1")
        served.stops = False
        asking = asyncio.create_task(ask(served, method, path))
        assert await served.context.loop.wait_for(lambda now: now.upstreams[ModelId("m1")].state is State.STOPPING, 5)
        await until(lambda: served.held, "the stop")
        assert not asking.done()
        served.let_go()
        answer = await asking
        assert (answer.status, answer.body) == (200, body)


async def test_unload_does_not_wait_for_the_next_life_of_the_model() -> None:
    async with front(loaded(model("m1"))) as served:
        served.load("m1")
        served.stops = served.starts = False
        asking = asyncio.create_task(ask(served, "GET", "/unload"))
        await until(lambda: served.held, "the stop")
        served.load("m1")
        served.let_go()
        assert (await asking).text == "OK"
        assert served.state("m1") == "starting"


async def test_unload_of_a_stubborn_upstream_is_a_504_that_names_it(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(admin, "STOP_MARGIN_S", 0.05)
    launch = Launch(ModelId("m1"), cmd="x", proxy="http://localhost", stop_grace_s=0.05)
    async with front(loaded(model("m1", launch=launch), memory=MemorySettings(cap_s=0.05))) as served:
        served.load("m1")
        served.stops = False
        answer = await ask(served, "GET", "/unload")
        assert answer.status == 504
        assert "still there: m1" in answer.text
        stop = served.held[0]
        served.context.loop.post(StopFailed(stop.model, stop.generation, "40.0 GiB of GPU 0 held by 4711"))
        answer = await ask(served, "GET", "/unload")
        assert "still there: m1 (40.0 GiB of GPU 0 held by 4711)" in answer.text


async def test_unload_waits_until_memory_had_its_time_to_be_freed(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(admin, "STOP_MARGIN_S", 0.0)
    launch = Launch(ModelId("m1"), cmd="x", proxy="http://localhost", stop_grace_s=0.0)
    async with front(loaded(model("m1", launch=launch), memory=MemorySettings(cap_s=5.0))) as served:
        served.load("m1")
        served.stops = False
        asking = asyncio.create_task(ask(served, "GET", "/unload"))
        await until(lambda: served.held, "the stop")
        assert (await ask(served, "GET", "/running")).status == 200
        served.let_go()
        assert (await asking).status == 200


async def test_unload_of_one_model_leaves_the_others() -> None:
    async with front() as served:
        served.load("m1")
        served.load("author/model")
        assert (await ask(served, "POST", "/api/models/unload/author%2Fmodel")).status == 200
        assert (served.state("m1"), served.state("author/model")) == ("ready", "stopped")
        assert (await ask(served, "POST", "/api/models/unload/alias-1")).status == 200
        assert served.state("m1") == "stopped"


async def test_unloading_what_is_not_loaded_is_fine_and_unknown_models_are_404() -> None:
    async with front() as served:
        assert (await ask(served, "POST", "/api/models/unload/m1")).text == "OK"
        missing = await ask(served, "POST", "/api/models/unload/nope")
        assert missing.status == 404
        assert "model not found" in missing.text


async def test_cancel_of_an_unknown_request_is_404() -> None:
    async with front() as served:
        for number in ("7", "x", "-1", "\u0667"):
            assert (await ask(served, "POST", f"/api/inflight/{number}/cancel")).status == 404


async def test_metrics_version_hardware_and_performance_answer_in_their_forms() -> None:
    async with front() as served:
        metrics = await ask(served, "GET", "/metrics")
        assert metrics.headers["content-type"] == "text/plain; version=0.0.4; charset=utf-8"
        assert metrics.text == "llmswap_up 1\n"
        assert set(await got(served, "/api/version")) == {"version", "commit", "build_date"}
        assert (await got(served, "/api/hardware"))["memory"]["capacity_bytes"] == psutil.virtual_memory().total
        performance = await ask(served, "GET", "/api/performance")
        assert (performance.status, orjson.loads(performance.body)) == (503, {"enabled": False})


async def ready(served: Front, **headers: str) -> tuple[int, list[str]]:
    answer = await ask(served, "GET", "/ready", headers)
    return answer.status, orjson.loads(answer.body)["reasons"]


async def test_ready_when_nothing_is_wrong() -> None:
    async with front() as served:
        assert await ready(served) == (200, [])


async def test_not_ready_while_draining_but_still_healthy() -> None:
    async with front() as served:
        served.load("m1")
        served.stops = False
        served.context.loop.post(DrainRequested(time.monotonic() + 30))
        assert await ready(served) == (503, ["shutting down"])
        assert (await ask(served, "GET", "/health")).text == "OK"
        served.let_go()


async def test_not_ready_when_the_scheduler_has_failed() -> None:
    async with front() as served:
        served.context.loop.post(RequestId(1))  # type: ignore[arg-type]  no event at all
        status, reasons = await ready(served)
        assert status == 503
        assert "scheduler" in reasons[0]


async def test_not_ready_when_an_upstream_cannot_be_stopped_and_only_admins_learn_which() -> None:
    async with front() as served:
        served.load("m1")
        served.stops = False
        asking = asyncio.create_task(ask(served, "GET", "/unload"))
        await until(lambda: served.held, "the stop")
        stop = served.held[0]
        served.context.loop.post(StopFailed(stop.model, stop.generation, "in D state"))
        assert await ready(served) == (503, ["upstream m1 cannot be stopped"])
        served.configure(AccessSettings(api_keys=(KEY,)))
        assert await ready(served) == (503, ["an upstream cannot be stopped"])
        assert await ready(served, Authorization=f"Bearer {KEY}") == (503, ["upstream m1 cannot be stopped"])
        served.let_go()
        assert (await asking).status == 200


async def test_not_ready_when_a_request_waits_past_its_queue_timeout(monkeypatch: pytest.MonkeyPatch) -> None:
    async with front(loaded(model("m1"), queue_timeout_s=5.0)) as served:
        now_s = time.monotonic()
        one = ModelId("m1")
        view = served.context.loop.snapshot().upstreams[one]
        for waited_s, status in ((5.5, 200), (60.0, 503)):
            late = UpstreamView(one, view.state, view.generation, 0, 1, view.since_s, oldest_waiting_s=now_s - waited_s)
            monkeypatch.setattr(
                served.context.loop, "snapshot", lambda late=late: Snapshot({one: late}, (), draining=False)
            )
            assert (await ready(served))[0] == status


async def test_not_ready_just_after_the_event_loop_was_blocked(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(heartbeat, "BEAT_S", 0.01)
    monkeypatch.setattr(health, "LAG_MAX_S", 0.2)
    async with front() as served:
        assert (await ready(served))[0] == 200
        heart = served.context.heartbeat
        time.sleep(0.3)  # noqa: ASYNC251  the block itself
        assert heart.lag_s > 0.2
        assert heart.worst_s >= heart.lag_s - 0.01
        monkeypatch.setattr(heartbeat.Heartbeat, "lag_s", 12.0)
        monkeypatch.setattr(health, "LAG_MAX_S", 10.0)
        assert await ready(served) == (503, ["the event loop was blocked for 12 s"])
