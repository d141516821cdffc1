"""What a preset, or the sleep section, makes of how a model sleeps. The lists themselves: test_sleeping.py."""

from typing import get_args

import pytest

from llmswap.config.presets import PRESETS, VLLM_QUERY, Preset
from llmswap.config.settings import Sleeping, SleepStep
from tests.config.reading import one_problem, problems
from tests.config.test_sleeping import STEPS, launch, sleeping


def test_a_preset_brings_its_steps_limits_and_proof():
    found = sleeping("sleep: {preset: vllm-l2}")
    assert found == PRESETS["vllm-l2"]
    assert [step.endpoint for step in found.wake] == [
        *("/wake_up?tags=weights", "/collective_rpc", "/wake_up?tags=kv_cache", "/reset_prefix_cache")
    ]
    assert (found.query, found.verify_memory, found.awake_check) == (VLLM_QUERY, True, True)


@pytest.mark.parametrize(
    ("step", "level"),
    [
        (SleepStep("/sleep?level=2&mode=wait"), 2),
        (SleepStep("/sleep?mode=wait&level=1"), 1),
        (SleepStep("/sleep?level=20"), 1),
        (SleepStep("/sleep", body='{"level": 2}'), 2),
        (SleepStep("/doze"), 1),
    ],
)
def test_how_deep_a_model_sleeps_is_told_by_its_steps(step, level):
    assert Sleeping((step,), ()).level == level
    assert [PRESETS[name].level for name in ("vllm-l1", "vllm-l2", "sglang")] == [1, 2, 1]


def test_every_preset_is_one_that_the_file_may_name():
    assert {name: sleeping(f"sleep: {{preset: {name}}}").preset for name in PRESETS} == {name: name for name in PRESETS}
    assert set(get_args(Preset)) == PRESETS.keys()


def test_a_preset_keeps_its_time_limits_whatever_the_file_says_of_lists():
    """One global limit for all would be the end of a reload of weights."""
    top = "sleepRequestTimeout: 20\nwakeRequestTimeout: 20"
    assert PRESETS["vllm-l1"].sleep[0].timeout_s > 60
    for name, preset in PRESETS.items():
        found = sleeping(f"sleep: {{preset: {name}}}", top)
        assert (found.sleep, found.wake) == (preset.sleep, preset.wake)


def test_the_models_own_time_limits_go_before_the_presets_and_the_global_ones():
    own = "sleepTimeout: 700, wakeTimeout: 800"
    found = sleeping(f"sleep: {{preset: vllm-l2, {own}}}", "sleepRequestTimeout: 20\nwakeRequestTimeout: 20")
    assert [step.timeout_s for step in found.sleep] == [700]
    assert {step.timeout_s for step in found.wake} == {800}
    steps = "sleepEndpoints: [{endpoint: /a}, {endpoint: /b, timeout: 3}], wakeEndpoints: [{endpoint: /c}]"
    listed = sleeping(f"sleepMode: enable, {steps}, sleep: {{{own}}}", "sleepRequestTimeout: 20")
    assert [step.timeout_s for step in (*listed.sleep, *listed.wake)] == [700, 3, 800]


@pytest.mark.parametrize(
    ("keys", "heard"),
    [
        ("sleep: {preset: vllm-l2}", True),
        ("sleep: {preset: vllm-l2, verify: no}", False),
        ("sleep: {preset: vllm-l2, canary: no}", False),
        ("sleep: {preset: vllm-l1}", False),
        ("sleep: {preset: sglang, canary: yes, verify: no}", True),
        (
            "sleepMode: enable, sleepEndpoints: [{endpoint: '/sleep?level=2'}], wakeEndpoints: [{endpoint: wake_up}]",
            True,
        ),
        (
            "sleepMode: enable, sleepEndpoints: [{endpoint: '/sleep?level=1'}], wakeEndpoints: [{endpoint: wake_up}]",
            False,
        ),
        (f"sleepMode: enable, {STEPS}", False),
    ],
)
def test_a_canary_is_heard_where_weights_are_read_anew_or_the_model_says_so(keys, heard):
    assert sleeping(keys).canary is heard


def test_a_preset_enables_sleep_unless_the_model_says_disable():
    assert sleeping("sleepMode: enable, sleep: {preset: vllm-l1}") == sleeping("sleep: {preset: vllm-l1}")
    assert launch("sleepMode: disable, sleep: {preset: vllm-l1}").sleeping is None


def test_a_preset_and_lists_exclude_each_other():
    found = problems(f"models: {{m: {{cmd: 'x ${{PORT}}', sleep: {{preset: sglang}}, {STEPS}}}}}")
    for key in ("sleepEndpoints", "wakeEndpoints"):
        assert f"models.m.{key}: cannot be used beside sleep.preset, which brings its own; remove one of them" in found


@pytest.mark.parametrize(
    ("keys", "message"),
    [
        ("preset: vllm", "models.m.sleep.preset: must be 'vllm-l1', 'vllm-l2' or 'sglang', not 'vllm' (did you mean"),
        ("presets: sglang", "models.m.sleep.presets: unknown key 'presets' (did you mean 'preset'?)"),
        ("preset: sglang, drainTimeout: -1", "models.m.sleep.drainTimeout: must be at least 0, got -1"),
        ("preset: sglang, sleepTimeout: 0", "models.m.sleep.sleepTimeout: must be at least 1, got 0"),
        ("preset: sglang, wakeTimeout: -1", "models.m.sleep.wakeTimeout: must be at least 1, got -1"),
        ("preset: sglang, residual: -1", "models.m.sleep.residual: must be at least 0, got -1"),
        ("preset: sglang, residual: 2 gigs", "models.m.sleep.residual: must be a size such as"),
    ],
)
def test_misfits_of_the_sleep_section_are_explained_once(keys, message):
    assert message in one_problem(f"models: {{m: {{cmd: 'x ${{PORT}}', sleepMode: enable, sleep: {{{keys}}}}}}}")


def test_without_verify_answers_are_believed():
    found = sleeping("sleep: {preset: vllm-l1, verify: no}")
    assert (found.query, found.verify_memory, found.awake_check) == (None, False, False)


def test_lists_are_tuned_by_the_sleep_section():
    own = "warmup: yes, residual: 3GiB, drainTimeout: 5"
    found = sleeping(f"sleepMode: enable, {STEPS}, sleep: {{{own}}}")
    assert (found.warmup, found.residual_bytes, found.drain_s) == (True, 3 << 30, 5)
    assert (found.query, found.verify_memory, found.awake_check) == (None, True, True)


@pytest.mark.parametrize(
    ("sleep", "wake", "asked"),
    [
        ("/sleep?level=1", "/wake_up?tags=weights", True),
        ("sleep", "wake_up", True),
        ("/sleep", "/wake", False),
        ("/release_memory_occupation", "/wake_up", False),
    ],
)
def test_lists_of_vllms_routes_are_verified_by_asking_vllm(sleep, wake, asked):
    steps = f"sleepEndpoints: [{{endpoint: '{sleep}'}}], wakeEndpoints: [{{endpoint: '{wake}'}}]"
    assert sleeping(f"sleepMode: enable, {steps}").query == (VLLM_QUERY if asked else None)
