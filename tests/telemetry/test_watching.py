"""Several observers behave as one, and none suffers from another."""

from llmswap.runtime.observing import HeaderFields, RequestRecord
from llmswap.telemetry.watching import Watching


class Notes:
    """Writes down what it sees, and gives one field to send."""

    def __init__(self, name: str, notes: list[str], *, broken: bool = False) -> None:
        self.name, self.notes, self.broken = name, notes, broken

    def _note(self, what: str) -> None:
        if self.broken:
            raise RuntimeError(self.name)
        self.notes.append(f"{self.name} {what}")

    def waits(self, record: RequestRecord) -> None:
        self._note("waits")

    def sends(self, record: RequestRecord) -> HeaderFields:
        self._note("sends")
        return ((self.name, "1"),)

    def ended(self, record: RequestRecord) -> None:
        self._note("ended")


def record() -> RequestRecord:
    return RequestRecord("r-1", "POST", "/v1/chat/completions", "/v1/chat/completions", 0.0)


def test_all_see_each_moment_in_order_and_their_fields_are_sent_together() -> None:
    notes: list[str] = []
    watching = Watching(Notes("a", notes), None, Notes("b", notes))
    watching.waits(record())
    assert watching.sends(record()) == (("a", "1"), ("b", "1"))
    watching.ended(record())
    assert notes == ["a waits", "b waits", "a sends", "b sends", "a ended", "b ended"]


def test_one_that_raises_is_logged_and_the_others_see_it_all_the_same(caplog) -> None:
    notes: list[str] = []
    watching = Watching(Notes("a", notes, broken=True), Notes("b", notes))
    watching.waits(record())
    assert watching.sends(record()) == (("b", "1"),)
    watching.ended(record())
    assert notes == ["b waits", "b sends", "b ended"]
    assert caplog.text.count("an observer failed on request r-1") == 3
