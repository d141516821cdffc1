r"""Edits of JSON bytes at a path, leaving every other byte as it was. Knows no HTTP and no model.

The bytes must already have been found valid: what scans here only looks for where things begin and end. Paths are in
the syntax of llama-swap's filters: `a.b` an object's member, `a.0` an array's element, `a.-1` the last (to remove) or
one more (to set), `\.` a dot that does not divide, `:0` a member that is called 0.
"""

import re
from collections.abc import Callable, Iterator
from typing import NamedTuple

import orjson

# Most members or elements looked through in one container: a vocabulary's worth.
WALK_MAX = 300_000

_SPACE = re.compile(rb"[ \t\r\n]*+")
_STRING = re.compile(rb'"[^"\\]*+(?:\\.[^"\\]*+)*+"', re.DOTALL)
_SCALAR = re.compile(rb"[^,\]} \t\r\n]++")
_UP_TO_BRACKET = re.compile(rb'(?:[^"\[\]{}]++|"[^"\\]*+(?:\\.[^"\\]*+)*+")*+', re.DOTALL)


class TooManyItems(Exception):
    """A container on the path has more than WALK_MAX items."""


class Step(NamedTuple):
    """One step of a path. `position` is None for what can only be a member's name; -1 means the end."""

    name: str
    position: int | None


class Item(NamedTuple):
    """One member or element: `start` is where it begins (its key, if it has one), `value` where its value does."""

    key: str
    number: int
    start: int
    value: int
    end: int


def parse_path(path: str) -> tuple[Step, ...]:
    """Divide a path into its steps."""
    parts = re.findall(r"((?:[^.\\]|\\.|\\$)*)(?:\.|$)", path, re.DOTALL)
    parts = parts if path.endswith(".") and not path.endswith("\\.") else parts[:-1] or parts
    return tuple(map(_step, parts))


def _step(part: str) -> Step:
    if part.startswith(":"):
        return Step(_unescape(part[1:]), None)
    name = _unescape(part)
    if part == "-1":
        return Step(name, -1)
    return Step(name, int(part) if part.isascii() and part.isdigit() else None)


def _unescape(part: str) -> str:
    return re.sub(r"\\(.?)", r"\1", part, flags=re.DOTALL)


def count_members(body: bytes, name: str) -> int:
    """Count how often the outermost object has a member of this name.

    Raises:
        TooManyItems: See there.
    """
    return sum(1 for item in _items(body, _skip_space(body, 0)) if item.key == name)


def remove(body: bytes, path: tuple[Step, ...]) -> bytes:
    """Take out whatever the path leads to, every duplicate of it too; nothing happens if it leads nowhere.

    Raises:
        TooManyItems: See there.
    """
    return _remove(body, _skip_space(body, 0), path)


def put(body: bytes, path: tuple[Step, ...], value: bytes) -> bytes:
    """Put a JSON value where the path leads, making what is missing on the way.

    A scalar on the way is replaced by a container; a name that leads into an array leads nowhere.

    Raises:
        TooManyItems: See there.
    """
    return _put(body, _skip_space(body, 0), path, value)


def _remove(body: bytes, at: int, path: tuple[Step, ...]) -> bytes:
    if body[at] not in b"[{":
        return body
    matches = _matcher(body, at, path[0])
    if len(path) == 1:
        return _cut(body, _cuts(body, at, matches))
    for item in reversed([item for item in _items(body, at) if matches(item)]):
        body = _remove(body, item.value, path[1:])
    return body


def _matcher(body: bytes, at: int, step: Step) -> Callable[[Item], bool]:
    if body[at] == ord("{"):
        return lambda item: item.key == step.name
    index = sum(1 for _ in _items(body, at)) - 1 if step.position == -1 else step.position
    return lambda item: item.number == index


def _cuts(body: bytes, at: int, matches: Callable[[Item], bool]) -> Iterator[tuple[int, int]]:
    """Give the spans to cut so that the matching items go, each with one of its commas."""
    kept = False
    leading: Item | None = None  # a match with nothing kept before it: goes up to where the next item begins
    previous_end = at
    for item in _items(body, at):
        if leading is not None:
            yield leading.start, item.start
            leading = None
        if not matches(item):
            kept = True
        elif kept:
            yield previous_end, item.end
        else:
            leading = item
        previous_end = item.end
    if leading is not None:
        yield leading.start, leading.end


