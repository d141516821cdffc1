"""The schema's File -> Fleet and Settings: defaults, inheritance and all that one key needs of another."""

import re
from collections.abc import Mapping
from dataclasses import replace

from llmswap.config.access import access
from llmswap.config.engines import check_engine
from llmswap.config.issues import Issues
from llmswap.config.later import check_later
from llmswap.config.launching import fingerprint, launch
from llmswap.config.names import Names
from llmswap.config.patterns import DEFAULT_IGNORE_PATH, compile_re2
from llmswap.config.recording import journal, performance, telemetry
from llmswap.config.routing import Routing, priorities, substitutes
from llmswap.config.schema import ConfigFile
from llmswap.config.schema_models import CapabilitiesSection, FiltersSection, ModelSection, TimeoutsSection
from llmswap.config.schema_routing import FairSection
from llmswap.config.settings import (
    Capabilities,
    Filters,
    Loaded,
    LogSettings,
    ModelSettings,
    Settings,
    Timeouts,
)
from llmswap.config.sleeping import check_tiers, memory, sleep_after_s
from llmswap.core.events import SwapClass
from llmswap.core.fleet import Fleet, Model, ModelId, Scheduling

DEFAULT_CONCURRENCY = 10
COMFYUI = "comfyui_auto"
COMFYUI_CONCURRENCY = 50
LEVELS = ("debug", "info", "warn", "error")
TIME_FORMATS = (
    *("ansic", "unixdate", "rubydate", "rfc822", "rfc822z", "rfc850", "rfc1123", "rfc1123z", "rfc3339", "rfc3339nano"),
    *("kitchen", "stamp", "stampmilli", "stampmicro", "stampnano"),
)


def resolve(file: ConfigFile, ports: Mapping[str, int], env: Mapping[str, str], issues: Issues) -> Loaded:
    """Make what the program needs. What is wrong is noted in the issues; the caller looks there first.

    Args:
        file: The config.
        ports: By model.
        env: What upstreams inherit.
        issues: Where to note.
    """
    names = Names(file, issues)
    routing = Routing(file, names, issues)
    priority = priorities(file, names, issues)
    settings = Settings(
        models={ModelId(name): _settings(ModelId(name), file, names, ports, issues) for name in file.models},
        access=access(file, issues),
        log=_log(file, issues),
        include_aliases_in_list=file.include_aliases_in_list,
        ignore_paths=_ignore_paths(file, issues),
        preload=_preload(file, names, issues),
        journal=journal(file, issues),
        memory=memory(file),
        telemetry=telemetry(file, issues),
        performance=performance(file, issues),
    )
    fleet = Fleet(
        models={
            model: replace(_model(settings.models[model], file, priority), substitutes=found)
            for model, found in substitutes(file, names, issues).items()
        },
        names=names.ids,
        groups=routing.groups,
        matrix=routing.matrix,
        router=routing.router,
        scheduling=Scheduling(file.routing.scheduler.use),
        queue_max=file.queue_max,
        sleepers_max=file.sleepers.max,
        sleepers_host_bytes=file.sleepers.host_memory,
    )
    if file.health_check_timeout < 15:
        issues.warn(("healthCheckTimeout",), f"is {file.health_check_timeout}, less than 15: 15 is used")
    for model, section in file.models.items():
        launched = settings.models[ModelId(model)].launch
        check_engine(launched, section, file, env, issues)
        check_tiers(fleet.models[ModelId(model)], section, issues)
    check_later(file, names, fleet, issues)
    return Loaded(fleet, settings, issues.warnings())


def _model(settings: ModelSettings, file: ConfigFile, priority: Mapping[ModelId, int]) -> Model:
    section = file.models[settings.id]
    limit = section.concurrency_limit if section.concurrency_limit > 0 else DEFAULT_CONCURRENCY
    ttl_s = file.global_ttl if section.ttl < 0 else section.ttl
    sleeps = settings.launch.sleeping is not None
    made = Model(
        settings.id,
        concurrency_limit=max(limit, COMFYUI_CONCURRENCY) if settings.id == COMFYUI else limit,
        idle_ttl_s=float(ttl_s) or None,
        priority=priority.get(settings.id, 0),
        queue_timeout_s=float(section.queue_timeout or file.queue_timeout),
        sleeps=sleeps,
        sleep_after_s=sleep_after_s(section, file) if sleeps else None,
        fingerprint=fingerprint(settings.launch),
    )
    return _fair(made, section, file.routing.scheduler.settings.fair) if _uses_fair(file) else made


