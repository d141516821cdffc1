"""The language of the matrix: which models may live together. Parse, check, solve; pure.

`a & (b | c)` is a family of model sets: `|` gives alternatives, `&` unites one choice of each side, `+name` inlines
another set, and every subset of an allowed set is allowed as well. The solver never writes the family out: it looks
only at models that matter now (those running, and the target), treats factors that share no such model one by one,
and merges equal choices elsewhere.
"""

from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass
from difflib import get_close_matches
from typing import NamedTuple, TypeAlias

from llmswap.core.fleet import MatrixRules, ModelId

MAX_NESTING = 100  # parentheses in parentheses, or sets in sets; keeps the recursion within the stack
MAX_CHOICES = 128  # choices kept of factors that share models; beyond it the worthiest are kept, not all


class MatrixError(ValueError):
    """An expression cannot be used; the message says why and where."""


@dataclass(frozen=True, slots=True)
class Name:
    """One model, by var or id."""

    text: str


@dataclass(frozen=True, slots=True)
class Ref:
    """Another set, inlined."""

    text: str


@dataclass(frozen=True, slots=True)
class All:
    """`&`: one choice of each part, united."""

    parts: tuple["Node", ...]


@dataclass(frozen=True, slots=True)
class Any:
    """`|`: one of the parts, the leftmost preferred."""

    parts: tuple["Node", ...]


Node: TypeAlias = Name | Ref | All | Any


class _Parser:
    """Recursive descent over `or := and ('|' and)*`, `and := atom ('&' atom)*`."""

    def __init__(self, text: str) -> None:
        self._text = text
        self._at = 0
        self._depth = 0

    def parse(self) -> Node:
        node = self._any()
        if self._peek():
            raise self._error("unexpected")
        return node

    def _peek(self) -> str:
        while self._at < len(self._text) and self._text[self._at].isspace():
            self._at += 1
        return self._text[self._at : self._at + 1]

    def _error(self, problem: str) -> MatrixError:
        found = repr(self._peek()) if self._peek() else "end of expression"
        return MatrixError(f"{problem} {found} at character {self._at + 1}")

    def _any(self) -> Node:
        parts = [self._all()]
        while self._peek() == "|":
            self._at += 1
            parts.append(self._all())
        return parts[0] if len(parts) == 1 else Any(tuple(parts))

    def _all(self) -> Node:
        parts = [self._atom()]
        while self._peek() == "&":
            self._at += 1
            parts.append(self._atom())
        return parts[0] if len(parts) == 1 else All(tuple(parts))

    def _atom(self) -> Node:
        char = self._peek()
        if char == "(":
            return self._parenthesis()
        if char == "+":
            self._at += 1
            return Ref(self._ident())
        return Name(self._ident())

    def _parenthesis(self) -> Node:
        opened = self._at
        self._depth += 1
        if self._depth > MAX_NESTING:
            raise MatrixError(f"parentheses nested deeper than {MAX_NESTING} at character {opened + 1}")
        self._at += 1
        node = self._any()
        if self._peek() != ")":
            raise MatrixError(f"the parenthesis opened at character {opened + 1} is not closed: {self._error('found')}")
        self._at += 1
        self._depth -= 1
        return node

    def _ident(self) -> str:
        start = self._at
        while self._at < len(self._text) and (self._text[self._at].isalnum() or self._text[self._at] in "_-."):
            self._at += 1
        if start == self._at:
            raise self._error("expected a model, a set (+name) or '(' but found")
        return self._text[start : self._at]


def parse(expression: str) -> Node:
    """Read one set expression.

    Raises:
        MatrixError: It is empty or malformed.
    """
    if not expression.strip():
        raise MatrixError("the expression is empty")
    return _Parser(expression).parse()


def leaves(node: Node) -> list[Name | Ref]:
    """List the names and references of an expression, from left to right."""
    if isinstance(node, Name | Ref):
        return [node]
    return [leaf for part in node.parts for leaf in leaves(part)]


