"""What a scenario file may say: its keys, their kinds and defaults. What they come to is `scenario.py`'s business."""

from math import inf, isfinite
from typing import Annotated, Any

from pydantic import BeforeValidator, Field
from pydantic_core import PydanticCustomError

from llmswap.config.kinds import AtLeast0, AtLeast1, Flag, Section, Text, Texts
from llmswap.config.schema_routing import GroupSection
from llmswap.core.events import SwapClass

Span = tuple[float, float]
Counts = tuple[int, int]


def _span(value: object) -> Any:  # noqa: ANN401  pydantic judges what comes out
    """Read `3` as `[3, 3]`."""
    ends: list[Any] = value if isinstance(value, list) else [value, value]
    if len(ends) != 2 or not all(map(_is_length, ends)) or ends[0] > ends[1]:
        raise PydanticCustomError("span", "must be a number, or [least, most], at least 0")
    return tuple(map(float, ends))


def _patience(value: object) -> Any:  # noqa: ANN401
    ends = _span(value)
    if ends[0] == 0:
        raise PydanticCustomError("patience", "must be more than 0")
    return ends


def _counts(value: object) -> Any:  # noqa: ANN401
    ends = _span(value)
    if ends[0] < 1 or any(end != int(end) for end in ends):
        raise PydanticCustomError("counts", "must be a whole number, or [least, most], at least 1")
    return tuple(map(int, ends))


def _pauses(value: object) -> Any:  # noqa: ANN401
    if not isinstance(value, list) or not all(map(_is_length, value)):
        raise PydanticCustomError("pauses", "must be a list of numbers, at least 0")
    return tuple(map(float, value))


def _is_length(value: object) -> bool:
    return isinstance(value, int | float) and not isinstance(value, bool) and isfinite(value) and value >= 0


def _chance(value: object) -> Any:  # noqa: ANN401
    if isinstance(value, bool) or not isinstance(value, int | float) or not 0 < value <= 1:
        raise PydanticCustomError("chance", "must be more than 0 and at most 1")
    return float(value)


def _swap_class(value: object) -> Any:  # noqa: ANN401
    if value not in tuple(SwapClass):
        raise PydanticCustomError("swap_class", f"must be one of {', '.join(SwapClass)}")
    return SwapClass(str(value))


Seconds = Annotated[Span, BeforeValidator(_span)]
Times = Annotated[Counts, BeforeValidator(_counts)]


class ModelCosts(Section):
    """One model: what it costs, and what the scheduler must know of it."""

    load: Seconds = Field(description="Seconds from its start until it is ready.")
    stop: Seconds = Field(default=(1.0, 1.0), description="Seconds from the order to stop until its memory is free.")
    sleep: Seconds | None = Field(default=None, description="Seconds to fall asleep; with it, the model can sleep.")
    wake: Seconds = Field(default=(1.0, 4.0), description="Seconds to wake up.")
    ttl: AtLeast0 = Field(default=0, description="Idle seconds until it is stopped; 0 means never.")
    concurrency_limit: AtLeast1 = Field(default=10, description="As in the config.")
    substitutes: Texts = Field(default=[], description="As in the config.")


class StepSection(Section):
    """One step of a caller's loop: some calls to one model."""

    model: Text = Field(description="Who is asked.")
    takes: Seconds = Field(description="Seconds an answer takes once it is being served.")
    think: Seconds = Field(default=(0.0, 0.0), description="Pause before the calls.")
    patience: Annotated[Span, BeforeValidator(_patience)] = Field(
        default=(inf, inf), description="Seconds after which the caller hangs up, the answer included; else never."
    )
    chance: Annotated[float, BeforeValidator(_chance)] = Field(
        default=1.0, description="How likely the step is taken, each time."
    )
    repeat: Times = Field(default=(1, 1), description="How often in a row, each with its own pause.")
    burst: Times = Field(default=(1, 1), description="How many calls at once.")
    background: Flag = Field(default=False, description="Go on without waiting for the answers.")
    swap_class: Annotated[SwapClass, BeforeValidator(_swap_class)] = Field(
        default=SwapClass.MAY_SWAP, description="may-swap, prefer-warm or never-swap, as in the header."
    )
    cold: Seconds = Field(
        default=(0.0, 0.0),
        description="Seconds an answer takes longer if the model was reloaded since it last answered this caller.",
    )
    retry: Annotated[tuple[float, ...], BeforeValidator(_pauses)] = Field(
        default=(), description="Pauses before each further try, after a refusal or lost patience."
    )


class CallerSection(Section):
    """Some callers who do the same, each on their own."""

    count: AtLeast1 = Field(default=1, description="How many there are.")
    start: Seconds = Field(default=(0.0, 0.0), description="Seconds until the first round begins.")
    first: list[StepSection] = Field(default=[], description="What they do once, before the loop.")
    loop: list[StepSection] = Field(min_length=1, description="What they do, over and over.")


class ScenarioFile(Section):
    """A whole scenario."""

    about: Text = Field(min_length=1, description="One line for lists.")
    models: dict[str, ModelCosts] = Field(min_length=1, description="The models, by id.")
    groups: dict[str, GroupSection] = Field(
        default={}, description="Who may live together, as in the config; without groups one model at a time."
    )
    callers: dict[str, CallerSection] = Field(min_length=1, description="Who calls, by name.")
