"""What the keys of sleeping come to: llmsnap's lists, presets, tiers and limits."""

import jsonschema
import pytest

from llmswap.config.issues import Issues
from llmswap.config.load import loads
from llmswap.config.presets import VLLM_QUERY
from llmswap.config.schema import json_schema
from llmswap.config.settings import Launch, MemorySettings, Sleeping, SleepStep
from llmswap.config.source import parse
from tests.config.reading import issues, model, one_problem, problems

STEPS = "sleepEndpoints: [{endpoint: /s}], wakeEndpoints: [{endpoint: /w}]"


def launch(keys: str, top: str = "", name: str = "m") -> Launch:
    return model(f"{top}\nmodels: {{{name}: {{cmd: 'x ${{PORT}}', {keys}}}}}", name).launch


def sleeping(keys: str, top: str = "") -> Sleeping:
    found = launch(keys, top).sleeping
    assert found is not None
    return found


def test_the_recipe_of_llmsnap_for_level_1_loads_unchanged():
    recipe = """
sleepRequestTimeout: 20
wakeRequestTimeout: 20
models:
  "vllm-sleep-level1":
    sleepMode: enable
    cmd: |
      uv run python -m vllm.entrypoints.openai.api_server
      --model Qwen/Qwen3-8B
      --host 127.0.0.1 --port ${PORT}
      --enable-sleep-mode
    env:
      - "VLLM_SERVER_DEV_MODE=1"
    sleepEndpoints:
      - endpoint: /sleep?level=1
        method: POST
    wakeEndpoints:
      - endpoint: /wake_up
        method: POST
"""
    loaded = loads(recipe)
    assert loaded.warnings == ()
    assert loaded.fleet.models["vllm-sleep-level1"].sleeps
    assert loaded.settings.models["vllm-sleep-level1"].launch.sleeping == Sleeping(
        (SleepStep("/sleep?level=1", timeout_s=20),), (SleepStep("/wake_up", timeout_s=20),), query=VLLM_QUERY
    )


def test_the_recipe_of_llmsnap_for_level_2_loads_unchanged():
    recipe = """
models:
  "vllm-sleep-level2":
    sleepMode: enable
    cmd: vllm serve Qwen/Qwen3-8B --port ${PORT} --enable-sleep-mode
    env: [VLLM_SERVER_DEV_MODE=1]
    sleepEndpoints:
      - {endpoint: "/sleep?level=2", method: POST, timeout: 15}
    wakeEndpoints:
      - endpoint: /wake_up
        method: POST
      - endpoint: /collective_rpc
        method: POST
        body: '{"method": "reload_weights"}'
        timeout: 12
      - endpoint: /reset_prefix_cache
        method: POST
"""
    loaded = loads(recipe)
    assert loaded.warnings == ()
    assert loaded.settings.models["vllm-sleep-level2"].launch.sleeping == Sleeping(
        (SleepStep("/sleep?level=2", timeout_s=15),),
        (
            SleepStep("/wake_up", timeout_s=10),
            SleepStep("/collective_rpc", body='{"method": "reload_weights"}', timeout_s=12),
            SleepStep("/reset_prefix_cache", timeout_s=10),
        ),
        query=VLLM_QUERY,
        canary=True,
    )


def test_macros_and_the_environment_reach_endpoints_and_bodies_and_the_port_stays_open():
    text = """
macros: {level: 2, route: "/s/${env.SECRET}"}
models:
  m:
    cmd: x ${PORT}
    sleepMode: enable
    macros: {who: "me-${MODEL_ID}"}
    sleepEndpoints:
      - {endpoint: "${route}?level=${level}&port=${PORT}", body: '{"who": "${who}", "port": ${PORT}}'}
    wakeEndpoints: [{endpoint: "/w/${MODEL_ID}", timeout: "${level}"}]
"""
    found = model(text, env={"SECRET": "hush"}).launch
    assert found.sleeping is not None
    assert found.sleeping.sleep == (SleepStep("/s/hush?level=2&port=${PORT}", body='{"who": "me-m", "port": ${PORT}}'),)
    assert found.sleeping.wake == (SleepStep("/w/m", timeout_s=2),)
    at_port = found.at_port(7).sleeping
    assert at_port is not None
    assert at_port.sleep == (SleepStep("/s/hush?level=2&port=7", body='{"who": "me-m", "port": 7}'),)