def _fair(model: Model, section: ModelSection, fair: FairSection) -> Model:
    """Add what only the fair scheduler asks of a model."""
    hold = fair.hold if section.unload_delay is None else section.unload_delay
    return replace(
        model,
        queue_limit=section.queue_limit or fair.queue_limit,
        max_wait_s=float(fair.max_wait if section.max_wait is None else section.max_wait),
        hold_s=None if hold is None else float(hold),
    )


def _uses_fair(file: ConfigFile) -> bool:
    return file.routing.scheduler.use == "fair"


def _settings(
    model: ModelId, file: ConfigFile, names: Names, ports: Mapping[str, int], issues: Issues
) -> ModelSettings:
    section = file.models[model]
    loading = section.send_loading_state
    return ModelSettings(
        model,
        launch(model, section, file, ports.get(model), issues),
        name=section.name.strip(),
        description=section.description.strip(),
        aliases=names.aliases.get(model, ()),
        unlisted=section.unlisted,
        use_model_name=section.use_model_name,
        filters=_filters(section.filters),
        timeouts=_timeouts(section.timeouts),
        send_loading_state=file.send_loading_state if loading is None else loading,
        ignore_websockets=section.compat.ignore_websockets or model == COMFYUI,
        metadata=section.metadata,
        capabilities=_capabilities(section.capabilities),
        swap_class=SwapClass(section.swap_class),
        swap_class_by_name={name: SwapClass(given) for name, given in section.swap_class_by_id.items()},
    )


def _filters(section: FiltersSection) -> Filters:
    listed = section.strip_params or section.legacy_strip_params
    return Filters(
        strip=tuple(sorted({param.strip() for param in listed.split(",")} - {"", "model"})),
        set=_params(section.set_params),
        set_by_name={name: _params(params) for name, params in section.set_params_by_id.items()},
    )


def _params(params: Mapping[str, object]) -> dict[str, object]:
    return {path: params[path] for path in sorted(params) if path != "model"}


def _timeouts(section: TimeoutsSection) -> Timeouts:
    def limit_s(seconds: int) -> float | None:
        return float(seconds) if seconds > 0 else None

    return Timeouts(
        connect_s=limit_s(section.connect),
        keepalive_s=limit_s(section.keepalive),
        response_header_s=limit_s(section.response_header),
        tls_handshake_s=limit_s(section.tls_handshake),
        expect_continue_s=limit_s(section.expect_continue),
        idle_conn_s=limit_s(section.idle_conn),
    )


def _capabilities(section: CapabilitiesSection) -> Capabilities:
    return Capabilities(tuple(section.inputs), tuple(section.outputs), section.tools, section.reranker, section.context)


def _log(file: ConfigFile, issues: Issues) -> LogSettings:
    level, time_format = file.log_level.lower(), file.log_time_format.lower()
    if level not in LEVELS:
        issues.warn(("logLevel",), f"is not a level{issues.hint(level, LEVELS)}: info is used")
        level = "info"
    if time_format and time_format not in TIME_FORMATS:
        issues.warn(
            ("logTimeFormat",), f"is not a known format{issues.hint(time_format, TIME_FORMATS)}: no time is shown"
        )
        time_format = ""
    return LogSettings(level, time_format, file.log_to_stdout)


def _ignore_paths(file: ConfigFile, issues: Issues) -> tuple[re.Pattern[str], ...]:
    patterns = []
    for index, pattern in enumerate(file.upstream.ignore_paths or [DEFAULT_IGNORE_PATH]):
        try:
            patterns.append(compile_re2(pattern))
        except ValueError as error:
            issues.error(("upstream", "ignorePaths", index), str(error))
    return tuple(patterns)


def _preload(file: ConfigFile, names: Names, issues: Issues) -> tuple[ModelId, ...]:
    wanted: dict[ModelId, None] = {}
    for index, written in enumerate(file.hooks.on_startup.preload):
        name = written.strip()
        model = names.find(name)
        if model is None:
            path = ("hooks", "on_startup", "preload", index)
            issues.warn(path, f"there is no model '{name}'{names.hint(name)}: nothing is preloaded for it")
        else:
            wanted[model] = None
    return tuple(wanted)
