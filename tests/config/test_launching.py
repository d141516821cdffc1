from dataclasses import fields, replace

import pytest

from llmswap.config.launching import fingerprint
from llmswap.config.load import loads
from llmswap.config.presets import PRESETS
from llmswap.config.settings import Launch
from tests.config.reading import model, one_problem, warnings


def launch(keys: str, top: str = "") -> Launch:
    return model(f"{top}\nmodels:\n  m:\n    {keys}\n").launch


@pytest.mark.parametrize(
    ("endpoint", "path", "host"),
    [
        ("/health", "/health", None),
        ("ready", "/ready", None),
        ('""', "", None),
        ("none", None, None),
        ('" none "', None, None),
        ("/a?b=c#d", "/a?b=c", None),
        ("http://probe.example:81/a?b=c", "/a?b=c", "probe.example:81"),
        ("https://probe.example", "", "probe.example"),
    ],
)
def test_the_readiness_probe(endpoint, path, host):
    found = launch(f"cmd: x ${{PORT}}\n    checkEndpoint: {endpoint}")
    assert (found.check_path, found.check_host) == (path, host)


@pytest.mark.parametrize(
    ("keys", "trusted"),
    [
        ("cmd: server --port ${PORT}", False),
        ("cmd: server --port ${PORT}\n    proxy: http://127.0.0.1:${PORT}", False),
        ("cmd: server --port ${PORT}\n    proxy: http://[::1]:${PORT}/base", False),
        ("cmd: server --port ${PORT}\n    proxy: http://10.0.0.7:${PORT}", True),
        ("cmd: server --port 8000\n    proxy: http://127.0.0.1:8000", False),
        ("cmd: server --port 18000\n    proxy: http://127.0.0.1:8000", True),
        ("cmd: server\n    proxy: http://127.0.0.1:8000", True),
        ("cmd: server --port 8000\n    proxy: http://10.0.0.7:8000", True),
        ("cmd: server --device None\n    proxy: http://127.0.0.1", True),
        ("cmd: server --port 80\n    proxy: http://127.0.0.1", False),
        ("cmd: docker run -p ${PORT}:80 image", True),
        ("cmd: docker-compose run -p ${PORT}:80 image", True),
        ("cmd: sudo -E /usr/bin/podman run -p ${PORT}:80 image", True),
        ("cmd: bash -c 'exec docker run -p ${PORT}:80 image'", True),
        ("cmd: server --model /data/docker/model.gguf --port ${PORT}", False),
        ("cmd: docker run -p ${PORT}:80 image\n    trustProxy: false", False),
        ("cmd: server --port ${PORT}\n    trustProxy: true", True),
    ],
)
def test_whose_port_it_is_is_insisted_on_where_it_can_be(keys, trusted):
    assert launch(keys).trust_proxy is trusted


@pytest.mark.parametrize("seconds", [0, -1])
def test_a_health_check_timeout_of_nothing_in_a_model_takes_the_global_one(seconds):
    """llama-swap ignores the key in a model, so whatever stands there must load."""
    found = launch(f"cmd: x ${{PORT}}\n    healthCheckTimeout: {seconds}", "healthCheckTimeout: 60")
    assert found.ready_timeout_s == 60


def test_timeouts_of_a_model_win_over_global_ones():
    top = "healthCheckTimeout: 60\nunloadTimeout: 7"
    found = launch("cmd: x ${PORT}", top)
    assert (found.ready_timeout_s, found.stop_grace_s) == (60, 7)
    found = launch("cmd: x ${PORT}\n    healthCheckTimeout: 3\n    unloadTimeout: 2", top)
    assert (found.ready_timeout_s, found.stop_grace_s) == (3, 2)
    assert launch("cmd: x ${PORT}", "unloadTimeout: 0").stop_grace_s == 10


@pytest.mark.parametrize("proxy", ["localhost:8080", "ftp://h", "http://", "http://h:99999", "http://[::1", "/path"])
def test_a_proxy_that_is_no_url_is_refused(proxy):
    assert "models.m.proxy: proxy must be a URL" in one_problem(f"models: {{m: {{cmd: x, proxy: '{proxy}'}}}}")


def test_what_cannot_start_is_warned_about():
    found = warnings(loads("models:\n  m: {proxy: 'http://h'}\n  n: {cmd: x, proxy: ''}\n"))
    assert "config.yaml:2:3: models.m.cmd: cmd is empty" in found
    assert "config.yaml:3:15: models.n.proxy: proxy is empty" in found


