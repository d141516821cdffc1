"""Does the scheduler decide today as it did when a journal was recorded? Pure: records in, one report per run out."""

from collections import deque
from collections.abc import Iterable, Iterator
from dataclasses import dataclass, fields

from llmswap.core.events import Event, FleetReloaded
from llmswap.core.fleet import Fleet
from llmswap.core.scheduler import Scheduler
from llmswap.core.step import Step
from llmswap.journal.codec import Header, encode_step
from llmswap.journal.reader import Entry, Gap, Record, Torn

CONTEXT_STEPS = 3


@dataclass(frozen=True, slots=True)
class Difference:
    """The first step that came out differently.

    Attributes:
        into_run_s: Seconds since the run's first step.
        now: The line as it would be written now; None if the scheduler failed.
        failure: How it failed.
        before: The steps before it, oldest first.
    """

    entry: Entry
    into_run_s: float
    now: bytes | None
    failure: str
    before: tuple[Entry, ...]


@dataclass(frozen=True, slots=True)
class RunReport:
    """What came of one run of the program.

    Attributes:
        steps: How many came out as recorded, byte for byte.
        hindrance: Why it could not be followed, or not to its end.
    """

    header: Header
    steps: int
    difference: Difference | None
    hindrance: str


def replay(records: Iterable[Record], fleet: Fleet | None = None) -> Iterator[RunReport]:
    """Feed each run's events to a fresh scheduler, until a step differs or is missing.

    Args:
        records: Of a journal.
        fleet: In force all the time, instead of the recorded ones.
    """
    run: _Run | None = None
    for record in records:
        if isinstance(record, Header):
            if run is not None:
                yield run.report()
            run = _Run(record, fleet)
        elif run is not None:  # else a header was cut off
            run.take(record)
    if run is not None:
        yield run.report()


def changes(old: Fleet, new: Fleet) -> list[str]:
    """Say in words what of a fleet is another in the new one."""
    found = [f"{model}: not in the config" for model in old.models if model not in new.models]
    found += [f"{model}: not in the journal" for model in new.models if model not in old.models]
    for model, was in old.models.items():
        now = new.models.get(model)
        if now is not None and now != was:
            keys = [field.name for field in fields(was) if getattr(was, field.name) != getattr(now, field.name)]
            found.append(f"{model}: {', '.join(keys)}")
    rest = [field.name for field in fields(old) if field.name != "models"]
    found += [f"{name} of the fleet" for name in rest if getattr(old, name) != getattr(new, name)]
    return found


class _Run:
    """One run, followed as far as it can be."""

    def __init__(self, header: Header, fleet: Fleet | None) -> None:
        self._header = header
        self._fleet = fleet
        self._scheduler = Scheduler(fleet or header.fleet)
        self._steps = 0
        self._before: deque[Entry] = deque(maxlen=CONTEXT_STEPS)
        self._began_s: float | None = None
        self._difference: Difference | None = None
        self._hindrance = ""
        if header.step:
            self._hindrance = f"its first {header.step} steps are missing: rotated away, or not recorded"

    def take(self, record: Entry | Gap | Torn) -> None:
        if self._difference is not None or self._hindrance:
            return
        match record:
            case Entry():
                self._follow(record)
            case Gap(missing=missing, place=place):
                self._hindrance = f"{missing} steps before {place} were not recorded"
            case Torn(place=place):
                self._hindrance = f"{place} is cut off: llmswap, or the machine, died while writing it"

    def _follow(self, entry: Entry) -> None:
        at_s = entry.step.at_s
        self._began_s = at_s if self._began_s is None else self._began_s
        now, failure = self._decide(at_s, entry.step.event)
        if now is None or now.rstrip() != entry.line.rstrip():
            self._difference = Difference(entry, at_s - self._began_s, now, failure, tuple(self._before))
            return
        self._before.append(entry)
        self._steps += 1

    def _decide(self, at_s: float, event: Event) -> tuple[bytes | None, str]:
        given = FleetReloaded(self._fleet) if self._fleet is not None and isinstance(event, FleetReloaded) else event
        try:
            commands = self._scheduler.handle(at_s, given)
        except Exception as error:  # noqa: BLE001  whatever broke it: when this was recorded, nothing did
            return None, f"{type(error).__name__}: {error}"
        return encode_step(Step(at_s, event, commands)), ""

    def report(self) -> RunReport:
        return RunReport(self._header, self._steps, self._difference, self._hindrance)
