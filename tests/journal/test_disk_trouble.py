"""Whatever the disk does, it costs lines of the journal and nothing else."""

import logging
import os
import subprocess
import sys
import textwrap
import threading
import time
from pathlib import Path

import pytest

from llmswap.config.settings import JournalSettings
from llmswap.journal import scribe
from llmswap.journal.files import JournalFile
from llmswap.journal.reader import Gap, Header, Recording
from tests.journal.samples import numbers, record, request
from tests.stack import until_now


@pytest.fixture(autouse=True)
def _patience(monkeypatch):
    monkeypatch.setattr(scribe, "FIRST_RETRY_S", 0.02)
    monkeypatch.setattr(scribe, "LAST_RETRY_S", 0.1)
    monkeypatch.setattr(scribe, "FLUSH_S", 0.02)


@pytest.fixture
def complaints(caplog):
    caplog.set_level(logging.INFO, logger="llmswap.journal")
    return lambda: [(entry.levelname, entry.getMessage()) for entry in caplog.records]


def test_a_place_that_cannot_be_written_is_said_once_and_tried_again(tmp_path, begin, complaints):
    in_the_way = tmp_path / "taken"
    in_the_way.touch()
    path = in_the_way / "journal.jsonl"
    journal = begin(JournalSettings(path))
    for number in range(100):
        record(journal, [number])
        time.sleep(0.001)  # several tries
    until_now(complaints, "it is said")
    assert len(complaints()) == 1
    level, text = complaints()[0]
    assert level == "ERROR"
    assert f"cannot write the journal {path}: {journal.trouble}; " in text
    in_the_way.unlink()
    until_now(lambda: numbers(path) == list(range(100)), "nothing was lost")
    until_now(lambda: len(complaints()) == 2, "it is said that all is well")
    assert journal.trouble == ""
    assert complaints()[1] == ("WARNING", f"the journal {path} is being written again")


def test_what_the_buffer_cannot_hold_is_counted_and_leaves_a_gap(tmp_path, begin):
    in_the_way = tmp_path / "taken"
    in_the_way.touch()
    path = in_the_way / "journal.jsonl"
    journal = begin(JournalSettings(path), buffer_bytes=4000)
    record(journal, range(100))
    assert 60 < journal.dropped < 90
    in_the_way.unlink()
    held = 100 - journal.dropped
    until_now(lambda: len(numbers(path)) == held, "what was held is written")
    dropped = journal.dropped
    record(journal, [100])
    journal.close()
    found = list(Recording(path))
    (gap,) = [one for one in found if isinstance(one, Gap)]
    assert gap.missing == dropped
    assert found[-1].number == 100
    assert numbers(path) == [*range(held), 100]


def test_a_disk_that_hangs_holds_up_nobody(path, begin, monkeypatch):
    hanging, free = threading.Event(), threading.Event()
    write = JournalFile.write

    def hang(self, lines):
        hanging.set()
        assert free.wait(20)
        write(self, lines)

    monkeypatch.setattr(JournalFile, "write", hang)
    journal = begin(JournalSettings(path), buffer_bytes=10_000)
    record(journal, [0])
    assert hanging.wait(5)
    before = time.monotonic()
    record(journal, range(1, 5000))
    journal.close(timeout_s=0.1)
    assert time.monotonic() - before < 1.5
    assert journal.dropped > 4800
    free.set()
    until_now(lambda: len(numbers(path)) == 5000 - journal.dropped, "the rest is written")


def test_a_full_disk_costs_no_whole_line_and_no_half_one_stays(path):
    """In a process of its own, whose files may not grow."""
    script = """
        import resource, sys, time
        from pathlib import Path
        from llmswap.config.settings import JournalSettings
        from llmswap.journal import scribe
        from llmswap.journal.writer import Journal
        from tests.journal.samples import FLEET, request

        scribe.FIRST_RETRY_S = scribe.LAST_RETRY_S = scribe.FLUSH_S = 0.02
        path = Path(sys.argv[1])
        _, most = resource.getrlimit(resource.RLIMIT_FSIZE)
        resource.setrlimit(resource.RLIMIT_FSIZE, (3000, most))
        journal = Journal(FLEET)
        journal.configure(JournalSettings(path))
        for number in range(40):
            journal(request(number))
            time.sleep(0.005)
        full = path.read_bytes()
        assert 2000 < len(full) <= 3000, len(full)
        assert full.endswith(b"}\\n"), full[-80:]
        resource.setrlimit(resource.RLIMIT_FSIZE, (most, most))
        journal.close()
    """
    done = subprocess.run(
        [sys.executable, "-c", textwrap.dedent(script), str(path)],
        cwd=Path(__file__).parents[2],
        capture_output=True,
        text=True,
        timeout=30,
        check=False,
    )
    assert done.returncode == 0, done.stderr
    assert "File too large" in done.stderr
    assert numbers(path) == list(range(40))
    assert {type(found).__name__ for found in Recording(path)} == {"Header", "Entry"}


