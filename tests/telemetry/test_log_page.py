"""docs/logs.md against the code: every event and every key of it, and none that does not exist."""

import re
from pathlib import Path

from llmswap.proxy import completed
from llmswap.proxy.access_log import Entry, _Burst
from llmswap.runtime import logevents
from llmswap.runtime.observing import RequestOutcome, RequestRecord
from llmswap.telemetry import logs
from llmswap.telemetry.names import SWAP_OUTCOMES

PAGE = (Path(__file__).parents[2] / "docs" / "logs.md").read_text()
ROWS = dict(re.findall(r"^\| `([a-z]+(?:\.[a-z]+)?)` \| [^|]+ \| ([^|]+) \| [^|]+ \|$", PAGE, re.MULTILINE))


def keys(event: str) -> set[str]:
    return set(re.findall("`([a-z_]+)`", ROWS[event]))


def test_the_page_has_every_event_and_no_other() -> None:
    ours = {value for name, value in vars(logs).items() if name.isupper() and isinstance(value, str) and name[0] != "_"}
    assert set(ROWS) == ours | {completed.COMPLETED, completed.QUEUE_TIMEOUT, logevents.LOG, logevents.DROPPED}


def test_the_page_has_every_key_of_a_request() -> None:
    record = RequestRecord("r", "POST", "/r", "/r", 1.0, trace_id="a", span_id="b")
    entry = Entry("p", "POST", "/r", "1.1", 200, 2, "agent", 0.5, None, "r", "/r", 3.0, record)
    (event,) = _Burst([entry])
    assert set(event.fields) == keys("request.completed")
    assert set(completed.timed_out(record)[1]) == keys("queue.timeout")


def test_the_page_has_every_outcome() -> None:
    said = PAGE.partition("`outcome` of a request is one of")[2].partition("`residency`")[0]
    requests, _, swaps = said.partition("of a swap one of")
    assert tuple(re.findall("`([a-z_]+)`", requests)) == tuple(RequestOutcome)
    assert tuple(re.findall("`([a-z_]+)`", swaps)) == SWAP_OUTCOMES
