"""Step <-> one line of JSON, versioned, and the header that says under which fleet the steps after it were taken.

A line holds no word of a client or of an upstream: refusals are written without their text, reasons only as far as
they are llmswap's own words (an upstream's last words may quote a prompt).
"""

import re
from collections.abc import Mapping
from dataclasses import dataclass
from math import isfinite
from typing import Any

import orjson

from llmswap.core import commands as do
from llmswap.core import events as ev
from llmswap.core.fleet import Fleet
from llmswap.core.step import Step
from llmswap.journal.shapes import Shape, ShapeError

VERSION = 1

MAGIC = b'{"journal":'  # every header begins so, of any version
CALLER_CHARS = 128
# Reasons begin with our own words; an upstream's output, addresses and command lines follow a `:`, `(` or `=`.
_OWN_WORDS = re.compile(r"[\w ,./'-]{0,120}", re.ASCII)


class CodecError(ValueError):
    """A line is not one of a journal; the message says why."""


class VersionError(CodecError):
    """A header is of a version that is not known here."""


@dataclass(frozen=True, slots=True)
class Header:
    """Begins each file, each run of the program in it, and what follows a gap.

    Attributes:
        version: Of this format.
        llmswap: Version of the program that writes.
        run: One life of the program; step numbers count within it.
        step: Number of the next step of the run, from 0. Steps between the last one written and this one are lost.
        wall_s: Unix time of writing this header.
        monotonic_s: The same moment on the clock of the steps.
        fleet: In force for the next step.
    """

    version: int
    llmswap: str
    run: str
    step: int
    wall_s: float
    monotonic_s: float
    fleet: Fleet


def _own_words(reason: str) -> str:
    match = _OWN_WORDS.match(reason)
    assert match is not None, "it matches the empty text, too"
    return match.group().rstrip()


def _short(caller: str) -> str:
    caller = caller[:CALLER_CHARS]
    # A header may carry any byte; JSON is UTF-8.
    return caller if caller.isascii() else caller.encode(errors="replace").decode()


def _unsaid(_detail: str) -> str:
    return ""


_REASON = {"reason": _own_words}
_CALLER = {"caller": _short}

EVENTS: Mapping[str, tuple[type[Any], Mapping[str, Any]]] = {
    "arrived": (ev.RequestArrived, _CALLER),
    "cancelled": (ev.RequestCancelled, {}),
    "load": (ev.LoadRequested, {}),
    "unload": (ev.UnloadRequested, {}),
    "sleep": (ev.SleepRequested, {}),
    "reload": (ev.FleetReloaded, {}),
    "drain": (ev.DrainRequested, {}),
    "finished": (ev.RequestFinished, {}),
    "ready": (ev.UpstreamReady, {}),
    "start_failed": (ev.StartFailed, _REASON),
    "asleep": (ev.UpstreamAsleep, {}),
    "sleep_failed": (ev.SleepFailed, _REASON),
    "wake_failed": (ev.WakeFailed, _REASON),
    "exited": (ev.UpstreamExited, _REASON),
    "stopped": (ev.UpstreamStopped, {}),
    "stop_failed": (ev.StopFailed, _REASON),
    "deadline": (ev.DeadlineReached, {}),
}
COMMANDS: Mapping[str, tuple[type[Any], Mapping[str, Any]]] = {
    "dispatch": (do.Dispatch, {}),
    "reject": (do.Reject, {"detail": _unsaid}),
    "start": (do.Start, _CALLER),
    "stop": (do.Stop, {}),
    "sleep": (do.Sleep, {}),
    "wake": (do.Wake, _CALLER),
}


class _Tagged:
    """The shapes of a family of dataclasses, told apart by a tag under one key of the JSON object."""

    def __init__(self, key: str, family: Mapping[str, tuple[type[Any], Mapping[str, Any]]]) -> None:
        self._key = key
        self._by_tag: dict[str, Shape[Any]] = {tag: Shape(of, texts) for tag, (of, texts) in family.items()}
        self._by_type = {of: (tag, self._by_tag[tag].pack) for tag, (of, _) in family.items()}

    def pack(self, value: object) -> dict[str, Any]:
        tag, pack = self._by_type[type(value)]
        return {self._key: tag, **pack(value)}

    def unpack(self, data: Any) -> Any:  # noqa: ANN401  one of the family
        if not isinstance(data, dict):
            raise ShapeError(f"expected an object, found {data!r:.60}")
        tag = data.pop(self._key, None)
        shape = self._by_tag.get(tag) if isinstance(tag, str) else None
        if shape is None:
            raise ShapeError(f"there is no {self._key} {tag!r:.60}")
        try:
            return shape.unpack(data)
        except ShapeError as error:
            raise ShapeError(f"{tag}: {error}") from None


_events = _Tagged("event", EVENTS)
_commands = _Tagged("do", COMMANDS)
_headers = Shape(Header)


def encode_step(step: Step) -> bytes:
    """Give the line of a step, newline included: `{"t":…,"event":"arrived",…,"then":[{"do":"dispatch",…}]}`."""
    data = {"t": float(step.at_s), **_events.pack(step.event)}
    if step.commands:
        data["then"] = [_commands.pack(command) for command in step.commands]
    return orjson.dumps(data, option=orjson.OPT_APPEND_NEWLINE)


def encode_header(header: Header) -> bytes:
    """Give the line of a header, newline included."""
    data = _headers.pack(header)
    return orjson.dumps({"journal": data.pop("version"), **data}, option=orjson.OPT_APPEND_NEWLINE)


def may_be_header(line: bytes) -> bool:
    """Say whether these bytes may be a header, or the beginning of one."""
    return line.startswith(MAGIC) or MAGIC.startswith(line.rstrip(b"\n"))


def decode(line: bytes) -> Header | Step:
    """Read one line.

    Raises:
        CodecError: It is none of ours, or one of a newer version.
    """
    try:
        data = orjson.loads(line)
    except orjson.JSONDecodeError as error:
        raise CodecError(f"is not JSON: {error}") from None
    if not isinstance(data, dict):
        raise CodecError("is not a line of a journal")
    try:
        return _header(data) if "journal" in data else _step(data)
    except ShapeError as error:
        raise CodecError(str(error)) from None


def _header(data: dict[str, Any]) -> Header:
    version = data.pop("journal")
    if version != VERSION:
        writer = data.get("llmswap")
        raise VersionError(
            f"journal version {version!r:.20}, written by llmswap {writer!r:.40}: this llmswap reads version {VERSION}"
        )
    return _headers.unpack({"version": version, **data})


def _step(data: dict[str, Any]) -> Step:
    at_s = data.pop("t", None)
    if not isinstance(at_s, float) or not isfinite(at_s):
        raise ShapeError("lacks its time t")
    then = data.pop("then", [])
    if not isinstance(then, list):
        raise ShapeError("then: expected a list")
    commands = [_commands.unpack(item) for item in then]
    return Step(at_s, _events.unpack(data), commands)
