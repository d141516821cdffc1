"""Edits at a path: what they change, and that they change nothing else."""

import copy
import random
import string
from typing import Any

import orjson
import pytest

from llmswap.proxy import jsonedit
from llmswap.proxy.jsonedit import Step, parse_path, put, remove


@pytest.mark.parametrize(
    ("path", "steps"),
    [
        ("a", [("a", None)]),
        ("a.b", [("a", None), ("b", None)]),
        ("a.0.-1", [("a", None), ("0", 0), ("-1", -1)]),
        (r"a\.b.c", [("a.b", None), ("c", None)]),
        (r"a\\.b", [("a\\", None), ("b", None)]),
        (":0.b", [("0", None), ("b", None)]),
        (r"\:0", [(":0", None)]),
        ("a.", [("a", None), ("", None)]),
        ("a..b", [("a", None), ("", None), ("b", None)]),
        ("", [("", None)]),
        ("²", [("²", None)]),
    ],
)
def test_a_path_is_divided_at_its_bare_dots(path: str, steps: list[tuple[str, int | None]]) -> None:
    assert parse_path(path) == tuple(Step(*step) for step in steps)


@pytest.mark.parametrize(
    ("body", "path", "after"),
    [
        (b'{"a":1,"b":2,"c":3}', "a", b'{"b":2,"c":3}'),
        (b'{"a":1,"b":2,"c":3}', "b", b'{"a":1,"c":3}'),
        (b'{"a":1,"b":2,"c":3}', "c", b'{"a":1,"b":2}'),
        (b'{ "a" : 1 }', "a", b"{  }"),
        (b'{ "a" : 1 ,\n "b" : 1e400 }', "a", b'{ "b" : 1e400 }'),
        (b'{"a":1,"a":2,"b":3,"a":4}', "a", b'{"b":3}'),
        (b'{"\\u0061":1,"b":2}', "a", b'{"b":2}'),
        (b'{"a":{"x":1,"y":2}}', "a.x", b'{"a":{"y":2}}'),
        (b'{"a":{"x":1},"a":{"x":2,"y":3}}', "a.x", b'{"a":{},"a":{"y":3}}'),
        (b'{"a":[1,2,3]}', "a.0", b'{"a":[2,3]}'),
        (b'{"a":[1,2,3]}', "a.-1", b'{"a":[1,2]}'),
        (b'{"a":[]}', "a.-1", b'{"a":[]}'),
        (b'{"a":{"0":1}}', "a.:0", b'{"a":{}}'),
        (b'{"a.b":1,"a":{"b":2}}', r"a\.b", b'{"a":{"b":2}}'),
        (b'{"a":1}', "a.b.c", b'{"a":1}'),
        (b'{"a":1}', "z", b'{"a":1}'),
        (b'{"a":"]}\\"","b":["{",{"c":"\\\\"}]}', "b.1.c", b'{"a":"]}\\"","b":["{",{}]}'),
    ],
)
def test_removing_takes_the_item_and_one_comma(body: bytes, path: str, after: bytes) -> None:
    assert remove(body, parse_path(path)) == after


@pytest.mark.parametrize(
    ("body", "path", "after"),
    [
        (b'{"a": 1 , "b":2}', "a", b'{"a": V , "b":2}'),
        (b"{}", "a", b'{"a":V}'),
        (b' {\n "b" : 2\n} ', "a", b' {\n "b" : 2,"a":V\n} '),
        (b"{}", "a.b.c", b'{"a":{"b":{"c":V}}}'),
        (b"{}", "a.0.b", b'{"a":[{"b":V}]}'),
        (b"{}", "a.2", b'{"a":[null,null,V]}'),
        (b"{}", "a.-1", b'{"a":[V]}'),
        (b"{}", "a.:2", b'{"a":{"2":V}}'),
        (b'{"a":[1]}', "a.0", b'{"a":[V]}'),
        (b'{"a":[1]}', "a.-1", b'{"a":[1,V]}'),
        (b'{"a":[1 ]}', "a.3", b'{"a":[1,null,null,V ]}'),
        (b'{"a":[{"b":1}]}', "a.0.b", b'{"a":[{"b":V}]}'),
        (b'{"a":[]}', "a.name", b'{"a":[]}'),
        (b'{"a":7}', "a.b", b'{"a":{"b":V}}'),
        (b'{"a":"x"}', "a.0", b'{"a":[V]}'),
        (b'{"a":1,"b":2,"a":3}', "a", b'{"b":2,"a":V}'),
        (b'{"a":{"x":1},"a":{"y":2}}', "a.y", b'{"a":{"y":V}}'),
        ('{"é":1}'.encode(), "é", '{"é":V}'.encode()),
        (b"{}", 'q"', b'{"q\\"":V}'),
    ],
)
def test_putting_replaces_or_makes_the_item(body: bytes, path: str, after: bytes) -> None:
    assert put(body, parse_path(path), b"V") == after


