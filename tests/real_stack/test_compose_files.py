"""Every compose file, alone and with each other: by the schema of the specification, and by the real parser."""

import sys

import pytest
import yaml

from tests.deploy.files import MAIN, OVERRIDES, ROOT
from tests.real_stack.engine import Engine

pytestmark = [pytest.mark.real, pytest.mark.timeout(900)]

NEEDED = {"LLMSWAP_MODELS": "/srv/models", "DOCKER_GID": "999"}


@pytest.mark.parametrize("path", [MAIN, *OVERRIDES], ids=lambda path: path.name)
def test_it_is_valid_by_the_schema_of_compose(engine: Engine, path):
    engine.run(sys.executable, "-m", "check_jsonschema", "--builtin-schema", "vendor.compose-spec", str(path))


@pytest.mark.parametrize("profiles", [(), ("load",), ("logs",), ("load", "logs")], ids="+".join)
@pytest.mark.parametrize("override", [None, *OVERRIDES], ids=lambda path: path.name if path else "alone")
def test_compose_takes_it_with_every_override_and_profile(engine: Engine, override, profiles):
    files = [MAIN, *([override] if override else [])]
    words = [
        *(word for path in files for word in ("--file", str(path))),
        *(word for one in profiles for word in ("--profile", one)),
    ]
    told = engine.run("docker", "compose", "--project-directory", str(ROOT), *words, "config", **NEEDED)
    services = yaml.safe_load(told)["services"]
    assert {"llmswap", "prometheus", "alertmanager", "grafana", "tempo", "node-exporter"} <= services.keys()
    assert ("loki" in services) == ("logs" in profiles)
    assert services["llmswap"]["read_only"] is True
    assert services["llmswap"]["cap_drop"] == ["ALL"]


def test_docker_models_cannot_be_had_without_saying_where_models_are(engine: Engine):
    words = ("--file", str(MAIN), "--file", str(ROOT / "deploy" / "compose.docker.yml"), "config", "--quiet")
    code, said = engine.attempt("docker", "compose", *words)
    assert code != 0
    assert "LLMSWAP_MODELS" in said
    assert "an absolute path" in said
