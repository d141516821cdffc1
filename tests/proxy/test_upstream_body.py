"""The three body framings, fed in every way bytes can be cut."""

import itertools

import pytest
from hypothesis import given
from hypothesis import strategies as st

from llmswap.proxy.hop.body import ChunkedBody, CountedBody, Malformed, OpenBody


def feed_in_pieces(body, wire: bytes, cuts: list[int]) -> bytes:
    edges = [0, *sorted({cut % (len(wire) + 1) for cut in cuts}), len(wire)]
    return b"".join(body.feed(wire[start:stop]) for start, stop in itertools.pairwise(edges) if start < stop)


@given(
    st.lists(st.binary(min_size=1, max_size=40), max_size=6),
    st.lists(st.integers(0, 400), max_size=12),
    st.sampled_from([b"", b";ext=1", b' ; a="b"']),
    st.sampled_from([b"", b"X-Sum: 1\r\n", b"A: 1\r\nB: 2\r\n"]),
)
def test_a_chunked_body_comes_out_whole_however_it_is_cut(payloads, cuts, extension, trailers) -> None:
    wire = b"".join(b"%x%b\r\n%b\r\n" % (len(one), extension, one) for one in payloads) + b"0\r\n" + trailers + b"\r\n"
    body = ChunkedBody()
    assert feed_in_pieces(body, wire, cuts) == b"".join(payloads)
    assert body.done
    assert body.ends_at_eof()


@given(st.binary(max_size=60), st.lists(st.integers(0, 60), max_size=8))
def test_a_chunked_body_is_never_done_before_its_end(garbage, cuts) -> None:
    body = ChunkedBody()
    wire = b"5\r\nhello\r\n" + garbage.replace(b"0", b"")
    try:
        feed_in_pieces(body, wire, cuts)
    except Malformed:
        return
    assert not body.done
    assert not body.ends_at_eof()


@pytest.mark.parametrize(
    "wire",
    [
        b"zz\r\n",
        b"-5\r\nhello",
        b"0x5\r\nhello",
        b"+5\r\nhello",
        b" 5\r\nhello",
        b"5 5\r\nhello",
        b"5\nhello\n",
        b"\r\n",
        b"fffffffffffffffff\r\n",
        b"5" * 300,
        b"5\r\nhelloXX",
        b"5\r\nhello\n\n",
        b"5\r\nhello\rX",
        b"0\r\n\r\nmore",
        b"0\r\nA: 1\r\n\r\nmore",
        b"0\r\n\r\nA: 1\r\n\r\n",
        b"0\r\n" + b"A: " + b"x" * 9000,
        b"5;a\x00b\r\nhello\r\n",
    ],
)
@pytest.mark.parametrize("whole", [True, False])
def test_a_broken_chunked_body_is_refused(wire: bytes, whole: bool) -> None:
    with pytest.raises(Malformed):
        feed_in_pieces(ChunkedBody(), wire, [] if whole else list(range(len(wire))))


def test_a_counted_body_ends_at_its_length_and_refuses_more() -> None:
    body = CountedBody(5)
    assert body.feed(b"hel") == b"hel"
    assert not body.ends_at_eof()
    assert body.feed(b"lo") == b"lo"
    assert body.done
    with pytest.raises(Malformed, match="more bytes"):
        body.feed(b"!")


def test_an_empty_body_is_done_at_once() -> None:
    assert CountedBody(0).done


def test_an_open_body_ends_with_the_connection() -> None:
    body = OpenBody()
    assert body.feed(b"x") == b"x"
    assert not body.done
    assert body.ends_at_eof()
