"""Short ways to read a config in a test."""

from collections.abc import Mapping

import pytest

from llmswap.config.errors import ConfigError, ConfigIssue
from llmswap.config.load import loads
from llmswap.config.settings import Loaded, ModelSettings

ANY_PORT = "cmd: x ${PORT}"


def issues(text: str, env: Mapping[str, str] | None = None) -> list[ConfigIssue]:
    """Read a config that must be refused; give what was found."""
    with pytest.raises(ConfigError) as caught:
        loads(text, env=env or {})
    return list(caught.value.issues)


def problems(text: str, env: Mapping[str, str] | None = None) -> str:
    """Read a config that must be refused; give the whole message."""
    return "\n".join(map(str, issues(text, env)))


def one_problem(text: str, env: Mapping[str, str] | None = None) -> str:
    """Read a config that must be refused for one reason only."""
    found = issues(text, env)
    assert len(found) == 1, "\n".join(map(str, found))
    return str(found[0])


def model(text: str, name: str = "m", env: Mapping[str, str] | None = None) -> ModelSettings:
    """Read a config, give one model of it."""
    return by_name(loads(text, env=env or {}), name)


def by_name(loaded: Loaded, name: str) -> ModelSettings:
    """Give the model behind a name."""
    found = loaded.fleet.resolve(name)
    assert found is not None, name
    return loaded.settings.models[found]


def warnings(loaded: Loaded) -> str:
    """Give all warnings of a config."""
    return "\n".join(map(str, loaded.warnings))
