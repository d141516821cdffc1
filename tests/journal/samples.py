"""A fleet, steps and headers to record, and every value that an event or a command may have."""

import types
from collections.abc import Iterable
from dataclasses import fields
from enum import Enum
from pathlib import Path
from typing import Any, NewType, Union, get_args, get_origin, get_type_hints

from hypothesis import strategies as st

from llmswap.core import events as ev
from llmswap.core.commands import Command, Dispatch
from llmswap.core.fleet import Fleet, Group, Model, ModelId
from llmswap.core.step import Step
from llmswap.journal.codec import VERSION, Header
from llmswap.journal.reader import Entry, Recording
from llmswap.journal.writer import Journal

M = ModelId("qwen")
FLEET = Fleet({M: Model(M)}, {"qwen": M}, (Group("(default)", (M,)),))

# Texts that are recorded only in part have tests of their own.
WHOLE = {
    "detail": st.just(""),
    "reason": st.from_regex(r"([a-z0-9][a-z0-9 ,./'-]{0,60})?[a-z0-9]", fullmatch=True),
    "caller": st.text(max_size=128),
}
PLAIN = {
    str: st.text(max_size=20),
    int: st.integers(-(2**63), 2**63 - 1),
    bool: st.booleans(),
    float: st.floats(allow_nan=False),
}


def request(number: int, at_s: float = 0.0) -> Step:
    """Give a step: a request that is served at once."""
    return Step(
        at_s or float(number),
        ev.RequestArrived(ev.RequestId(number), M, "10.0.0.0/24"),
        [Dispatch(ev.RequestId(number), M, ev.Generation(1))],
    )


def header(step: int = 0, run: str = "run", version: int = VERSION) -> Header:
    """Give a header."""
    return Header(version, "1.2.3", run, step, 1.7e9, 100.5, FLEET)


def record(journal: Journal, requests: Iterable[int]) -> None:
    """Show requests to a journal."""
    for number in requests:
        journal(request(number))


def numbers(path: Path) -> list[int]:
    """Give the requests that a journal holds, none if it does not exist yet."""
    return (
        [] if not path.exists() else [found.step.event.request for found in Recording(path) if isinstance(found, Entry)]
    )


def steps() -> st.SearchStrategy[Step]:
    """Give any step."""
    event = st.one_of([any_of(kind) for kind in get_args(ev.Event)])
    command = st.one_of([any_of(kind) for kind in get_args(Command)])
    return st.builds(Step, st.floats(0, 1e10), event, st.lists(command, max_size=3))


def any_of(hint: Any) -> st.SearchStrategy[Any]:
    """Give any value of a type that events and commands are made of."""
    if isinstance(hint, NewType):
        return any_of(hint.__supertype__)
    origin, arguments = get_origin(hint), get_args(hint)
    if origin is None:
        return _single(hint)
    if origin in {Union, types.UnionType}:
        return st.one_of([st.none() if option is types.NoneType else any_of(option) for option in arguments])
    if origin is tuple:
        return st.lists(any_of(arguments[0]), max_size=3).map(tuple)
    return st.dictionaries(any_of(arguments[0]), any_of(arguments[1]), max_size=3)


def _single(hint: Any) -> st.SearchStrategy[Any]:
    if hint in PLAIN:
        return PLAIN[hint]
    if issubclass(hint, Enum):
        return st.sampled_from(hint)
    hints = {name: of for name, of in get_type_hints(hint).items() if name in {field.name for field in fields(hint)}}
    return st.builds(
        hint, **{name: WHOLE[name] if name in WHOLE and of is str else any_of(of) for name, of in hints.items()}
    )