def test_a_journal_that_is_removed_begins_anew(tmp_path, begin, complaints):
    folder = tmp_path / "folder"
    path = folder / "journal.jsonl"
    journal = begin(JournalSettings(path))
    record(journal, [0])
    until_now(lambda: numbers(path) == [0], "it is written")
    path.unlink()
    folder.rmdir()
    record(journal, [1])
    until_now(lambda: numbers(path) == [1], "it is written again")
    first = next(iter(Recording(path)))
    assert isinstance(first, Header)
    assert first.step == 1
    assert complaints() == []


def test_one_process_writes_a_journal_and_the_next_one_when_it_has_ended(path, begin, complaints):
    first = begin(JournalSettings(path, 2000, 2))
    record(first, [0])
    until_now(lambda: numbers(path) == [0], "the first one writes")
    second = begin(JournalSettings(path, 2000, 2))
    record(second, [100])
    until_now(complaints, "the second one may not")
    record(first, range(1, 40))
    until_now(lambda: 39 in numbers(path), "the first one goes on, through rotations")
    assert [text.partition(": ")[2].partition(";")[0] for _, text in complaints()] == [
        "another process writes its journal there"
    ]
    first.close()
    until_now(lambda: numbers(path)[-1] == 100, "the second one's turn has come")


@pytest.mark.parametrize(
    ("make", "why"),
    [
        (lambda path: path.write_text("models: {}\n"), "the file exists and is not a journal"),
        (lambda path: path.write_text('{"t":1}\n'), "the file exists and is not a journal"),
        (lambda path: path.symlink_to("/dev/full"), "symbolic links"),
        (lambda path: path.mkdir(), "directory"),
        (os.mkfifo, "No such device or address|it is not a regular file"),
    ],
    ids=["config", "json", "link", "directory", "fifo"],
)
def test_what_is_no_journal_is_left_alone(path, begin, complaints, make, why):
    make(path)
    before = path.lstat(), path.read_bytes() if path.is_file() and not path.is_symlink() else None
    journal = begin(JournalSettings(path))
    record(journal, [0])
    _, text = until_now(complaints, "it is said")[0]
    assert any(part in text for part in why.split("|")), text
    journal.close()
    assert (path.lstat().st_ino, path.lstat().st_size) == (before[0].st_ino, before[0].st_size)
    assert before[1] is None or path.read_bytes() == before[1]


def test_a_device_is_no_journal(begin, complaints):
    journal = begin(JournalSettings(Path("/dev/full")))
    record(journal, [0])
    _, text = until_now(complaints, "it is said")[0]
    assert "it is not a regular file" in text
    assert Path("/dev/full").is_char_device()


def test_a_failed_rotation_is_tried_again(path, begin, monkeypatch, complaints):
    broken = [OSError(30, "Read-only file system")] * 3
    rotate = JournalFile.rotate

    def fails_at_first(self):
        if broken:
            raise broken.pop()
        rotate(self)

    monkeypatch.setattr(JournalFile, "rotate", fails_at_first)
    journal = begin(JournalSettings(path, 1500, 9))
    record(journal, range(60))
    until_now(lambda: numbers(path) == list(range(60)), "nothing was lost")
    assert complaints()[0][1].endswith("Read-only file system; trying again now and then, steps may be lost")
    assert all(file.stat().st_size <= 1500 for file in path.parent.iterdir())


def test_a_torn_write_that_cannot_be_undone_loses_no_step(path, begin, monkeypatch):
    monkeypatch.setattr(os, "ftruncate", lambda fd, size: (_ for _ in ()).throw(OSError(5, "Input/output error")))
    write, spoil = os.write, [True]

    def half(fd, data):
        if spoil and len(data) > 500:
            spoil.pop()
            write(fd, bytes(data)[: len(data) // 2])
            raise OSError(5, "Input/output error")
        return write(fd, data)

    monkeypatch.setattr(os, "write", half)
    journal = begin(JournalSettings(path))
    for number in range(40):
        journal(request(number))
    until_now(lambda: numbers(path) == list(range(40)), "every step is there, once")
    assert not spoil