def validate(rules: MatrixRules, models: Collection[ModelId]) -> list[str]:
    """Find everything wrong with the rules, each problem one line that starts with its place."""
    hint = _Hints()
    problems = [] if rules.sets else ["sets: at least one set is needed"]
    problems += [
        f"vars.{var}: there is no model {model!r}{hint(model, models)}"
        for var, model in rules.vars.items()
        if model not in models
    ]
    for model, cost in rules.evict_costs.items():
        if model not in models:
            problems.append(f"evict_costs.{model}: there is no such model{hint(model, models)}")
        if cost < 1:
            problems.append(f"evict_costs.{model}: must be at least 1, got {cost}")
    parsed: dict[str, Node] = {}
    names = {*rules.vars, *models}
    for name, text in rules.sets.items():
        try:
            parsed[name] = parse(text)
        except MatrixError as error:
            problems.append(f"sets.{name}: {error}")
            continue
        for leaf in dict.fromkeys(leaves(parsed[name])):
            if isinstance(leaf, Ref) and leaf.text not in rules.sets:
                problems.append(f"sets.{name}: there is no set {leaf.text!r}{hint(leaf.text, rules.sets)}")
            elif isinstance(leaf, Name) and leaf.text not in names:
                problems.append(f"sets.{name}: there is no var or model {leaf.text!r}{hint(leaf.text, names)}")
    try:
        _in_order(parsed)
    except MatrixError as error:
        problems.append(str(error))
    return problems


class _Hints:
    """Suggests near words. Comparing takes time, so it does so for a few thousand words only."""

    def __init__(self) -> None:
        self._comparisons_left = 20_000

    def __call__(self, word: str, words: Collection[str]) -> str:
        self._comparisons_left -= len(words)
        close = get_close_matches(word, words, 1) if self._comparisons_left >= 0 else []
        return f" (did you mean {close[0]!r}?)" if close else ""


def _in_order(sets: Mapping[str, Node]) -> list[str]:
    """Put the sets in definition order, but a referenced set before the one that refers to it."""
    done: dict[str, None] = {}
    for first in sets:
        path: dict[str, None] = {}
        stack = [(first, False)]
        while stack:
            name, leaving = stack.pop()
            if leaving:
                path.pop(name)
                done[name] = None
                continue
            if name in path:
                raise MatrixError(f"sets.{name}: refers to itself: {' -> '.join([*path, name])}")
            if name in done or name not in sets:
                continue
            if len(path) == MAX_NESTING:
                raise MatrixError(f"sets.{name}: sets refer to sets more than {MAX_NESTING} deep")
            path[name] = None
            stack.append((name, True))
            refs = [leaf.text for leaf in leaves(sets[name]) if isinstance(leaf, Ref)]
            stack += [(ref, False) for ref in reversed(refs)]
    return list(done)


class Solution(NamedTuple):
    """Who must go, and under which set the rest may live together; no set if the target is in none."""

    evict: tuple[ModelId, ...]
    set_name: str | None
    cost: int


class _Choice(NamedTuple):
    """A choice of models as a bit mask, and what it is worth to keep them."""

    worth: int
    mask: int


class Matrix:
    """Parsed rules, ready to be asked.

    Raises:
        MatrixError: The rules are not valid; `validate` lists all problems.
    """

    def __init__(self, rules: MatrixRules, models: Collection[ModelId]) -> None:
        problems = validate(rules, models)
        if problems:
            raise MatrixError("; ".join(problems))
        self._bits = {model: 1 << index for index, model in enumerate(models)}
        self._names = {str(model): bit for model, bit in self._bits.items()}
        self._names.update({var: self._bits[model] for var, model in rules.vars.items()})
        self._costs = rules.evict_costs
        parsed = {name: parse(text) for name, text in rules.sets.items()}
        self._sets = {name: parsed[name] for name in _in_order(parsed)}

    def solve(self, target: ModelId, running: Sequence[ModelId]) -> Solution:
        """Find the cheapest set of running models to evict so that the target may run with the rest.

        Ties go to the first set in order, and inside a set to the leftmost alternative.

        Args:
            target: Who is to run.
            running: Who holds memory or is about to; the target itself not among them.
        """
        costs = {model: self._costs.get(model, 1) for model in running}
        total = sum(costs.values())
        worths = {self._bits[model]: cost for model, cost in costs.items() if model in self._bits}
        wanted = self._bits.get(target, 0)
        worths[wanted] = total + 1  # so that a choice with the target beats any without it
        search = _Search(self._names, self._sets, worths)
        best, best_set = _Choice(0, 0), None
        for name in self._sets:
            choice = search.best_of_set(name)
            if choice.worth > best.worth:
                best, best_set = choice, name
        if not best.mask & wanted:
            return Solution(tuple(running), None, total)
        evict = tuple(model for model in running if not best.mask & self._bits.get(model, 0))
        return Solution(evict, best_set, sum(costs[model] for model in evict))

    def allows(self, together: Collection[ModelId]) -> bool:
        """Say whether all of these may live together."""
        first, *others = together
        return not self.solve(first, others).evict


