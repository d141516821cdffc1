"""Whatever is in the file: a config, or a ConfigError, and soon."""

import time

from llmswap.config.errors import ConfigError, ConfigIssue
from llmswap.config.load import loads
from tests.config.corpus import ENV, mutants

MUTANTS = 700
SLOWEST_S = 1.0


def read(text: str) -> tuple[tuple[ConfigIssue, ...], float]:
    began_s = time.process_time()
    try:
        loads(text, env=ENV)
    except ConfigError as error:
        return error.issues, time.process_time() - began_s
    return (), time.process_time() - began_s


def test_mutants_load_or_are_refused_in_time():
    refused = 0
    for name, text in mutants(MUTANTS):
        issues, took_s = read(text)
        refused += bool(issues)
        assert took_s < SLOWEST_S, name
        assert all(issue.message and issue.file == "config.yaml" for issue in issues), name
    assert refused > 500


def test_five_thousand_models_load():
    models = "\n".join(
        f"  model-{n}:\n    cmd: ${{server}} -m /m/{n}.gguf\n    ttl: 300\n    aliases: [alias-{n}]\n    env: [A={n}]"
        for n in range(5000)
    )
    loaded = loads(f"macros: {{server: 'llama-server --port ${{PORT}}'}}\nmodels:\n{models}\n")
    assert len(loaded.fleet.models) == 5000
    assert loaded.settings.models["model-4999"].launch.port == 5800 + sorted(map(str, range(5000))).index("4999")
