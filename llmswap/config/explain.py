"""The tree against the schema: every misfit becomes an issue in the words of the file, at its place."""

from typing import Any, get_args, get_origin

from pydantic import ValidationError
from pydantic_core import ErrorDetails

from llmswap.config.issues import Issues
from llmswap.config.kinds import Section
from llmswap.config.schema import ConfigFile
from llmswap.config.schema_models import ModelSection
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
_BOUNDS = {"greater_than_equal": ("at least", "ge"), "less_than_equal": ("at most", "le")}


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
                issues.error(path, _message(detail, path, issues))
                _drop(root, path, detail["type"])
        if not root.get("models"):
            issues.check()  # without models, every name in the file would look wrong
    return ConfigFile()


def _without_anchor_holders(root: Map, anchored: set[str]) -> Map:
    """Drop unknown top-level keys that only hold anchors for others, or say by `x-` that they are nobody's business."""
    known = known_keys(ConfigFile)
    result = Map()
    for key, value in root.items():
        if key in known or not (key in anchored or key.startswith("x-")):
            result.put(key, value, root.places[key])
    return result


def _drop(root: Map, path: Path, kind: str) -> None:
    """Take out the misfit: an unknown key alone; else a key of a model, a whole model, or a whole top-level section."""
    models = root.get("models")
    if kind == "extra_forbidden":
        parent: Any = root
        for part in path[:-1]:
            parent = _child(parent, part)
        if isinstance(parent, Map):
            parent.pop(str(path[-1]), None)
    elif len(path) == 1 or path[0] != "models" or not isinstance(models, Map):
        root.pop(str(path[0]), None)
    elif len(path) > 2 and isinstance(models[str(path[1])], Map):
        models[str(path[1])].pop(str(path[2]), None)
    else:
        models[str(path[1])] = Map()


def _child(tree: Any, part: str | int) -> Any:  # noqa: ANN401  a part of the tree, of any shape
    if isinstance(tree, Map):
        return tree.get(str(part))
    return tree[part] if isinstance(tree, Seq) and isinstance(part, int) else None


def known_keys(section: type[Section]) -> list[str]:
    """List the keys a section may have."""
    return [field.alias or name for name, field in section.model_fields.items()]


def _message(detail: ErrorDetails, path: Path, issues: Issues) -> str:
    kind, given, context = detail["type"], detail["input"], detail.get("ctx", {})
    if kind in _KINDS:
        return f"must be {_KINDS[kind]}, not {_name_of(given)}{_unquote_hint(kind, given)}"
    if kind == "extra_forbidden":
        return _unknown(path, issues)
    if kind == "literal_error":
        choices = str(context["expected"])
        hint = issues.hint(str(given), choices.replace("'", "").replace(" or ", ", ").split(", "))
        return f"must be {choices}, not {_short(given)}{hint}"
    if kind == "missing":
        return f"the key '{path[-1]}' is required here"
    if kind in _BOUNDS:
        words, key = _BOUNDS[kind]
        return f"must be {words} {context[key]}, got {given}"
    return "must not be empty" if kind in {"too_short", "string_too_short"} else detail["msg"]


def _unknown(path: Path, issues: Issues) -> str:
    key, section = str(path[-1]), _section_at(path[:-1])
    if section is ConfigFile and key in known_keys(ModelSection):
        return f"unknown key '{key}' here: it belongs inside a model"
    if section is ModelSection and key in known_keys(ConfigFile):
        return f"unknown key '{key}' here: it belongs at the top level"
    return f"unknown key '{key}'{issues.hint(key, known_keys(section) if section else ())}"


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
