"""State files: what a life leaves for the next one."""

import json
import stat
import subprocess
from pathlib import Path

import pytest

from llmswap.runtime.orphans import Registry
from llmswap.runtime.tree import look_up
from tests.runtime.rig import names_in


@pytest.fixture
def sleeper():
    """A process of nobody, started in its own session without a tag."""
    with subprocess.Popen(["sleep", "60"], start_new_session=True) as process:
        yield process
        process.kill()


def left_behind(folder: Path, instance: str, sleeper, **changes) -> None:
    """Leave the files of a life that ended without a word, noting the sleeper as its upstream."""
    registry = Registry(folder, instance)
    registry.open()
    registry.record("key", 1, [look_up(sleeper.pid)])
    registry.close()
    path = folder / f"{instance}.json"
    content = json.loads(path.read_text())
    path.write_text(json.dumps({**content, **changes}))


async def reclaim(folder: Path) -> int:
    registry = Registry(folder, "now")
    registry.open()
    try:
        return await registry.reclaim()
    finally:
        registry.close()


async def test_noted_process_of_a_dead_life_is_ended_and_the_files_go(tmp_path, sleeper):
    left_behind(tmp_path, "before", sleeper)
    assert await reclaim(tmp_path) == 1
    assert sleeper.wait(5) < 0
    assert names_in(tmp_path) == []


async def test_reused_pid_is_left_alone(tmp_path, sleeper):
    process = {"pid": sleeper.pid, "started": look_up(sleeper.pid).started - 1}
    left_behind(tmp_path, "before", sleeper, upstreams={"key": {"port": 1, "processes": [process]}})
    assert await reclaim(tmp_path) == 0
    assert sleeper.poll() is None
    assert names_in(tmp_path) == []


@pytest.mark.parametrize("change", [{"boot": "another"}, {"pid_namespace": "pid:[1]"}])
async def test_pids_of_another_boot_or_container_mean_nothing(tmp_path, sleeper, change):
    left_behind(tmp_path, "before", sleeper, **change)
    assert await reclaim(tmp_path) == 0
    assert sleeper.poll() is None


@pytest.mark.parametrize("text", ["", "{", "[]", '{"boot": 1}', '{"upstreams": {"x": 3}}'])
async def test_unreadable_state_is_no_reason_not_to_start(tmp_path, sleeper, text, caplog):
    left_behind(tmp_path, "before", sleeper)
    (tmp_path / "before.json").write_text(text)
    assert await reclaim(tmp_path) == 0
    assert names_in(tmp_path) == []
    assert sleeper.poll() is None


async def test_life_that_still_runs_is_left_alone(tmp_path, sleeper):
    other = Registry(tmp_path, "other")
    other.open()
    other.record("key", 1, [look_up(sleeper.pid)])
    assert await reclaim(tmp_path) == 0
    assert sleeper.poll() is None
    other.forget("key")
    other.close()
    assert names_in(tmp_path) == []


def test_state_is_private_and_complete(tmp_path, sleeper):
    folder = tmp_path / "deep" / "state"
    registry = Registry(folder, "now")
    registry.open()
    registry.record("now:m:1", 5800, [look_up(sleeper.pid)])
    assert stat.S_IMODE(folder.stat().st_mode) == 0o700
    path = folder / "now.json"
    assert stat.S_IMODE(path.stat().st_mode) == 0o600
    upstream = json.loads(path.read_text())["upstreams"]["now:m:1"]
    assert upstream == {"port": 5800, "processes": [{"pid": sleeper.pid, "started": look_up(sleeper.pid).started}]}
    registry.close()
    assert path.exists(), "an upstream is still noted"


def test_unusable_directory_is_told_once_and_does_no_harm(tmp_path, sleeper, caplog):
    (tmp_path / "file").write_text("")
    registry = Registry(tmp_path / "file" / "state", "now")
    registry.open()
    registry.record("key", 1, [look_up(sleeper.pid)])
    registry.forget("key")
    registry.close()
    assert len(caplog.records) == 1
    assert "orphans would not be found" in caplog.text
