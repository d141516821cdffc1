"""What only the whole program shows: preload, refused reloads, exit codes, the end after a broken scheduler."""

import asyncio
import re
import time
from pathlib import Path

import aiohttp
import pytest

from llmswap.app import EXIT_FATAL, App, Options
from llmswap.config.errors import ConfigError
from llmswap.config.load import loads
from llmswap.core.events import RequestFinished, RequestId
from tests.stack import Program, Stack, fake, until


def two_models() -> dict[str, dict[str, str]]:
    return {"a": {"cmd": fake("a")}, "b": {"cmd": fake("b")}}


async def test_preload_loads_a_group_that_does_not_swap_at_once(stack: Stack) -> None:
    config = {
        "models": {name: {"cmd": fake(name, boot=0.1)} for name in "abc"},
        "groups": {"together": {"swap": False, "members": ["a", "b", "c"]}},
        "hooks": {"on_startup": {"preload": ["b", "a", "c"]}},
    }
    program = stack.start(config)

    await until(lambda: "preload 3/3" in program.log_text(), "the preload")

    assert await program.running() == {"a": "ready", "b": "ready", "c": "ready"}
    assert starts_and_ends(program)[:3] == [("b", "starting"), ("a", "starting"), ("c", "starting")]


async def test_preload_loads_a_swap_group_one_by_one_in_the_configs_order(stack: Stack) -> None:
    program = stack.start({"models": two_models(), "hooks": {"on_startup": {"preload": ["b", "a"]}}})

    await until(lambda: "preload 2/2: a ready in" in program.log_text(), "the preload")

    assert await program.running() == {"a": "ready"}
    assert starts_and_ends(program) == [("b", "starting"), ("b", "ready"), ("a", "starting"), ("a", "ready")]


def starts_and_ends(program: Program) -> list[tuple[str, str]]:
    return re.findall(r"\] ([abc]): (starting|ready)", program.log_text())


async def test_a_preload_that_fails_is_logged_and_the_next_one_goes_on(stack: Stack) -> None:
    program = stack.start(
        {
            "models": {**two_models(), "a": {"cmd": "false ${PORT}"}},
            "hooks": {"on_startup": {"preload": ["a", "b", "stranger"]}},
        }
    )

    await until(lambda: "preload 2/2: b ready in" in program.log_text(), "the preload")

    assert re.search(r"preload 1/2: a failed after \d+\.\d s: exited with code 1", program.log_text())
    assert "there is no model 'stranger'" in program.log_text()


async def test_reload_to_a_config_without_models_is_refused(stack: Stack, http: aiohttp.ClientSession) -> None:
    program = stack.start({"models": two_models()})

    program.reload("models: {}\n")
    await until(lambda: "defines no models" in program.log_text(), "refusal in the log")

    async with http.get(program.url + "/v1/models") as response:
        assert len((await response.json())["data"]) == 2
    assert await program.metric("llmswap_config_last_reload_successful") == 0


async def test_reload_that_would_drop_the_keys_of_an_open_listener_is_refused(stack: Stack) -> None:
    program = stack.start({"models": two_models(), "apiKeys": ["secret-key"]}, "--listen", "0.0.0.0:0")

    program.reload({"models": two_models()})
    await until(lambda: "reload refused" in program.log_text(), "refusal in the log")

    async with aiohttp.ClientSession() as http, http.get(program.url + "/running") as response:
        assert response.status == 401


async def test_an_address_in_use_ends_with_1_and_says_which(stack: Stack) -> None:
    first = stack.start({"models": two_models()})

    second = stack.start({"models": two_models()}, "--listen", f"127.0.0.1:{first.port}", wait=False)

    assert await second.exited() == 1
    assert f"cannot listen on 127.0.0.1:{first.port}" in second.log_text()


async def test_a_broken_scheduler_ends_the_program_with_70_and_leaves_no_upstream(
    caplog: pytest.LogCaptureFixture, tmp_path: Path
) -> None:
    config = f"models:\n  a:\n    cmd: {fake('a')}\nhooks: {{on_startup: {{preload: [a]}}}}\n"
    app = App(Options(listen="127.0.0.1:0", state_dir=tmp_path), lambda: loads(config))
    running = asyncio.ensure_future(app.run())
    await until(lambda: "a: ready" in caplog.text, "preload")

    app.loop.post(RequestFinished(RequestId(4711)))  # nobody was ever dispatched under this number

    assert await asyncio.wait_for(running, 20) == EXIT_FATAL
    assert "can no longer be trusted" in caplog.text


async def test_reloads_asked_for_while_one_runs_end_in_one_more(tmp_path: Path) -> None:
    reads: list[float] = []

    def read() -> object:
        reads.append(time.monotonic())
        time.sleep(0.05)  # a slow disk, in the reader's own thread
        return loads("models: {a: {cmd: 'x ${PORT}'}}")

    app = App(Options(listen="127.0.0.1:0", state_dir=tmp_path), read)  # type: ignore[arg-type]
    reads.clear()
    await app.start()
    try:
        await asyncio.gather(*(app.reload() for _ in range(50)))
    finally:
        await app.stop()

    assert 1 <= len(reads) <= 2


async def test_a_bad_reload_names_its_issues_and_keeps_the_old_config(tmp_path: Path) -> None:
    texts = iter(["models: {a: {cmd: 'x ${PORT}'}}", "models: {a: {cmd: 'x ${PORT}', tll: 1}}"])
    app = App(Options(listen="127.0.0.1:0", state_dir=tmp_path), lambda: loads(next(texts)))
    await app.start()
    try:
        with pytest.raises(ConfigError, match="tll"):
            await app.reload()
        assert list(app.context.loaded.fleet.models) == ["a"]
    finally:
        await app.stop()
