"""Where the journal goes, what else llmswap tells of itself, and how it looks at the machine."""

import re
from pathlib import Path
from urllib.parse import urlsplit

from llmswap.config.issues import Issues
from llmswap.config.schema import ConfigFile
from llmswap.config.settings import JournalSettings, PerformanceSettings, TelemetrySettings

_LEAST_EVERY_S = 5
_UNITS_S = {"ns": 1e-9, "us": 1e-6, "µs": 1e-6, "ms": 1e-3, "s": 1.0, "m": 60.0, "h": 3600.0}
_PART = re.compile(r"([0-9]+(?:\.[0-9]*)?|\.[0-9]+)(ns|us|µs|ms|s|m|h)")


def journal(file: ConfigFile, issues: Issues) -> JournalSettings | None:
    """Check and gather the journal's settings. As in commands, a relative path is one from the working directory."""
    section = file.journal
    if section is None:
        return None
    try:
        path = Path(section.path).expanduser()
    except RuntimeError:
        issues.error(("journal", "path"), f"'{section.path}': there is no such home directory; write the whole path")
        return None
    if section.path.endswith("/") or path.is_dir():
        issues.error(("journal", "path"), f"'{section.path}' is a directory; name a file in it")
    return JournalSettings(path, section.max_size, section.keep)


def telemetry(file: ConfigFile, issues: Issues) -> TelemetrySettings:
    """Check and gather what is said of traces, log lines and other proxies' dashboards."""
    section = file.telemetry
    traces = section.traces
    if traces.endpoint and not _is_url(traces.endpoint):
        issues.error(("telemetry", "traces", "endpoint"), "must be a URL such as http://127.0.0.1:4318")
    return TelemetrySettings(
        endpoint=traces.endpoint,
        protocol=traces.protocol or "",
        sampler=traces.sampler or "",
        ratio=traces.percent / 100,
        trust_remote_parent=traces.trust_remote_parent,
        log_format=section.log_format,
        compat_llamaswap=section.compat.llamaswap,
    )


def performance(file: ConfigFile, issues: Issues) -> PerformanceSettings:
    """Check and gather how the machine is sampled."""
    section = file.performance
    every_s: float | None = 0.0 if section.every is None else _duration_s(section.every)
    path = ("performance", "every")
    if every_s is None:
        issues.error(path, "must be a duration with a unit, such as 10s or 1m30s")
    elif 0 != every_s < _LEAST_EVERY_S:
        issues.error(path, f"performance: every must be at least {_LEAST_EVERY_S}s, got {section.every}")
    return PerformanceSettings(section.disabled, every_s or 0.0)


def _duration_s(text: object) -> float | None:
    """Read a Go duration, such as `1m30s`."""
    if not isinstance(text, str):
        return None
    if text == "0":
        return 0.0
    if not re.fullmatch(f"[-+]?(?:{_PART.pattern})+", text):
        return None
    seconds = sum(float(number) * _UNITS_S[unit] for number, unit in _PART.findall(text))
    return -seconds if text.startswith("-") else seconds


def _is_url(text: str) -> bool:
    try:
        url = urlsplit(text)
        return bool(url.scheme in {"http", "https"} and url.hostname and url.port != 0)
    except ValueError:
        return False
