"""Golden rows that need the whole program."""

import asyncio
import os
import time

import aiohttp

from tests.dialogue import ask, listening
from tests.stack import Program, as_yaml, fake, until


async def test_g094_shutdown_answers_every_client_and_leaves_no_process(stack, http):
    models = {"a": {"cmd": fake("a", itl=20, output_tokens="exact:50")}, "b": {"cmd": fake("b")}}
    program = stack.start({"models": {**models, "c": {"cmd": fake("c")}}})
    async with listening(http, program, "a") as serving:
        await serving.hear(1)
        others = [asyncio.create_task(ask(http, program, model)) for model in ("b", "c", "b")]

        async def all_wait() -> bool:
            return await program.metric("llmswap_queue_depth") == len(others)

        await until(all_wait, "three requests wait")
        program.terminate()
        answers = await asyncio.gather(*others)
        assert [status for status, _ in answers] == [503, 503, 503]
        assert all("error" in answer for _, answer in answers)
        await serving.hear_out()
    assert serving.complete
    assert await program.exited(5) == 0
    assert program.family() == []


async def test_g094_shutdown_while_loading_answers_the_waiter(stack, http):
    program = stack.start({"models": {"a": {"cmd": fake("a", boot=60)}}})
    waiter = asyncio.create_task(ask(http, program, "a"))
    await program.until_state("a", "starting")
    program.terminate()
    status, answer = await waiter
    assert status == 503, answer
    assert await program.exited(5) == 0
    assert program.family() == []


async def test_g103_ttl_counts_from_the_end_of_the_last_request(stack, http):
    models = {
        "a": {"cmd": fake("a", itl=20, output_tokens="exact:75"), "ttl": 1},
        "b": {"cmd": fake("b"), "ttl": 0},
    }
    groups = {"all": {"swap": False, "exclusive": False, "members": ["a", "b"]}}
    program = stack.start({"globalTTL": 1, "models": models, "groups": groups})
    assert (await ask(http, program, "b"))[0] == 200
    async with listening(http, program, "a") as stream:
        await stream.hear_out()  # one and a half times the ttl
    ended_s = time.monotonic()
    assert stream.complete
    assert (await program.running())["a"] == "ready"
    await program.until_state("a", "stopped", 3)
    assert 0.9 <= time.monotonic() - ended_s <= 2
    assert await program.running() == {"b": "ready"}


async def listed(program: Program) -> set[str]:
    async with aiohttp.ClientSession() as http, http.get(program.url + "/v1/models") as answer:
        return {model["id"] for model in (await answer.json())["data"]}


async def until_listed(program: Program, *models: str) -> None:
    async def reached() -> bool:
        return await listed(program) == set(models)

    await until(reached, f"models are {models}\n{program.log_text()}")


async def test_g106_reload_follows_the_file_however_it_changes(stack):
    def config(*names: str) -> str:
        return as_yaml({"models": {name: {"cmd": fake(name)} for name in names}})

    program = stack.start(config("aaa"), "--watch-config")
    path = program.config_path
    before = path.stat()
    path.write_text(config("bbb"))  # as long as before, and with its time put back one second off: only mtime differs
    os.utime(path, ns=(before.st_atime_ns, before.st_mtime_ns + 10**9))
    await until_listed(program, "bbb")
    kept = path.stat()
    path.write_text(config("bbb", "ccc"))  # only the size differs
    os.utime(path, ns=(kept.st_atime_ns, kept.st_mtime_ns))
    await until_listed(program, "bbb", "ccc")
    path.unlink()
    program.write_config(config("ddd"))
    await until_listed(program, "ddd")
    path.write_text("models: [")
    await until(lambda: "reload refused" in program.log_text(), "a bad file is refused")
    assert await listed(program) == {"ddd"}


async def test_g106_sighup_reloads_without_watch_config(stack):
    program = stack.start({"models": {"a": {"cmd": fake("a")}}})
    program.reload({"models": {"b": {"cmd": fake("b")}}})
    await until_listed(program, "b")


async def test_g107_reload_while_streaming_cuts_no_stream(stack, http):
    a = {"cmd": fake("a", itl=20, output_tokens="exact:60")}
    program = stack.start({"models": {"a": a}})
    async with listening(http, program, "a") as stream:
        await stream.hear(1)
        pid = program.upstream_pid("a")
        for number in range(3):
            program.reload({"models": {"a": a, f"new{number}": {"cmd": fake("b")}}})
            await until_listed(program, "a", f"new{number}")
        await stream.hear_out()
    assert stream.complete
    assert stream.tokens == 60
    assert program.upstream_pid("a") == pid
    assert (await ask(http, program, "a", max_tokens=1))[0] == 200
