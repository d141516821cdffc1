"""What an event or a body that is too large to be held says of itself at its two ends. Pure."""

import re

import orjson

from llmswap.proxy.metering.words import Object, an_object

_TRIES = 12
_NAMES = (b'"usage"', b'"timings"')
_DEPTHS = (b"{", b'{"response":{')
_CONTENT = re.compile(
    rb'"(?:content|reasoning_content|reasoning|text|delta|thinking|partial_json|arguments|refusal)"\s*:\s*"(?!")'
)
_TYPE = re.compile(rb'"type"\s*:\s*"([a-z_.]+)"')


def ending(tail: bytes) -> Object:
    """Give the last members of an object whose end this is, from `usage` or `timings` on.

    They are members of the object itself, or of its `response`, because only then does what follows close it exactly.
    """
    for name in _NAMES:
        end = len(tail)
        for _ in range(_TRIES):
            end = tail.rfind(name, 0, end)
            if end < 0:
                break
            for depth in _DEPTHS:
                if members := _object(depth + tail[end:]):
                    return an_object(members.get("response", members))
    return {}


def beginning(head: bytes) -> Object:
    """Give the first members of an object whose beginning this is, up to its `usage`; nothing if that is not there."""
    start = head.find(_NAMES[0])
    end = start
    for _ in range(_TRIES if start >= 0 else 0):
        end = head.find(b"}", end) + 1
        if not end:
            break
        if members := _object(head[:end] + b"}"):
            return members
    return {}


def kind(head: bytes) -> str:
    """Give the `type` of an event that begins so; empty if there is none."""
    found = _TYPE.search(head)
    return found[1].decode() if found else ""


def has_content(head: bytes) -> bool:
    """Tell whether an event that begins so holds something generated."""
    return _CONTENT.search(head) is not None


def _object(text: bytes) -> Object:
    try:
        return an_object(orjson.loads(text))
    except orjson.JSONDecodeError:
        return {}
