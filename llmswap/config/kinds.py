"""The kinds of values a key may have, with llama-swap's coercions. Every section of the schema is built from these."""

import math
import re
from typing import Annotated, Any

from pydantic import BaseModel, BeforeValidator, ConfigDict, Field, WithJsonSchema, model_validator
from pydantic.alias_generators import to_camel
from pydantic_core import PydanticCustomError

from llmswap.config.scalars import go_format
from llmswap.config.tree import plain

_YES = frozenset({"y", "yes", "on"})
_NO = frozenset({"n", "no", "off"})
_MACRO = {"type": "string", "pattern": r"\$\{"}
_LARGEST = 2**63 - 1
_SIZES = {"kb": 10**3, "mb": 10**6, "gb": 10**9, "kib": 1 << 10, "mib": 1 << 20, "gib": 1 << 30, "b": 1}
_SIZE = re.compile(rf"(\d{{1,12}}) ?({'|'.join(_SIZES)})", re.ASCII | re.IGNORECASE)


class Section(BaseModel):
    """A mapping with known keys. A null value means that the key is absent."""

    model_config = ConfigDict(strict=True, extra="forbid", frozen=True, alias_generator=to_camel)

    @model_validator(mode="before")
    @classmethod
    def _null_is_absent(cls, data: object) -> object:
        if data is None:
            return {}
        if isinstance(data, dict):
            return {key: value for key, value in data.items() if value is not None}
        return data


def _text(value: object) -> object:
    if isinstance(value, str):
        if "\0" in value:
            raise PydanticCustomError("nul", "must not contain a NUL character")
        return str(value)
    if value is None:
        return ""  # an empty item of a list
    return go_format(value) if isinstance(value, bool | int | float) else value


def _whole(value: object) -> object:
    if isinstance(value, float):
        if not math.isfinite(value):
            raise PydanticCustomError("finite", "must be a finite number")
        value = int(value)
    if isinstance(value, int) and abs(value) > _LARGEST:
        raise PydanticCustomError("range", "is too large")
    return value


def _hold(value: object) -> object:
    if value == "auto":
        return None
    whole = _whole(value)
    if isinstance(whole, bool) or not isinstance(whole, int) or whole < 0:
        raise PydanticCustomError("hold", "must be auto or a number of seconds")
    return whole


def _size(value: object) -> object:
    if isinstance(value, str):
        match = _SIZE.fullmatch(value.strip())
        if match is None:
            raise PydanticCustomError("size", "must be a size such as 64MiB, 500kB or a number of bytes")
        value = int(match[1]) * _SIZES[match[2].lower()]
    return _whole(value)


def _flag(value: object) -> object:
    if isinstance(value, str):
        word = value.lower()
        return True if word in _YES else False if word in _NO else value
    return value


def _free(value: object) -> object:
    _all_finite(value)
    return plain(value)


def _all_finite(value: object) -> None:
    if isinstance(value, dict):
        value = list(value.values())
    if isinstance(value, list):
        for item in value:
            _all_finite(item)
    elif isinstance(value, float) and not math.isfinite(value):
        raise PydanticCustomError("finite", "must not hold .inf or .nan, which JSON does not know")


# What an int, float or bool in the file becomes is llama-swap's: 1.10 is "1.1", true is "true".
Text = Annotated[str, BeforeValidator(_text), WithJsonSchema({"type": ["string", "number", "boolean"]})]
Texts = list[Text]
# Seconds; `auto` becomes None.
Hold = Annotated[
    int | None,
    BeforeValidator(_hold),
    WithJsonSchema({"anyOf": [{"type": "number", "minimum": 0}, {"const": "auto"}, _MACRO]}),
]
# Floats are cut off; a quoted number is an error.
Whole = Annotated[int, BeforeValidator(_whole), WithJsonSchema({"anyOf": [{"type": "number"}, _MACRO]})]
# Bytes; a text has a unit, decimal or binary.
Size = Annotated[
    int,
    BeforeValidator(_size),
    WithJsonSchema(
        {"anyOf": [{"type": "string", "pattern": r"^\s*\d+ ?([kKmMgG][iI]?)?[bB]\s*$"}, {"type": "number"}, _MACRO]}
    ),
]
AtLeast0 = Annotated[Whole, Field(ge=0)]
AtLeast1 = Annotated[Whole, Field(ge=1)]
Flag = Annotated[
    bool,
    BeforeValidator(_flag),
    WithJsonSchema({"anyOf": [{"type": "boolean"}, {"enum": ["yes", "no", "on", "off"]}, _MACRO]}),
]
# Any JSON value, or a mapping to them.
Free = Annotated[Any, BeforeValidator(_free)]
FreeMap = Annotated[dict[str, Any], BeforeValidator(_free)]
