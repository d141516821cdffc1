"""The shape of a config file: the keys of llama-swap, llmsnap and ours. `resolve` makes of it what the shell needs."""

from typing import Any, Literal

from pydantic import Field

from llmswap.config.kinds import AtLeast0, AtLeast1, Flag, Free, Section, Size, Text, Texts, Whole
from llmswap.config.schema_models import FiltersSection, ModelSection, PeerTimeoutsSection
from llmswap.config.schema_routing import GroupSection, MatrixSection, Profiles, RoutingSection
from llmswap.config.schema_sleeping import GpuMemorySection, SleepersSection
from llmswap.config.schema_telemetry import TelemetrySection


class OnStartupSection(Section):
    """`hooks.on_startup`."""

    preload: Texts = Field(default=[], description="Models to load at start, in order; ids or aliases.")


class HooksSection(Section):
    """`hooks`."""

    on_startup: OnStartupSection = Field(
        default=OnStartupSection(), alias="on_startup", description="What to do when llmswap starts."
    )


class UpstreamSection(Section):
    """`upstream`: the pass-through routes below `/upstream`."""

    ignore_paths: Texts = Field(
        default=[], description="Regular expressions of paths that never start a model; replaces the built-in one."
    )
    allow_control: Flag = Field(
        default=False, description="Let `/upstream` reach engine control paths (sleep, LoRA, shutdown and the like)."
    )
    trust_pages: Flag = Field(
        default=False, description="Let pages of upstreams keep cookies and storage and act in llmswap's origin."
    )


class StoreSection(Section):
    """`store`: where activity is kept. Not supported yet."""

    path: Text = Field(default="", min_length=1, validate_default=True, description="File of the activity store.")


class ActivitySection(Section):
    """`ui.activity`."""

    session_id: Texts = Field(
        default=["X-Session-ID", "X-Litellm-Session-Id"],
        alias="session_id",
        description="Request headers that carry a session id.",
    )


class UiSection(Section):
    """`ui`: the web interface. Not supported yet."""

    activity: ActivitySection = Field(default=ActivitySection(), description="The activity page.")


class PerformanceSection(Section):
    """`performance`: how the machine is sampled."""

    disabled: Flag = Field(default=False, description="Take no samples: no metrics of GPUs and host.")
    every: Free = Field(
        default=None, description="Time between samples of `/api/performance` as a Go duration, at least 5s: `1m30s`."
    )


class PeerSection(Section):
    """One remote server whose models are offered, too. Not supported yet."""

    proxy: Text = Field(description="URL of the remote server.")
    models: Texts = Field(min_length=1, description="Names of the models it serves.")
    api_key: Text = Field(default="", description="Key to present to it.")
    filters: FiltersSection = Field(default=FiltersSection(), description="How JSON bodies are edited on their way.")
    timeouts: PeerTimeoutsSection = Field(default=PeerTimeoutsSection(), description="Limits of the hop to it.")


class SelectorSettingsSection(Section):
    """`selectors.ID.settings`."""

    spillover: AtLeast1 = Field(default=1, description="Requests a target takes before the next one is used.")


class SelectorSection(Section):
    """One virtual model id that stands for one of several targets. Not supported yet."""

    strategy: Literal["pin", "warm", "spillover"] = Field(description="How the target is chosen.")
    targets: Texts = Field(min_length=1, description="Models to choose from, in order.")
    settings: SelectorSettingsSection = Field(default=SelectorSettingsSection(), description="The strategy's settings.")
    name: Text = Field(default="", description="Display name.")
    description: Text = Field(default="", description="Description.")
    unlisted: Flag = Field(default=False, description="Leave it out of `/v1/models`.")
    metadata: Free = Field(default=None, description="Anything, shown in `/v1/models`.")


class JournalSection(Section):
    """`journal`: a record of every step of the scheduler, for `llmswap simulate` and `llmswap replay`."""

    path: Text = Field(min_length=1, description="File to write; `~` is the home directory.")
    max_size: Size = Field(
        default="64MiB", validate_default=True, ge=64 << 10, description="Size at which the file is put aside."
    )
    keep: AtLeast0 = Field(default=4, description="How many files put aside are kept, as `path.1`, `path.2` and on.")


