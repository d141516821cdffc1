"""The way in: files -> Loaded, or a ConfigError with everything that is wrong."""

from collections.abc import Mapping
from pathlib import Path
from types import MappingProxyType

from llmswap.config.env import substitute
from llmswap.config.errors import ConfigError, ConfigIssue
from llmswap.config.expansion import expand
from llmswap.config.explain import fit, known_keys
from llmswap.config.issues import Issues
from llmswap.config.merge import merge
from llmswap.config.resolve import resolve
from llmswap.config.schema import ConfigFile
from llmswap.config.settings import Loaded
from llmswap.config.source import parse

_NO_ENV: Mapping[str, str] = MappingProxyType({})
_YAML_SUFFIXES = (".yml", ".yaml")


def load(config: Path | None, config_dir: Path | None, env: Mapping[str, str]) -> Loaded:
    """Read a config file, a directory of them, or both; `env` answers `${env.NAME}`.

    Raises:
        ConfigError: The config cannot be used.
    """
    return _load([(str(path), _read(path)) for path in _sources(config, config_dir)], env)


def loads(text: str, name: str = "config.yaml", env: Mapping[str, str] = _NO_ENV) -> Loaded:
    """Read a config from text.

    Raises:
        ConfigError: The config cannot be used.
    """
    return _load([(name, text)], env)


def _load(texts: list[tuple[str, str]], env: Mapping[str, str]) -> Loaded:
    issues = Issues(texts[0][0])
    parsed = []
    for file, text in texts:
        substituted, stand_ins = substitute(text, env)
        parsed.append(parse(substituted, file, issues, stand_ins))
    sources = [source for source in parsed if source is not None]
    if len(sources) < len(parsed):
        issues.check()
    whole = merge(sources, issues)
    issues.root = whole.root
    expanded = expand(whole.root, known_keys(ConfigFile), issues)
    loaded = resolve(fit(expanded.root, whole.anchored, issues), expanded.ports, env, issues)
    issues.check()
    return loaded


def _sources(config: Path | None, config_dir: Path | None) -> list[Path]:
    """List the files to read, in order."""
    files = [] if config is None else [config]
    if config_dir is None:
        if not files:
            raise _failure("", "no configuration sources found: give a config file or a directory")
        return files
    try:
        inside = sorted(path for path in config_dir.iterdir() if path.suffix in _YAML_SUFFIXES and path.is_file())
    except OSError as error:
        raise _failure(str(config_dir), f"cannot read the directory: {error.strerror}") from None
    if config is not None and config.absolute().parent == config_dir.absolute():
        raise _failure(str(config), f"this file lies in the config directory {config_dir}, so it would be read twice")
    if not files and not inside:
        raise _failure(str(config_dir), "no configuration sources found: there is no .yaml or .yml file here")
    return files + inside


def _read(path: Path) -> str:
    try:
        return path.read_text(encoding="utf-8-sig")
    except OSError as error:
        raise _failure(str(path), f"cannot read the file: {error.strerror}") from None
    except UnicodeDecodeError as error:
        raise _failure(str(path), f"is not UTF-8 text (byte {error.start})") from None


def _failure(file: str, message: str) -> ConfigError:
    return ConfigError([ConfigIssue(file or "config", 0, 0, "", message)])
