"""The tree against the schema: every misfit becomes an issue in the words of the file, at its place."""

from collections.abc import Callable
from typing import Any, get_args, get_origin

from pydantic import ValidationError
from pydantic_core import ErrorDetails

from llmswap.config.issues import Issues, did_you_mean
from llmswap.config.kinds import Section
from llmswap.config.schema import ConfigFile
from llmswap.config.tree import Map, Path, Seq

_KINDS: dict[str, str] = {
    "int_type": "a whole number",
    "bool_type": "true or false",
    "string_type": "a string",
    "list_type": "a list",
    "dict_type": "a mapping",
    "model_type": "a mapping",
    "model_attributes_type": "a mapping",
}


def fit(root: Map, anchored: set[str], issues: Issues) -> ConfigFile:
    """Validate the tree.

    What does not fit is reported and taken out, so that what depends on other keys can still be checked.
    """
    root = _without_anchor_holders(root, anchored)
    for _ in range(2):
        try:
            return ConfigFile.model_validate(root)
        except ValidationError as error:
            for detail in error.errors(include_url=False):
                path = tuple(part for part in detail["loc"] if part != "[key]")
                issues.error(path, _message(detail, path))
                _drop(root, path)
    return ConfigFile()


def _without_anchor_holders(root: Map, anchored: set[str]) -> Map:
    """Drop unknown top-level keys that only hold anchors for others, or say by `x-` that they are nobody's business."""
    known = known_keys(ConfigFile)
    result = Map()
    for key, value in root.items():
        if key in known or not (key in anchored or key.startswith("x-")):
            result.put(key, value, root.places[key])
    return result


def _drop(root: Map, path: Path) -> None:
    """Take out the misfit: one key of a model, or else a whole top-level section."""
    depth = 3 if path[0] == "models" and len(path) > 2 else 1
    holder: Any = root
    for part in path[: depth - 1]:
        holder = holder[part]
    if isinstance(holder, Map):
        holder.pop(str(path[depth - 1]), None)


def known_keys(section: type[Section]) -> list[str]:
    """List the keys a section may have."""
    return [field.alias or name for name, field in section.model_fields.items()]


def _message(detail: ErrorDetails, path: Path) -> str:
    kind, given = detail["type"], detail["input"]
    context = detail.get("ctx", {})
    if kind in _KINDS:
        return f"must be {_KINDS[kind]}, not {_name_of(given)}{_unquote_hint(kind, given)}"
    explained = _EXPLAINED.get(kind)
    return explained(path, given, context) if explained else detail["msg"]


def _unknown(path: Path, _given: object, _context: dict[str, Any]) -> str:
    section = _section_at(path[:-1])
    return f"unknown key '{path[-1]}'{did_you_mean(str(path[-1]), known_keys(section)) if section else ''}"


def _choice(_path: Path, given: object, context: dict[str, Any]) -> str:
    expected = str(context["expected"])
    hint = did_you_mean(str(given), expected.replace("'", "").replace(" or ", ", ").split(", "))
    return f"must be {expected}, not {_short(given)}{hint}"


_EXPLAINED: dict[str, Callable[[Path, Any, dict[str, Any]], str]] = {
    "extra_forbidden": _unknown,
    "literal_error": _choice,
    "missing": lambda path, _, __: f"the key '{path[-1]}' is required here",
    "greater_than_equal": lambda _, given, context: f"must be at least {context['ge']}, got {given}",
    "too_short": lambda *_: "must not be empty",
    "string_too_short": lambda *_: "must not be empty",
}


def _section_at(path: Path) -> type[Section] | None:
    kind: Any = ConfigFile
    for part in path:
        kind = _step(kind, part)
    kind = _bare(kind)
    return kind if isinstance(kind, type) and issubclass(kind, Section) else None


def _step(kind: Any, part: str | int) -> Any:  # noqa: ANN401  type annotations have no type of their own
    kind = _bare(kind)
    if isinstance(kind, type) and issubclass(kind, Section):
        fields = kind.model_fields.values()
        return next((field.annotation for field in fields if field.alias == part), None)
    return get_args(kind)[-1] if get_origin(kind) in {dict, list} else None


def _bare(kind: Any) -> Any:  # noqa: ANN401
    """Strip `Annotated[X, ...]` and `X | None` down to X."""
    while get_origin(kind) not in {None, dict, list}:
        kind = get_args(kind)[0]
    return kind


def _name_of(given: object) -> str:
    if isinstance(given, bool):
        return "true" if given else "false"
    if isinstance(given, Map | dict):
        return "a mapping"
    if isinstance(given, Seq | list):
        return "a list"
    return {str: "a string", int: "a number", float: "a number"}.get(type(given), "an empty value")


def _unquote_hint(kind: str, given: object) -> str:
    if kind == "int_type" and isinstance(given, str) and given.lstrip("+-").isdecimal():
        return "; remove the quotes"
    return ""


def _short(given: object) -> str:
    text = repr(str(given)) if isinstance(given, str) else _name_of(given)
    return text if len(text) <= 40 else f"{text[:36]}…'"
