"""What a meter makes of answers: of every API and engine, whole and spoilt, and however their bytes are cut."""

import itertools
import json
from dataclasses import asdict
from typing import Any

import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from llmswap.proxy.hop.messages import Head
from llmswap.proxy.metering import meter as meter_module
from llmswap.proxy.metering.events import ENDS_MAX, EVENT_MAX
from llmswap.proxy.metering.meter import LOOKS, Meter
from llmswap.proxy.metering.shapes import Shape
from llmswap.runtime.observing import Usage
from tests.proxy import answers
from tests.proxy.answers import (
    CHAT,
    ENDED,
    JSON,
    NATIVE_END,
    ROLE,
    SSE,
    STOP,
    TALK,
    USED,
    WORDS,
    Answer,
    event,
    piece,
    stream,
    totals,
    whole,
)
from tests.proxy.media_answers import MEDIA
from tests.proxy.whole_answers import BODIES

STREAMS = (*answers.STREAMS, *MEDIA)
TIMES = ("first_token_s", "last_token_s", "max_gap_s", "chunks")


def meter_of(path: str = CHAT, content_type: str = SSE, status: int = 200, coding: str = "") -> Meter:
    meter = Meter(path)
    meter.head(Head(status, "", [], content_type=content_type, content_encoding=coding))
    return meter


def show(meter: Meter, data: bytes) -> None:
    """Show it body bytes as the hop does."""
    if not meter.plain(data):
        meter.chunk(data)


def usage_of(answer: Answer, pieces: list[bytes] | None = None) -> Usage:
    meter = meter_of(answer.path, answer.content_type)
    for data in pieces or [answer.body]:
        show(meter, data)
    return meter.usage()


def counts(usage: Usage) -> dict[str, Any]:
    return {name: value for name, value in asdict(usage).items() if name not in TIMES}


def cut_up(body: bytes, places: list[int]) -> list[bytes]:
    bounds = [0, *sorted({place % (len(body) + 1) for place in places}), len(body)]
    return [body[start:end] for start, end in itertools.pairwise(bounds) if start < end]


@pytest.fixture
def clock(monkeypatch: pytest.MonkeyPatch) -> list[float]:
    """Give a clock's hand: the last of a list is what the time is."""
    hand = [100.0]
    monkeypatch.setattr(meter_module.time, "monotonic", lambda: hand[-1])
    return hand


@pytest.mark.parametrize("answer", STREAMS, ids=str)
def test_a_stream_is_read_for_all_that_it_says_and_no_more(answer: Answer) -> None:
    assert counts(usage_of(answer)) == counts(Usage(**answer.says))


@pytest.mark.parametrize("answer", BODIES, ids=str)
def test_a_body_is_read_for_all_that_it_says_and_no_more(answer: Answer) -> None:
    wanted = dict(answer.says)
    if not wanted.pop("cut", False):
        wanted = {"response_model": "big", "finish_reasons": ("stop",), **wanted}
    assert counts(usage_of(answer)) == counts(Usage(**wanted))


@given(answer=st.sampled_from([one for one in STREAMS if len(one.body) < 10_000]), places=st.lists(st.integers(0)))
def test_however_a_stream_is_cut_it_says_the_same(answer: Answer, places: list[int]) -> None:
    assert counts(usage_of(answer, cut_up(answer.body, places))) == counts(usage_of(answer))
    assert usage_of(answer, cut_up(answer.body, places)).chunks == usage_of(answer).chunks


@pytest.mark.parametrize("answer", [one for one in STREAMS if len(one.body) < 10_000], ids=str)
def test_a_stream_may_come_byte_by_byte_or_event_by_event(answer: Answer) -> None:
    bytewise = [answer.body[at : at + 1] for at in range(len(answer.body))]
    events = [part + b"\n\n" for part in answer.body.split(b"\n\n")]
    assert counts(usage_of(answer, bytewise)) == counts(usage_of(answer))
    assert counts(usage_of(answer, events)) == counts(usage_of(answer))


@given(places=st.lists(st.integers(0), max_size=40), answer=st.sampled_from([*STREAMS, *BODIES]))
@example(places=[], answer=BODIES[5])
def test_large_ones_too(answer: Answer, places: list[int]) -> None:
    assert counts(usage_of(answer, cut_up(answer.body, places))) == counts(usage_of(answer))


words = st.text(max_size=12) | st.sampled_from(['"', "\\", '\\"', "content", "usage", '"usage":{}', "data: [DONE]\n\n"])


@given(st.lists(words), st.booleans(), st.lists(st.integers(0), max_size=8))
def test_whatever_is_said_each_chunk_with_content_counts_once(said: list[str], ascii_only: bool, cuts) -> None:
    chunks = [json.dumps(piece({"content": word}), ensure_ascii=ascii_only).encode() for word in said]
    events = [b"data: " + chunk + b"\n\n" for chunk in chunks]
    for pieces in (events, cut_up(b"".join(events), cuts)):
        meter = meter_of()
        for data in pieces:
            show(meter, data)
        usage = meter.usage()
        assert usage.output_tokens == (sum(map(bool, said)) or None)
        assert usage.chunks == len(said)


def test_times_are_of_the_chunks_with_content(clock: list[float]) -> None:
    meter, spoken = meter_of(), [ROLE, *WORDS[:3], STOP, totals(USED)]
    for at_s, chunk in zip((100, 107, 108, 111, 112, 112.5), spoken, strict=True):
        clock.append(at_s)
        show(meter, event(chunk))
    clock.append(999)
    meter.chunk(b": still here\n\n")
    usage = meter.usage()
    assert (usage.first_token_s, usage.last_token_s, usage.max_gap_s, usage.chunks) == (107, 111, 3, 6)


