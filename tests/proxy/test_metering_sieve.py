"""The one event that is taken out of a stream again, and every byte that is not."""

import json

import pytest
from hypothesis import given
from hypothesis import strategies as st

from llmswap.proxy.metering.meter import Meter
from llmswap.proxy.metering.sieve import HELD_MAX, Sieve
from tests.proxy.answers import NATIVE, STOP, TALK, TIMINGS, USED, WORDS, event, piece, stream, totals, typed
from tests.proxy.test_metering import cut_up, meter_of

OURS = event(totals(USED))
TELLING = [
    piece({"content": text}) for text in ('"usage":{}', '"choices":[]', '"finish_reason":"stop"', "data: [DONE]")
]


def both(meter: Meter, pieces: list[bytes]) -> tuple[list[bytes], bool]:
    """Sift as the hop does, the meter last. Gives what went when, and whether ours was found."""
    sieve, passed = Sieve(lambda: meter.tally.finished), []
    for data in pieces:
        if meter.plain(data):
            passed.append(data)
        else:
            passed.append(sieve.sift(data))
            meter.chunk(data)
    return [*passed, sieve.rest()], sieve.taken


def sifted(pieces: list[bytes]) -> bytes:
    return b"".join(both(meter_of(), pieces)[0])


STREAMS = [
    (stream(*TALK, *TELLING, STOP, done=False), OURS, event("[DONE]")),
    (stream(*TALK, STOP, done=False), OURS, b""),
    (stream(*TALK, STOP, done=False), OURS.rstrip(b"\n"), b""),
    (stream(*TALK, STOP, done=False), event(totals(None)), event("[DONE]")),
    (stream(*TALK, STOP, done=False), event(totals(USED, timings=TIMINGS)), event("[DONE]")),
    (stream(*TALK, done=False), OURS, event("[DONE]")),
    (stream(*TALK, STOP, done=False, eol="\r\n"), event(totals(USED), eol="\r\n"), event("[DONE]", eol="\r\n")),
    (stream(*TALK, STOP, done=False) + b": beep\n\n\n", OURS, b": beep\n\n" + event("[DONE]")),
    (stream(*TALK, STOP, done=False), b"data:" + json.dumps(totals(USED), indent=1).replace("\n", "\ndata:").encode()
     + b"\n\n", event("[DONE]")),
    (stream(*TALK, STOP, WORDS[0], STOP, done=False), OURS, stream(totals(USED))),
]  # fmt: skip
finished = [one for one in STREAMS if b'"finish_reason": "stop"' in one[0]]

UNTOUCHED = {
    "no usage": stream(*TALK, STOP),
    "usage with content": stream(*({**one, "usage": USED} for one in (*TALK, STOP))),
    "usage with content, and alone after it": stream(*TALK, {**STOP, "usage": USED}, totals(USED)),
    "timings": stream(*TALK, {**STOP, "timings": TIMINGS}),
    "an error": stream(*TALK, STOP, totals(USED, error={"message": "boom"})),
    "Azure's first": stream(totals(None, prompt_filter_results=[]), totals(None), *TALK, STOP),
    "no choices at all": stream(*TALK, STOP, {"usage": USED}),
    "another API": typed(*({"type": "x", **one} for one in NATIVE), {"type": "y", "usage": USED}),
    "no JSON": stream(*TALK, STOP, '{"choices":[],"usage":{oops}'),
    "no events": b"\n\n\n\n: \n\ndata\n\nusage\r\r",
    "cut in the middle": stream(*TALK, STOP, done=False) + OURS[:60],
}


@pytest.mark.parametrize(("before", "ours", "after"), STREAMS)
def test_our_event_goes_and_nothing_else_does(before: bytes, ours: bytes, after: bytes) -> None:
    pieces = [before, ours + after]
    assert both(meter_of(), pieces) == ([before, after, b""], True) or ours == OURS.rstrip(b"\n")
    assert sifted([before + ours + after]) == before + after


@given(st.sampled_from(finished), st.lists(st.integers(0)))
def test_however_it_is_cut(one: tuple[bytes, bytes, bytes], places: list[int]) -> None:
    before, ours, after = one
    assert sifted(cut_up(before + ours + after, places)) == before + after


@pytest.mark.parametrize(("before", "ours", "after"), finished)
def test_byte_by_byte_too(before: bytes, ours: bytes, after: bytes) -> None:
    body = before + ours + after
    assert sifted([body[at : at + 1] for at in range(len(body))]) == before + after


@given(st.sampled_from([*UNTOUCHED.values()]), st.lists(st.integers(0)))
def test_where_there_is_nothing_of_ours_every_byte_passes(body: bytes, places: list[int]) -> None:
    assert sifted(cut_up(body, places)) == body
    assert sifted([body]) == body
    assert sifted([body[at : at + 1] for at in range(len(body))]) == body


@given(st.lists(st.integers(0)))
def test_until_a_choice_is_finished_nothing_waits(places: list[int]) -> None:
    pieces = cut_up(stream(*TALK, *TELLING, done=False), places)
    assert both(meter_of(), pieces)[0] == [*pieces, b""]


@given(st.lists(st.integers(0)))
def test_after_that_an_event_waits_only_until_it_shows_what_it_is(places: list[int]) -> None:
    pieces = [event(STOP), *cut_up(stream(*WORDS), places)]
    passed, sent = b"", b""
    for got, data in zip(both(meter_of(), pieces)[0], pieces, strict=False):
        passed, sent = passed + got, sent + data
        last = sent.rpartition(b"\n\n")[2]
        waiting = len(sent) - len(passed)
        assert waiting in {0, len(last)}
        assert waiting < len(event(WORDS[0]).partition(b'"choices": [{')[0]) + 13
    assert passed == sent


def test_what_goes_on_and_on_does_not_wait() -> None:
    pieces = [event(STOP), *(b"data: {", *([b" " * 1000] * 20))]
    passed = both(meter_of(), pieces)[0]
    assert b"".join(passed) == b"".join(pieces)
    held = sum(map(len, pieces[1 : 1 + passed[1:].index(next(filter(None, passed[1:])))]))
    assert 0 < held <= HELD_MAX
    assert passed[-1] == b""


def test_an_error_of_the_sieve_is_logged_and_loses_no_byte(monkeypatch: pytest.MonkeyPatch, caplog) -> None:
    monkeypatch.setattr(Sieve, "_is_ours", lambda *_: 1 // 0)
    pieces = [event(STOP), OURS[:50], OURS[50:], event("[DONE]")]
    assert sifted(pieces) == b"".join(pieces)
    assert caplog.text.count("not sifted any further") == 1
