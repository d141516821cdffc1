"""Spans as values, written in one go when what they tell of is over. How they leave: otlp.py."""

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from enum import StrEnum

from llmswap.telemetry.trace_context import TraceContext

Value = str | bool | int | float | tuple[str, ...]


class SpanKind(StrEnum):
    """Who a span speaks for."""

    SERVER = "server"
    CLIENT = "client"
    INTERNAL = "internal"


@dataclass(slots=True)
class Span:
    """One stretch of time.

    Attributes:
        parent: The span id of another span of the same tree, further up in it; None for the tree's own parent.
        began_s, ended_s: Monotonic.
        error: It failed; `description` says more where no attribute does.
        links: Spans of other traces that it has to do with; more than 128 are not kept.
        events: Monotonic time, name, attributes.
    """

    name: str
    span_id: int
    began_s: float
    ended_s: float
    kind: SpanKind = SpanKind.INTERNAL
    parent: int | None = None
    attributes: dict[str, Value] = field(default_factory=dict)
    error: bool = False
    description: str = ""
    links: tuple[TraceContext, ...] = ()
    events: tuple[tuple[float, str, Mapping[str, Value]], ...] = ()


@dataclass(slots=True)
class Tree:
    """What is written at once: spans of one trace, parents before children.

    Attributes:
        parent: Of those that name none: somebody else's span; None if this is the whole trace.
    """

    trace_id: int
    spans: list[Span]
    parent: TraceContext | None = None


Write = Callable[[Tree], None]
