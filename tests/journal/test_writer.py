"""Recording: what is written where, how much of it stays, and what a reload changes."""

import os
import stat
from dataclasses import replace

import pytest

from llmswap.config.settings import JournalSettings
from llmswap.core import events as ev
from llmswap.core.fleet import Model, ModelId
from llmswap.core.step import Step
from llmswap.journal.codec import Header, decode, encode_step
from llmswap.journal.reader import Entry, Gap, Recording, Torn, rotated
from tests.journal.samples import FLEET, M, numbers, record, request
from tests.stack import until_now

OTHER = replace(FLEET, models={M: Model(M), ModelId("new"): Model(ModelId("new"))})


def files(path):
    return [path, *rotated(path)]


def headers(path):
    return [decode(file.read_bytes().splitlines()[0]) for file in files(path)]


def test_every_step_is_recorded_below_a_header(path, begin):
    journal = begin(JournalSettings(path))
    record(journal, range(3))
    journal.close()
    head, *rest = path.read_bytes().splitlines(keepends=True)
    assert rest == [encode_step(request(number)) for number in range(3)]
    assert isinstance(decode(head), Header)
    assert (decode(head).step, decode(head).fleet) == (0, FLEET)


def test_steps_are_on_disk_soon_although_nobody_asks(path, begin):
    record(begin(JournalSettings(path)), [1])
    until_now(lambda: numbers(path) == [1], "the step is there", 3)


def test_only_the_owner_may_read_it(path, begin):
    path.touch(0o644)
    journal = begin(JournalSettings(path, 1000, 9))
    record(journal, range(20))
    journal.close()
    assert len(files(path)) > 2
    assert {stat.S_IMODE(file.stat().st_mode) for file in files(path)} == {0o600}


def test_missing_directories_are_made_for_the_owner_alone(tmp_path, begin):
    path = tmp_path / "a" / "b" / "journal.jsonl"
    journal = begin(JournalSettings(path))
    record(journal, [1])
    journal.close()
    assert numbers(path) == [1]
    assert stat.S_IMODE(path.parent.stat().st_mode) == 0o700


def test_a_journal_that_is_off_writes_nothing(tmp_path, begin):
    journal = begin(None)
    record(journal, [1])
    journal.close()
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize("keep", [0, 1, 3])
def test_the_disk_it_takes_is_bounded(path, begin, keep):
    settings = JournalSettings(path, 2000, keep)
    journal = begin(settings)
    for number in range(300):
        record(journal, [number])
        if number % 20 == 0:
            journal.configure(settings)  # no change; makes the thread write now
    journal.close()
    assert len(files(path)) == keep + 1
    assert all(file.stat().st_size <= 2000 for file in files(path))
    found = list(Recording(path))
    assert not any(isinstance(one, Gap | Torn) for one in found)
    kept = numbers(path)
    assert kept == list(range(kept[0], 300))
    assert headers(path)[-1].step == kept[0] > 0


def test_lowering_keep_removes_what_is_too_much(path, begin):
    journal = begin(JournalSettings(path, 1000, 5))
    record(journal, range(100))
    journal.close()
    assert len(files(path)) == 6
    journal = begin(JournalSettings(path, 1000, 2))
    record(journal, range(20))
    journal.close()
    assert len(files(path)) == 3


def test_a_step_larger_than_a_file_has_a_file_of_its_own(path, begin):
    journal = begin(JournalSettings(path, 1000, 5))
    large = Step(2.0, ev.UnloadRequested((M,) * 1000), [])
    record(journal, [1])
    journal(large)
    record(journal, [3])
    journal.close()
    assert [len(file.read_bytes().splitlines()) for file in files(path)] == [2, 2, 2]
    assert [found.number for found in Recording(path) if isinstance(found, Entry)] == [0, 1, 2]


def test_a_new_run_is_appended_to_the_last_one(path, begin):
    for first in (0, 10):
        journal = begin(JournalSettings(path))
        record(journal, [first])
        journal.close()
    runs = [found for found in Recording(path) if isinstance(found, Header)]
    assert [run.step for run in runs] == [0, 0]
    assert runs[0].run != runs[1].run
    assert numbers(path) == [0, 10]


def test_a_line_torn_by_a_crash_does_not_spoil_the_next_run(path, begin):
    journal = begin(JournalSettings(path))
    record(journal, [0, 1])
    journal.close()
    os.truncate(path, path.stat().st_size - 5)
    journal = begin(JournalSettings(path))
    record(journal, [7])
    journal.close()
    assert [type(found) for found in Recording(path)] == [Header, Entry, Torn, Header, Entry]


def test_a_reload_is_in_the_header_of_later_files(path, begin):
    journal = begin(JournalSettings(path, 1000, 9))
    record(journal, [0])
    journal(Step(1.0, ev.FleetReloaded(OTHER), []))
    record(journal, range(2, 20))
    journal.close()
    newest, *_, oldest = headers(path)
    assert (oldest.fleet, newest.fleet) == (FLEET, OTHER)
    assert [one.number for one in Recording(path) if isinstance(one, Entry)] == list(range(20))


def test_a_reload_while_it_is_off_is_in_the_next_header(path, begin):
    journal = begin(JournalSettings(path))
    record(journal, [0])
    journal.configure(None)
    journal(Step(1.0, ev.FleetReloaded(OTHER), []))
    record(journal, [2])
    journal.configure(JournalSettings(path))
    record(journal, [3])
    journal.close()
    _, _, gap, last = Recording(path)
    assert (gap.missing, gap.header.fleet) == (2, OTHER)
    assert (last.number, last.step.event.request) == (3, 3)


def test_switching_it_off_lets_go_of_the_file(path, begin):
    first = begin(JournalSettings(path))
    record(first, [0])
    first.configure(None)
    until_now(lambda: numbers(path) == [0], "what was recorded is written")
    second = begin(JournalSettings(path))
    record(second, [1])
    until_now(lambda: numbers(path) == [0, 1], "another one writes there")


def test_another_path_goes_on_where_the_first_one_ended(tmp_path, path, begin):
    journal = begin(JournalSettings(path))
    record(journal, [0, 1])
    until_now(lambda: numbers(path) == [0, 1], "the first two are written")
    other = tmp_path / "other.jsonl"
    journal.configure(JournalSettings(other))
    record(journal, [2])
    journal.close()
    assert (numbers(path), numbers(other)) == ([0, 1], [2])
    assert headers(other)[0].step == 2


def test_nothing_is_recorded_after_the_end(path, begin):
    journal = begin(JournalSettings(path))
    record(journal, [0])
    journal.close()
    record(journal, [1])
    journal.close()
    assert numbers(path) == [0]
