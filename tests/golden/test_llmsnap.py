"""llmsnap's documented recipes run unchanged."""

import asyncio

import pytest

from tests.dialogue import ask, listening
from tests.golden.llmsnap import RECIPES, Box, book, control_calls, operations, order, status
from tests.stack import until


@pytest.fixture
def box(stack, tmp_path):
    return Box(stack, tmp_path)


def text_of(answer):
    return answer["choices"][0]["message"]["content"]


@pytest.mark.parametrize("recipe", RECIPES)
async def test_the_recipe_swaps_by_sleep_and_wake(box, http, recipe):
    program = box.start({name: box.engine(name, recipe) for name in "ab"})
    said, pids = {}, {}
    for name in "ababa":
        code, answer = await ask(http, program, name)
        assert code == 200, answer
        assert said.setdefault(name, text_of(answer)) == text_of(answer)  # weights that are not read again give garbage
        assert pids.setdefault(name, program.upstream_pid(name)) == program.upstream_pid(name)
    assert await program.running() == {"a": "ready", "b": "asleep"}
    noted = await book(program, "a")
    keys = ("sleepEndpoints", "wakeEndpoints")
    steps = [f"{step['method']} {step['endpoint']}" for key in keys for step in RECIPES[recipe][key]]
    assert control_calls(noted) == steps * 2
    assert {result for _, result in operations(noted)} == {"ok"}
    assert [noted["asleep_requests"], (await book(program, "b"))["asleep_requests"]] == [0, 0]
    box.check_memory()


async def test_requests_queue_while_a_model_falls_asleep_sleeps_and_wakes_and_are_served(box, http):
    program = box.start({name: box.engine(name, sleep_l1=40, wake_l1=40) for name in "ab"})
    assert (await ask(http, program, "a"))[0] == 200
    asking = [asyncio.create_task(ask(http, program, "b"))]
    for state in ("sleepPending", "asleep", "waking"):
        await program.until_state("a", state)
        asking.append(asyncio.create_task(ask(http, program, "a")))
        assert (await program.running())["a"] == state
    assert [code for code, _ in await asyncio.gather(*asking)] == [200] * 4
    for name in "ab":
        assert (await book(program, name))["asleep_requests"] == 0
    box.check_memory()


async def test_a_direct_request_waits_for_the_wake_and_control_paths_stay_shut(box, http):
    program = box.start({"a": box.engine("a")})
    assert (await ask(http, program, "a"))[0] == 200
    assert await order(http, program, "sleep", "a") == (200, {"model": "a", "state": "asleep"})
    for path in ("wake_up", "sleep", "is_sleeping"):
        async with http.post(f"{program.url}/upstream/a/{path}") as answer:
            assert answer.status == 403
    assert await program.running() == {"a": "asleep"}
    async with http.get(f"{program.url}/upstream/a/v1/models") as answer:
        assert answer.status == 200
    assert await program.running() == {"a": "ready"}
    assert (await book(program, "a"))["asleep_requests"] == 0


async def test_sleepers_are_seen_and_ordered_and_their_ttl_unloads_them(box, http):
    program = box.start({"a": box.engine("a", config={"ttl": 2, "aliases": ["an-alias"]})})
    assert (await ask(http, program, "a"))[0] == 200
    pid = program.upstream_pid("a")
    assert await order(http, program, "sleep", "an-alias") == (200, {"model": "a", "state": "asleep"})
    assert await program.running() == {"a": "asleep"}
    shown = await status(http, program, "a")
    assert (shown["state"], shown["sleeps"], shown["sleep_failure"]) == ("asleep", True, None)
    assert 0 < shown["ttl_left_s"] <= 2
    async with http.get(program.url + "/v1/models/a") as answer:
        assert (await answer.json())["status"] == {"value": "sleeping"}
    await program.until_state("a", "stopped", 4)
    assert program.family() == [], pid
    assert (await ask(http, program, "a"))[0] == 200  # cold


async def test_the_wake_order_wakes_and_the_process_stays(box, http):
    program = box.start({"a": box.engine("a")})
    assert (await ask(http, program, "a"))[0] == 200
    pid = program.upstream_pid("a")
    for _ in range(2):
        assert (await order(http, program, "sleep", "a"))[1]["state"] == "asleep"
        assert await order(http, program, "wake", "a") == (200, {"model": "a", "state": "ready"})
    assert program.upstream_pid("a") == pid
    assert [kind for kind, _ in operations(await book(program, "a"))] == ["boot", *["sleep", "wake"] * 2]


async def test_the_loading_stream_tells_of_the_wake(box, http):
    program = box.start({"a": box.engine("a", wake_l1=60)}, sendLoadingState=True)
    assert (await ask(http, program, "a"))[0] == 200
    await order(http, program, "sleep", "a")
    async with listening(http, program, "a") as stream:
        await stream.hear_out()
    said = "".join(stream.lines)
    assert "llmswap: waking a" in said
    assert stream.complete
    assert stream.tokens == 3


async def test_unloading_a_sleeper_leaves_nothing_of_its_tree(box, http):
    engine = box.engine("a", fail="orphan_grandchild:stubborn")  # it holds the memory and ignores SIGTERM
    program = box.start({"a": engine}, unloadTimeout=1)
    assert (await ask(http, program, "a"))[0] == 200
    assert (await order(http, program, "sleep", "a"))[0] == 200
    assert len(program.family()) == 2
    assert box.used_bytes() > 0
    async with http.post(program.url + "/api/models/unload/a") as answer:
        assert answer.status == 200
    assert program.family() == []
    assert await program.running() == {}
    await until(lambda: box.used_bytes() == 0, "the memory is free")
