"""Log lines for programs: whatever comes in a field, one event stays one line that says what went in."""

import json
import logging
import re
from typing import Any

import pytest

from llmswap.config.settings import AccessSettings, LogSettings, Settings, TelemetrySettings
from llmswap.core.fleet import ModelId
from llmswap.runtime.logbook import LogBook, ProxyLogHandler
from llmswap.runtime.logevents import VALUE_CHARS, Event, as_json, as_logfmt, events, stamp
from llmswap.runtime.proxylog import ProxyLog, gap_in
from llmswap.runtime.stdout import StdoutWriter

HOSTILE = [
    "two\nlines",
    "carriage\r\nreturn",
    'quotes " and \\" and \\\\',
    '"} {"event":"forged"}',
    "a=b level=error event=forged",
    "\x1b[2J\x1b]0;title\x07 escapes",
    "nul \x00 and bell \x07 and delete \x7f",
    "C1 \x85 \x9b31m",
    "separators \u2028 and \u2029",
    "backwards \u202e txet \u2066",
    "café 模型 🦙",
    "half \udcff a character",
    " ",
    "",
]
LINE = re.compile(r'([a-z_]+)=("(?:[^"\\]|\\.)*"|[^ "]+)(?: |$)')


def read_logfmt(line: str) -> dict[str, str]:
    """Read a line as a collector would, and see that nothing is left over."""
    found = LINE.findall(line)
    assert " ".join(f"{key}={value}" for key, value in found) == line
    assert len(dict(found)) == len(found)
    return {key: json.loads(value) if value.startswith('"') else value for key, value in found}


def whole(text: str) -> str:
    """What of a text can be written at all."""
    return text.encode(errors="replace").decode()


def framed(data: bytes) -> str:
    """Give the one line that there is; it holds nothing that a terminal obeys."""
    text = data.decode()
    assert text.endswith("\n")
    assert text.splitlines() == [text[:-1]]
    assert not re.search("[\x00-\x1f\x7f-\x9f\u2028-\u202e\u2066-\u2069]", text[:-1])
    return text[:-1]


@pytest.mark.parametrize("value", HOSTILE)
def test_no_value_leaves_its_line_or_its_field(value: str) -> None:
    fields: dict[str, Any] = {"model": value, "evicted": [value], "status": 200, "stream": False, "swap_s": 0.25}
    given = json.loads(framed(as_json(1.5, "info", "x.y", value, fields)))
    assert given == {
        "time": "1970-01-01T00:00:01.500Z",
        "level": "info",
        "event": "x.y",
        "message": whole(value),
        "model": whole(value),
        "evicted": [whole(value)],
        "status": 200,
        "stream": False,
        "swap_s": 0.25,
    }
    read = read_logfmt(framed(as_logfmt(1.5, "info", "x.y", value, fields)))
    assert read == {
        "time": "1970-01-01T00:00:01.500Z",
        "level": "info",
        "event": "x.y",
        "message": whole(value),
        "model": whole(value),
        "evicted": whole(value),
        "status": "200",
        "stream": "false",
        "swap_s": "0.25",
    }


def test_a_time_is_rfc_3339_in_utc_with_milliseconds() -> None:
    assert stamp(1795275934.3079) == "2026-11-21T15:45:34.307Z"
    assert stamp(1795275935.0) == "2026-11-21T15:45:35.000Z"


def written(record: logging.LogRecord, form: str = "json", *, secrets: tuple[str, ...] = ()) -> bytes:
    book = LogBook(secrets=secrets)
    handler = ProxyLogHandler(book)
    handler.configure("", form)
    handler.handle(record)
    return book.proxy.history()


def record(text: str, *args: object, level: int = logging.INFO, **more: Any) -> logging.LogRecord:
    made = logging.LogRecord("llmswap.somewhere", level, __file__, 1, text, args, None)
    made.__dict__ |= more
    return made


def test_mere_words_are_the_event_log_with_their_logger() -> None:
    read = json.loads(framed(written(record("hello %s", "you\nthere", level=logging.CRITICAL))))
    assert read.pop("time")
    assert read == {"level": "error", "event": "log", "message": "hello you\nthere", "logger": "llmswap.somewhere"}


@pytest.mark.parametrize("form", ["json", "logfmt"])
def test_a_traceback_stays_in_one_line(form: str) -> None:
    try:
        raise ValueError("what\nwent wrong")
    except ValueError as error:
        told = record("it failed", level=logging.ERROR, exc_info=(ValueError, error, error.__traceback__))
    line = framed(written(told, form))
    read = json.loads(line) if form == "json" else read_logfmt(line)
    assert read["exception"].startswith("Traceback (most recent call last):\n")
    assert read["exception"].endswith("ValueError: what\nwent wrong")


