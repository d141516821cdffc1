"""YAML text -> tree. Nothing is known here of what the keys mean.

Safe by construction: it reads the parser's events itself, so no tag can make an object; nesting and the growth by
aliases are bounded; duplicate keys are refused. Only the first document of a stream is read.
"""

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

import yaml
from yaml.events import (
    AliasEvent,
    DocumentStartEvent,
    MappingEndEvent,
    MappingStartEvent,
    ScalarEvent,
    SequenceEndEvent,
    StreamEndEvent,
)

from llmswap.config.issues import Issues
from llmswap.config.scalars import Scalar, resolve
from llmswap.config.tree import Map, Place, Seq, Tree

MAX_CHARS = 8 * 1024 * 1024
MAX_DEPTH = 64
MAX_ALIASED_NODES = 100_000

# libyaml if the wheel has it: ten times faster, the same events.
_Parser: Any = getattr(yaml, "CSafeLoader", yaml.SafeLoader)
_Event = Any  # libyaml's binding has no types, and the events of the two parsers share no base that says anything
_STRING_TAGS = ("!", "tag:yaml.org,2002:str")
_TYPED_TAGS: dict[str, type | tuple[type, ...]] = {
    "tag:yaml.org,2002:int": int,
    "tag:yaml.org,2002:float": (int, float),
    "tag:yaml.org,2002:bool": bool,
    "tag:yaml.org,2002:null": type(None),
    "tag:yaml.org,2002:timestamp": str,
}
_HINTS = {
    "mapping values are not allowed": "; quote a value that holds a colon and a blank",
    "cannot start any token": "; indent with blanks, not tabs, and quote a value that begins with @, ` or %",
}
_CONTAINER_TAGS = (None, "!", "tag:yaml.org,2002:map", "tag:yaml.org,2002:seq")


@dataclass
class Source:
    """One parsed document.

    Attributes:
        root: Its top level; empty for an empty document.
        anchored: Top-level keys that define anchors. They may have any name: `defs: &defs ...` is a habit.
    """

    root: Map = field(default_factory=Map)
    anchored: set[str] = field(default_factory=set)


class _Unreadable(Exception):
    """Reading cannot go on after this."""

    def __init__(self, place: Place, message: str) -> None:
        super().__init__(message)
        self.place = place


def parse(text: str, file: str, issues: Issues, stand_ins: Mapping[str, str]) -> Source | None:
    """Read the first document.

    `stand_ins` are words in the text that `env.substitute` put there, with what is wrong where one is really used.

    Returns:
        None if it cannot be read; an issue says why. Duplicate keys and stand-ins are issues, too, but reading goes on.
    """
    if len(text) > MAX_CHARS:
        issues.error_at(Place(file, 0, 0), (), f"the file is larger than {MAX_CHARS // 2**20} MiB")
        return None
    reader = None
    try:
        reader = _Reader(text, file, issues, stand_ins)
        return reader.read()
    except _Unreadable as error:
        issues.error_at(error.place, tuple(reader.path) if reader else (), str(error))
    except yaml.MarkedYAMLError as error:
        mark = error.problem_mark or error.context_mark
        place = Place(file, mark.line + 1, mark.column + 1) if mark else Place(file, 0, 0)
        issues.error_at(place, (), f"not valid YAML: {_reason(error)}")
    except (yaml.YAMLError, UnicodeEncodeError) as error:
        issues.error_at(Place(file, 0, 0), (), f"not valid YAML: {' '.join(str(error).split())}")
    finally:
        if reader is not None:
            reader.close()
    return None


def _reason(error: yaml.MarkedYAMLError) -> str:
    """Put YAML's reason in one line, and add what most often is the cause."""
    problem = error.problem or "cannot be read"
    hint = next((hint for part, hint in _HINTS.items() if part in problem), "")
    if not error.context or error.context_mark is None:
        return problem + hint
    return f"{error.context} that begins on line {error.context_mark.line + 1}, {problem}{hint}"


