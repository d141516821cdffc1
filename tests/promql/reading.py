"""Reads a PromQL query, a dashboard's variables included, and says what is wrong with it: `problems(query)`.

It knows which labels each part of a query has, so it finds a label that is aggregated by, matched on or joined with
where there is none, a value outside of its closed set, and the rate of what is no counter.
"""

import functools
import re
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from typing import Any

import promql_parser as promql
from promql_parser import AggModifierType, LabelModifierType, MatchOp, VectorMatchCardinality

from llmswap.telemetry.names import Kind
from tests.promql.catalogue import TARGET, Series, exposed, recorded

Labels = frozenset[str] | None  # None: not known, so anything goes

ANY_VALUE = "any_value"  # stands where a dashboard's variable was
_DURATIONS = {"__rate_interval": "5m", "__range": "1h", "__interval": "1m"}
_NAME = r"(?:__)?[A-Za-z]\w*"
_VARIABLE = re.compile(rf"\$\{{({_NAME})(?::\w+)?\}}|\$({_NAME})|\[\[({_NAME})\]\]")
_STRING = re.compile(r'"(?:\\.|[^"\\])*"' r"|'(?:\\.|[^'\\])*'|`[^`]*`")
_OF_COUNTERS = {"rate", "irate", "increase", "resets"}
_SET_OPERATORS = {"and", "or", "unless"}
_KEEPING = {"topk", "bottomk", "limitk", "limit_ratio"}
_WITHOUT_LABELS = {"time", "vector", "scalar", "pi"}
_FROM_MATCHERS = {"absent", "absent_over_time"}
_LITERAL = re.compile(r"[\w/-]+")


def problems(query: str) -> list[str]:
    """Say all that is wrong with a query; empty if nothing is."""
    return list(_read(query).problems)


def labels(query: str) -> Labels:
    """Say which labels a query's result can have; None if that cannot be told."""
    return _read(query).labels


def named(query: str) -> frozenset[str]:
    """Say which series a query names."""
    return _read(query).names


def plain(query: str) -> str:
    """Put something in the place of each of a dashboard's variables: a value, a duration or a number."""
    parts, at = [], 0
    for string in _STRING.finditer(query):
        parts += [_outside(query[at : string.start()]), _VARIABLE.sub(ANY_VALUE, string.group())]
        at = string.end()
    return "".join([*parts, _outside(query[at:])])


def _outside(text: str) -> str:
    def value(found: re.Match[str]) -> str:
        name = next(filter(None, found.groups()))
        after_bracket = text[: found.start()].rstrip().endswith(("[", ":", "offset"))
        return _DURATIONS.get(name, "5m" if after_bracket else "1")

    return _VARIABLE.sub(value, text)


@dataclass(slots=True)
class _Reading:
    problems: tuple[str, ...]
    labels: Labels
    names: frozenset[str]


@functools.cache
def _read(query: str) -> _Reading:
    try:
        tree = promql.parse(plain(query))
    except ValueError as error:
        return _Reading((f"cannot be parsed: {error}",), None, frozenset())
    reader = _Reader()
    found = reader.labels(tree)
    return _Reading(tuple(dict.fromkeys(reader.problems)), found, frozenset(reader.names))


def _series(name: str) -> Series | None:
    if name in recorded():
        found = _read(recorded()[name]).labels
        return Series(TARGET if found is None else found, Kind.GAUGE)
    return exposed().get(name)