@pytest.mark.parametrize(
    ("keys", "message"),
    [
        ("sleepEndpoints: [{endpoint: '/${nope}'}]", "models.m.sleepEndpoints[0].endpoint: unknown macro '${nope}'"),
        (
            "wakeEndpoints: [{endpoint: /a}, {endpoint: /b, body: '${nope}'}]",
            "models.m.wakeEndpoints[1].body: unknown macro '${nope}'",
        ),
        ("sleepEndpoints: [{endpoint: '/${PID}'}]", "models.m.sleepEndpoints[0].endpoint: unknown macro '${PID}'"),
        ("sleepEndpoints: [{body: x}]", "models.m.sleepEndpoints[0].endpoint: the key 'endpoint' is required here"),
        ("sleepEndpoints: [{endpoint: ''}]", "models.m.sleepEndpoints[0].endpoint: must not be empty"),
        ("sleepEndpoints: [{endpoint: 'http://other/s'}]", "sleepEndpoints[0].endpoint: must be a path such as"),
        ("sleepEndpoints: [{endpoint: '//other/s'}]", "sleepEndpoints[0].endpoint: must be a path such as"),
        ("wakeEndpoints: [{endpoint: /a, method: DELETE}]", "method: must be GET, POST, PUT or PATCH"),
        ("wakeEndpoints: [{endpoint: /a, timeout: -1}]", "wakeEndpoints[0].timeout: must be at least 0, got -1"),
        ("wakeEndpoints: [{endpoint: /a, body: {a: 1}}]", "wakeEndpoints[0].body: must be a string, not a mapping"),
        (
            "wakeEndpoints: [{endpont: /a}]",
            "wakeEndpoints[0].endpont: unknown key 'endpont' (did you mean 'endpoint'?)",
        ),
        ("wakeEndpoints: {endpoint: /a}", "models.m.wakeEndpoints: must be a list, not a mapping"),
    ],
)
@pytest.mark.parametrize("mode", ["enable", "disable"])
def test_steps_are_checked_even_if_they_are_not_used(mode, keys, message):
    other = "sleepEndpoints" if keys.startswith("wake") else "wakeEndpoints"
    text = f"models: {{m: {{cmd: 'x ${{PORT}}', sleepMode: {mode}, {keys}, {other}: [{{endpoint: /o}}]}}}}"
    assert message in problems(text)
    assert "enable needs" not in problems(text)


def test_a_misspelt_key_of_a_step_is_said_once_and_hides_nothing_else():
    text = "models: {m: {cmd: 'x ${PORT}', sleepEndpoints: [{endpoint: /a, bdy: x}], ttl: x}}\nglobalTTL: x"
    assert [issue.path for issue in issues(text)] == ["models.m.sleepEndpoints[0].bdy", "models.m.ttl", "globalTTL"]


@pytest.mark.parametrize(
    ("written", "endpoint"),
    [
        ("sleep?level=1", "/sleep?level=1"),
        (" /sleep#note ", "/sleep"),
        ("/größe und%20mehr?a=ü&b=c", "/gr%C3%B6%C3%9Fe%20und%20mehr?a=%C3%BC&b=c"),
        ("/a\\r\\nHost: b", "/a%0D%0AHost:%20b"),
    ],
)
def test_endpoints_become_paths_that_can_be_sent(written, endpoint):
    lists = f'sleepEndpoints: [{{endpoint: "{written}"}}], wakeEndpoints: [{{endpoint: /w}}]'
    assert sleeping(f"sleepMode: enable, {lists}").sleep == (SleepStep(endpoint),)


@pytest.mark.parametrize("written", ["post", "Post", "POST"])
def test_methods_are_taken_in_any_case(written):
    found = sleeping(
        f"sleepMode: enable, sleepEndpoints: [{{endpoint: s, method: {written}}}], wakeEndpoints: [{{endpoint: w?a}}]"
    )
    assert found.sleep == (SleepStep("/s", "POST"),)
    assert found.wake == (SleepStep("/w?a", "POST"),)


def test_a_step_without_a_limit_of_its_own_takes_the_global_one():
    steps = "sleepEndpoints: [{endpoint: /a}, {endpoint: /b, timeout: 3}], wakeEndpoints: [{endpoint: /c, timeout: 0}]"
    found = sleeping(f"sleepMode: enable, {steps}", "sleepRequestTimeout: 40\nwakeRequestTimeout: 50")
    assert [step.timeout_s for step in (*found.sleep, *found.wake)] == [40, 3, 50]


@pytest.mark.parametrize("key", ["sleepRequestTimeout", "wakeRequestTimeout"])
@pytest.mark.parametrize("value", ["0", "-5"])
def test_time_limits_are_positive(key, value):
    assert one_problem(f"{key}: {value}").endswith(f"{key}: must be at least 1, got {value}")


@pytest.mark.parametrize("mode", ["", "sleepMode: disable, ", "sleepMode: '', ", "sleepMode: ~, "])
def test_lists_alone_do_not_make_a_model_sleep(mode):
    loaded = loads(f"models: {{m: {{cmd: 'x ${{PORT}}', {mode}{STEPS}}}}}")
    assert loaded.settings.models["m"].launch.sleeping is None
    assert loaded.fleet.models["m"].sleeps is False


@pytest.mark.parametrize("mode", ["auto", "level1", "on", "Enable", "true"])
def test_only_enable_and_disable_are_modes(mode):
    assert "models.m.sleepMode: must be 'enable' or 'disable'" in one_problem(
        f"models: {{m: {{cmd: 'x ${{PORT}}', sleepMode: {mode}, {STEPS}}}}}"
    )


