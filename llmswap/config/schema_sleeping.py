"""The shape of everything about sleeping and about memory that must be free: llmsnap's keys and ours."""

from typing import Annotated, Any, Literal

from pydantic import BeforeValidator, Field, WithJsonSchema
from pydantic_core import PydanticCustomError

from llmswap.config.kinds import AtLeast0, AtLeast1, Flag, Section, Size, Text
from llmswap.config.presets import Preset

METHODS = ("GET", "POST", "PUT", "PATCH")
_ANY_CASE = "|".join("".join(f"[{char}{char.lower()}]" for char in method) for method in METHODS)


def _method(value: object) -> object:
    if not isinstance(value, str) or value.upper() not in METHODS:
        raise PydanticCustomError("method", "must be GET, POST, PUT or PATCH")
    return value.upper()


def _mode(value: object) -> object:
    return None if value == "" else value


Method = Annotated[str, BeforeValidator(_method), WithJsonSchema({"type": "string", "pattern": f"^({_ANY_CASE})$"})]
# An empty text says nothing, as in llmsnap.
SleepMode = Annotated[Literal["enable", "disable"] | None, BeforeValidator(_mode)]


class StepSection(Section):
    """One request of `sleepEndpoints` or `wakeEndpoints`."""

    endpoint: Text = Field(min_length=1, description="Path, with a query if need be; sent to the model's `proxy`.")
    method: Method = Field(default="POST", description="GET, POST, PUT or PATCH, in any case.")
    body: Text = Field(default="", description="JSON text to send; empty for none.")
    timeout: AtLeast0 = Field(
        default=0, description="Seconds until it must be answered; 0 takes the model's or global one."
    )


class SleepSection(Section):
    """`sleep`: where the requests come from, and what counts as asleep and awake."""

    preset: Preset | None = Field(default=None, description="Whose requests to use, instead of lists of your own.")
    verify: Flag = Field(
        default=True, description="Do not take answers for proof: ask the engine, and measure its device memory."
    )
    warmup: Flag = Field(
        default=False, description="Send a one-token request after each wake, before anybody is served."
    )
    canary: Flag | None = Field(
        default=None,
        description="Ask for the same few tokens before the first sleep and after each wake; other ones than then are "
        "a failed wake. Absent: with vLLM's level 2, whose weights are read anew, unless `verify` is off.",
    )
    sleep_timeout: AtLeast1 | None = Field(
        default=None, description="Seconds for each request that puts it to sleep; absent means the preset's own."
    )
    wake_timeout: AtLeast1 | None = Field(
        default=None, description="Seconds for each request that wakes it; absent means the preset's own."
    )
    residual: Size | None = Field(
        default=None,
        ge=0,
        description="Device memory it may keep asleep; absent means a tenth of what it had, or 2 GiB.",
    )
    drain_timeout: AtLeast0 = Field(
        default=60, description="Seconds that an ordered sleep waits for requests in flight before it is given up."
    )


class SleepersSection(Section):
    """`sleepers`: what all sleeping models together may take."""

    max: AtLeast0 | None = Field(default=None, description="Most models asleep at once; absent means no limit.")
    host_memory: Size | None = Field(
        default=None, ge=0, description="Most host memory that sleeping models keep together; absent means no limit."
    )


class GpuMemorySection(Section):
    """`gpuMemory`: when device memory counts as free after a model was stopped or put to sleep."""

    freed: AtLeast1 = Field(default=90, le=100, description="Percent of what its processes held that must be gone.")
    timeout: AtLeast1 = Field(default=30, description="Seconds to wait for that.")
    on_timeout: Literal["fail", "start-anyway"] = Field(
        default="fail", description="After that: refuse whoever waits for the memory, or start the next model anyway."
    )


def needs_steps(schema: dict[str, Any]) -> None:
    """Say in a model's JSON Schema what its code says, too: who enables sleep has a preset, or both lists."""
    lists = ("sleepEndpoints", "wakeEndpoints")
    schema["if"] = {"properties": {"sleepMode": {"const": "enable"}}, "required": ["sleepMode"]}
    schema["then"] = {
        "anyOf": [
            {"required": list(lists), "properties": {key: {"minItems": 1} for key in lists}},
            {"required": ["sleep"], "properties": {"sleep": {"required": ["preset"]}}},
        ]
    }
