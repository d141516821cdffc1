"""What is warned about when an engine that is known by its command line cannot sleep as it is told to."""

import pytest

from llmswap.config.load import loads

VLLM = "vllm serve q --port ${PORT} --enable-sleep-mode"
SGLANG = (
    "python3 -m sglang.launch_server --model-path q --port ${PORT} --enable-memory-saver --enable-weights-cpu-backup"
)
DEV = "env: [VLLM_SERVER_DEV_MODE=1]"
LOST = "its weights are lost when it sleeps, and it would answer nonsense"
L1 = "sleep: {preset: vllm-l1}"


def warned(cmd: str, keys: str, env: dict[str, str] | None = None, top: str = "") -> list[str]:
    loaded = loads(f"{top}\nmodels: {{m: {{cmd: '{cmd}', {keys}}}}}", env=env or {})
    return sorted(f"{issue.path}: {issue.message}" for issue in loaded.warnings)


@pytest.mark.parametrize(
    ("cmd", "keys"),
    [
        (VLLM, f"{L1}, {DEV}"),
        (VLLM.replace("--enable-sleep-mode", "--enable_sleep_mode"), f"{L1}, {DEV}"),
        ("vllm serve q --port ${PORT}", DEV),  # does not sleep
        ("vllm serve q --port ${PORT} --config v.yaml", f"{L1}, {DEV}"),
        ("docker run -e VLLM_SERVER_DEV_MODE=1 -p ${PORT}:8000 vllm/vllm-openai:v0.33.0 --enable-sleep-mode", L1),
        ("docker run --env-file=e -p ${PORT}:8000 docker.io/vllm/vllm-openai --enable-sleep-mode", L1),
        ("start-my-engine ${PORT}", L1),
        ("/opt/vllm/start serve ${PORT}", L1),
        ("start-my-engine ${PORT}", "sleep: {preset: sglang}"),
        (SGLANG, "sleep: {preset: sglang}"),
        (SGLANG, "sleepMode: disable"),
    ],
)
def test_nothing_is_said_of_an_engine_that_can_sleep_or_is_not_known(cmd, keys):
    assert warned(cmd, keys) == []


@pytest.mark.parametrize(
    "cmd",
    [
        "vllm serve q --port ${PORT}",
        "/opt/venv/bin/vllm serve q --port ${PORT}",
        "uv run python -m vllm.entrypoints.openai.api_server --port ${PORT}",
        'bash -c "exec vllm serve q --port ${PORT}"',
        "docker run -p ${PORT}:8000 docker.io/vllm/vllm-openai:latest --model q",
    ],
)
@pytest.mark.parametrize("keys", [L1, "sleepMode: enable, sleepEndpoints: [{endpoint: '/sleep?level=1', timeout: 90}]"])
def test_vllm_without_what_it_needs(cmd, keys):
    wake = "" if keys == L1 else ", wakeEndpoints: [{endpoint: /wake_up}]"
    assert warned(cmd, keys + wake) == [
        "models.m.cmd: has no --enable-sleep-mode: vLLM would say that it sleeps, and free nothing",
        "models.m.env: lacks VLLM_SERVER_DEV_MODE=1: without it vLLM has no routes for sleeping",
    ]


@pytest.mark.parametrize(
    ("own", "inherited", "fine"),
    [
        ("", {"VLLM_SERVER_DEV_MODE": "1"}, True),
        ("", {"VLLM_SERVER_DEV_MODE": "0"}, False),
        (", env: [VLLM_SERVER_DEV_MODE=0]", {"VLLM_SERVER_DEV_MODE": "1"}, False),
        (", env: [VLLM_SERVER_DEV_MODE=0, VLLM_SERVER_DEV_MODE=1]", {}, True),
        (", env: [VLLM_SERVER_DEV_MODE=]", {}, False),
    ],
)
def test_the_environment_that_vllm_will_have_counts(own, inherited, fine):
    assert (warned(VLLM, L1 + own, inherited) == []) is fine


@pytest.mark.parametrize(
    ("cmd", "keys"), [(f"{VLLM} --api-key k", DEV), (VLLM, "env: [VLLM_SERVER_DEV_MODE=1, VLLM_API_KEY=k]")]
)
def test_a_warm_up_needs_a_vllm_without_a_key(cmd, keys):
    assert warned(cmd, f"{keys}, {L1}") == []
    for key in ("warmup", "canary"):
        (said,) = warned(cmd, f"{keys}, sleep: {{preset: vllm-l1, {key}: yes}}")
        assert said == (f"models.m.sleep.{key}: does nothing: its request carries no key, and this vLLM wants one")


def test_sglang_without_what_it_needs():
    cmd = "python -m sglang.launch_server --port ${PORT} --admin-api-key=k --api-key k"
    assert warned(cmd, "sleep: {preset: sglang}") == [
        "models.m.cmd: has --admin-api-key, but the requests that put it to sleep carry no key",
        "models.m.cmd: has --api-key, but the requests that put it to sleep carry no key",
        "models.m.cmd: has no --enable-memory-saver: SGLang would say that it sleeps, and free nothing",
        f"models.m.cmd: has no --enable-weights-cpu-backup: {LOST}",
    ]


def test_sglang_may_read_its_weights_from_disk_instead_of_keeping_them():
    cmd = SGLANG.removesuffix(" --enable-weights-cpu-backup")
    lists = "sleepMode: enable, sleepEndpoints: [{endpoint: /release_memory_occupation}], wakeEndpoints: "
    resume = "{endpoint: /resume_memory_occupation}"
    assert warned(cmd, f"{lists}[{resume}, {{endpoint: /update_weights_from_disk}}]") == []
    assert warned(cmd, f"{lists}[{resume}]") == [f"models.m.cmd: has no --enable-weights-cpu-backup: {LOST}"]


@pytest.mark.parametrize(("cmd", "preset"), [(VLLM, "sglang"), (SGLANG, "vllm-l2")])
def test_a_preset_of_another_engine(cmd, preset):
    (said,) = warned(cmd, f"sleep: {{preset: {preset}}}, {DEV}")
    assert said.startswith("models.m.sleep.preset: is for ")


LISTS = "sleepMode: enable, sleepEndpoints: [{endpoint: '/sleep?level=%s'%s}], wakeEndpoints: [{endpoint: /wake_up}%s]"


@pytest.mark.parametrize(
    ("level", "limit", "more", "top", "said"),
    [
        ("1", "", "", "", "models.m.sleepEndpoints[0]: may take llmsnap's 10 s, but a first sleep at level 1"),
        ("1", ", timeout: 10", "", "", ""),
        ("1", "", "", "sleepRequestTimeout: 10", ""),
        (
            "2",
            "",
            "",
            "",
            "models.m.wakeEndpoints: its weights are lost when it sleeps at level 2, and nothing here reads",
        ),
        ("2", "", ', {endpoint: /collective_rpc, body: "{\\"method\\": \\"reload_weights\\"}"}', "", ""),
    ],
)
def test_lists_that_will_not_do(level, limit, more, top, said):
    found = warned("start-my-engine ${PORT}", LISTS % (level, limit, more), top=top)
    assert len(found) == bool(said)
    assert all(said in one for one in found)
