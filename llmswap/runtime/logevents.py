"""What log records tell a program: named events with fields, and how they are written, one a line.

A record says in words what happened, and may carry events that say the same in fields (`events`). The text form shows
the words; the others show the events, and a record without any as the event `log`.

Nothing that comes in a field can leave its line: what is no letter, figure, sign or blank is escaped.
"""

import logging
import re
import time
from collections.abc import Callable, Iterable, Mapping, Sequence
from functools import lru_cache
from typing import NamedTuple

import orjson

Value = str | int | float | bool | Sequence[str] | None
"""None is what is not known: it is left out."""

LOG = "log"
DROPPED = "log.dropped"
VALUE_CHARS = 1024
MESSAGE_CHARS = 16 * 1024
FIGURES = 6  # behind the point

_EVENTS = "told_events"
_LEVELS = {"DEBUG": "debug", "INFO": "info", "WARNING": "warn", "ERROR": "error", "CRITICAL": "error"}
# What orjson leaves as it is although a terminal or an editor obeys it: DEL, C1, line and direction separators.
_UNRULY = re.compile("[\x7f-\x9f\u2028-\u202e\u2066-\u2069]")
_BARE = re.compile(r"[!#-<>-\[\]-~]+")
_CONTROL = re.compile("[\x00-\x08\x0b-\x1f\x7f-\x9f]")

Hide = Callable[[str], str]


class Event(NamedTuple):
    """Something that happened.

    Attributes:
        name: One of a closed set, see docs/logs.md.
        message: The same in words.
        at_s: Seconds since 1970; None for the record's own time.
        level: A `logging` level name; empty for the record's own.
    """

    name: str
    message: str
    fields: Mapping[str, Value]
    at_s: float | None = None
    level: str = ""


Encode = Callable[[float, str, str, str, Mapping[str, Value]], bytes]
"""Writes a line: seconds since 1970, level, event, message, fields that are clean."""


def events(told: Iterable[Event]) -> dict[str, Iterable[Event]]:
    """Give the `extra` of a log record that tells these events."""
    return {_EVENTS: told}


def events_of(record: logging.LogRecord) -> Iterable[Event] | None:
    """Give the events that a record tells; None if it is mere words."""
    found: Iterable[Event] | None = getattr(record, _EVENTS, None)
    return found


def lines(record: logging.LogRecord, encode: Encode, hide: Hide) -> bytes:
    """Write a record, each of its events as a line."""
    told = events_of(record)
    if told is None:
        told = (Event(LOG, record.getMessage(), {"logger": record.name, "exception": _exception(record)}),)
    return b"".join([_line(record, event, encode, hide) for event in told])


def _line(record: logging.LogRecord, event: Event, encode: Encode, hide: Hide) -> bytes:
    at_s = record.created if event.at_s is None else event.at_s
    level = event.level or record.levelname
    level, message = _LEVELS.get(level, level.lower()), event.message
    fields = {name: value for name, value in event.fields.items() if value is not None}
    texts = [message]
    for name, value in fields.items():  # a line costs what its fields do, so the usual kinds are told apart first
        kind = type(value)
        if kind is float:
            fields[name] = round(value, FIGURES)  # type: ignore[arg-type]
        elif kind is not int and kind is not bool:
            texts.append(value if isinstance(value, str) else "\0".join(value))  # type: ignore[arg-type]
    text = "\0".join(texts)
    if len(text) <= VALUE_CHARS and hide(text) == text:  # one look at them all is cheaper than one at each
        return encode(at_s, level, event.name, message, fields)
    most = {"exception": MESSAGE_CHARS}
    clean = {name: _clean(value, hide, most.get(name, VALUE_CHARS)) for name, value in fields.items()}
    return encode(at_s, level, event.name, str(_clean(message, hide, MESSAGE_CHARS)), clean)


def _exception(record: logging.LogRecord) -> str | None:
    return logging.Formatter().formatException(record.exc_info) if record.exc_info else None


def _clean(value: Value, hide: Hide, most: int = VALUE_CHARS) -> Value:
    """Take secrets out of a value and bound it."""
    if isinstance(value, str):
        value = hide(value)
        return value if len(value) <= most else f"{value[:most]}…"
    if isinstance(value, float):
        return round(value, FIGURES)
    return [str(_clean(item, hide, most)) for item in value] if isinstance(value, Sequence) else value


def as_json(at_s: float, level: str, name: str, message: str, fields: Mapping[str, Value]) -> bytes:
    """Write a line of JSON."""
    return _json({"time": stamp(at_s), "level": level, "event": name, "message": message, **fields}) + b"\n"


def as_logfmt(at_s: float, level: str, name: str, message: str, fields: Mapping[str, Value]) -> bytes:
    """Write a line of `key=value`; what holds more than plain signs is quoted as in JSON."""
    words = "".join([f" {key}={_word(value)}" for key, value in fields.items()])
    return f"time={stamp(at_s)} level={level} event={name} message={_word(message)}{words}\n".encode()


ENCODERS: Mapping[str, Encode] = {"json": as_json, "logfmt": as_logfmt}


def _word(value: Value) -> str:
    if isinstance(value, str):
        return str(value) if _BARE.fullmatch(value) else _json(value).decode()
    if isinstance(value, bool):
        return "true" if value else "false"
    return _word(",".join(value)) if isinstance(value, Sequence) else repr(value)


def _json(value: object) -> bytes:
    try:
        data = orjson.dumps(value)
    except TypeError:  # half a character, from bytes of a header that are no UTF-8
        data = orjson.dumps(_whole(value))
    if data.isascii() and b"\x7f" not in data:
        return data
    return _UNRULY.sub(lambda found: f"\\u{ord(found[0]):04x}", data.decode()).encode()


def _whole(value: object) -> object:
    if isinstance(value, str):
        return value.encode(errors="replace").decode()
    if isinstance(value, dict):
        return {name: _whole(item) for name, item in value.items()}
    return [_whole(item) for item in value] if isinstance(value, list | tuple) else value


def stamp(at_s: float) -> str:
    """Write a time as RFC 3339 in UTC, with milliseconds."""
    thousandths = int(at_s * 1000)
    return f"{_second(thousandths // 1000)}.{thousandths % 1000:03d}Z"


@lru_cache(maxsize=4)
def _second(second: int) -> str:
    return time.strftime("%Y-%m-%dT%H:%M:%S", time.gmtime(second))


def harmless(text: str) -> str:
    """Escape what a terminal would obey in words that may have come from anywhere; line breaks and tabs stay."""
    return text if text.isprintable() else _CONTROL.sub(lambda found: f"\\x{ord(found[0]):02x}", text)