def test_a_record_gives_each_of_its_events_and_what_is_unknown_is_left_out() -> None:
    told = (
        Event("one", "first", {"known": 0, "unknown": None}),
        Event("two", "second", {}, 0.0, "WARNING"),
    )
    one, two = map(json.loads, written(record("words", **events(told))).splitlines())
    assert (one["event"], one["level"], one["known"], "unknown" in one) == ("one", "info", 0, False)
    assert (two["event"], two["level"], two["time"]) == ("two", "warn", "1970-01-01T00:00:00.000Z")
    assert written(record("words", **events(told)), "text") == b"[INFO] words\n"


@pytest.mark.parametrize("form", ["json", "logfmt", "text"])
def test_secrets_are_hidden_wherever_they_stand_and_the_frame_stays(form: str) -> None:
    secret, odd = "message", 'se"cr\\et\tüber'
    fields: dict[str, Any] = {"model": f"a {odd}", "evicted": [odd, secret], "long": "x" * (VALUE_CHARS - 3) + odd}
    told = record(f"words {odd} {secret}", **events((Event("e", f"words {odd} {secret}", fields),)))
    line = framed(written(told, form, secrets=(secret, odd)))
    if form == "text":
        assert line == "[INFO] words *** ***"
        return
    read = json.loads(line) if form == "json" else read_logfmt(line)
    assert (read["message"], read["model"]) == ("words *** ***", "a ***")
    assert read["evicted"] in (["***", "***"], "***,***")
    assert read["long"].endswith("x***"), "not half of it is left where the value is cut"


def test_a_value_is_cut_where_nobody_would_read_on() -> None:
    line = framed(written(record("m", **events((Event("e", "m", {"model": "n" * 10_000}),)))))
    assert json.loads(line)["model"] == "n" * VALUE_CHARS + "…"


def test_words_in_text_cannot_drive_a_terminal_or_look_like_a_record_of_another_level() -> None:
    assert written(record("a\x1b[2Jb\x9bc\n[ERROR] forged\ttab"), "text").decode() == (
        "[INFO] a\\x1b[2Jb\\x9bc\n[INFO] [ERROR] forged\ttab\n"
    )


class Out:
    """A stand-in for stdout."""

    def __init__(self) -> None:
        self.data = b""

    def write(self, data: bytes) -> None:
        self.data += data


def test_an_event_never_goes_on_where_an_upstream_left_off() -> None:
    out: Any = Out()
    book = LogBook(LogSettings(to_stdout="both"), stdout=out)
    handler = ProxyLogHandler(book)
    handler.configure("", "json")
    book.write_upstream(ModelId("m"), b"loading 10 %")
    handler.handle(record("hello"))
    book.write_upstream(ModelId("m"), b" 20 %\n")
    handler.handle(record("again"))
    started, first, rest, second, end = out.data.split(b"\n")
    assert (started, rest, end) == (b"loading 10 %", b" 20 %", b"")
    assert [json.loads(line)["message"] for line in (first, second)] == ["hello", "again"]
    assert book.combined.history() == out.data


def test_a_gap_on_stdout_is_told_in_the_form_of_the_lines_around_it() -> None:
    assert gap_in("text")(7) == "— 7 bytes dropped —\n".encode()
    read = json.loads(framed(gap_in("json")(7)))
    assert (read["event"], read["level"], read["bytes"]) == ("log.dropped", "warn", 7)
    assert read_logfmt(framed(gap_in("logfmt")(7)))["bytes"] == "7"


def test_a_reload_changes_the_form_and_the_secrets() -> None:
    book = LogBook(stdout=StdoutWriter(-1))
    log = ProxyLog(book)
    logger = logging.getLogger("llmswap.runtime.tests")
    try:
        for form, secret in (("text", "first-key"), ("json", "second-key"), ("logfmt", "third-key")):
            log.configure(
                Settings({}, AccessSettings(api_keys=(secret,)), telemetry=TelemetrySettings(log_format=form))
            )
            logger.info("with %s", secret)
        text, encoded, pairs = book.proxy.history().decode().splitlines()
        assert text == "[INFO] with ***"
        assert json.loads(encoded)["message"] == "with ***"
        assert read_logfmt(pairs)["message"] == "with ***"
    finally:
        log.remove()
