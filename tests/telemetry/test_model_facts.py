"""What the labels of `model_info` say of a model, as far as its command tells."""

import pytest

from llmswap.config.load import loads
from llmswap.telemetry.model_facts import facts_of


@pytest.mark.parametrize(
    ("keys", "facts"),
    [
        (
            "cmd: 'llama-server -m /m/Qwen3-8B-Q4_K_M.gguf -c 8192 --port ${PORT}'",
            ("llama_cpp", "Q4_K_M", "8192", "0", ""),
        ),
        (
            "cmd: 'vllm serve Org/Model-AWQ --max-model-len=4096 --tensor-parallel-size 2 --port ${PORT}'",
            ("vllm", "AWQ", "4096", "0", "2"),
        ),
        (
            "cmd: 'vllm serve m --quantization fp8 -p ${PORT}', env: [HIP_VISIBLE_DEVICES=0], sleep: {preset: vllm-l2}",
            ("vllm", "fp8", "", "2", "0"),
        ),
        ("cmd: 'x ${PORT}', sleep: {preset: sglang}, capabilities: {context: 5}", ("unknown", "", "5", "1", "")),
    ],
)
def test_facts_are_read_off_the_configuration(keys: str, facts: tuple[str, ...]) -> None:
    config = f"models: {{m: {{{keys}}}}}"
    assert tuple(facts_of(loads(config).settings.models)["m"]) == facts
