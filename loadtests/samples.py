"""What came of each request: one Sample for every try, in real seconds, and the file they are kept in."""

import json
from collections.abc import Iterable, Iterator
from dataclasses import asdict, dataclass
from enum import StrEnum
from pathlib import Path
from typing import Any


class Ending(StrEnum):
    """What became of a try."""

    DONE = "done"
    LEFT = "left"  # its client left in mid-stream, as the scenario says
    MISSING = "missing"  # it asked for a name that nobody knows, and was told so
    GAVE_UP = "gave_up"  # its client's patience was over
    REFUSED = "refused"  # 429 or 503
    FAILED = "failed"  # any other status, or an error within the stream
    CUT = "cut"  # no answer, or one without its end
    OPEN = "open"  # the run was over first


FINE = (Ending.DONE, Ending.LEFT, Ending.MISSING)
FAILURES = (Ending.REFUSED, Ending.FAILED, Ending.CUT)


@dataclass(slots=True)
class Sample:
    """One try of one call.

    Attributes:
        at_s: Unix time at which it was sent.
        actor, call: Whose, and which of theirs; the same for all tries of a call.
        attempt: Which try, from 1.
        last: There will be no other try.
        model: By the scenario's name for it.
        takes_s: What was offered: seconds of the scenario that the answer was to take.
        why: Kind of failure, in a few words; empty without one.
        e2e_s: Until the last byte, or whatever ended it.
        ttft_s: Until the first content of a stream.
        gap_mean_s, gap_max_s: Between two pieces of content.
        wait_s, swap_s, residency, served_by: As llmswap says; None or empty if nobody said.
        trace: Trace id; empty if it was not traced.
    """

    at_s: float
    caller: str
    actor: int
    call: int
    attempt: int
    model: str
    api: str
    takes_s: float
    trace: str = ""
    ending: Ending = Ending.OPEN
    last: bool = True
    why: str = ""
    status: int = 0
    e2e_s: float = 0.0
    ttft_s: float | None = None
    gap_mean_s: float | None = None
    gap_max_s: float | None = None
    pieces: int = 0
    wait_s: float | None = None
    swap_s: float | None = None
    residency: str = ""
    served_by: str = ""

    @property
    def dispatched(self) -> bool:
        """Whether an upstream began to answer."""
        return self.status == 200 or self.wait_s is not None

    @property
    def waited_s(self) -> float | None:
        """How long it waited: until it was dispatched or, if it never was, until it ended. None if nobody can say."""
        return self.wait_s if self.dispatched else self.e2e_s

    def record(self) -> dict[str, Any]:
        """Give it as JSON values."""
        return asdict(self)

    @classmethod
    def of(cls, record: dict[str, Any]) -> "Sample":
        """Read what `record` gave."""
        return cls(**{**record, "ending": Ending(record["ending"])})


def write(samples: Iterable[Sample], path: Path) -> None:
    """Write a line of JSON for each."""
    path.write_text("".join(json.dumps(sample.record()) + "\n" for sample in samples))


def read(path: Path) -> Iterator[Sample]:
    """Read what `write` wrote.

    Raises:
        OSError: There is no such file.
    """
    return (Sample.of(json.loads(line)) for line in path.read_text().splitlines())
