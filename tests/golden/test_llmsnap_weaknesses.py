"""What goes wrong in llmsnap, and goes right here: one test per weakness.

Others stand elsewhere. Requests that come while a model falls asleep wait, sleepers are shown, their whole tree is
unloaded: test_llmsnap.py. Garbage after a wake, engines that die asleep: tests/faults/test_sleep.py. Time limits below
a second, lists that lack a half: tests/config/test_sleeping.py; presets under a global limit: test_sleep_presets.py.
Places in line: tests/proxy/test_queue.py. A first look at readiness that comes late: tests/runtime/test_readiness.py.
"""

import asyncio
import time

import pytest

from tests.dialogue import ask, listening
from tests.golden.llmsnap import Box, arm, book, operations, order, status
from tests.stack import fake, until


@pytest.fixture
def box(stack, tmp_path):
    return Box(stack, tmp_path)


async def test_an_ordered_sleep_waits_for_work_in_flight_no_longer_than_it_says(box, http):
    """There: without bound, and requests that arrive meanwhile extend the wait."""
    engine = box.engine("a", itl=2000, output_tokens="exact:100", config={"sleep": {"drainTimeout": 1}})
    program = box.start({"a": engine})
    assert (await ask(http, program, "a", max_tokens=1))[0] == 200
    async with listening(http, program, "a") as stream:
        await stream.hear(1)
        began_s = time.monotonic()
        ordering = asyncio.create_task(order(http, program, "sleep", "a"))
        await asyncio.wait([ordering], timeout=0.2)
        late = asyncio.create_task(ask(http, program, "a", max_tokens=1))  # waits: it does not extend the drain
        code, answer = await ordering
        assert time.monotonic() - began_s >= 1
        assert (code, answer["state"], answer["error"]["code"]) == (504, "ready", "busy")
        assert (await late)[0] == 200
        await stream.hear_out()
    assert stream.complete
    assert stream.tokens == 100  # cut short by nobody
    assert operations(await book(program, "a")) == [("boot", "ok")]


async def test_an_ordered_sleep_begins_when_the_last_answer_is_out(box, http):
    program = box.start({"a": box.engine("a", itl=1000, output_tokens="exact:30")})
    assert (await ask(http, program, "a", max_tokens=1))[0] == 200
    async with listening(http, program, "a") as stream:
        await stream.hear(1)
        ordering = asyncio.create_task(order(http, program, "sleep", "a"))
        await stream.hear_out()
    assert (stream.complete, stream.tokens) == (True, 30)
    assert await ordering == (200, {"model": "a", "state": "asleep"})
    slept = (await book(program, "a"))["operations"][-1]
    assert (slept["kind"], slept["running"], slept["waiting"]) == ("sleep", 0, 0)


@pytest.mark.parametrize(
    ("fault", "why"),
    [
        ("sleep_200_awake", "still awake"),  # there: asleep, because of the 200
        ("sleep_500", "answered 500"),
    ],
)
async def test_the_order_to_sleep_answers_what_really_happened(box, http, fault, why):
    """There: 200 OK, whatever came of it."""
    program = box.start({"a": box.engine("a", fail=fault)})
    code, answer = await order(http, program, "sleep", "a")
    assert (code, answer["state"]) == (409, "stopped")
    assert (await ask(http, program, "a"))[0] == 200
    code, answer = await order(http, program, "sleep", "a")
    assert (code, answer["state"]) == (502, "stopped")
    assert why in answer["reason"]
    assert program.family() == []
    assert (await status(http, program, "a"))["sleep_failure"] == answer["reason"]


async def test_steps_answered_404_are_not_tried_again_in_vain(box, http):
    """There: each eviction tries, fails and stops."""
    program = box.start({"a": {**box.engine("a"), "env": []}})  # no VLLM_SERVER_DEV_MODE=1
    assert (await ask(http, program, "a"))[0] == 200
    code, answer = await order(http, program, "sleep", "a")
    assert (code, answer["state"]) == (502, "stopped")
    assert "VLLM_SERVER_DEV_MODE" in answer["reason"]
    assert (await ask(http, program, "a"))[0] == 200
    code, answer = await order(http, program, "sleep", "a")
    assert (code, answer["state"]) == (409, "ready")
    assert "VLLM_SERVER_DEV_MODE" in answer["reason"]


