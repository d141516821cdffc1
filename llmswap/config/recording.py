"""Where the journal goes."""

from pathlib import Path

from llmswap.config.issues import Issues
from llmswap.config.schema import ConfigFile
from llmswap.config.settings import JournalSettings


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
