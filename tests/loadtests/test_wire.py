"""What a call looks like on the wire, and what is read from a stream."""

import json
import math
from random import Random

from loadtests import scenario
from loadtests.script import Call, cast
from loadtests.wire import Asker, Stream, error_code, new_trace

ACTOR = cast(scenario.load("hit"), 1)[0]
ASKER = Asker({"chat": "qwen"}, real_s=0.1, tokens_per_s=25.0, api_key="secret")


def wire(call, *, known=False, trace=""):
    return ASKER.wire(call, ACTOR, 3, known=known, trace=trace)


def chunk(**delta):
    return b"data: " + json.dumps({"choices": [{"delta": delta}]}).encode() + b"\r\n"


def test_a_chat_is_streamed_and_asks_for_as_many_tokens_as_fit_into_its_time():
    sent = wire(Call("chat", 20.0, swap_class="never-swap"), trace="00-a-b-01")
    body = json.loads(sent.body)
    assert (sent.path, body["model"], body["stream"], body["max_tokens"]) == ("/v1/chat/completions", "qwen", True, 50)
    assert sent.streams
    assert sent.headers["X-Fake-Takes"] == "20.000000"
    assert sent.headers["X-LLMSwap-Swap"] == "never-swap"
    assert sent.headers["X-LLMSwap-Caller"] == "user"
    assert (sent.headers["traceparent"], sent.headers["Authorization"]) == ("00-a-b-01", "Bearer secret")


def test_what_goes_without_saying_is_not_sent():
    assert {"X-LLMSwap-Swap", "X-Fake-Cold", "traceparent"}.isdisjoint(wire(Call("chat", 1.0)).headers)
    assert json.loads(wire(Call("chat", 0.001)).body)["max_tokens"] == 1


def test_a_prompt_can_only_be_cold_for_who_was_answered_before():
    assert wire(Call("chat", 1.0, cold_s=9.0)).headers["X-Fake-Cold"] == "0 0.000000"
    assert wire(Call("chat", 1.0, cold_s=9.0), known=True).headers["X-Fake-Cold"] == "0 9.000000"


def test_every_api_has_its_address_and_names_the_model():
    for api in scenario.APIS:
        sent = wire(Call("chat", 1.0, api=api))
        assert b"qwen" in (sent.body or sent.path.encode())
        assert sent.path.startswith("/v1/" if sent.body else "/upstream/qwen/")
        assert sent.streams == (api in ("chat", "completion"))
        assert (sent.holds_s is not None) == (api == "socket")


def test_a_made_up_name_is_asked_for_in_place_of_the_models():
    assert json.loads(wire(Call("chat", 1.0, made_up="nobody-1")).body)["model"] == "nobody-1"


def test_a_stream_is_timed_from_its_first_content_on():
    stream = Stream()
    lines = [
        (1.0, chunk(role="assistant", content="")),
        (1.5, chunk(reasoning_content="hm")),
        (1.6, chunk(content="a")),
    ]
    for at_s, line in [*lines, (2.1, chunk(content="b")), (2.2, chunk())]:
        stream.line(line, at_s)
        stream.line(b"\n", at_s)
    assert (stream.pieces, stream.first_s, stream.last_s) == (3, 1.5, 2.1)
    assert math.isclose(stream.gap_max_s, 0.5)
    assert math.isclose(stream.gap_mean_s, 0.3)
    assert not stream.done
    stream.line(b"data: [DONE]\n", 2.3)
    stream.line(b"\n", 2.3)
    assert stream.done


def test_completions_count_too_and_a_single_piece_has_no_gaps():
    stream = Stream()
    for line in (
        b'data: {"choices": [{"text": "x"}]}\n',
        b"\n",
        b": a comment\n",
        b"\n",
        b'data: {"choices": []}\n',
        b"\n",
    ):
        stream.line(line, 1.0)
    assert (stream.pieces, stream.gap_mean_s, stream.error) == (1, None, "")


def test_an_error_within_a_stream_is_told_by_its_code_and_never_by_its_message():
    for data, word in (({"error": {"code": "oom", "message": "secret"}}, "oom"), ({"error": "secret"}, "error")):
        stream = Stream()
        stream.line(b"data: " + json.dumps(data).encode() + b"\n", 1.0)
        stream.line(b"\n", 1.0)
        assert (stream.error, stream.pieces) == (word, 0)
    stream = Stream()
    stream.line(b"data: {oops\n", 1.0)
    stream.line(b"\n", 1.0)
    assert stream.error == "an event is not JSON"
    assert error_code(None) == "error"


def test_a_trace_is_one_that_w3c_knows_and_is_to_be_sampled():
    trace, parent = new_trace(Random(1))
    version, id_, span, flags = parent.split("-")
    assert (version, id_, len(id_), len(span), flags) == ("00", trace, 32, 16, "01")
