"""The sections of the file that say what llmswap tells of itself."""

from typing import Literal

from pydantic import Field

from llmswap.config.kinds import AtLeast0, Flag, Section, Text


class TracesSection(Section):
    """`telemetry.traces`: where spans go. The standard OTEL_* variables fill in what is not given here."""

    endpoint: Text = Field(default="", description="URL of an OTLP receiver; empty for OTEL_EXPORTER_OTLP_ENDPOINT.")
    protocol: Literal["http/protobuf", "grpc"] | None = Field(
        default=None, description="How to speak to it; absent: OTEL_EXPORTER_OTLP_PROTOCOL, else http/protobuf."
    )
    sampler: Literal["always", "residency", "never"] | None = Field(
        default=None,
        description=(
            "always, never, or residency: whatever waited for a swap, and `percent` of the rest. "
            "Absent: OTEL_TRACES_SAMPLER, else always."
        ),
    )
    percent: AtLeast0 = Field(
        default=10, le=100, description="Percent of the requests for resident models that `residency` keeps."
    )
    trust_remote_parent: Flag | None = Field(
        default=None,
        description="Continue a client's trace (`traceparent`); absent: that of clients on this machine only.",
    )


class CompatSection(Section):
    """`telemetry.compat`: what other proxies' dashboards expect."""

    llamaswap: Flag = Field(default=False, description="Also expose llama-swap's own gauges, under its names.")


class TelemetrySection(Section):
    """`telemetry`: what llmswap tells of itself."""

    traces: TracesSection = Field(default=TracesSection(), description="Where spans go.")
    log_format: Literal["text", "json", "logfmt"] = Field(
        default="text", description="Form of llmswap's own log lines on standard output."
    )
    compat: CompatSection = Field(default=CompatSection(), description="What other proxies' dashboards expect.")
