"""Where requests name their model, strictly; and what errors look like."""

import json
import random
import time

import orjson
import pytest

from llmswap.proxy import dialects, jsonedit
from llmswap.proxy.dialects import Ask, Dialect, error_body, read_form, read_json, sse_error
from llmswap.proxy.errors import RequestError


@pytest.mark.parametrize(
    ("body", "ask"),
    [
        (b'{"model":"m"}', Ask("m")),
        (b' {"a":1,\n"model" : "org/name" } ', Ask("org/name")),
        (b'{"model":"m","stream":true}', Ask("m", stream=True)),
        (b'{"model":"m","stream":"true"}', Ask("m", stream=True)),
        (b'{"model":"m","stream":1}', Ask("m", stream=True)),
        (b'{"model":"m","stream":false}', Ask("m")),
        (b'{"model":"m","stream":[]}', Ask("m")),
        (b'{"\\u006dodel":"m"}', Ask("m")),
        (b"{}", Ask("")),
        (b'{"model":""}', Ask("")),
        (b'{"model":" m "}', Ask(" m ")),
        ('{"model":"\U0001f600 e\u0301"}'.encode(), Ask("\U0001f600 e\u0301")),
        (b'{"model":"m","tools":[{"properties":{"model":{"type":"string"}}}]}', Ask("m")),
        (b'{"tools":[{"model":1}],"model":"m","x":{"\\u006d\\u006f\\u0064\\u0065\\u006c":2}}', Ask("m")),
        (b'{"model":"m","text":"{\\"model\\":\\"x\\",\\"model\\":"}', Ask("m")),
        (b'{"text":"model","model":"model","x":["model","model"]}', Ask("model")),
    ],
)
def test_json_names_its_model(body: bytes, ask: Ask) -> None:
    assert read_json(body) == ask


@pytest.mark.parametrize(
    "body",
    [
        b"",
        b"{",
        b'{"model":"m"',
        b'{"model":"m"} trailing',
        b'{"model":"m"}{"model":"n"}',
        b"\xef\xbb\xbf" + b'{"model":"m"}',
        b'{"model":"m","x":NaN}',
        b'{"model":"m","x":Infinity}',
        b'{"model":"m","x":01}',
        b"{'model':'m'}",
        b'{"model":"m",}',
        b'{"model":"m" /* c */}',
        b'{"model":"\xff"}',
        b'{"model":"a\x00b"}',
        b'{"model":"\\ud800"}',
        b'["model"]',
        b'"model"',
        b"null",
        b"1",
        '{"model":"m"}'.encode("utf-16"),
        b'{"model":"m","x":' + b"[" * 201 + b"]" * 201 + b"}",
        b'{"model":"m","x":' + b'{"a":' * 201 + b"1" + b"}" * 202,
        b"[" * 100_000,
        b'{"a":' * 100_000,
        b'{"model":1}',
        b'{"model":1.5}',
        b'{"model":null}',
        b'{"model":true}',
        b'{"model":["m"]}',
        b'{"model":{"a":"m"}}',
        b'{"model":"m","model":"n"}',
        b'{"model":"m","model":"m"}',
        b'{"model":"m","a":{"x":[1,"}"]},"model" :"n"}',
        b'{"model":"m","\\u006dodel":"n"}',
        b'{"\\u006Dodel":"m","\\u006d\\u006F\\u0064\\u0065\\u006C":"n"}',
        b'{"model":null,"model":"n"}',
    ],
)
def test_json_that_could_be_read_in_two_ways_or_none_is_refused(body: bytes) -> None:
    with pytest.raises(RequestError) as caught:
        read_json(body)
    assert caught.value.status == 400


def test_json_may_be_nested_as_deep_as_the_limit() -> None:
    inner = b"[" * 199 + b'"[[[[["' + b"]" * 199
    assert read_json(b'{"model":"m","a":"' + b"[" * 300 + b'","x":' + inner + b"}") == Ask("m")
    assert read_json(b'{"model":"m","x":[' + b"[]," * 5000 + b"[]]}") == Ask("m")