class _Reader:
    def __init__(self, text: str, file: str, issues: Issues, stand_ins: Mapping[str, str]) -> None:
        self._parser = _Parser(text)
        self._file = file
        self._issues = issues
        self._stand_ins = stand_ins
        self._anchors: dict[str, tuple[Tree, int, int]] = {}  # name -> value, its nodes, its height
        self._anchor_count = 0
        self._nodes = 0
        self._aliased = 0
        self._deepest = 0
        self.path: list[str | int] = []

    def close(self) -> None:
        self._parser.dispose()

    def read(self) -> Source:
        while not isinstance(event := self._next(), DocumentStartEvent):
            if isinstance(event, StreamEndEvent):
                return Source()
        source = Source()
        event = self._next()
        top = isinstance(event, MappingStartEvent)
        root = self._mapping(event, 1, source.anchored) if top else self._node(event, 1)
        if isinstance(root, Map):
            source.root = root
        elif root is not None:
            raise _Unreadable(self._place(event), "the top level must be a mapping of keys, such as `models:`")
        return source

    def _next(self) -> _Event:
        return self._parser.get_event()

    def _place(self, event: _Event) -> Place:
        mark = event.start_mark
        return Place(self._file, mark.line + 1, mark.column + 1)

    def _node(self, event: _Event, depth: int) -> Tree:
        if isinstance(event, AliasEvent):
            return self._alias(event, depth)
        if depth > MAX_DEPTH:
            raise _Unreadable(self._place(event), f"nested deeper than {MAX_DEPTH} levels")
        self._nodes += 1
        if event.anchor is None:
            self._deepest = max(self._deepest, depth)
            return self._value(event, depth)
        nodes, deepest = self._nodes, self._deepest
        self._deepest = depth
        self._anchors.pop(event.anchor, None)
        self._anchor_count += 1
        value = self._value(event, depth)
        self._anchors[event.anchor] = (value, self._nodes - nodes + 1, self._deepest - depth)
        self._deepest = max(deepest, self._deepest)
        return value

    def _value(self, event: _Event, depth: int) -> Tree:
        if isinstance(event, ScalarEvent):
            return self._scalar(event)
        if event.tag not in _CONTAINER_TAGS:
            raise _Unreadable(self._place(event), "this tag is not supported; remove it")
        return self._mapping(event, depth) if isinstance(event, MappingStartEvent) else self._sequence(depth)

    def _alias(self, event: _Event, depth: int) -> Tree:
        if event.anchor not in self._anchors:
            raise _Unreadable(self._place(event), "this alias has no anchor of its name that ends before it")
        value, nodes, height = self._anchors[event.anchor]
        self._nodes += nodes
        self._aliased += nodes
        self._deepest = max(self._deepest, depth + height)
        if self._aliased > MAX_ALIASED_NODES:
            raise _Unreadable(self._place(event), f"aliases expand to more than {MAX_ALIASED_NODES} nodes")
        if depth + height > MAX_DEPTH:
            raise _Unreadable(self._place(event), f"aliases nest deeper than {MAX_DEPTH} levels")
        return value

    def _sequence(self, depth: int) -> Seq:
        items = Seq()
        while not isinstance(event := self._next(), SequenceEndEvent):
            self.path.append(len(items))
            items.put(self._node(event, depth + 1), self._place(event))
            self.path.pop()
        return items

    def _mapping(self, start: _Event, depth: int, anchored: set[str] | None = None) -> Map:
        if start.tag not in _CONTAINER_TAGS:
            raise _Unreadable(self._place(start), "this tag is not supported; remove it")
        mapping, merged = Map(), []
        while not isinstance(event := self._next(), MappingEndEvent):
            place, anchors = self._place(event), self._anchor_count
            is_merge = isinstance(event, ScalarEvent) and event.value == "<<" and event.tag is None and not event.style
            key = "<<" if is_merge else self._key(event)
            self.path.append(key)
            value = self._node(self._next(), depth + 1)
            if is_merge:
                merged += self._merge_sources(value, place)
            elif key in mapping:
                first = mapping.places[key]
                self._issues.error_at(
                    place, tuple(self.path), f"the key '{key}' is here twice: first on line {first.line}; keep one"
                )
            else:
                mapping.put(key, value, place)
            if anchored is not None and self._anchor_count > anchors:
                anchored.add(key)
            self.path.pop()
        for source in merged:
            for key in source:
                if key not in mapping:
                    mapping.put(key, source[key], source.places[key])
        return mapping

    def _merge_sources(self, value: Tree, place: Place) -> list[Map]:
        sources = value if isinstance(value, Seq) else [value]
        if not all(isinstance(source, Map) for source in sources):
            raise _Unreadable(place, "`<<` takes a mapping, or a list of mappings")
        self._aliased += sum(map(len, sources))
        if self._aliased > MAX_ALIASED_NODES:
            raise _Unreadable(place, f"aliases expand to more than {MAX_ALIASED_NODES} nodes")
        return list(sources)

    def _key(self, event: _Event) -> str:
        """Keys are taken as written: a model may be called `123` or `1.10`."""
        if isinstance(event, AliasEvent):
            value = self._alias(event, 0)
            if isinstance(value, str):
                return value
        elif isinstance(event, ScalarEvent):
            if event.anchor is not None:
                self._anchors[event.anchor] = (event.value, 1, 0)
                self._anchor_count += 1
            return self._checked(event)
        raise _Unreadable(self._place(event), "a key must be a single word or a quoted string")

    def _scalar(self, event: _Event) -> Scalar:
        text = self._checked(event)
        if event.tag is None:
            return text if event.style else resolve(text)
        if event.tag in _STRING_TAGS:
            return text
        value = resolve(text)
        wanted = _TYPED_TAGS.get(event.tag)
        if wanted is None:
            raise _Unreadable(self._place(event), "this tag is not supported; remove it")
        if not isinstance(value, wanted) or (isinstance(value, bool) and wanted is not bool):
            raise _Unreadable(self._place(event), "the value does not fit its tag")
        return value

    def _checked(self, event: _Event) -> str:
        """Take out the stand-ins, and report what is wrong with them."""
        text: str = event.value
        for stand_in, message in self._stand_ins.items():
            if stand_in in text:
                text = text.replace(stand_in, "")
                if message:
                    self._issues.error_at(self._place(event), tuple(self.path), message, spoils=True)
        return text