def test_a_container_beyond_the_limit_is_not_walked(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(jsonedit, "WALK_MAX", 3)
    assert put(b'{"a":[1,2,3]}', parse_path("a.2"), b"V") == b'{"a":[1,2,V]}'
    with pytest.raises(jsonedit.TooManyItems):
        put(b'{"a":[1,2,3,4]}', parse_path("a.3"), b"V")
    assert put(b'{"a":[1,2,3,4]}', parse_path("b"), b"V") == b'{"a":[1,2,3,4],"b":V}'


class Reference:
    """The same edits on parsed data."""

    @staticmethod
    def remove(data: Any, path: tuple[Step, ...]) -> None:
        for step in path[:-1]:
            data = Reference._child(data, step)
            if data is None:
                return
        last = path[-1]
        if isinstance(data, dict):
            data.pop(last.name, None)
        elif isinstance(data, list) and last.position is not None and -1 <= last.position < len(data) and data:
            del data[last.position]

    @staticmethod
    def _child(data: Any, step: Step) -> Any:
        if isinstance(data, dict):
            return data.get(step.name)
        if isinstance(data, list) and step.position is not None and data and step.position < len(data):
            return data[step.position]
        return None

    @staticmethod
    def put(data: Any, path: tuple[Step, ...], value: Any) -> Any:
        if not path:
            return value
        step, rest = path[0], path[1:]
        if not isinstance(data, dict | list):
            data = {} if step.position is None else []
        if isinstance(data, dict):
            data[step.name] = Reference.put(data.get(step.name), rest, value)
        elif step.position is not None:
            position = len(data) if step.position == -1 else step.position
            data.extend([None] * (position + 1 - len(data)))
            data[position] = Reference.put(data[position], rest, value)
        return data


def _any_json(rng: random.Random, depth: int) -> Any:
    kind = rng.randrange(9 if depth else 6)
    if kind < 2:
        return rng.choice([None, True, False, 0, -7, 1.5, 10**15, "", "x"])
    if kind < 6:
        return "".join(rng.choices(string.ascii_letters + '"\\{}[],: é\n', k=rng.randrange(8)))
    if kind == 6:
        return [_any_json(rng, depth - 1) for _ in range(rng.randrange(4))]
    return {rng.choice("abcde0"): _any_json(rng, depth - 1) for _ in range(rng.randrange(5))}


def _spaced(rng: random.Random, data: Any) -> str:
    """Write JSON with random white space and random escapes."""

    def gap() -> str:
        return rng.choice(["", "", " ", "\n\t"])

    if isinstance(data, dict):
        inside = ",".join(f"{gap()}{_spaced(rng, k)}{gap()}:{gap()}{_spaced(rng, v)}{gap()}" for k, v in data.items())
        return "{" + (inside or gap()) + "}"
    if isinstance(data, list):
        return "[" + (",".join(f"{gap()}{_spaced(rng, v)}{gap()}" for v in data) or gap()) + "]"
    text = orjson.dumps(data).decode()
    if isinstance(data, str) and data.isalpha() and rng.random() < 0.2:
        return '"' + "".join(f"\\u{ord(c):04x}" for c in data) + '"'
    return text


def test_random_edits_agree_with_the_same_edits_on_parsed_data() -> None:
    rng = random.Random(20261121)
    for _ in range(3000):
        data = {key: _any_json(rng, 3) for key in rng.sample("abcde", rng.randrange(6))}
        body = (rng.choice(["", " "]) + _spaced(rng, data) + rng.choice(["", "\n"])).encode()
        names = rng.choices(["a", "b", "c", "0", "1", "-1", "3"], k=rng.randrange(1, 4))
        path = parse_path(".".join(names))
        path = (Step(rng.choice("abcde"), None), *path[1:])
        removed = copy.deepcopy(data)
        Reference.remove(removed, path)
        assert orjson.loads(remove(body, path)) == removed, (body, path)
        written = Reference.put(copy.deepcopy(data), path, {"new": 1})
        assert orjson.loads(put(body, path, b'{"new":1}')) == written, (body, path)


def test_bytes_off_the_path_stay_as_they_were() -> None:
    rng = random.Random(7)
    for _ in range(500):
        before, after = (_spaced(rng, _any_json(rng, 3)).encode() for _ in range(2))
        body = b'{ "p":' + before + b' ,"k" : [1 , 2.50],\n"q":' + after + b"}"
        assert put(body, parse_path("k"), b"V") == b'{ "p":' + before + b' ,"k" : V,\n"q":' + after + b"}"
        assert remove(body, parse_path("k")) == b'{ "p":' + before + b',\n"q":' + after + b"}"