@pytest.mark.parametrize(
    ("fault", "why"),
    [
        ("wake_oom", "out of memory"),  # there: swallowed, if the cold start works
        ("wake_200_still_asleep", "still asleep"),  # there: ready, and requests wait in the engine for ever
    ],
)
async def test_a_failed_wake_ends_in_one_cold_start_and_its_reason_is_kept(box, http, fault, why):
    program = box.start({"a": box.engine("a")})
    assert (await ask(http, program, "a"))[0] == 200
    assert (await order(http, program, "sleep", "a"))[0] == 200
    pid = program.upstream_pid("a")
    await arm(program, "a", fault)
    assert (await ask(http, program, "a"))[0] == 200
    assert program.upstream_pid("a") != pid
    shown = await status(http, program, "a")
    assert shown["state"] == "ready"
    assert why in shown["sleep_failure"]
    assert operations(await book(program, "a")) == [("boot", "ok")]
    box.check_memory()


async def test_the_first_request_after_a_swap_blocks_nobody_else(box, http):
    """There: the group is locked while it runs, also for requests to the same model."""
    program = box.start({name: box.engine(name, itl=2000, output_tokens="exact:100") for name in "ab"})
    assert (await ask(http, program, "a", max_tokens=1))[0] == 200
    async with listening(http, program, "b") as stream:
        await stream.hear(1)
        assert (await ask(http, program, "b", max_tokens=1))[0] == 200
        assert await order(http, program, "wake", "b") == (200, {"model": "b", "state": "ready"})
        assert not stream.complete
        assert stream.tokens < 100


async def test_no_more_sleep_than_sleepers_max_allows(box, http):
    """There: N swaps, N sleepers, each with its rest on the GPU."""
    program = box.start({name: box.engine(name) for name in "abc"}, sleepers={"max": 1})
    for name in "abca":
        assert (await ask(http, program, name))[0] == 200
        states = sorted((await program.running()).values())
        assert states in (["ready"], ["asleep", "ready"])
    box.check_memory()


async def test_a_crash_is_seen_awake_and_asleep(box, http):
    """There: the state changes without an event, so that neither the page nor the metrics know."""
    program = box.start({"a": box.engine("a")})
    assert (await ask(http, program, "a"))[0] == 200
    program.upstream("a").kill()
    await program.until_state("a", "stopped", 2)
    assert "SIGKILL" in (await status(http, program, "a"))["failure"]
    assert (await ask(http, program, "a"))[0] == 200
    assert (await order(http, program, "sleep", "a"))[0] == 200
    program.upstream("a").kill()
    await program.until_state("a", "stopped", 2)
    assert program.log_text().count("a: exited by itself") == 2
    assert (await ask(http, program, "a"))[0] == 200  # cold


async def test_who_cannot_sleep_is_refused_and_wakes_have_a_route(stack, http):
    """There: 500, and waking takes a request."""
    program = stack.start({"models": {"a": {"cmd": fake("a")}}})
    assert (await ask(http, program, "a"))[0] == 200
    for verb in ("sleep", "wake"):
        code, answer = await order(http, program, verb, "a")
        assert (code, answer["error"]["code"]) == (409, "cannot_sleep")
        assert (await order(http, program, verb, "b"))[0] == 404
    assert await program.running() == {"a": "ready"}


async def test_the_clocks_of_idling_run_on_through_a_sleep_and_anew_after_a_wake(box, http):
    """There: no sleep after a while and stop after a longer one; and who looks at the clock is not begun by a wake."""
    program = box.start({"a": box.engine("a", config={"sleepAfter": 1, "ttl": 3})})
    assert (await ask(http, program, "a"))[0] == 200
    await program.until_state("a", "asleep")
    pid = program.upstream_pid("a")
    began_s = time.monotonic()
    assert (await ask(http, program, "a"))[0] == 200
    await program.until_state("a", "asleep")
    assert time.monotonic() - began_s > 0.9
    assert program.upstream_pid("a") == pid
    await program.until_state("a", "stopped")
    assert time.monotonic() - began_s > 2.9
    await until(lambda: program.family() == [], "nothing is left")


async def test_the_members_of_a_group_are_put_to_sleep_at_once(box, http):
    """There: the same since they sleep at all; before, they were stopped."""
    small, slow = {"gpu_ready": 20}, {"sleep_l1": 80}
    models = {name: box.engine(name, **small, **slow) for name in "ab"} | {"c": box.engine("c")}
    groups = {"pair": {"swap": False, "members": ["a", "b"]}, "rest": {"members": ["c"]}}
    program = box.start(models, groups=groups)
    for name in "abc":
        assert (await ask(http, program, name))[0] == 200
    assert await program.running() == {"a": "asleep", "b": "asleep", "c": "ready"}
    sleeps = []
    for name in "ab":
        noted = await book(program, name)
        slept = noted["operations"][-1]
        assert (slept["kind"], slept["result"]) == ("sleep", "ok")
        sleeps.append((noted["born_s"] + slept["began_s"], noted["born_s"] + slept["ended_s"]))
    assert max(began_s for began_s, _ in sleeps) < min(ended_s for _, ended_s in sleeps)
    box.check_memory()
