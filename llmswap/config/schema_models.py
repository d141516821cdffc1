"""The shape of one entry under `models`. Key names are the file's; what they come to is decided in `resolve`."""

from typing import Literal

from pydantic import ConfigDict, Field

from llmswap.config.kinds import AtLeast0, AtLeast1, Flag, Free, FreeMap, Section, Text, Texts, Whole
from llmswap.config.schema_sleeping import SleepMode, SleepSection, StepSection, needs_steps

Medium = Literal["text", "audio", "image"]
Swapping = Literal["may-swap", "prefer-warm", "never-swap"]


class FiltersSection(Section):
    """`filters`: how JSON bodies are edited."""

    strip_params: Text = Field(
        default="", description="Comma-separated parameters removed from JSON bodies; `model` stays."
    )
    legacy_strip_params: Text = Field(
        default="", alias="strip_params", description="Old spelling of stripParams; read only if that is empty."
    )
    set_params: FreeMap = Field(default={}, description="Parameters set in JSON bodies: path -> any JSON value.")
    set_params_by_id: dict[str, FreeMap] = Field(
        default={},
        alias="setParamsByID",
        description="Requested name -> parameters set when a client asks by that name. Each name becomes an alias.",
    )


class TimeoutsSection(Section):
    """`timeouts`: limits of the hop to an upstream."""

    connect: Whole = Field(default=30, description="Seconds to connect; 0 means no limit.")
    keepalive: Whole = Field(
        default=30, description="Seconds between TCP keep-alive probes; 0 is the system's default."
    )
    response_header: Whole = Field(default=0, description="Seconds until the response's headers; 0 means no limit.")
    tls_handshake: Whole = Field(default=10, description="Seconds for the TLS handshake; 0 means no limit.")
    expect_continue: Whole = Field(default=1, description="Seconds to wait for `100 Continue`; 0 means no wait.")
    idle_conn: Whole = Field(default=90, description="Seconds an idle pooled connection is kept; 0 means no limit.")


class PeerTimeoutsSection(TimeoutsSection):
    """`timeouts` of a peer: a header must come within a minute unless said otherwise."""

    response_header: Whole = Field(default=60, description="Seconds until the response's headers; 0 means no limit.")


class CompatSection(Section):
    """`compat`: deviations for particular servers."""

    ignore_websockets: Flag = Field(
        default=False, description="Websockets do not count as use: no concurrency slot, no protection from the ttl."
    )


class CapabilitiesSection(Section):
    """`capabilities`: what a model can do, shown in `/v1/models`."""

    inputs: list[Medium] = Field(default=[], alias="in", description="What the model takes: text, audio, image.")
    outputs: list[Medium] = Field(default=[], alias="out", description="What the model gives: text, audio, image.")
    tools: Flag = Field(default=False, description="Whether the model can call tools.")
    reranker: Flag = Field(default=False, description="Whether the model is a reranker.")
    context: AtLeast0 = Field(default=0, description="Context length in tokens; 0 says nothing.")


class ModelSection(Section):
    """One model: how to run it, and how to present it."""

    model_config = ConfigDict(json_schema_extra=needs_steps)

    cmd: Text = Field(
        default="", description="Command line that starts the upstream. Split like a shell would, run without one."
    )
    cmd_stop: Text = Field(default="", description="Command line that stops it, instead of SIGTERM; may use `${PID}`.")
    proxy: Text = Field(default="http://localhost:${PORT}", description="URL of the upstream; its path is prefixed.")
    check_endpoint: Text = Field(
        default="/health", description="Path that answers 200 once it is ready; `none` skips the probe."
    )
    health_check_timeout: Whole = Field(
        default=0,
        description="Seconds from spawn to readiness of this model; 0 takes the global value.",
    )
    ttl: Whole = Field(default=-1, ge=-1, description="Idle seconds until it is stopped; 0 never, -1 takes globalTTL.")
    unload_timeout: AtLeast0 = Field(
        default=0, description="Seconds from SIGTERM to SIGKILL; 0 takes the global value."
    )
    env: Texts = Field(
        default=[], description="`KEY=value` items added to the inherited environment; the last of a key wins."
    )
    aliases: Texts = Field(default=[], description="Other names clients may use for this model.")
    unlisted: Flag = Field(default=False, description="Leave the model and its aliases out of `/v1/models`.")
    name: Text = Field(default="", description="Display name in `/v1/models`.")
    description: Text = Field(default="", description="Description in `/v1/models`.")
    use_model_name: Text = Field(
        default="", description="Name put into JSON and multipart bodies sent to the upstream."
    )
    concurrency_limit: Whole = Field(
        default=0, description="Most requests at once, waiting ones included; 0 or less means 10."
    )
    queue_timeout: AtLeast1 | None = Field(default=None, description="Seconds a request may wait for this model.")
    priority: Whole | None = Field(
        default=None, description="Higher goes first in the queue; wins over the scheduler's priority map."
    )
    max_wait: AtLeast0 | None = Field(
        default=None, description="Seconds after which a request waiting for this model is due. Under fair only."
    )
    unload_delay: AtLeast0 | None = Field(
        default=None, description="Seconds it is kept idle while others wait for its place. Under fair only."
    )
    queue_limit: AtLeast1 | None = Field(
        default=None, description="Most requests waiting for this model. Under fair only."
    )
    swap_class: Swapping = Field(
        default="may-swap", description="What requests for this model may cost others, unless they say otherwise."
    )
    swap_class_by_id: dict[str, Swapping] = Field(
        default={},
        alias="swapClassByID",
        description="Requested name -> what requests by that name may cost others. Each name becomes an alias.",
    )
    substitutes: Texts = Field(
        default=[],
        description="Models that serve requests that shall not cause a swap, the best first; ids or aliases.",
    )
    send_loading_state: Flag | None = Field(
        default=None, description="Stream progress while the model loads; absent takes the global value."
    )
    trust_proxy: Flag | None = Field(
        default=None,
        description="Accept an upstream whose port belongs to no process of ours (containers, remote hosts).",
    )
    filters: FiltersSection = Field(default=FiltersSection(), description="How JSON bodies are edited on their way.")
    metadata: FreeMap = Field(default={}, description="Anything, shown in `/v1/models` under `meta.llamaswap`.")
    macros: dict[str, Free] = Field(default={}, description="Macros of this model; they override global ones.")
    timeouts: TimeoutsSection = Field(default=TimeoutsSection(), description="Limits of the hop to the upstream.")
    compat: CompatSection = Field(default=CompatSection(), description="Deviations for particular servers.")
    capabilities: CapabilitiesSection = Field(default=CapabilitiesSection(), description="What the model can do.")
    sleep_mode: SleepMode = Field(
        default=None,
        description="Whether it sleeps instead of being stopped; absent: it does if it has a sleep.preset.",
    )
    sleep_endpoints: list[StepSection] = Field(default=[], description="Requests that put it to sleep, in order.")
    wake_endpoints: list[StepSection] = Field(default=[], description="Requests that wake it, in order.")
    sleep: SleepSection = Field(default=SleepSection(), description="How it sleeps, beside or instead of those lists.")
    sleep_after: AtLeast0 | None = Field(
        default=None, description="Idle seconds until it is put to sleep; 0 never, absent takes the global value."
    )
