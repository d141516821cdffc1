"""Reads the plain values of a YAML file, and says of each that is wrong what it is, where, and what would be right."""

from collections.abc import Callable, Iterable
from difflib import get_close_matches
from math import inf, isfinite
from typing import Any, TypeVar

T = TypeVar("T")

Span = tuple[float, float]
Counts = tuple[int, int]

_REQUIRED: Any = object()


class BadScenarioError(ValueError):
    """A scenario cannot be used; the message says where and why."""


class Table:
    """A mapping with known keys.

    Raises:
        BadScenarioError: It is none, or has keys that are not known.
    """

    def __init__(self, value: object, where: str, keys: Iterable[str]) -> None:
        self.where, self._known = where, tuple(keys)
        self.items = mapping(value, where)
        for key in self.items:
            if key not in self._known:
                close = get_close_matches(str(key), self._known, 1)
                hint = f"; did you mean '{close[0]}'?" if close else ""
                raise BadScenarioError(f"{where}: unknown key '{key}'{hint} Known are: {', '.join(self._known)}")

    def get(self, key: str, read: Callable[[object, str], T], default: T = _REQUIRED) -> T:
        """Read a key's value, or take the default if it is absent.

        Raises:
            BadScenarioError: It is absent and has no default, or is not what it must be.
        """
        assert key in self._known, key
        if key not in self.items:
            if default is _REQUIRED:
                raise BadScenarioError(f"{self.where}: the key '{key}' is required here")
            return default
        return read(self.items[key], f"{self.where}.{key}")


def mapping(value: object, where: str) -> dict[str, Any]:
    """Read a mapping with text for keys."""
    if not isinstance(value, dict) or not all(isinstance(key, str) for key in value):
        raise BadScenarioError(f"{where}: must be a mapping of names")
    return value


def several(value: object, where: str) -> list[Any]:
    """Read a list."""
    if not isinstance(value, list):
        raise BadScenarioError(f"{where}: must be a list")
    return value


def text(value: object, where: str) -> str:
    """Read text that is not empty."""
    if not isinstance(value, str) or not value:
        raise BadScenarioError(f"{where}: must be text")
    return value


def texts(value: object, where: str) -> tuple[str, ...]:
    """Read a list of texts."""
    return tuple(text(item, f"{where}[{index}]") for index, item in enumerate(several(value, where)))


def flag(value: object, where: str) -> bool:
    """Read true or false."""
    if not isinstance(value, bool):
        raise BadScenarioError(f"{where}: must be true or false")
    return value


def number(value: object, where: str) -> float:
    """Read a finite number, at least 0."""
    if isinstance(value, bool) or not isinstance(value, int | float) or not isfinite(value) or value < 0:
        raise BadScenarioError(f"{where}: must be a number, at least 0")
    return float(value)


def positive(value: object, where: str) -> float:
    """Read a finite number above 0."""
    read = number(value, where)
    if read == 0:
        raise BadScenarioError(f"{where}: must be more than 0")
    return read


def whole(value: object, where: str) -> int:
    """Read a whole number, at least 1."""
    read = number(value, where)
    if read < 1 or read != int(read):
        raise BadScenarioError(f"{where}: must be a whole number, at least 1")
    return int(read)


def chance(value: object, where: str) -> float:
    """Read a probability that is not 0."""
    read = number(value, where)
    if not 0 < read <= 1:
        raise BadScenarioError(f"{where}: must be more than 0 and at most 1")
    return read


def one_of(*words: str) -> Callable[[object, str], str]:
    """Make the reader of a word out of a closed set."""

    def read(value: object, where: str) -> str:
        if value not in words:
            raise BadScenarioError(f"{where}: must be one of {', '.join(words)}")
        return str(value)

    return read


def span(value: object, where: str) -> Span:
    """Read `3` as (3, 3), `[2, 5]` as (2, 5)."""
    ends = value if isinstance(value, list) else [value, value]
    wrong = f"{where}: must be a number, or [least, most], at least 0"
    if len(ends) != 2:
        raise BadScenarioError(wrong)
    try:
        least, most = (number(end, where) for end in ends)
    except BadScenarioError:
        raise BadScenarioError(wrong) from None
    if least > most:
        raise BadScenarioError(wrong)
    return least, most


def patience(value: object, where: str) -> Span:
    """Read a span that does not begin at 0."""
    ends = span(value, where)
    if ends[0] == 0:
        raise BadScenarioError(f"{where}: must be more than 0")
    return ends


def counts(value: object, where: str) -> Counts:
    """Read a span of whole numbers, at least 1."""
    ends = span(value, where)
    if ends[0] < 1 or any(end != int(end) for end in ends):
        raise BadScenarioError(f"{where}: must be a whole number, or [least, most], at least 1")
    return int(ends[0]), int(ends[1])


def pauses(value: object, where: str) -> tuple[float, ...]:
    """Read a list of durations."""
    return tuple(number(item, f"{where}[{index}]") for index, item in enumerate(several(value, where)))


NEVER: Span = (inf, inf)