def _cut(body: bytes, spans: Iterator[tuple[int, int]]) -> bytes:
    pieces, done = [], 0
    for start, end in spans:
        pieces.append(body[done:start])
        done = end
    return b"".join((*pieces, body[done:])) if done else body


def _put(body: bytes, at: int, path: tuple[Step, ...], value: bytes) -> bytes:
    first = body[at : at + 1]
    if first == b"{":
        return _put_member(body, at, path, value)
    if first == b"[":
        return _put_element(body, at, path, value)
    return body[:at] + _build(path, value) + body[_end_of(body, at) :]


def _put_member(body: bytes, at: int, path: tuple[Step, ...], value: bytes) -> bytes:
    last, found, count = None, None, 0
    for item in _items(body, at):
        last = item
        if item.key == path[0].name:
            found, count = item, count + 1
    if found is None:
        end = last.end if last else at + 1
        return body[:end] + (b"," if last else b"") + _member(path, value) + body[end:]
    if count > 1:  # upstreams disagree on which duplicate counts, so one stays
        keep = found.start
        body = _cut(body, _cuts(body, at, lambda item: item.key == path[0].name and item.start != keep))
        return _put_member(body, at, path, value)
    return _put_value(body, found, path[1:], value)


def _put_element(body: bytes, at: int, path: tuple[Step, ...], value: bytes) -> bytes:
    index = path[0].position
    if index is None:
        return body
    last, count = None, 0
    for item in _items(body, at):
        if item.number == index:
            return _put_value(body, item, path[1:], value)
        last, count = item, count + 1
    end = last.end if last else at + 1
    new = [b"null"] * max(0, index - count) + [_build(path[1:], value)]
    return body[:end] + (b"," if last else b"") + b",".join(new) + body[end:]


def _put_value(body: bytes, item: Item, path: tuple[Step, ...], value: bytes) -> bytes:
    if path:
        return _put(body, item.value, path, value)
    return body[: item.value] + value + body[item.end :]


def _build(path: tuple[Step, ...], value: bytes) -> bytes:
    if not path:
        return value
    index = path[0].position
    if index is None:
        return b"{" + _member(path, value) + b"}"
    return b"[" + b"null," * max(0, index) + _build(path[1:], value) + b"]"


def _member(path: tuple[Step, ...], value: bytes) -> bytes:
    return orjson.dumps(path[0].name) + b":" + _build(path[1:], value)


def _items(body: bytes, at: int) -> Iterator[Item]:
    """Walk through the container that begins at `at`."""
    keyed = body[at] == ord("{")
    position = _skip_space(body, at + 1)
    index = 0
    while body[position] not in b"]}":
        if index >= WALK_MAX:
            raise TooManyItems
        start, key = position, ""
        if keyed:
            position = _end_of(body, start)
            key = orjson.loads(body[start:position])
            position = _skip_space(body, _skip_space(body, position) + 1)
        value, position = position, _end_of(body, position)
        yield Item(key, index, start, value, position)
        index += 1
        position = _skip_space(body, position)
        if body[position] == ord(","):
            position = _skip_space(body, position + 1)


def _skip_space(body: bytes, at: int) -> int:
    return _matched(_SPACE, body, at)


def _end_of(body: bytes, at: int) -> int:
    """Give where the value that begins at `at` ends."""
    if body[at] == ord('"'):
        return _matched(_STRING, body, at)
    if body[at] not in b"[{":
        return _matched(_SCALAR, body, at)
    depth = 0
    while True:
        depth += 1 if body[at] in b"[{" else -1
        at += 1
        if depth == 0:
            return at
        at = _matched(_UP_TO_BRACKET, body, at)


def _matched(pattern: re.Pattern[bytes], body: bytes, at: int) -> int:
    match = pattern.match(body, at)
    assert match is not None, f"JSON said to be valid is not, at byte {at}"
    return match.end()
