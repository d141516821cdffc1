"""Go's named time formats, as llama-swap's `logTimeFormat` spells them. Pure."""

from collections.abc import Callable
from datetime import datetime

Stamp = Callable[[datetime], str]


def stamper(name: str) -> Stamp | None:
    """Give the formatter of a named format (any case); None for the empty or an unknown name: no time is written.

    The formatter takes an aware datetime.
    """
    return _STAMPS.get(name.lower())


def _strf(pattern: str) -> Stamp:
    return lambda when: when.strftime(pattern)


def _offset(when: datetime) -> str:
    raw = when.strftime("%z")
    return "Z" if raw in {"", "+0000"} else f"{raw[:3]}:{raw[3:5]}"


def _rfc3339(when: datetime) -> str:
    return when.strftime("%Y-%m-%dT%H:%M:%S") + _offset(when)


def _rfc3339_nano(when: datetime) -> str:
    fraction = f".{when.microsecond:06d}".rstrip("0").rstrip(".")  # Go drops trailing zeros here
    return when.strftime("%Y-%m-%dT%H:%M:%S") + fraction + _offset(when)


_STAMPS: dict[str, Stamp] = {
    "ansic": _strf("%a %b %e %H:%M:%S %Y"),
    "unixdate": _strf("%a %b %e %H:%M:%S %Z %Y"),
    "rubydate": _strf("%a %b %d %H:%M:%S %z %Y"),
    "rfc822": _strf("%d %b %y %H:%M %Z"),
    "rfc822z": _strf("%d %b %y %H:%M %z"),
    "rfc850": _strf("%A, %d-%b-%y %H:%M:%S %Z"),
    "rfc1123": _strf("%a, %d %b %Y %H:%M:%S %Z"),
    "rfc1123z": _strf("%a, %d %b %Y %H:%M:%S %z"),
    "rfc3339": _rfc3339,
    "rfc3339nano": _rfc3339_nano,
    "kitchen": _strf("%-I:%M%p"),
    "stamp": _strf("%b %e %H:%M:%S"),
    "stampmilli": lambda when: f"{when:%b %e %H:%M:%S}.{when.microsecond // 1000:03d}",
    "stampmicro": lambda when: f"{when:%b %e %H:%M:%S}.{when.microsecond:06d}",
    "stampnano": lambda when: f"{when:%b %e %H:%M:%S}.{when.microsecond:06d}000",
}
