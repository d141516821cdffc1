"""Plain YAML scalars as llama-swap reads them, and numbers as it prints them. Knows nothing of the file around them."""

import datetime as dt
import math
import re
from decimal import Decimal

Scalar = str | int | float | bool | None

_WORDS: dict[str, Scalar] = {
    **dict.fromkeys(("", "~", "null", "Null", "NULL")),
    **dict.fromkeys(("true", "True", "TRUE"), True),
    **dict.fromkeys(("false", "False", "FALSE"), False),
    **dict.fromkeys((".nan", ".NaN", ".NAN"), math.nan),
    **dict.fromkeys((".inf", ".Inf", ".INF", "+.inf", "+.Inf", "+.INF"), math.inf),
    **dict.fromkeys(("-.inf", "-.Inf", "-.INF"), -math.inf),
}
_NUMBER_STARTS = frozenset("+-.0123456789")
_DECIMAL = re.compile(r"[-+]?(?:0|[1-9][0-9]*)")
_PREFIXED = re.compile(r"([-+]?)0(?:[xX]([0-9a-fA-F]+)|[bB]([01]+)|[oO]?([0-7]+))")
_FLOAT = re.compile(r"[-+]?(?:\.[0-9]+|[0-9]+(?:\.[0-9]*)?)(?:[eE][-+]?[0-9]+)?")
_DATE = re.compile(
    r"([0-9]{4})-([0-9]{1,2})-([0-9]{1,2})(?:([Tt]| +)([0-9]{1,2}):([0-9]{1,2}):([0-9]{1,2})(?:\.([0-9]{1,9}))?"
    r"(Z|[-+][0-9]{2}:[0-9]{2})?)?"
)
_SMALLEST, _LARGEST = -(2**63), 2**64 - 1
_LONGEST_INTEGER = 70  # digits of 64 bits in binary, with sign and prefix; longer ones are never integers


class Date(str):
    """A YAML date, in its RFC 3339 text. A string everywhere, except that it cannot be a macro's value."""

    __slots__ = ()


def resolve(text: str) -> Scalar:
    """Give a plain scalar its value: YAML 1.2 core, dates, and numbers as Go's parser takes them.

    So `yes` and `12:30` are strings, `0o17`, `017` and `0xf` are 15, `1e3` and `08` are floats.
    """
    if not text or text[0] not in _NUMBER_STARTS:
        return _WORDS.get(text, text)
    if text in _WORDS:
        return _WORDS[text]
    if text[0] == ".":
        return _float(text, text)
    if len(text) > 7 and text[4] == "-" and (date := _date(text)) is not None:
        return date
    digits = text.replace("_", "")
    if len(digits) <= _LONGEST_INTEGER and (number := _integer(digits)) is not None:
        return number
    return _float(digits, text)


def _integer(digits: str) -> int | None:
    if _DECIMAL.fullmatch(digits):
        number = int(digits)
    elif found := _PREFIXED.fullmatch(digits):
        sign, hexadecimal, binary, octal = found.groups()
        number = int(hexadecimal, 16) if hexadecimal else int(binary, 2) if binary else int(octal, 8)
        number = -number if sign == "-" else number
    else:
        return None
    return number if _SMALLEST <= number <= _LARGEST else None


def _float(digits: str, text: str) -> float | str:
    if not _FLOAT.fullmatch(digits):
        return text
    number = float(digits)
    return text if math.isinf(number) else number


def _date(text: str) -> Date | None:
    found = _DATE.fullmatch(text)
    if found is None:
        return None
    year, month, day, separator, hour, minute, second, fraction, zone = found.groups()
    if separator is not None and (zone is None) != separator.isspace():
        return None  # with a T the zone is needed, after a blank it is not allowed
    try:
        moment = dt.datetime(*(int(number or 0) for number in (year, month, day, hour, minute, second)))  # type: ignore[arg-type]  # noqa: DTZ001
    except ValueError:
        return None
    fraction = f".{fraction.rstrip('0')}".rstrip(".") if fraction else ""
    zone = "Z" if zone in (None, "+00:00") else zone
    return Date(moment.isoformat() + fraction + zone)


def go_format(value: Scalar) -> str:
    """Print a scalar as Go's `%v` does: `1.0` is `1`, `1e10` is `1e+10`, true is `true`."""
    if isinstance(value, bool):
        return "true" if value else "false"
    return _go_float(value) if isinstance(value, float) else str(value)


def _go_float(value: float) -> str:
    if math.isnan(value):
        return "NaN"
    if math.isinf(value):
        return "+Inf" if value > 0 else "-Inf"
    decimal = Decimal(repr(value)).normalize()
    exponent = decimal.adjusted() if value else 0
    if -4 <= exponent < 6:
        return f"{decimal:f}"
    sign, digits, _ = decimal.as_tuple()
    mantissa = f"{digits[0]}.{''.join(map(str, digits[1:]))}".rstrip(".")
    return f"{'-' if sign else ''}{mantissa}e{'-' if exponent < 0 else '+'}{abs(exponent):02}"