class ConfigFile(Section):
    """A whole config."""

    models: dict[str, ModelSection] = Field(default={}, description="The models, by id.")
    macros: dict[str, Free] = Field(default={}, description="Name -> value, used as `${name}`; order matters.")
    groups: dict[str, GroupSection] = Field(default={}, description="Old place of routing.router.settings.groups.")
    matrix: MatrixSection | None = Field(default=None, description="Old place of routing.router.settings.matrix.")
    routing: RoutingSection = Field(default=RoutingSection(), description="Who may run together, and who goes first.")
    hooks: HooksSection = Field(default=HooksSection(), description="What to do at certain moments.")
    start_port: Whole = Field(default=5800, ge=1, description="First port given to models that use `${PORT}`.")
    health_check_timeout: Whole = Field(default=120, description="Seconds from spawn to readiness; at least 15.")
    global_ttl: AtLeast0 = Field(
        default=0, alias="globalTTL", description="Idle seconds until a model is stopped; 0 means never."
    )
    unload_timeout: AtLeast0 = Field(default=10, description="Seconds from SIGTERM to SIGKILL; 0 means 10.")
    send_loading_state: Flag = Field(default=False, description="Stream progress while a model loads.")
    include_aliases_in_list: Flag = Field(default=False, description="Show aliases in `/v1/models`, too.")
    log_level: Text = Field(default="info", description="debug, info, warn or error.")
    log_time_format: Text = Field(default="", description="Time format of log lines, such as rfc3339; empty for none.")
    log_to_stdout: Literal["proxy", "upstream", "both", "none"] = Field(
        default="proxy", description="Whose log goes to standard output."
    )
    log_requests: Flag = Field(default=False, description="Obsolete; has no effect.")
    api_keys: Texts = Field(default=[], description="Keys clients must present; none means that no key is asked for.")
    upstream: UpstreamSection = Field(default=UpstreamSection(), description="The pass-through routes.")
    queue_timeout: AtLeast1 = Field(default=600, description="Seconds a request may wait for its model.")
    queue_max: AtLeast1 = Field(default=2000, description="Most requests waiting at once, over all models.")
    sleep_request_timeout: AtLeast1 | None = Field(
        default=None, description="Seconds per request that puts to sleep; absent: 10, or what the preset needs."
    )
    wake_request_timeout: AtLeast1 | None = Field(
        default=None, description="Seconds per request that wakes; absent: 10, or what the preset needs."
    )
    sleep_after: AtLeast0 = Field(
        default=0, description="Idle seconds until a model that can sleep is put to sleep; 0 means never."
    )
    sleepers: SleepersSection = Field(default=SleepersSection(), description="What all sleeping models may take.")
    gpu_memory: GpuMemorySection = Field(default=GpuMemorySection(), description="When device memory counts as free.")
    journal: JournalSection | None = Field(default=None, description="Record every step of the scheduler, no prompts.")
    telemetry: TelemetrySection = Field(default=TelemetrySection(), description="Traces, log lines, metrics.")
    allow_unauthenticated: Flag = Field(
        default=False,
        description="Serve other machines although no key is configured. Anyone who can connect may use it.",
    )
    allowed_hosts: Texts = Field(default=[], description="Host names clients may use, beside this machine's own.")
    allowed_origins: Texts = Field(default=[], description="Web origins that may make cross-origin requests.")
    trusted_proxies: Texts = Field(default=[], description="Addresses whose X-Forwarded-* headers are believed.")
    forward_auth: Flag = Field(default=False, description="Pass clients' credentials and cookies on to upstreams.")
    profiles: Profiles = Field(default={}, description="Switchable sets of pins. Not supported yet.")
    selectors: dict[str, SelectorSection] = Field(default={}, description="Virtual models. Not supported yet.")
    peers: dict[str, PeerSection] = Field(default={}, description="Remote servers. Not supported yet.")
    store: StoreSection | None = Field(default=None, description="Activity store. Not supported yet.")
    capture_buffer: Whole = Field(default=5, description="MB kept of captured requests. Not supported yet.")
    metrics_max_in_memory: Whole = Field(default=1000, description="Activity rows kept. Not supported yet.")
    ui: UiSection = Field(default=UiSection(), description="The web interface. Not supported yet.")
    performance: PerformanceSection = Field(
        default=PerformanceSection(), description="How GPUs, the host and upstreams' processes are sampled."
    )


def json_schema() -> dict[str, Any]:
    """Give the JSON Schema of the file, for editors. Keys that begin with `x-` may hold anything, such as anchors."""
    schema = ConfigFile.model_json_schema(by_alias=True)
    return {
        "$schema": "https://json-schema.org/draft/2020-12/schema",
        **schema,
        "title": "llmswap config",
        "patternProperties": {"^x-": {}},
    }
