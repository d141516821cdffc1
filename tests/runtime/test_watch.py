"""Noticing config changes by stat, whichever way the file is replaced."""

import asyncio
import os
from pathlib import Path

import pytest

from llmswap.runtime import watch as watching
from llmswap.runtime.watch import Stamp, stamp, watch


def test_stamp_changes_when_a_file_is_replaced_by_rename_with_the_same_size_and_time(tmp_path: Path) -> None:
    config, other = tmp_path / "config.yaml", tmp_path / "other.yaml"
    config.write_text("a: 1\n")
    other.write_text("a: 2\n")
    os.utime(other, ns=(config.stat().st_atime_ns, config.stat().st_mtime_ns))
    before = stamp(config, None)

    other.replace(config)

    assert stamp(config, None) != before


def test_stamp_follows_a_symlink_that_is_pointed_elsewhere(tmp_path: Path) -> None:
    old, new, link = tmp_path / "old", tmp_path / "new", tmp_path / "config.yaml"
    old.write_text("a: 1\n")
    new.write_text("a: 2\n")
    link.symlink_to(old)
    before = stamp(link, None)

    fresh = tmp_path / "fresh"
    fresh.symlink_to(new)
    fresh.replace(link)

    assert stamp(link, None) != before


def test_stamp_of_a_directory_sees_yaml_files_only(tmp_path: Path) -> None:
    (tmp_path / "a.yaml").write_text("")
    before = stamp(None, tmp_path)

    (tmp_path / "notes.txt").write_text("x")
    assert stamp(None, tmp_path) == before

    (tmp_path / "b.yml").write_text("")
    assert stamp(None, tmp_path) != before


async def test_a_change_is_reported_once_and_a_disappearance_not_at_all(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(watching, "POLL_INTERVAL_S", 0.001)
    monkeypatch.setattr(watching, "SETTLE_INTERVAL_S", 0.001)
    old: Stamp = (("config.yaml", 1, 1, 1),)
    new: Stamp = (("config.yaml", 2, 1, 1),)
    stamps = iter([old, old, (), (), (), new, new, new])
    reported: list[Stamp] = []
    finished = asyncio.Event()
    last: list[Stamp] = []

    def take() -> Stamp:
        try:
            last[:] = [next(stamps)]
        except StopIteration:
            finished.set()
        return last[0]

    async def changed() -> None:
        reported.append(last[0])

    task = asyncio.ensure_future(watch(take, changed))
    await asyncio.wait_for(finished.wait(), 5)
    task.cancel()
    await asyncio.gather(task, return_exceptions=True)

    assert reported == [new]


def test_a_directory_that_cannot_be_read_is_as_one_that_is_missing(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """As with a stale network mount, or after a chmod: the watch must outlive it."""

    def refuse(path: Path) -> None:
        raise PermissionError(13, "Permission denied", str(path))

    monkeypatch.setattr(Path, "iterdir", refuse)
    assert stamp(None, tmp_path) == stamp(None, tmp_path / "none") == ()
