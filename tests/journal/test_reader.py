"""Reading what was recorded: runs, rotated files, gaps, torn and broken lines."""

import pytest

from llmswap.journal.codec import encode_header, encode_step
from llmswap.journal.reader import Entry, Gap, Header, JournalError, Recording, Torn
from tests.journal.samples import header, request


def lines(*items):
    """Write headers and numbers of requests."""
    return b"".join(encode_step(request(item)) if isinstance(item, int) else encode_header(item) for item in items)


def told(path):
    """Read a journal, as few words as possible."""
    found = []
    for record in Recording(path):
        match record:
            case Header(run=run, step=step):
                found.append(f"{run} from {step}")
            case Entry(number=number, step=step):
                found.append((number, step.event.request))
            case Gap(missing=missing):
                found.append(f"{missing} missing")
            case Torn(place=place):
                found.append(f"torn at {place.removeprefix(f'{path.parent}/')}")
    return found


@pytest.fixture
def path(tmp_path):
    return tmp_path / "journal.jsonl"


def test_steps_are_numbered_from_the_header(path):
    path.write_bytes(lines(header(5), 1, 2))
    assert told(path) == ["run from 5", (5, 1), (6, 2)]


def test_an_entry_keeps_its_line_and_its_place(path):
    path.write_bytes(lines(header(), 1))
    _, entry = Recording(path)
    assert (entry.line, entry.place) == (lines(1), f"{path}:2")


def test_rotated_files_are_read_oldest_first_as_one_run(path):
    for name, items in {
        ".10": (header(), 0, 1),
        ".2": (header(2), 2),
        ".1": (header(3), 3),
        "": (header(4), 4),
    }.items():
        path.with_name(path.name + name).write_bytes(lines(*items))
    for stranger in (".gz", ".0", ".01", ".1.bak", "1"):
        path.with_name(path.name + stranger).write_bytes(b"a stranger's")
    assert told(path) == ["run from 0", (0, 0), (1, 1), (2, 2), (3, 3), (4, 4)]


def test_one_rotated_file_can_be_read_alone(path):
    old = path.with_name(path.name + ".1")
    old.write_bytes(lines(header(3), 3))
    path.write_bytes(lines(header(4), 4))
    assert told(old) == ["run from 3", (3, 3)]


def test_a_set_without_its_current_file_can_be_read(path):
    path.with_name(path.name + ".1").write_bytes(lines(header(), 0))
    assert told(path) == ["run from 0", (0, 0)]


def test_each_start_of_the_program_is_a_run_of_its_own(path):
    path.write_bytes(lines(header(run="first"), 1, header(run="second"), 1))
    assert told(path) == ["first from 0", (0, 1), "second from 0", (0, 1)]


def test_a_header_that_jumps_is_a_gap(path):
    path.write_bytes(lines(header(), 0, header(7), 7))
    assert told(path) == ["run from 0", (0, 0), "6 missing", (7, 7)]


def test_steps_that_come_twice_are_read_once(path):
    path.write_bytes(lines(header(), 0, 1, 2, header(1), 1, 2, 3, header(9), 9))
    assert told(path) == ["run from 0", (0, 0), (1, 1), (2, 2), (3, 3), "5 missing", (9, 9)]


def test_a_torn_end_is_said(path):
    path.write_bytes(lines(header(), 0, 1)[:-9])
    assert told(path) == ["run from 0", (0, 0), "torn at journal.jsonl:3"]


def test_a_last_line_that_only_lacks_its_end_is_whole(path):
    path.write_bytes(lines(header(), 0)[:-1])
    assert told(path) == ["run from 0", (0, 0)]


def test_a_run_may_follow_a_torn_line(path):
    path.write_bytes(lines(header(run="first"), 0)[:-9] + b"\n" + lines(header(run="second"), 0))
    assert told(path) == ["first from 0", "torn at journal.jsonl:2", "second from 0", (0, 0)]


def test_a_torn_header_is_tolerated_like_any_torn_line(path):
    path.write_bytes(lines(header())[:20] + b"\n" + lines(header(run="second"), 0))
    assert told(path) == ["torn at journal.jsonl:1", "second from 0", (0, 0)]


def test_a_broken_line_in_the_middle_is_an_error_with_its_place(path):
    path.write_bytes(lines(header(), 0) + b'{"t":1.0,"event":"party"}\n' + lines(1))
    with pytest.raises(JournalError, match=rf"^{path}:3: there is no event 'party'$"):
        told(path)


def test_two_broken_lines_are_an_error_at_the_first(path):
    path.write_bytes(lines(header(), 0) + b"{\n{\n")
    with pytest.raises(JournalError, match=rf"^{path}:3: is not JSON"):
        told(path)


def test_a_newer_version_is_an_error_also_at_the_end(path):
    path.write_bytes(lines(header(), 0, header(1, version=2)))
    with pytest.raises(JournalError, match=rf"^{path}:3: journal version 2"):
        told(path)


@pytest.mark.parametrize("text", [b"models: {}\n", b'{"t":1.0}\n', lines(0), b"\x00\xff"])
def test_something_else_is_not_taken_for_a_journal(path, text):
    path.write_bytes(text)
    with pytest.raises(JournalError, match=rf"^{path}:1: is not a journal: "):
        told(path)


def test_nothing_there_is_said(path):
    with pytest.raises(JournalError, match=rf"^{path}: there is no such journal$"):
        Recording(path)


def test_it_says_how_far_it_is(path):
    path.write_bytes(lines(header(), 0, 1))
    recording = Recording(path)
    records = iter(recording)
    assert (recording.read_bytes, recording.total_bytes) == (0, path.stat().st_size)
    next(records)
    assert recording.read_bytes == len(lines(header()))
    assert len(list(records)) == 2
    assert recording.read_bytes == recording.total_bytes
