"""`llmswap replay`: its flags, and what it says."""

import argparse
import os
import sys
from collections.abc import Iterator
from pathlib import Path

from llmswap.config.load import load
from llmswap.core.fleet import Fleet
from llmswap.journal.codec import Header
from llmswap.journal.reader import JournalError, Record, Recording
from llmswap.sim.replay import Difference, RunReport, changes, replay

EXIT_SAME = 0
EXIT_DIFFERENT = 1
EXIT_BAD_INPUT = 2

_PROGRESS_EVERY = 5000
_LINE_CHARS = 400


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Declare the flags."""
    parser.add_argument("journal", type=Path, metavar="JOURNAL", help="what `journal.path` of a config names")
    parser.add_argument("--config", type=Path, metavar="FILE", help="decide by this config, not by the recorded one")


def run(args: argparse.Namespace) -> int:
    """Replay a journal; gives the exit code.

    Raises:
        ConfigError: The given config is bad.
    """
    fleet = None if args.config is None else load(args.config, None, os.environ).fleet
    try:
        recording = Recording(args.journal)
        reports = []
        for report in replay(_watched(recording, fleet), fleet):
            _say(_verdict(report))
            reports.append(report)
    except JournalError as error:
        sys.stderr.write(f"llmswap: {error}\n")
        return EXIT_BAD_INPUT
    if any(report.difference for report in reports):
        return EXIT_DIFFERENT
    if any(report.steps for report in reports):
        return EXIT_SAME
    sys.stderr.write(f"llmswap: {args.journal}: nothing could be replayed; `llmswap simulate` needs no beginning\n")
    return EXIT_BAD_INPUT


def _watched(recording: Recording, fleet: Fleet | None) -> Iterator[Record]:
    """Pass the records on, and tell of each run and of the progress."""
    on_terminal = sys.stderr.isatty()
    for number, record in enumerate(recording, 1):
        if on_terminal and number % _PROGRESS_EVERY == 0:
            sys.stderr.write(f"\r{recording.read_bytes / recording.total_bytes:4.0%}\r")
            sys.stderr.flush()
        yield record
        if isinstance(record, Header):
            _say(f"run {record.run[:8]}, recorded by llmswap {record.llmswap}")
            for change in [] if fleet is None else changes(record.fleet, fleet):
                _say(f"  differs: {change}")


def _verdict(report: RunReport) -> str:
    lines = [f"  {report.steps} steps came out as recorded, byte for byte"]
    if report.difference is not None:
        lines += _told(report.difference)
    if report.hindrance:
        lines.append(f"  not replayed {'any further' if report.steps else 'at all'}: {report.hindrance}")
    return "\n".join(lines)


def _told(difference: Difference) -> list[str]:
    entry = difference.entry
    lines = [f"  step {entry.number}, {difference.into_run_s:.3f} s into the run, differs ({entry.place})"]
    lines += [f"    before:   {_shown(past.line)}" for past in difference.before]
    lines.append(f"    recorded: {_shown(entry.line)}")
    lines.append(f"    now:      {_shown(difference.now) if difference.now is not None else difference.failure}")
    return lines


def _shown(line: bytes) -> str:
    text = line.decode(errors="replace").rstrip()
    return text if len(text) <= _LINE_CHARS else f"{text[:_LINE_CHARS]}…"


def _say(text: str) -> None:
    sys.stdout.write(text + "\n")
