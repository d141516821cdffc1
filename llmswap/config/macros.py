"""`${name}` in values: global macros, a model's own, `MODEL_ID` and `PORT`; in the order llama-swap applies them.

A scope is a list of macros in declaration order, substituted from the last to the first. So a macro may use those
declared before it, and a model's macro that overrides a global one takes its position.
"""

import re
from collections.abc import Collection, Iterator, Mapping
from graphlib import CycleError, TopologicalSorter

from llmswap.config.issues import Issues
from llmswap.config.scalars import Date, Scalar, go_format
from llmswap.config.tree import Map, Path, Seq, Tree

RESERVED = ("PID", "PORT", "MODEL_ID")
MAX_NAME_CHARS = 63
MAX_EXPANDED_CHARS = 32 * 1024 * 1024

_NAME = re.compile(r"[a-zA-Z0-9_-]+")
_USE = re.compile(r"\$\{([a-zA-Z0-9_-]+)\}")


class Budget:
    """How many characters macros may still produce, over the whole config."""

    def __init__(self) -> None:
        self.left = MAX_EXPANDED_CHARS

    def spend(self, chars: int) -> bool:
        """Take some; False if there are not enough left, and then for good."""
        self.left -= max(chars, 0)
        return self.left >= 0


class Scope:
    """The macros that apply to a part of the file.

    Attributes:
        values: In declaration order.
    """

    def __init__(self, values: Mapping[str, Scalar], budget: Budget) -> None:
        self.values = values
        self._budget = budget
        self._tokens = [(f"${{{name}}}", value, go_format(value)) for name, value in reversed(list(values.items()))]

    def inside(self, model: str, own: Mapping[str, Scalar]) -> "Scope":
        """Give the scope of one model."""
        return Scope({"MODEL_ID": model, **self.values, **own}, self._budget)

    def with_port(self, port: int) -> "Scope":
        """Give the scope that only puts in an allocated port."""
        return Scope({"PORT": port}, self._budget)

    def expand(self, tree: Tree) -> Tree:
        """Put the macros into every value, not into keys."""
        if isinstance(tree, str):
            return self.text(tree) if "${" in tree else tree
        if isinstance(tree, Map):
            mapping = Map()
            for key, value in tree.items():
                mapping.put(key, self.expand(value), tree.places[key])
            return mapping
        if isinstance(tree, Seq):
            sequence = Seq()
            for item, place in zip(tree, tree.places, strict=True):
                sequence.put(self.expand(item), place)
            return sequence
        return tree

    def text(self, text: str) -> Scalar:
        """Put the macros into one string; one that is exactly a macro takes its type."""
        for token, value, shown in self._tokens:
            if token not in text:
                continue
            if text != token:
                if not self._budget.spend(len(text) + text.count(token) * len(shown)):
                    return ""
                text = text.replace(token, shown)
            elif isinstance(value, str):
                text = value
            else:
                return value
        return text


def declared(tree: Tree, path: Path, issues: Issues) -> dict[str, Scalar]:
    """Read and check a `macros` block."""
    if tree is None:
        return {}
    if not isinstance(tree, Map):
        issues.error(path, "must be a mapping of macro names to values")
        return {}
    macros: dict[str, Scalar] = {}
    for name, value in tree.items():
        problem = _problem(name, value)
        if problem:
            issues.error((*path, name), problem)
        else:
            macros[name] = value
    _report_cycle(macros, path, issues)
    return macros


def _problem(name: str, value: Tree) -> str | None:
    if not _NAME.fullmatch(name):
        return f"macro name '{name}' may hold only letters, digits, `_` and `-`"
    if len(name) > MAX_NAME_CHARS:
        return f"macro name is longer than {MAX_NAME_CHARS} characters"
    if name in RESERVED:
        return f"macro name '{name}' is reserved; choose another"
    if value is None or isinstance(value, Map | Seq | Date):
        return "macro value must be a scalar type: a string, number or boolean"
    if isinstance(value, str) and f"${{{name}}}" in value:
        return f"macro '{name}' contains a self-reference"
    return None


def _report_cycle(macros: Mapping[str, Scalar], path: Path, issues: Issues) -> None:
    uses = {name: set(_uses(value)) & macros.keys() for name, value in macros.items()}
    try:
        TopologicalSorter(uses).prepare()
    except CycleError as error:
        circle = error.args[1]
        where = ", ".join(f"{name} in {issues.line_of((*path, name))}" for name in circle[:-1])
        issues.error((*path, circle[0]), f"macros use each other in a circle ({where}); break it")


def report_leftovers(
    tree: Tree, path: Path, known: Collection[str], issues: Issues, allowed: tuple[str, ...] = ()
) -> None:
    """Report every macro that is still there after expansion."""
    for place, text in _strings(tree, path):
        for name in dict.fromkeys(_uses(text)):
            if name not in allowed:
                issues.error(place, _leftover(name, known, issues))


def _leftover(name: str, known: Collection[str], issues: Issues) -> str:
    macro = f"${{{name}}}"
    if name == "PORT":
        return f"unknown macro '{macro}': it is only available when cmd uses it"
    if name == "PID":
        return f"unknown macro '{macro}': it is only available in cmdStop"
    if name == "MODEL_ID":
        return f"unknown macro '{macro}': it is only available inside models"
    if name in known:
        return f"unknown macro '{macro}': it is declared after the macro that uses it; move its declaration up"
    return f"unknown macro '{macro}'{issues.hint(name, {*known, *RESERVED})}"


def _uses(value: Scalar) -> list[str]:
    return _USE.findall(value) if isinstance(value, str) else []


def _strings(tree: Tree, path: Path) -> Iterator[tuple[Path, str]]:
    if isinstance(tree, str):
        if "${" in tree:
            yield path, tree
    elif isinstance(tree, Map):
        for key, value in tree.items():
            yield from _strings(value, (*path, key))
    elif isinstance(tree, Seq):
        for index, item in enumerate(tree):
            yield from _strings(item, (*path, index))
