"""Keys: what a request offers, and what is accepted."""

import ast
import base64
import hashlib
import inspect

import pytest
from multidict import CIMultiDict, CIMultiDictProxy

from llmswap.proxy.auth import KeyRing, candidate_key

KEY = "sk-test-0123456789abcdef"


def basic(text: str) -> str:
    return "Basic " + base64.b64encode(text.encode()).decode()


def offered(*headers: tuple[str, str]) -> str | None:
    return candidate_key(CIMultiDictProxy(CIMultiDict(headers)))


@pytest.mark.parametrize(
    ("headers", "expected"),
    [
        ([], None),
        ([("Authorization", f"Bearer {KEY}")], KEY),
        ([("authorization", f"bearer {KEY}")], KEY),
        ([("Authorization", f"BEARER   {KEY} ")], KEY),
        ([("Authorization", basic(f"user:{KEY}"))], KEY),
        ([("Authorization", basic(f":{KEY}").replace("Basic", "bAsIc"))], KEY),
        ([("Authorization", basic("user:with:colons"))], "with:colons"),
        ([("x-api-key", KEY)], KEY),
        ([("X-API-Key", KEY)], KEY),
        # a Basic that cannot be read leaves it to x-api-key
        ([("Authorization", "Basic !!!"), ("x-api-key", KEY)], KEY),
        ([("Authorization", basic("no-colon")), ("x-api-key", KEY)], KEY),
        ([("Authorization", "Basic"), ("x-api-key", KEY)], KEY),
        ([("Authorization", "Bearer "), ("x-api-key", KEY)], KEY),
        ([("Authorization", f"Token {KEY}"), ("x-api-key", "other")], "other"),
        # one candidate only: a wrong one is not made good by another
        ([("Authorization", "Bearer wrong"), ("x-api-key", KEY)], "wrong"),
        ([("Authorization", basic("user:wrong")), ("x-api-key", KEY)], "wrong"),
        ([("x-api-key", "wrong"), ("x-api-key", KEY)], "wrong"),
        ([("Authorization", "Bearer wrong"), ("Authorization", f"Bearer {KEY}")], "wrong"),
    ],
)
def test_one_key_is_taken_from_the_headers_by_a_fixed_precedence(
    headers: list[tuple[str, str]], expected: str | None
) -> None:
    assert offered(*headers) == expected


def test_only_whole_keys_are_admitted() -> None:
    ring = KeyRing([KEY, "second"])
    assert ring.recognise(KEY)
    assert ring.recognise("second")
    for wrong in ("", KEY[:-1], KEY + " ", KEY.upper(), "Second", "third"):
        assert not ring.recognise(wrong)


def test_an_empty_ring_admits_nobody() -> None:
    ring = KeyRing([])
    assert not ring
    assert not ring.recognise("")


def test_a_hashed_key_admits_the_key_but_not_its_hash() -> None:
    written = "sha256:" + hashlib.sha256(KEY.encode()).hexdigest()
    for spelling in (written, written[:7] + written[7:].upper()):
        ring = KeyRing([spelling])
        assert ring.recognise(KEY)
        assert not ring.recognise(spelling)
        assert not ring.recognise(spelling[7:])


def test_no_comparison_but_the_digests_touches_a_key() -> None:
    tree = ast.parse(inspect.getsource(KeyRing).strip())
    assert not [node for node in ast.walk(tree) if isinstance(node, ast.Compare | ast.Match | ast.Break)]
    assert "compare_digest" in inspect.getsource(KeyRing.recognise)


@pytest.mark.parametrize("odd", ["ключ", "k\x00ey", "\udcff\udcfe", "x" * 10_240])
def test_odd_keys_are_compared_as_bytes_and_never_break(odd: str) -> None:
    assert not KeyRing([KEY]).recognise(odd)
    assert KeyRing([odd]).recognise(odd)
