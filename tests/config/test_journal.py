"""The `journal` key."""

from pathlib import Path

import pytest

from llmswap.config.load import loads
from llmswap.config.settings import JournalSettings
from tests.config.reading import one_problem

MODELS = "models: {m: {cmd: 'x ${PORT}'}}\n"


def journal(text):
    return loads(MODELS + text).settings.journal


def test_nothing_is_recorded_unless_the_config_says_where():
    assert journal("") is None
    assert journal("journal:") is None


def test_size_and_number_have_defaults():
    assert journal("journal: {path: j.jsonl}") == JournalSettings(Path("j.jsonl"), 64 << 20, 4)


def test_the_home_directory_is_filled_in(monkeypatch):
    monkeypatch.setenv("HOME", "/home/somebody")
    assert journal("journal: {path: ~/a/j.jsonl}").path == Path("/home/somebody/a/j.jsonl")


@pytest.mark.parametrize(
    ("written", "size"),
    [
        *(("64KiB", 65536), ("1 mib", 1 << 20), ("2GiB", 2 << 30), ("100kB", 100_000), ("3MB", 3_000_000)),
        *(("1GB", 10**9), ("70000B", 70_000), ("70000", 70_000), ("70000.9", 70_000)),
    ],
)
def test_sizes_have_decimal_and_binary_units(written, size):
    assert journal(f"journal: {{path: j, maxSize: {written}}}").max_bytes == size


@pytest.mark.parametrize("written", ["64", "64KB", "1kib", "0"])
def test_a_size_too_small_to_be_meant_is_an_error(written):
    assert "journal.maxSize" in one_problem(MODELS + f"journal: {{path: j, maxSize: {written}}}")


@pytest.mark.parametrize("written", ["lots", "64M", "-1MiB", "1.5GiB", "'70000'"])
def test_a_size_must_be_one(written):
    assert "must be a size such as 64MiB" in one_problem(MODELS + f"journal: {{path: j, maxSize: {written}}}")


def test_a_journal_needs_a_path():
    assert "journal" in one_problem(MODELS + "journal: {keep: 2}")


def test_a_directory_is_no_journal(tmp_path):
    assert "is a directory; name a file in it" in one_problem(MODELS + f"journal: {{path: {tmp_path}}}")
    assert "is a directory; name a file in it" in one_problem(MODELS + "journal: {path: nowhere/}")


def test_an_unknown_home_is_said():
    assert "there is no such home directory" in one_problem(MODELS + "journal: {path: ~nobody-here/j}")