class _Search:
    """One question to the sets: the worthiest choice, given what each model is worth to keep."""

    def __init__(self, names: Mapping[str, int], sets: Mapping[str, Node], worths: Mapping[int, int]) -> None:
        self._names = names
        self._sets = sets
        self._worths = worths
        self._relevant = 0
        for bit in worths:
            self._relevant |= bit
        self._set_masks: dict[str, int] = {}
        self._set_best: dict[str, _Choice] = {}
        self._set_choices: dict[str, list[int]] = {}

    def best_of_set(self, name: str) -> _Choice:
        """Give a set's worthiest choice. Sets must be asked in order: what a set refers to comes before it."""
        if name not in self._set_best:
            self._set_best[name] = self._best(self._sets[name])
        return self._set_best[name]

    def _best(self, node: Node) -> _Choice:
        if isinstance(node, Name):
            return self._choice(self._names[node.text] & self._relevant)
        if isinstance(node, Ref):
            return self.best_of_set(node.text)
        if isinstance(node, Any):
            return max((self._best(part) for part in node.parts), key=lambda choice: choice.worth)
        mask = 0
        for factors in self._factors(node):
            if len(factors) == 1:
                mask |= self._best(factors[0]).mask
            else:
                mask |= max(self._product(factors), key=self._worth)
        return self._choice(mask)

    def _factors(self, node: All) -> list[list[Node]]:
        """Split the parts into groups that share no relevant model: those can be settled one by one."""
        groups: list[tuple[int, list[int]]] = []
        for index, part in enumerate(node.parts):
            mask, members = self._mask(part), [index]
            for group in [group for group in groups if group[0] & mask]:
                groups.remove(group)
                mask |= group[0]
                members += group[1]
            groups.append((mask, members))
        return [[node.parts[index] for index in sorted(members)] for _, members in groups]

    def _mask(self, node: Node) -> int:
        """Give every relevant model that occurs in the expression."""
        if isinstance(node, Name):
            return self._names[node.text] & self._relevant
        if isinstance(node, Ref):
            if node.text not in self._set_masks:
                self._set_masks[node.text] = self._mask(self._sets[node.text])
            return self._set_masks[node.text]
        mask = 0
        for part in node.parts:
            mask |= self._mask(part)
        return mask

    def _choices(self, node: Node) -> list[int]:
        """Write out the different choices, in order."""
        if isinstance(node, Name):
            return [self._names[node.text] & self._relevant]
        if isinstance(node, Ref):
            if node.text not in self._set_choices:
                self._set_choices[node.text] = self._choices(self._sets[node.text])
            return self._set_choices[node.text]
        if isinstance(node, All):
            return self._product(node.parts)
        return self._thin(dict.fromkeys(choice for part in node.parts for choice in self._choices(part)))

    def _product(self, parts: Sequence[Node]) -> list[int]:
        found = [0]
        for part in parts:
            choices = self._choices(part)
            found = self._thin(dict.fromkeys(one | other for one in found for other in choices))
        return found

    def _thin(self, choices: Collection[int]) -> list[int]:
        """Bound the work: of too many choices keep the worthiest, still in order."""
        if len(choices) <= MAX_CHOICES:
            return list(choices)
        worthiest = set(sorted(choices, key=self._worth, reverse=True)[:MAX_CHOICES])
        return [choice for choice in choices if choice in worthiest]

    def _choice(self, mask: int) -> _Choice:
        return _Choice(self._worth(mask), mask)

    def _worth(self, mask: int) -> int:
        return sum(worth for bit, worth in self._worths.items() if mask & bit)
