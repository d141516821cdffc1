"""What only the shell needs to know: how to launch, how to proxy, how to listen. Frozen; a reload brings new ones."""

import re
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

from llmswap.config.errors import ConfigIssue
from llmswap.core.events import SwapClass
from llmswap.core.fleet import Fleet, ModelId

_DEEP = re.compile(r"""\blevel(?:=|"\s*:\s*)2\b""")  # in a query, or in a JSON body
PORT_MACRO = "${PORT}"


@dataclass(frozen=True, slots=True)
class SleepStep:
    """One request to an upstream's control API. Only a 2xx answer counts as success.

    Attributes:
        endpoint: Path, with a query if need be, below the upstream's base URL.
        body: JSON text, sent as `application/json`; empty for none.
    """

    endpoint: str
    method: str = "POST"
    body: str = ""
    timeout_s: float = 10.0


@dataclass(frozen=True, slots=True)
class SleepQuery:
    """How to ask an upstream whether it sleeps: a GET whose JSON answer has a bool.

    Attributes:
        field: The bool's key: true while it sleeps.
    """

    endpoint: str
    field: str


@dataclass(frozen=True, slots=True)
class Sleeping:
    """How to put an upstream to sleep and wake it.

    Attributes:
        preset: Where the steps come from: the preset's name, or empty for the user's own lists.
        query: How to verify; None if the engine has no such route.
        verify_memory: Sleep counts only if device memory was freed, as far as that can be measured.
        residual_bytes: Most device memory that it may keep asleep; None means a tenth of what it had, or a little more
            of a small model: contexts and graphs have a size of their own.
        warmup: Send a one-token request after a wake, before anybody is served.
        canary: Ask for the same few tokens before the first sleep and after each wake, and compare.
        awake_check: Ask `check_path` after a wake.
        drain_s: How long an ordered sleep waits for what is in flight.
    """

    sleep: tuple[SleepStep, ...]
    wake: tuple[SleepStep, ...]
    preset: str = ""
    query: SleepQuery | None = None
    verify_memory: bool = True
    residual_bytes: int | None = None
    warmup: bool = False
    canary: bool = False
    awake_check: bool = True
    drain_s: float = 60.0

    @property
    def level(self) -> int:
        """How deep it sleeps, in vLLM's words: 1 keeps the weights in host memory, 2 reads them again to wake."""
        steps = (f"{step.endpoint} {step.body}" for step in self.sleep)
        return 2 if any(_DEEP.search(step) for step in steps) else 1


@dataclass(frozen=True, slots=True)
class Launch:
    """How to bring one upstream up and down.

    `cmd`, `cmd_stop`, `env`, `proxy`, `check_path` and `check_host` may still hold `${PORT}`, because the port is only
    settled when the process is spawned: `at_port` fills it in. `${PID}` in `cmd_stop` is filled in when it runs.

    Attributes:
        cmd: Command line as written (macros expanded, comment lines removed), split by `config.command.split`.
        cmd_stop: Runs instead of SIGTERM; empty for none.
        env: `K=V` pairs added to the inherited environment; the last of a key wins.
        proxy: Base URL of the upstream.
        check_path: Path (and query) of the readiness probe; None skips probing (`checkEndpoint: none`).
        check_host: Host header of the probe when `checkEndpoint` was a full URL; else None.
        port: The port allocated by the config (llama-swap's order); None if `cmd` does not use `${PORT}`.
        ready_timeout_s: From spawn to readiness (`healthCheckTimeout`).
        stop_grace_s: From SIGTERM (or `cmdStop`) to SIGKILL (`unloadTimeout`).
        trust_proxy: Do not insist that the listening socket belongs to our process tree (docker, remote).
        sleeping: How it sleeps and wakes; None if it cannot. Endpoints and bodies may hold `${PORT}`, too.
    """

    model: ModelId
    cmd: str
    proxy: str
    cmd_stop: str = ""
    env: tuple[str, ...] = ()
    check_path: str | None = "/health"
    check_host: str | None = None
    port: int | None = None
    ready_timeout_s: float = 120.0
    stop_grace_s: float = 10.0
    trust_proxy: bool = False
    sleeping: Sleeping | None = None

    def at_port(self, port: int) -> "Launch":
        """Fill in `${PORT}` everywhere."""

        def fill(text: str) -> str:
            return text.replace(PORT_MACRO, str(port))

        return replace(
            self,
            port=port,
            cmd=fill(self.cmd),
            cmd_stop=fill(self.cmd_stop),
            env=tuple(map(fill, self.env)),
            proxy=fill(self.proxy),
            check_path=None if self.check_path is None else fill(self.check_path),
            check_host=None if self.check_host is None else fill(self.check_host),
            sleeping=None if self.sleeping is None else _filled(self.sleeping, fill),
        )


