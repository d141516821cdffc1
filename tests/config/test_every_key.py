"""The configs of `configs/`, whole: what a user's file comes to."""

from pathlib import Path

import pytest

from llmswap.config.command import split
from llmswap.config.load import load
from llmswap.config.settings import (
    AccessSettings,
    Capabilities,
    JournalSettings,
    Loaded,
    LogSettings,
    MemorySettings,
    Sleeping,
    SleepStep,
    Timeouts,
)
from llmswap.core.fleet import Group, MatrixRules, Router
from tests.config.corpus import CONFIGS, ENV
from tests.config.reading import warnings


@pytest.fixture(scope="module")
def every() -> Loaded:
    return load(CONFIGS / "every-key.yaml", None, ENV)


def test_nothing_in_it_is_warned_about(every):
    assert every.warnings == ()


def test_the_launch_of_a_model_with_every_key(every):
    launch = every.settings.models["qwen:7b"].launch.at_port(7002)
    assert split(launch.cmd) == [
        *("/opt/llama/llama-server", "--host", "127.0.0.1", "--port", "7002", "--ctx-size", "8192"),
        *("--model", "/models/qwen7.gguf", "--alias", "my model"),
    ]
    assert launch.cmd_stop == "/opt/stop --pid ${PID} --port 7002"
    assert launch.env == ("CUDA_VISIBLE_DEVICES=0", "LLAMA_LOG=1")
    assert (launch.proxy, launch.check_path) == ("http://127.0.0.1:7002/base", "/v1/health?deep=1")
    assert (launch.ready_timeout_s, launch.stop_grace_s, launch.trust_proxy) == (45, 5, True)


def test_the_http_side_of_a_model_with_every_key(every):
    found = every.settings.models["qwen:7b"]
    assert (found.name, found.description, found.use_model_name) == ("qwen:7b at 8192", "7", "qwen2.5-7b")
    assert found.aliases == ("small", "gpt-4o-mini", "qwen:7b:creative", "qwen:7b:title")
    assert (found.swap_class, found.swap_class_by_name) == ("prefer-warm", {"qwen:7b:title": "never-swap"})
    assert (found.unlisted, found.send_loading_state, found.ignore_websockets) == (True, False, True)
    assert found.filters.strip == ("temperature", "top_k")
    assert found.filters.set == {"options": {"num_ctx": 8192, "stop": ["\n", "</s>"]}, "temperature": 0.7}
    assert list(found.filters.set) == ["options", "temperature"]
    assert found.filters.set_by_name == {"qwen:7b:creative": {"temperature": 1.2}}
    assert found.timeouts == Timeouts(5.0, None, 600.0, 3.0, None, None)
    assert found.capabilities == Capabilities(("text", "image"), ("text",), tools=True, context=8192)
    assert found.metadata == {
        "port": 7002,
        "released": "2024-09-19T00:00:00Z",
        "nested": {"list": [1, 2.5, True, None, "/opt/llama/llama-server"]},
    }


def test_models_inherit_what_they_do_not_say(every):
    found = every.settings.models["embed-id"]
    assert found.send_loading_state is True
    assert (found.launch.ready_timeout_s, found.launch.stop_grace_s) == (90, 20)
    assert (found.launch.check_path, found.launch.check_host) == ("/ready?x=1", "probe.example.org")
    assert every.fleet.models["embed-id"].idle_ttl_s == 900
    assert every.fleet.models["embed-id"].queue_timeout_s == 300
    assert every.settings.models["remote"].launch.check_path is None
    assert every.settings.models["remote"].launch.port is None


def test_how_models_sleep(every):
    assert every.settings.models["qwen:7b"].launch.at_port(7002).sleeping == Sleeping(
        (SleepStep("/pause?for=qwen:7b", "PUT", '{"port": 7002}', 15), SleepStep("/release", timeout_s=40)),
        (SleepStep("/resume", timeout_s=50),),
        verify_memory=False,
        residual_bytes=3 << 30,
        warmup=True,
        canary=True,
        awake_check=False,
        drain_s=20,
    )
    preset = every.settings.models["embed-id"].launch.sleeping
    assert (preset.preset, {step.timeout_s for step in (*preset.sleep, *preset.wake)}) == ("sglang", {30, 300})
    assert every.settings.models["box"].launch.sleeping is None
    assert every.settings.memory == MemorySettings(0.95, 20, start_anyway=True)


def test_the_fleet_of_the_whole_file(every):
    fleet = every.fleet
    assert [model.sleep_after_s for model in fleet.models.values()] == [30, 300, None, None]
    assert [model.sleeps for model in fleet.models.values()] == [True, True, False, False]
    assert (fleet.sleepers_max, fleet.sleepers_host_bytes) == (2, 96 << 30)
    limits = fleet.models["qwen:7b"]
    assert (limits.concurrency_limit, limits.idle_ttl_s, limits.priority, limits.queue_timeout_s) == (4, 60, 10, 30)
    assert fleet.models["embed-id"].priority == -5
    assert (limits.substitutes, fleet.models["embed-id"].substitutes) == (("embed-id", "box"), ())
    assert (fleet.queue_max, fleet.router) == (500, Router.MATRIX)
    assert fleet.groups == (
        Group("resident", ("embed-id",), swap=False, exclusive=False, persistent=True),
        Group("gpu", ("qwen:7b", "box")),
        Group("(default)", ("remote",)),
    )
    assert fleet.matrix == MatrixRules(
        {"q": "qwen:7b", "e": "embed-id"},
        {"daily": "e & (q | box)", "all": "+daily | remote"},
        {"qwen:7b": 10, "box": 3},
    )


def test_the_rest_of_the_settings(every):
    settings = every.settings
    assert settings.access == AccessSettings(
        api_keys=("first", "second"),
        allowed_hosts=("llm.example.org",),
        allowed_origins=("https://chat.example.org",),
        trusted_proxies=("10.0.0.0/24", "::1"),
        forward_auth=True,
        allow_control=True,
        trust_pages=True,
    )
    assert settings.log == LogSettings("debug", "rfc3339", "both")
    assert settings.include_aliases_in_list is True
    assert settings.journal == JournalSettings(Path.home() / "journal.jsonl", 1 << 30, 2)
    assert settings.preload == ("qwen:7b", "embed-id")
    favicon, sourcemap = settings.ignore_paths
    assert favicon.search("/favicon.ico")
    assert not favicon.search("/favicon.ico\n")
    assert sourcemap.search("/a/app.js.map")


def test_a_typical_config_of_llama_swap_loads_with_its_unsupported_keys_named():
    loaded = load(CONFIGS / "homelab.yaml", None, ENV)
    assert "homelab.yaml:5:1: metricsMaxInMemory: is not supported yet" in warnings(loaded)
    assert "homelab.yaml:6:1: captureBuffer: is not supported yet" in warnings(loaded)
    assert len(loaded.warnings) == 2
    launch = loaded.settings.models["qwen3-30b"].launch
    assert split(launch.at_port(5801).cmd)[-5:] == ["--temp", "0.7", "--top-p", "0.8", "--jinja"]
    assert "--draft" not in launch.cmd
    assert [group.persistent for group in loaded.fleet.groups] == [False, True]


def test_a_config_of_llmsnap_loads_with_its_unsupported_keys_named():
    loaded = load(CONFIGS / "llmsnap.yaml", None, ENV)
    paths = [issue.path for issue in loaded.warnings]
    assert paths == ["logRequests", "ui", "peers", "selectors", "profiles", "models.coder.env"]
    assert all(issue.line > 0 for issue in loaded.warnings)