def test_an_env_item_without_a_value_has_no_effect():
    loaded = loads("models: {m: {cmd: 'x ${PORT}', env: ['A=1', B, '=c', 'D=']}}")
    assert loaded.settings.models["m"].launch.env == ("A=1", "D=")
    assert warnings(loaded).count("has no effect") == 2


BASE = "models:\n  m:\n    cmd: server --port ${PORT}\n"


@pytest.mark.parametrize(
    "change",
    [
        "    ttl: 5\n",
        "    aliases: [x]\n",
        "    filters: {stripParams: a}\n",
        "    concurrencyLimit: 3\n",
        "    metadata: {port: '${PORT}'}\n",
        "    unloadTimeout: 30\n",
        "    healthCheckTimeout: 30\n",
        "    sendLoadingState: true\n",
        "    sleepAfter: 5\n",
        "  a: {cmd: 'other ${PORT}'}\n",
        "startPort: 9000\n",
        "apiKeys: [k]\n",
    ],
)
def test_a_change_that_needs_no_restart_keeps_the_fingerprint(change):
    assert loads(BASE + change).fleet.models["m"].fingerprint == loads(BASE).fleet.models["m"].fingerprint


@pytest.mark.parametrize(
    "change",
    [
        "    env: [A=1]\n",
        "    cmdStop: stop ${PID}\n",
        "    proxy: http://127.0.0.1:${PORT}\n",
        "    checkEndpoint: /ready\n",
        "    trustProxy: true\n",
    ],
)
def test_a_change_that_needs_a_restart_changes_the_fingerprint(change):
    assert loads(BASE + change).fleet.models["m"].fingerprint != loads(BASE).fleet.models["m"].fingerprint


SLEEPY = """
models:
  m:
    cmd: x ${PORT}
    sleepMode: enable
    sleepEndpoints: [{endpoint: /s}]
    wakeEndpoints: [{endpoint: "/w?port=${PORT}"}]
    sleep: {warmup: false}
"""


@pytest.mark.parametrize(
    ("old", "new", "restarts"),
    [
        ("/s}", "/s, timeout: 99}", False),
        ("warmup: false", "drainTimeout: 5", False),
        ("warmup: false", "sleepTimeout: 5", False),
        ("  m:", "  a: {cmd: 'other ${PORT}'}\n  m:", False),
        ("sleepMode", "sleepAfter: 7\n    sleepMode", False),
        ("models:", "sleepers: {max: 1}\nwakeRequestTimeout: 77\nmodels:", False),
        ("/s}", "/s?level=2}", True),
        ("/s}", "/s, body: a}", True),
        ("warmup: false", "warmup: true", True),
        ("warmup: false", "canary: true", True),
        ("warmup: false", "verify: false", True),
        ("warmup: false", "residual: 1GiB", True),
        ("enable", "disable", True),
    ],
)
def test_how_a_model_sleeps_counts_for_the_fingerprint_but_not_how_long_it_may_take(old, new, restarts):
    changed = loads(SLEEPY.replace(old, new)).fleet.models["m"].fingerprint
    assert (changed != loads(SLEEPY).fleet.models["m"].fingerprint) is restarts


def test_a_macro_a_comment_and_their_expansion_are_the_same_to_the_fingerprint():
    written = "macros: {p: 'server # no comment --port'}\nmodels: {m: {cmd: \"# note\\n${p} ${PORT}\"}}"
    plain = "models: {m: {cmd: 'server # no comment --port ${PORT}'}}"
    assert loads(written).fleet.models["m"].fingerprint == loads(plain).fleet.models["m"].fingerprint


def test_every_field_of_a_launch_is_in_the_fingerprint_or_left_out_on_purpose():
    base = launch("cmd: x ${PORT}")
    others = {
        "check_host": "h",
        "trust_proxy": True,
        "port": 1,
        "ready_timeout_s": 1.0,
        "stop_grace_s": 1.0,
        "env": ("A=1",),
        "sleeping": PRESETS["vllm-l1"],
    }
    counted = {
        field.name
        for field in fields(Launch)
        if fingerprint(replace(base, **{field.name: others.get(field.name, "other")})) != fingerprint(base)
    }
    assert counted == {field.name for field in fields(Launch)} - {"port", "ready_timeout_s", "stop_grace_s"}


def test_the_port_is_filled_in_wherever_it_may_stand():
    found = launch(
        "cmd: x ${PORT}\n    cmdStop: y ${PORT}\n    env: ['P=${PORT}']\n"
        "    checkEndpoint: http://localhost:${PORT}/health?p=${PORT}"
    ).at_port(7)
    assert found.check_host == "localhost:7"
    assert "${PORT}" not in repr(found)
