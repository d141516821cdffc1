"""Steps as lines: nothing that decides is lost, nothing secret is kept."""

import json
from dataclasses import replace
from math import inf
from typing import get_args

import orjson
import pytest
from hypothesis import given, settings

from llmswap.core import events as ev
from llmswap.core.commands import Command, Dispatch, Reject, RejectReason, Start, StartCause
from llmswap.core.step import Step
from llmswap.journal.codec import (
    CALLER_CHARS,
    COMMANDS,
    EVENTS,
    CodecError,
    VersionError,
    decode,
    encode_header,
    encode_step,
)
from tests.journal.samples import FLEET, M, any_of, header, request, steps


@settings(max_examples=400, deadline=None)
@given(steps())
def test_every_step_comes_back_as_it_was(step):
    line = encode_step(step)
    assert line.count(b"\n") == 1
    assert line.endswith(b"\n")
    again = decode(line)
    assert again == step
    assert encode_step(again) == line


@settings(max_examples=50, deadline=None)
@given(any_of(type(FLEET)))
def test_every_fleet_comes_back_as_it_was_with_its_order(fleet):
    again = decode(encode_header(replace(header(), fleet=fleet)))
    assert again.fleet == fleet
    assert list(again.fleet.models) == list(fleet.models)
    assert list(again.fleet.names) == list(fleet.names)


def test_every_event_and_command_has_a_tag():
    assert {kind for kind, _ in EVENTS.values()} == set(get_args(ev.Event))
    assert {kind for kind, _ in COMMANDS.values()} == set(get_args(Command))


def test_a_line_is_short_and_can_be_read():
    assert json.loads(encode_step(request(7, 1.25))) == {
        "t": 1.25,
        "event": "arrived",
        "request": 7,
        "model": "qwen",
        "caller": "10.0.0.0/24",
        "then": [{"do": "dispatch", "request": 7, "model": "qwen", "generation": 1}],
    }
    assert encode_step(Step(2.0, ev.DeadlineReached(), [])) == b'{"t":2.0,"event":"deadline"}\n'


def test_infinite_times_are_kept():
    step = Step(1.0, ev.DrainRequested(inf), [])
    assert decode(encode_step(step)) == step


@pytest.mark.parametrize(
    ("said", "kept"),
    [
        ("exited with code 1 during start: Authorization: Bearer sk-123", "exited with code 1 during start"),
        ("killed by signal 9: the prompt was: Dear diary", "killed by signal 9"),
        ("port 8000 is taken by pid 7 (server --api-key sk-123)", "port 8000 is taken by pid 7"),
        ("cannot start API_KEY=sk-123: command not found", "cannot start API_KEY"),
        ("not ready within 5 s: http://user:sk-123@box/health refused", "not ready within 5 s"),
        ("x" * 5000, "x" * 120),
        ("Überlauf", ""),
    ],
)
def test_of_a_reason_only_our_own_words_are_kept(said, kept):
    for event in (
        ev.StartFailed(M, ev.Generation(1), said),
        ev.UpstreamExited(M, ev.Generation(1), said),
        ev.StopFailed(M, ev.Generation(1), said),
    ):
        again = decode(encode_step(Step(1.0, event, [])))
        assert again.event == replace(event, reason=kept)


def test_what_a_refused_client_is_told_is_left_out():
    reject = Reject(ev.RequestId(1), RejectReason.BACKOFF, "qwen failed to start: sk-123", 5.0)
    line = encode_step(Step(1.0, ev.DeadlineReached(), [reject]))
    assert b"sk-123" not in line
    assert decode(line).commands == [replace(reject, detail="")]


@pytest.mark.parametrize(
    ("said", "kept"),
    [("x" * 999, "x" * CALLER_CHARS), ("agent \udcff", "agent ?"), ("büro", "büro"), ('"\n\0', '"\n\0')],
)
def test_a_caller_is_bounded_and_can_always_be_written(said, kept):
    arrived = ev.RequestArrived(ev.RequestId(1), M, said)
    start = Start(M, ev.Generation(1), StartCause.REQUEST, caller=said)
    line = encode_step(Step(1.0, arrived, [start]))
    again = decode(line)
    assert (again.event.caller, again.commands[0].caller) == (kept, kept)
    assert encode_step(again) == line
    assert line.count(b"\n") == 1


def test_a_newer_version_is_refused_with_both_versions():
    line = orjson.dumps(orjson.loads(encode_header(header())) | {"journal": 2, "news": True})
    with pytest.raises(
        VersionError, match=r"journal version 2, written by llmswap '1\.2\.3': this llmswap reads version 1"
    ):
        decode(line)


@pytest.mark.parametrize(
    ("line", "complaint"),
    [
        (b"", "is not JSON"),
        (b'{"t":1.0,"event":"arr', "is not JSON"),
        (b"[]", "is not a line of a journal"),
        (b"{}", "lacks its time t"),
        (b'{"t":"now","event":"deadline"}', "lacks its time t"),
        (b'{"t":1.0,"event":"party"}', "there is no event 'party'"),
        (b'{"t":1.0,"event":[]}', r"there is no event \[\]"),
        (b'{"t":1.0,"event":"load"}', "load: lacks model"),
        (b'{"t":1.0,"event":"load","model":7}', "load: model: expected str, found 7"),
        (b'{"t":1.0,"event":"load","model":"a","why":1}', "load: unknown field 'why'"),
        (b'{"t":1.0,"event":"finished","request":true}', "finished: request: expected int, found True"),
        (b'{"t":1.0,"event":"drain","deadline_s":"soon"}', "drain: deadline_s: expected a number, found 'soon'"),
        (b'{"t":1.0,"event":"unload","models":"a"}', "unload: models: expected list, found 'a'"),
        (b'{"t":1.0,"event":"reload","fleet":[]}', "reload: fleet: expected an object"),
        (b'{"t":1.0,"event":"deadline","then":{}}', "then: expected a list"),
        (b'{"t":1.0,"event":"deadline","then":[1]}', "expected an object, found 1"),
        (
            b'{"t":1.0,"event":"deadline","then":[{"do":"stop","model":"a","generation":1,"cause":"x"}]}',
            "stop: cause: ",
        ),
        (b'{"journal":1}', "lacks llmswap, run, step"),
    ],
)
def test_what_is_wrong_with_a_line_is_said(line, complaint):
    with pytest.raises(CodecError, match=complaint):
        decode(line)


def test_a_dispatch_says_how_long_it_swapped():
    dispatch = Dispatch(ev.RequestId(1), M, ev.Generation(1), swap_s=0.1 + 0.2)
    assert decode(encode_step(Step(1.0, ev.DeadlineReached(), [dispatch]))).commands == [dispatch]
