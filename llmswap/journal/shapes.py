"""Frozen dataclasses <-> plain JSON values, field by field. Knows no event and no command; their names are the codec's.

Fields at their default are left out. What JSON cannot say of a float is written as `"inf"`, `"-inf"` and `"nan"`.
"""

import types
from collections.abc import Callable, Mapping
from dataclasses import MISSING, Field, dataclass, fields, is_dataclass
from enum import Enum
from math import isfinite
from typing import Any, Generic, NewType, TypeVar, Union, get_args, get_origin, get_type_hints

T = TypeVar("T")

Convert = Callable[[Any], Any]

_REQUIRED = object()  # the default of a field that has none: equal to no value
_NO_TEXTS: Mapping[str, Callable[[str], str]] = types.MappingProxyType({})


class ShapeError(ValueError):
    """A JSON value is not what the dataclass needs; the message says where and why."""


@dataclass(frozen=True, slots=True)
class _Kind:
    """How values of one type are written and read; `pack` is None where JSON takes the value as it is."""

    pack: Convert | None
    unpack: Convert


class Shape(Generic[T]):
    """How one dataclass is written and read.

    Args:
        texts: Field -> what becomes of its text before it is written. Empty texts of these fields are left out, and
            read as empty.
    """

    def __init__(self, of: type[T], texts: Mapping[str, Callable[[str], str]] = _NO_TEXTS) -> None:
        assert is_dataclass(of), of
        hints = get_type_hints(of)
        self._of = of
        self._kinds = {field.name: _kind(hints[field.name]) for field in fields(of)}
        self._plain = [
            (field.name, _default(field), self._kinds[field.name].pack)
            for field in fields(of)
            if field.name not in texts
        ]
        self._texts = tuple(texts.items())
        self._blank = dict.fromkeys(texts, "")

    @property
    def names(self) -> frozenset[str]:
        """The fields."""
        return frozenset(self._kinds)

    def pack(self, value: T) -> dict[str, Any]:
        """Give the JSON object."""
        data = {}
        for name, default, pack in self._plain:
            item = getattr(value, name)
            if item != default:
                data[name] = item if pack is None else pack(item)
        for name, fit in self._texts:
            if text := fit(getattr(value, name)):
                data[name] = text
        return data

    def unpack(self, data: Any) -> T:  # noqa: ANN401  whatever stands in the file
        """Give the value.

        Raises:
            ShapeError: A field is missing, unknown or of the wrong type.
        """
        if not isinstance(data, dict):
            raise ShapeError(f"expected an object, found {_shown(data)}")
        values: dict[str, Any] = dict(self._blank)
        for name, item in data.items():
            kind = self._kinds.get(name)
            if kind is None:
                raise ShapeError(f"unknown field {_shown(name)}")
            try:
                values[name] = kind.unpack(item)
            except ShapeError as error:
                raise ShapeError(f"{name}: {error}") from None
        try:
            return self._of(**values)
        except TypeError:
            missing = [name for name, default, _ in self._plain if default is _REQUIRED and name not in values]
            raise ShapeError(f"lacks {', '.join(missing)}") from None


def _default(field: Field[Any]) -> object:
    if field.default is not MISSING:
        return field.default
    return _REQUIRED if field.default_factory is MISSING else field.default_factory()


def _kind(hint: Any) -> _Kind:  # noqa: ANN401  a type hint has no type of its own
    if isinstance(hint, NewType):
        return _kind(hint.__supertype__)
    origin, arguments = get_origin(hint), get_args(hint)
    if origin is None:
        return _single(hint)
    if origin in {Union, types.UnionType}:
        return _optional(hint)
    if origin is tuple:
        return _tuple(_kind(arguments[0]))
    assert issubclass(origin, Mapping), f"no way to write {hint}"
    return _mapping(_kind(arguments[1]))


def _single(hint: type[Any]) -> _Kind:
    if hint is float:
        return _Kind(_pack_float, _unpack_float)
    if issubclass(hint, Enum):
        return _enum(hint)
    if is_dataclass(hint):
        shape = Shape[Any](hint)
        return _Kind(shape.pack, shape.unpack)
    assert hint in {str, int, bool}, f"no way to write {hint}"
    return _Kind(None, lambda value: _just(hint, value))


def _optional(hint: Any) -> _Kind:  # noqa: ANN401  as above
    (inner,) = (_kind(option) for option in get_args(hint) if option is not types.NoneType)
    pack = inner.pack
    return _Kind(
        None if pack is None else lambda value: None if value is None else pack(value),
        lambda value: None if value is None else inner.unpack(value),
    )


def _tuple(item: _Kind) -> _Kind:
    pack = item.pack
    return _Kind(
        None if pack is None else lambda values: [pack(value) for value in values],
        lambda values: tuple(item.unpack(value) for value in _just(list, values)),
    )


def _mapping(item: _Kind) -> _Kind:
    pack = item.pack
    return _Kind(
        dict if pack is None else lambda values: {key: pack(value) for key, value in values.items()},
        lambda values: {key: item.unpack(value) for key, value in _just(dict, values).items()},
    )


def _enum(hint: type[Enum]) -> _Kind:
    def unpack(value: object) -> Enum:
        try:
            return hint(value)
        except ValueError:
            raise ShapeError(f"expected one of {', '.join(str(one) for one in hint)}, found {_shown(value)}") from None

    return _Kind(None, unpack)


def _pack_float(value: float) -> float | str:
    return float(value) if isfinite(value) else str(value)


def _unpack_float(value: object) -> float:
    if type(value) in {int, float} or value in {"inf", "-inf", "nan"}:
        return float(value)  # type: ignore[arg-type]
    raise ShapeError(f"expected a number, found {_shown(value)}")


def _just(kind: type[T], value: object) -> T:
    if type(value) is not kind:
        raise ShapeError(f"expected {kind.__name__}, found {_shown(value)}")
    return value


def _shown(value: object) -> str:
    return f"{value!r:.60}"
