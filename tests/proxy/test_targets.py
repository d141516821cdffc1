"""Request targets as they came: split, never rewritten, refused where they are no targets."""

from dataclasses import dataclass

import pytest

from llmswap.proxy.errors import RequestError
from llmswap.proxy.targets import raw_target


@dataclass
class Asked:
    raw_path: str


@pytest.mark.parametrize(
    ("raw", "path", "query"),
    [
        ("/a/b", "/a/b", ""),
        ("/a?", "/a", "?"),
        ("/a?b?c=%2F", "/a", "?b?c=%2F"),
        ("/a%3Fb", "/a%3Fb", ""),
        ("/a?b#c?d", "/a", "?b"),
        ("/a#b?c", "/a", ""),
        ("//a/../b", "//a/../b", ""),
        ("http://host:1/a?b", "/a", "?b"),
        ("HTTP://host?b", "/", "?b"),
        ("/x?u=http://host/a", "/x", "?u=http://host/a"),
    ],
)
def test_a_target_is_split_into_path_and_query(raw: str, path: str, query: str) -> None:
    assert raw_target(Asked(raw)) == (path, query)  # type: ignore[arg-type]


@pytest.mark.parametrize("raw", ["/a b", "/a\r\nX: 1", "/a\x00", "/\x7f", "/\u00e9", "/\udcff", "/a\t"])
def test_what_must_be_percent_encoded_is_refused(raw: str) -> None:
    with pytest.raises(RequestError) as caught:
        raw_target(Asked(raw))  # type: ignore[arg-type]
    assert caught.value.status == 400