def _filled(sleeping: Sleeping, fill: Callable[[str], str]) -> Sleeping:
    def step(step: SleepStep) -> SleepStep:
        return replace(step, endpoint=fill(step.endpoint), body=fill(step.body))

    return replace(sleeping, sleep=tuple(map(step, sleeping.sleep)), wake=tuple(map(step, sleeping.wake)))


@dataclass(frozen=True, slots=True)
class Timeouts:
    """Limits of one hop to an upstream, in seconds; None means no limit. Names follow llama-swap's `timeouts`."""

    connect_s: float | None = 30.0
    keepalive_s: float | None = None
    response_header_s: float | None = None
    tls_handshake_s: float | None = 10.0
    expect_continue_s: float | None = 1.0
    idle_conn_s: float | None = 90.0


@dataclass(frozen=True, slots=True)
class Filters:
    r"""How a JSON body is edited on its way to the upstream. Applied in the order strip, set, set_by_name.

    Attributes:
        strip: Paths to remove (sjson syntax: `a.b`, `a.0`, `a.-1`, `\\.` for a dot), sorted.
        set: Path -> value, sorted by path.
        set_by_name: Requested name -> (path -> value).
    """

    strip: tuple[str, ...] = ()
    set: Mapping[str, Any] = field(default_factory=dict)
    set_by_name: Mapping[str, Mapping[str, Any]] = field(default_factory=dict)

    def __bool__(self) -> bool:
        return bool(self.strip or self.set or self.set_by_name)


@dataclass(frozen=True, slots=True)
class Capabilities:
    """What a model can do, for `/v1/models`. `inputs`/`outputs` hold text, audio, image."""

    inputs: tuple[str, ...] = ()
    outputs: tuple[str, ...] = ()
    tools: bool = False
    reranker: bool = False
    context: int = 0

    def __bool__(self) -> bool:
        return bool(self.inputs or self.outputs or self.tools or self.reranker or self.context)


@dataclass(frozen=True, slots=True)
class ModelSettings:
    """What the HTTP side needs of one model.

    Attributes:
        swap_class: What a request for it may cost others, unless its name or the request itself says otherwise.
        swap_class_by_name: The same by requested name.
    """

    id: ModelId
    launch: Launch
    name: str = ""
    description: str = ""
    aliases: tuple[str, ...] = ()
    unlisted: bool = False
    use_model_name: str = ""
    filters: Filters = field(default_factory=Filters)
    timeouts: Timeouts = field(default_factory=Timeouts)
    send_loading_state: bool = False
    ignore_websockets: bool = False
    metadata: Mapping[str, Any] = field(default_factory=dict)
    capabilities: Capabilities = field(default_factory=Capabilities)
    swap_class: SwapClass = SwapClass.MAY_SWAP
    swap_class_by_name: Mapping[str, SwapClass] = field(default_factory=dict)