def test_the_short_way_for_ordinary_chunks_keeps_the_same_times(clock: list[float]) -> None:
    meter = meter_of()
    for number in range(50):
        clock.append(200 + number + (5 if number > 30 else 0))
        show(meter, event(WORDS[number % 5]))
    usage = meter.usage()
    assert (usage.first_token_s, usage.last_token_s, usage.max_gap_s) == (200, 254, 6)
    assert (usage.chunks, usage.output_tokens, usage.estimated) == (50, 50, True)


def test_an_ordinary_chunk_is_not_parsed(monkeypatch: pytest.MonkeyPatch) -> None:
    meter = meter_of()
    meter.chunk(event(ROLE))
    meter.chunk(event(WORDS[0]))
    monkeypatch.setattr(meter_module.orjson, "loads", lambda _: pytest.fail("parsed"))
    for number in range(100):
        show(meter, event(WORDS[number % 5]))
    assert meter.usage().output_tokens == 101


def test_nor_are_several_of_them_that_come_at_once(monkeypatch: pytest.MonkeyPatch) -> None:
    meter = meter_of()
    meter.chunk(event(WORDS[0]) + event(WORDS[1]))
    monkeypatch.setattr(meter_module.orjson, "loads", lambda _: pytest.fail("parsed"))
    assert meter.plain(stream(*WORDS[:4], done=False))
    meter.chunk(b": beep\n\n" + stream(*WORDS[:3], done=False) + b": beep\n\n")
    assert (meter.usage().output_tokens, meter.usage().chunks) == (9, 9)


def test_a_run_that_is_broken_again_and_again_is_looked_for_a_few_times_only(monkeypatch: pytest.MonkeyPatch) -> None:
    looks, run = [], Shape.run
    monkeypatch.setattr(Shape, "run", lambda *args: looks.append(1) or run(*args))
    meter, others = meter_of(), [ROLE, piece({"content": 'a "word"'}), *WORDS[:3]]
    meter.chunk(stream(*others * 1000, done=False))
    assert (meter.usage().output_tokens, meter.usage().chunks) == (4000, 5000)
    assert len(looks) < 2 * LOOKS


def test_only_whole_events_with_a_text_are_plain() -> None:
    meter, word, quoted, empty = meter_of(), *(event(piece({"content": text})) for text in ("word", 'a "word"', ""))
    assert not meter.plain(word), "nothing is known yet"
    meter.chunk(event(WORDS[0]))
    spoilt = (word[:-1], word[1:], event(STOP), event(totals(USED)), event("[DONE]"), quoted, empty)
    for other in (*spoilt, b": x\n\n", b""):
        assert not meter.plain(other)
        for pieces in ((word, other), (other, word), (word, other, word)):
            assert meter.plain(b"".join(pieces)) == (other == b"")
    assert meter.plain(word)
    meter.chunk(b"data: {")
    assert not meter.plain(word), "it stands within another"


@pytest.mark.parametrize("kind", [SSE, JSON])
def test_of_what_does_not_end_only_a_bounded_part_is_held(kind: str) -> None:
    meter = meter_of(content_type=kind)
    for _ in range(200):
        meter.chunk(b"data: " + b"x" * 65_536)
        assert len(meter._held) <= EVENT_MAX + 2 * ENDS_MAX
    assert counts(meter.usage()) == counts(Usage(done=False if kind == SSE else None))


@pytest.mark.parametrize(
    "about", [{"coding": "gzip"}, {"status": 400}, {"status": 101}, {"content_type": "audio/mpeg"}], ids=str
)
def test_what_cannot_be_read_is_unknown(about: dict[str, Any]) -> None:
    for body, kind in ((stream(*TALK, STOP, totals(USED)), SSE), (whole(usage=USED), JSON)):
        meter = meter_of(**{"content_type": kind, **about})
        show(meter, body)
        assert meter.usage() == Usage()


@pytest.mark.parametrize("body", [b"", b"{", b"null", b"[1, null]", b'"usage"', b"[" * 100_000, b"\xff" * 300_000])
@pytest.mark.parametrize("kind", [JSON, "application/x-ndjson", SSE])
def test_a_body_of_nonsense_is_unknown_and_no_error(body: bytes, kind: str, caplog) -> None:
    meter = meter_of("/v1/embeddings", kind)
    meter.chunk(body)
    usage = meter.usage()
    assert (usage.input_tokens, usage.output_tokens) == (None, None)
    assert caplog.text == ""


def test_ollamas_lines_say_it_last() -> None:
    meter = meter_of("/api/chat", "application/x-ndjson")
    for line in ({"model": "big", "done": False}, {"model": "big", "done": True, "prompt_eval_count": 11,
                 "eval_count": 5, "prompt_eval_duration": 250_000_000, "eval_duration": 500_000_000}):  # fmt: skip
        meter.chunk(json.dumps(line).encode() + b"\n")
    wanted = Usage(11, 5, prefill_s=0.25, decode_s=0.5, response_model="big")
    assert counts(meter.usage()) == counts(wanted)


def test_an_error_of_the_meter_is_logged_once_and_makes_all_unknown(monkeypatch: pytest.MonkeyPatch, caplog) -> None:
    meter = meter_of()
    meter.chunk(event(WORDS[0]))
    monkeypatch.setattr(meter.tally.__class__, "event", lambda *_: 1 // 0)
    for chunk in (STOP, WORDS[1], NATIVE_END, totals(USED)):
        show(meter, event(chunk))
    assert not meter.plain(event(WORDS[1])), "an answer that is not understood has to be sifted"
    assert meter.usage() == Usage()
    assert caplog.text.count("not metered any further") == 1
    assert ENDED["response_model"] not in caplog.text