@dataclass(slots=True)
class _Reader:
    """Walks one query and notes what is wrong with it."""

    problems: list[str] = field(default_factory=list)
    names: set[str] = field(default_factory=set)

    def labels(self, node: Any) -> Labels:
        """Give the labels that the result of a node can have."""
        match node:
            case promql.MatrixSelector():
                found = self._selector(node.vector_selector)
            case promql.ParenExpr() | promql.UnaryExpr() | promql.SubqueryExpr():
                found = self.labels(node.expr)
            case promql.VectorSelector():
                found = self._selector(node)
            case promql.Call():
                found = self._call(node)
            case promql.AggregateExpr():
                found = self._aggregate(node)
            case promql.BinaryExpr():
                found = self._binary(node)
            case _:
                found = frozenset()
        return found

    def _wants(self, wanted: Iterable[str], present: Labels, what: str) -> None:
        if present is not None:
            self.problems += [f"{what}: there is no label `{label}`" for label in wanted if label not in present]

    def _selector(self, node: Any) -> Labels:
        series = _series(node.name) if node.name else None
        if not node.name:
            self.problems.append(f"{node}: names no series")
            return None
        self.names.add(node.name)
        if series is None:
            self.problems.append(f"`{node.name}`: is neither in names.py nor in the list of foreign series")
            return None
        matchers = [*node.matchers.matchers, *(matcher for group in node.matchers.or_matchers for matcher in group)]
        self._wants((matcher.name for matcher in matchers), series.labels, f"`{node.name}`")
        for matcher in matchers:
            self._values(node.name, matcher, series.values)
        return series.labels

    def _values(self, name: str, matcher: Any, closed: Mapping[str, frozenset[str]]) -> None:
        known = closed.get(matcher.name)
        if known is None:
            return
        regular = matcher.op in (MatchOp.Re, MatchOp.NotRe)
        if regular and not any(re.fullmatch(matcher.value, value) for value in known | {ANY_VALUE}):
            self.problems.append(f"`{name}`: `{matcher.name}` never matches {matcher.value!r}")
            return
        for value in matcher.value.split("|") if regular else [matcher.value]:
            literal = not regular or _LITERAL.fullmatch(value)
            if literal and value and value not in known and value != ANY_VALUE:
                self.problems.append(f"`{name}`: `{matcher.name}` is never {value!r}")

    def _call(self, node: Any) -> Labels:
        name = node.func.name
        found = [self.labels(argument) for argument in node.args]
        if name in _OF_COUNTERS:
            self._of_a_counter(name, node.args[0])
        if name in _WITHOUT_LABELS or name in _FROM_MATCHERS:
            return frozenset() if name in _WITHOUT_LABELS else None
        vectors = [
            labels
            for argument, labels in zip(node.args, found, strict=True)
            if not isinstance(argument, promql.NumberLiteral | promql.StringLiteral)
        ]
        inner = vectors[-1] if vectors else frozenset()
        if name in {"histogram_quantile", "histogram_fraction"}:
            self._wants(["le"], inner, name)
            return None if inner is None else inner - {"le"}
        if name in {"label_replace", "label_join"} and inner is not None:
            texts = [argument.val for argument in node.args[1:]]
            self._wants([texts[2]] if name == "label_replace" else texts[2:], inner, name)
            return inner | {texts[0]}
        return inner

    def _of_a_counter(self, function: str, argument: Any) -> None:
        if isinstance(argument, promql.MatrixSelector):
            name = argument.vector_selector.name or ""
            series = _series(name)
            if series is not None and series.kind is Kind.GAUGE:
                self.problems.append(f"{function}(`{name}`): is a gauge, not a counter")

    def _aggregate(self, node: Any) -> Labels:
        inner, modifier = self.labels(node.expr), node.modifier
        grouping = frozenset(modifier.labels) if modifier else frozenset[str]()
        self._wants(sorted(grouping), inner, str(node.op))
        if str(node.op) in _KEEPING:
            return inner
        if modifier is not None and modifier.type == AggModifierType.Without:
            return None if inner is None else inner - grouping
        return grouping | ({node.param.val} if str(node.op) == "count_values" else set())

    def _binary(self, node: Any) -> Labels:
        left, right = self.labels(node.lhs), self.labels(node.rhs)
        if _is_scalar(node.lhs) or _is_scalar(node.rhs):
            return right if _is_scalar(node.lhs) else left
        operator, modifier = str(node.op), node.modifier
        matching = modifier.matching if modifier else None
        if operator == "or":
            return None if left is None or right is None else left | right
        if matching is None or matching.type == LabelModifierType.Exclude:
            result = self._on_all(operator, left, right, frozenset(matching.labels if matching else ()))
        else:
            wanted = frozenset(matching.labels)
            for side in (left, right):
                self._wants(sorted(wanted), side, f"{operator} on ({', '.join(sorted(wanted))})")
            result = wanted
        if operator in _SET_OPERATORS:
            return left
        return self._grouped(modifier, left, right, result)

    def _on_all(self, operator: str, left: Labels, right: Labels, ignored: frozenset[str]) -> Labels:
        """Two sides that are matched on all labels must have the same."""
        if left is None or right is None:
            return None
        differ = sorted((left ^ right) - ignored)
        if differ:
            self.problems.append(f"{operator}: the two sides never match, only one of them has {', '.join(differ)}")
        return left - ignored

    def _grouped(self, modifier: Any, left: Labels, right: Labels, result: Labels) -> Labels:
        if modifier is None or modifier.card == VectorMatchCardinality.OneToOne:
            return result
        many, one = (left, right) if modifier.card == VectorMatchCardinality.ManyToOne else (right, left)
        extra = frozenset(modifier.group_labels or ())
        self._wants(sorted(extra), one, "group")
        return None if many is None else many | extra


def _is_scalar(node: Any) -> bool:
    match node:
        case promql.NumberLiteral():
            return True
        case promql.ParenExpr() | promql.UnaryExpr():
            return _is_scalar(node.expr)
        case promql.Call():
            return node.func.name in {"time", "scalar", "pi"}
        case promql.BinaryExpr():
            return _is_scalar(node.lhs) and _is_scalar(node.rhs)
    return False