@dataclass(frozen=True, slots=True)
class AccessSettings:
    """Who may talk to llmswap (failures.md section 3).

    Attributes:
        api_keys: Accepted keys; empty means no key is asked for.
        allowed_hosts: Extra host names for the Host check, beside loopback names and listened-on addresses.
        allowed_origins: Exact origins that may make cross-origin requests.
        trusted_proxies: Peer addresses whose X-Forwarded-* are believed.
        forward_auth: Pass the client's Authorization, x-api-key and Cookie on to upstreams.
        allow_control: Let `/upstream` reach engine control paths (sleep, LoRA, shutdown ...).
        trust_pages: Send pages of upstreams on unsealed: no sandbox, cookies allowed.
    """

    api_keys: tuple[str, ...] = ()
    allow_unauthenticated: bool = False
    allowed_hosts: tuple[str, ...] = ()
    allowed_origins: tuple[str, ...] = ()
    trusted_proxies: tuple[str, ...] = ()
    forward_auth: bool = False
    allow_control: bool = False
    trust_pages: bool = False


@dataclass(frozen=True, slots=True)
class LogSettings:
    """Logging keys of llama-swap.

    Attributes:
        level: debug, info, warn or error.
        time_format: One of llama-swap's names (`rfc3339`, `kitchen` ...); empty for no time.
        to_stdout: proxy, upstream, both or none. Decides what the combined log holds, too.
    """

    level: str = "info"
    time_format: str = ""
    to_stdout: str = "proxy"


@dataclass(frozen=True, slots=True)
class JournalSettings:
    """Where the scheduler's steps are recorded.

    Attributes:
        max_bytes: Size at which a file is put aside.
        keep: How many such files are kept beside the current one.
    """

    path: Path
    max_bytes: int = 64 << 20
    keep: int = 4


@dataclass(frozen=True, slots=True)
class TelemetrySettings:
    """What llmswap tells of itself. What is empty is left to the standard OTEL_* variables.

    Attributes:
        endpoint: URL of an OTLP receiver.
        protocol: `http/protobuf` or `grpc`.
        sampler: `always`, `residency` or `never`.
        ratio: Share of the requests for resident models that `residency` keeps.
        trust_remote_parent: Whether a client's trace is continued; None means for clients on this machine.
        log_format: Of our own lines on standard output: `text`, `json` or `logfmt`.
        compat_llamaswap: Also expose llama-swap's gauges.
    """

    endpoint: str = ""
    protocol: str = ""
    sampler: str = ""
    ratio: float = 0.1
    trust_remote_parent: bool | None = None
    log_format: str = "text"
    compat_llamaswap: bool = False


@dataclass(frozen=True, slots=True)
class PerformanceSettings:
    """How the machine is sampled.

    Attributes:
        every_s: Seconds between samples for `/api/performance`; 0 means llama-swap's default.
    """

    disabled: bool = False
    every_s: float = 0.0


@dataclass(frozen=True, slots=True)
class MemorySettings:
    """When device memory counts as free again after an upstream was stopped or put to sleep.

    Attributes:
        freed_share: Share of what its process tree held that must be gone.
        cap_s: How long to wait for that.
        start_anyway: After the cap, go on with a warning; otherwise whoever waits for it is refused.
    """

    freed_share: float = 0.9
    cap_s: float = 30.0
    start_anyway: bool = False


@dataclass(frozen=True, slots=True)
class Settings:
    """Everything the shell needs, for one config generation.

    Attributes:
        ignore_paths: `/upstream` paths that never start a model, matched unanchored.
        preload: Models to load at start, in order; aliases already resolved.
        journal: None means that nothing is recorded.
    """

    models: Mapping[ModelId, ModelSettings]
    access: AccessSettings = field(default_factory=AccessSettings)
    log: LogSettings = field(default_factory=LogSettings)
    include_aliases_in_list: bool = False
    ignore_paths: tuple[re.Pattern[str], ...] = ()
    preload: tuple[ModelId, ...] = ()
    journal: JournalSettings | None = None
    memory: MemorySettings = field(default_factory=MemorySettings)
    telemetry: TelemetrySettings = field(default_factory=TelemetrySettings)
    performance: PerformanceSettings = field(default_factory=PerformanceSettings)


@dataclass(frozen=True, slots=True)
class Loaded:
    """One config, resolved."""

    fleet: Fleet
    settings: Settings
    warnings: tuple[ConfigIssue, ...] = ()
