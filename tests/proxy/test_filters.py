"""A model's filters: their order, and that a body no filter names is the client's own bytes."""

import orjson
import pytest

from llmswap.config.settings import Filters
from llmswap.proxy import filters, jsonedit
from llmswap.proxy.errors import RequestError
from tests.proxy.rig import model


def test_without_a_filter_the_very_same_bytes_are_returned() -> None:
    body = b'{"model": "m"}'
    assert filters.apply(body, model("m"), "m") is body
    assert filters.apply(body, model("m", filters=Filters(strip=("x",))), "m") is body


def test_strip_then_set_then_set_by_requested_name() -> None:
    settings = model(
        "m",
        filters=Filters(
            strip=("temperature", "top_k"),
            set={"temperature": 0.5, "seed": 1},
            set_by_name={"m:fast": {"seed": 2, "nested.deep": [1]}, "m:other": {"seed": 3}},
        ),
    )
    body = b'{"model":"m:fast", "temperature": 9, "top_k":1, "n": 1.0}'
    after = filters.apply(body, settings, "m:fast")
    assert after == b'{"model":"m:fast", "n": 1.0,"seed":2,"temperature":0.5,"nested":{"deep":[1]}}'
    assert orjson.loads(filters.apply(body, settings, "m"))["seed"] == 1


def test_the_upstreams_own_name_replaces_the_requested_one() -> None:
    settings = model("m", use_model_name='real "name"', filters=Filters(set_by_name={"alias": {"x": None}}))
    after = filters.apply(b'{ "model" : "alias" , "y":[1 ]}', settings, "alias")
    assert after == b'{ "model" : "real \\"name\\"" , "y":[1 ],"x":null}'
    assert filters.apply(b'{"\\u006dodel":"m"}', settings, "m") == b'{"\\u006dodel":"real \\"name\\""}'


def test_a_body_too_broad_to_search_is_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(jsonedit, "WALK_MAX", 2)
    with pytest.raises(RequestError) as caught:
        filters.apply(b'{"a":1,"b":2,"model":"m"}', model("m", filters=Filters(strip=("z",))), "m")
    assert caught.value.status == 413
