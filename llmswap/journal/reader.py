"""A journal as it was recorded: one file, or a rotated set, oldest first. Reads only; what it means is the caller's."""

from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

from llmswap.core.step import Step
from llmswap.journal.codec import CodecError, Header, VersionError, decode, may_be_header


class JournalError(Exception):
    """A journal cannot be read: `file:line: what is wrong`."""


@dataclass(frozen=True, slots=True)
class Entry:
    """One recorded step.

    Attributes:
        number: Of the step in its run, from 0.
        line: As recorded, newline included.
        place: `file:line`.
    """

    number: int
    step: Step
    line: bytes
    place: str


@dataclass(frozen=True, slots=True)
class Gap:
    """Steps of the run that were not recorded, between the entry before and the one after.

    Attributes:
        missing: How many.
        header: What holds after them; its fleet may be another than before.
    """

    missing: int
    header: Header
    place: str


@dataclass(frozen=True, slots=True)
class Torn:
    """A line that was cut off: the program, or the machine, died while writing it."""

    place: str


# A Header begins a run. One whose `step` is not 0 begins in its middle: what came before was rotated away, or the
# journal was switched on later.
Record = Header | Entry | Gap | Torn


def rotated(path: Path) -> list[Path]:
    """Find `path.1`, `path.2` …, the newest first."""
    found = {}
    if path.parent.is_dir():
        for sibling in path.parent.iterdir():
            number = sibling.name.removeprefix(f"{path.name}.")
            if number != sibling.name and number.isascii() and number.isdigit() and number == str(int(number)):
                found[int(number)] = sibling
    return [found[number] for number in sorted(found) if number > 0]


def _size(file: Path) -> int:
    try:
        return file.stat().st_size
    except FileNotFoundError:
        return 0


class Recording:
    """The records of a journal, in order; iterate it once.

    Args:
        path: The journal, rotated files beside it included; or one rotated file, which is then read alone.

    Attributes:
        total_bytes: Of all files.
        read_bytes: Of them, read so far.

    Raises:
        JournalError: There is nothing to read, or, while iterating, a line is not one of a journal.
    """

    def __init__(self, path: Path) -> None:
        self._files = [file for file in (*reversed(rotated(path)), path) if file.is_file()]
        if not self._files:
            raise JournalError(f"{path}: there is no such journal")
        self.total_bytes = sum(map(_size, self._files))
        self.read_bytes = 0
        self._run: str | None = None
        self._next = 0
        self._expected = 0  # steps before it are known already: a failing disk, or a rotation just now, repeats some

    def __iter__(self) -> Iterator[Record]:
        for file in self._files:
            try:
                yield from self._records(file)
            except FileNotFoundError:
                continue  # rotated away just now; the next header tells what is missing
            except OSError as error:
                raise JournalError(f"{file}: cannot be read: {error.strerror}") from error

    def _records(self, file: Path) -> Iterator[Record]:
        """Read a file. A broken line is a torn one if it ends the file, or if a header follows: writing began anew."""
        broken: tuple[str, CodecError] | None = None
        begun = False
        for place, line, record in self._decoded(file):
            if broken is not None:
                if not isinstance(record, Header):
                    raise JournalError(f"{broken[0]}: {broken[1]}")
                yield Torn(broken[0])
                broken = None
            if isinstance(record, CodecError):
                if not (begun or may_be_header(line)):
                    raise JournalError(f"{place}: is not a journal: {record}")
                broken = place, record
            elif isinstance(record, Header):
                begun = True
                yield from self._begin(record, place)
            elif not begun:
                raise JournalError(f"{place}: is not a journal: it does not begin with a header")
            else:
                if self._next >= self._expected:
                    yield Entry(self._next, record, line, place)
                self._next += 1
        if broken is not None:
            yield Torn(broken[0])

    def _decoded(self, file: Path) -> Iterator[tuple[str, bytes, Header | Step | CodecError]]:
        with file.open("rb") as lines:
            for number, line in enumerate(lines, 1):
                self.read_bytes += len(line)
                place = f"{file}:{number}"
                try:
                    yield place, line, decode(line)
                except VersionError as error:
                    raise JournalError(f"{place}: {error}") from error
                except CodecError as error:
                    yield place, line, error

    def _begin(self, header: Header, place: str) -> Iterator[Record]:
        """Take a header: of a new run, of the next file of this one, or after a gap."""
        if header.run != self._run:
            self._run, self._next, self._expected = header.run, header.step, header.step
            yield header
            return
        self._expected = max(self._expected, self._next)
        self._next = header.step
        if header.step > self._expected:
            yield Gap(header.step - self._expected, header, place)