@pytest.mark.parametrize(
    ("keys", "missing"),
    [
        ("", "sleepEndpoints and wakeEndpoints"),
        ("sleepEndpoints: [{endpoint: /s}]", "wakeEndpoints"),
        ("wakeEndpoints: [{endpoint: /w}], sleepEndpoints: []", "sleepEndpoints"),
        ("sleep: {warmup: true}", "sleepEndpoints and wakeEndpoints"),
    ],
)
def test_to_enable_sleep_both_lists_or_a_preset_are_needed(keys, missing):
    text = f"models: {{m: {{cmd: 'x ${{PORT}}', sleepMode: enable, {keys}}}}}"
    expected = f"models.m.sleepMode: enable needs {missing}: give both lists, or a sleep.preset"
    assert expected in one_problem(text)
    assert not _is_valid(text)


@pytest.mark.parametrize("keys", [STEPS, "sleep: {preset: sglang}", f"sleep: {{warmup: true}}, {STEPS}"])
def test_what_enables_sleep_is_valid_for_editors_too(keys):
    text = f"models: {{m: {{cmd: 'x ${{PORT}}', sleepMode: enable, {keys}}}}}"
    assert loads(text).fleet.models["m"].sleeps
    assert _is_valid(text)


def _is_valid(text: str) -> bool:
    source = parse(text, "config.yaml", Issues("config.yaml"), {})
    assert source is not None
    return jsonschema.Draft202012Validator(json_schema()).is_valid(source.root)


@pytest.mark.parametrize(
    ("top", "own", "idle_s"),
    [
        ("", "", None),
        ("", "sleepAfter: 300, ", 300),
        ("sleepAfter: 60", "", 60),
        ("sleepAfter: 60", "sleepAfter: 300, ", 300),
        ("sleepAfter: 60", "sleepAfter: 0, ", None),
    ],
)
def test_idle_seconds_until_asleep(top, own, idle_s):
    loaded = loads(
        f"{top}\nmodels: {{m: {{cmd: 'x ${{PORT}}', {own}sleep: {{preset: sglang}}}}, o: {{cmd: 'x ${{PORT}}'}}}}"
    )
    assert loaded.warnings == ()
    assert loaded.fleet.models["m"].sleep_after_s == idle_s
    assert loaded.fleet.models["o"].sleep_after_s is None


@pytest.mark.parametrize(
    ("top", "keys", "warned"),
    [
        ("", "sleepAfter: 60, ttl: 60, sleep: {preset: sglang}", "models.m.sleepAfter: it never sleeps when idle: ttl"),
        (
            "sleepAfter: 90\nglobalTTL: 60",
            "sleep: {preset: sglang}",
            "it never sleeps when idle: ttl stops it after 60 s",
        ),
        ("", "sleepAfter: 60, ttl: 61, sleep: {preset: sglang}", ""),
        ("", "sleepAfter: 60, ttl: 0, sleep: {preset: sglang}", ""),
        ("", "sleepAfter: 60", "models.m.sleepAfter: has no effect: nothing says how it sleeps; give a sleep.preset"),
        ("", "sleep: {verify: false}", "models.m.sleep: has no effect: nothing says how it sleeps"),
        ("", f"sleep: {{warmup: true}}, {STEPS}", "models.m.sleep: has no effect: nothing says how it sleeps"),
        ("", "sleepMode: disable, sleepAfter: 60, sleep: {preset: sglang}", ""),
        ("", "sleepAfter: 0", ""),
        ("", "sleep: ~", ""),
        (
            "",
            "sleepMode: enable, sleepEndpoints: [{endpoint: /s, body: x}], wakeEndpoints: [{endpoint: /w}]",
            "is no JSON",
        ),
    ],
)
def test_what_has_no_effect_is_warned_about(top, keys, warned):
    found = loads(f"{top}\nmodels: {{m: {{cmd: 'x ${{PORT}}', {keys}}}}}").warnings
    assert len(found) == bool(warned)
    assert all(warned in str(issue) for issue in found)


def test_what_sleepers_may_take():
    fleet = loads("sleepers: {max: 3, hostMemory: 64GiB}").fleet
    assert (fleet.sleepers_max, fleet.sleepers_host_bytes) == (3, 64 << 30)
    assert (loads("").fleet.sleepers_max, loads("").fleet.sleepers_host_bytes) == (None, None)
    assert loads("sleepers: {max: 0}").fleet.sleepers_max == 0
    assert "sleepers.max: must be at least 0, got -1" in one_problem("sleepers: {max: -1}")


def test_when_memory_counts_as_free():
    assert loads("").settings.memory == MemorySettings(0.9, 30, start_anyway=False)
    text = "gpuMemory: {freed: 75, timeout: 5, onTimeout: start-anyway}"
    assert loads(text).settings.memory == MemorySettings(0.75, 5, start_anyway=True)
    assert "gpuMemory.freed: must be at most 100, got 101" in one_problem("gpuMemory: {freed: 101}")
    assert "gpuMemory.freed: must be at least 1, got 0" in one_problem("gpuMemory: {freed: 0}")
    assert "gpuMemory.timeout: must be at least 1, got 0" in one_problem("gpuMemory: {timeout: 0}")
    assert "gpuMemory.onTimeout: must be 'fail' or 'start-anyway'" in one_problem("gpuMemory: {onTimeout: wait}")
