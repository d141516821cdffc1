"""Fault rows of reloading that need the whole program: files as they really change, streams that must not notice."""

import os
import time
from pathlib import Path

import pytest

from llmswap.app import RELOAD_PAUSE_S
from tests.dialogue import ask, listening
from tests.stack import Program, as_yaml, fake, until

SLOW = {"itl": 20, "output_tokens": "exact:1000"}
EDITS = 50
RELOAD_OK = "llmswap_config_last_reload_successful"
BAD_CONFIGS = {
    "not YAML": "models: [",
    "a type that is not": "models: {a: {cmd: 7, ttl: soon}}",
    "an unknown key": "modles: {}",
    "an empty file": "",
    "half of it": as_yaml({"models": {"a": {"cmd": fake("a")}}})[:20],
}


async def listed(http, program: Program) -> set[str]:
    async with http.get(program.url + "/v1/models") as answer:
        return {model["id"] for model in (await answer.json())["data"]}


async def until_listed(http, program: Program, *models: str) -> None:
    async def reached() -> bool:
        return await listed(http, program) == set(models)

    await until(reached, f"models are {models}\n{program.log_text()}")


async def refused(program: Program) -> bool:
    return await program.metric(RELOAD_OK) == 0


async def test_F077_bad_configs_leave_the_old_one_serving(stack, http):
    good = {"models": {"a": {"cmd": fake("a", **SLOW)}}}
    program = stack.start(good, "--watch-config")
    async with listening(http, program, "a") as stream:
        await stream.hear(1)
        pid = program.upstream_pid("a")
        for what, text in BAD_CONFIGS.items():
            before = program.log_text().count("reload refused")
            program.config_path.write_text(text)  # in place: cut to nothing first, as an editor may
            await until(lambda before=before: program.log_text().count("reload refused") > before, what)
            assert await program.metric(RELOAD_OK) == 0
            assert (await ask(http, program, "a", max_tokens=1))[0] == 200
        program.write_config({"models": {**good["models"], "b": {"cmd": fake("b")}}})
        await until_listed(http, program, "a", "b")
        assert await program.metric(RELOAD_OK) == 1
        heard = stream.tokens
        await stream.hear(heard + 20)
        assert program.upstream_pid("a") == pid


async def test_F078_replaced_files_are_noticed(stack, http, tmp_path):
    """os.replace may change nothing but the inode; a mounted ConfigMap swaps a symlink two steps up."""
    old, new = {"a": {"cmd": fake("a")}}, {"a": {"cmd": fake("a")}, "b": {"cmd": fake("b")}}
    mount = tmp_path / "mount"
    for name, models in (("v1", old), ("v2", new)):
        (mount / name).mkdir(parents=True)
        (mount / name / "config.yaml").write_text(as_yaml({"models": models}))
    (mount / "..data").symlink_to("v1")
    (mount / "config.yaml").symlink_to(Path("..data") / "config.yaml")
    plain = stack.start(as_yaml({"models": old}), "--watch-config")
    copy = plain.config_path.with_suffix(".copy")
    copy.write_text(as_yaml({"models": {"z": old["a"]}}))
    times = plain.config_path.stat()
    os.utime(copy, ns=(times.st_atime_ns, times.st_mtime_ns))
    assert copy.stat().st_size == times.st_size
    mounted = stack.start("", "--watch-config", "--state-dir", str(tmp_path / "s2"), config_path=mount / "config.yaml")
    copy.replace(plain.config_path)
    (mount / "..data_new").symlink_to("v2")
    (mount / "..data_new").replace(mount / "..data")
    await until_listed(http, plain, "z")
    await until_listed(http, mounted, "a", "b")


@pytest.mark.parametrize("change", ["removed", "changed"])
async def test_F080_removed_model_finishes_its_streams_then_stops(stack, http, change):
    keep = {"b": {"cmd": fake("b")}}
    gone = {"a": {"cmd": fake("a", itl=20, output_tokens="exact:80")}}
    program = stack.start({"models": {**gone, **keep}})
    async with listening(http, program, "a") as stream:
        await stream.hear(1)
        upstream = program.upstream("a")
        after = keep if change == "removed" else {"a": {"cmd": fake("a", itl=1)}, **keep}
        program.reload({"models": after})
        await until(lambda: "reload" in program.log_text(), "the reload is done")
        await until_listed(http, program, *after)
        if change == "removed":
            assert (await ask(http, program, "a"))[0] == 404
        assert upstream.is_running()
        await stream.hear_out()
    assert stream.complete
    assert stream.tokens == 80
    await until(lambda: not upstream.is_running(), "the old upstream stops once it is idle")
    if change == "changed":
        assert (await ask(http, program, "a"))[0] == 200


@pytest.mark.parametrize("way", ["watched", "signalled"])
async def test_F079_fifty_edits_in_a_second_are_a_few_reloads_and_the_last_one_wins(stack, http, way):
    """The edit in the middle is bad, and none may be lost; the model that is in all of them serves on."""
    keep = {"keep": {"cmd": fake("keep", **SLOW)}}
    program = stack.start({"models": keep}, *(["--watch-config"] if way == "watched" else []))
    async with listening(http, program, "keep") as stream:
        await stream.hear(1)
        pid = program.upstream_pid("keep")
        began_s = time.monotonic()
        for number in range(EDITS):
            text = "models: [" if number == EDITS // 2 else {"models": {**keep, f"v{number}": {"cmd": fake("v")}}}
            program.write_config(text)
            if way == "signalled":
                program.reload()
        at_most = 4 + (time.monotonic() - began_s) / RELOAD_PAUSE_S
        await until_listed(http, program, "keep", f"v{EDITS - 1}")
        assert await program.metric(RELOAD_OK) == 1
        heard = stream.tokens
        await stream.hear(heard + 20)
        assert program.upstream_pid("keep") == pid
    assert (await ask(http, program, f"v{EDITS - 1}"))[0] == 200
    assert await program.metric("llmswap_config_models") == 2
    assert program.log_text().count("config reloaded") <= at_most


def writer_of(fifo: Path) -> int:
    """Open the pipe if somebody reads it; else 0."""
    try:
        return os.open(fifo, os.O_WRONLY | os.O_NONBLOCK)
    except OSError:
        return 0


async def test_F087_sighup_during_a_reload_brings_one_more_reload_after_it(stack, http):
    program = stack.start({"models": {"a": {"cmd": fake("a")}}})
    fifo = program.config_path
    fifo.unlink()
    os.mkfifo(fifo)  # a reload lasts as long as this test wants it to
    program.reload()
    for name in ("first", "second"):
        fd = await until(lambda: writer_of(fifo), f"the {name} reload reads")
        if name == "first":
            for _ in range(2):
                program.reload()
                assert await listed(http, program) == {"a"}  # still serving, and the signal has been taken
        os.write(fd, as_yaml({"models": {name: {"cmd": fake("a")}}}).encode())
        os.close(fd)
        await until_listed(http, program, name)
    assert (await ask(http, program, "second"))[0] == 200
    assert writer_of(fifo) == 0, "two signals during one reload are one more reload, not two"