@pytest.mark.parametrize("piece", [b"[],", b"{},", b'{"a":[]},', b"1,"])
def test_json_of_absurdly_many_values_is_refused_before_it_fills_the_memory(piece: bytes) -> None:
    body = b'{"model":"m","x":[' + piece * (2_100_000 // max(1, piece.count(b"[") + piece.count(b"{"))) + b"0]}"
    began_s = time.perf_counter()
    with pytest.raises(RequestError) as caught:
        read_json(body)
    assert caught.value.status == 413
    assert time.perf_counter() - began_s < 0.5


def test_a_string_without_an_end_is_refused_in_linear_time() -> None:
    endless = b'{"model":"m","x":' + b"[" * 300 + b'"' + b'\\"' * 300_000
    began_s = time.perf_counter()
    with pytest.raises(RequestError) as caught:
        read_json(endless)
    assert caught.value.status == 400
    assert time.perf_counter() - began_s < 1


def test_looking_for_a_second_model_is_bounded(monkeypatch: pytest.MonkeyPatch) -> None:
    hidden = b'{"x":[' + b'"",' * 1_000_000 + b'{"model":1}],"model":"m"}'
    began_s = time.perf_counter()
    assert read_json(hidden) == Ask("m")
    assert time.perf_counter() - began_s < 1
    monkeypatch.setattr(jsonedit, "WALK_MAX", 2)
    with pytest.raises(RequestError) as caught:
        read_json(b'{"a":"","b":"","model":"m","x":{"model":1}}')
    assert caught.value.status == 413


def test_a_megabyte_of_text_costs_no_second_look() -> None:
    body = orjson.dumps({"model": "m", "messages": [{"content": 'for (i = 0; [x, {y}]; \\ "model": 1) ' * 30_000}]})
    assert len(body) > 1_000_000
    assert read_json(body) == Ask("m")


def test_the_fast_and_the_careful_way_find_the_same_duplicates() -> None:
    rng = random.Random(98)
    for _ in range(2000):
        keys = [rng.choice(["model", "\\u006dodel", "mode\\u006c", "x", "models", "a model"]) for _ in range(3)]
        nested = rng.choice(['"model"', '{"model":1,"model":2}', '["model",{"model":[]}]', '"\\"model\\":"'])
        members = [f'"{key}":' + ('"m"' if key == "model" else rng.choice([nested, '"m"'])) for key in keys]
        body = ("{" + " , ".join(members) + "}").encode()
        named = [value for key, value in _top_level_pairs(body) if key == "model"]
        good = len(named) <= 1 and all(isinstance(value, str) for value in named)
        try:
            ask = read_json(body)
        except RequestError:
            assert not good, body
        else:
            assert good, body
            assert ask.model == (named[0] if named else "")


def _top_level_pairs(body: bytes) -> list[tuple[str, object]]:
    seen: list[list[tuple[str, object]]] = []
    json.loads(body, object_pairs_hook=seen.append)  # the outermost object is finished last
    return seen[-1]


@pytest.mark.parametrize(
    ("body", "query", "model"),
    [
        (b"model=m&x=1", {}, "m"),
        (b"model=org%2Fname+x", {}, "org/name x"),
        (b"x=1", {"model": "q"}, "q"),
        (b"model=m", {"model": "q"}, "m"),
        (b"", {"model": "q"}, "q"),
        (b"", {}, ""),
        (b"\xff\x00&&==", {}, ""),
    ],
)
def test_a_form_names_its_model_else_the_query_does(body: bytes, query: dict[str, str], model: str) -> None:
    assert read_form(body, query).model == model


@pytest.mark.parametrize("body", [b"model=m&model=n", b"a=1&" * (dialects.FORM_FIELDS_MAX + 1)])
def test_a_form_that_cannot_be_trusted_is_refused(body: bytes) -> None:
    with pytest.raises(RequestError) as caught:
        read_form(body, {})
    assert caught.value.status == 400


def test_a_large_form_is_not_taken_apart() -> None:
    large = b"model=m&x=" + b"%41" * dialects.FORM_MAX
    assert read_form(large, {"model": "q"}).model == "q"
    with pytest.raises(RequestError) as caught:
        read_form(large, {})
    assert caught.value.status == 413


@pytest.mark.parametrize(
    ("status", "kind", "code"),
    [
        (400, "invalid_request_error", "bad_request"),
        (401, "authentication_error", "unauthorized"),
        (404, "invalid_request_error", "not_found"),
        (409, "invalid_request_error", "conflict"),
        (418, "invalid_request_error", "invalid_request"),
        (429, "rate_limit_error", "rate_limit_exceeded"),
        (500, "server_error", "internal_error"),
        (502, "server_error", "bad_gateway"),
        (507, "server_error", "internal_error"),
    ],
)
def test_openai_clients_get_llama_swaps_error(status: int, kind: str, code: str) -> None:
    error = orjson.loads(error_body(Dialect.OPENAI, status, "why"))
    assert error == {"src": "llmswap", "error": {"message": "why", "type": kind, "param": None, "code": code}}
    assert orjson.loads(error_body(Dialect.OPENAI, status, "why", "own"))["error"]["code"] == "own"


@pytest.mark.parametrize(
    ("status", "kind"),
    [(400, "invalid_request_error"), (404, "not_found_error"), (429, "rate_limit_error"), (502, "api_error")],
)
def test_anthropic_clients_get_their_own_error(status: int, kind: str) -> None:
    error = orjson.loads(error_body(Dialect.ANTHROPIC, status, "why"))
    assert error == {"type": "error", "error": {"type": kind, "message": "why"}}


def test_an_error_in_a_stream_is_one_event() -> None:
    event = sse_error(Dialect.OPENAI, 502, "line one\nline two")
    assert event.startswith(b"data: {")
    assert event.endswith(b"}\n\n")
    assert event.count(b"\n") == 2
    assert sse_error(Dialect.ANTHROPIC, 502, "x").startswith(b"event: error\ndata: {")


@pytest.mark.parametrize(
    ("path", "dialect"),
    [
        ("/v1/messages", Dialect.ANTHROPIC),
        ("/v/messages/count_tokens", Dialect.ANTHROPIC),
        ("/messages?beta=true", Dialect.ANTHROPIC),
        ("/v1/chat/completions", Dialect.OPENAI),
    ],
)
def test_the_path_tells_the_dialect(path: str, dialect: Dialect) -> None:
    assert dialects.dialect_of(path) is dialect
