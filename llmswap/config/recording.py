"""Where the journal goes, and what else llmswap tells of itself."""

from pathlib import Path
from urllib.parse import urlsplit

from llmswap.config.issues import Issues
from llmswap.config.schema import ConfigFile
from llmswap.config.settings import JournalSettings, TelemetrySettings


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


def _is_url(text: str) -> bool:
    try:
        url = urlsplit(text)
        return bool(url.scheme in {"http", "https"} and url.hostname and url.port != 0)
    except ValueError:
        return False
