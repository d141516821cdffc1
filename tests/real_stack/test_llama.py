"""llmswap on an image that has an engine: the same Dockerfile, a real llama-server, a tiny model of random weights."""

import json
import subprocess
import sys
import urllib.request
from collections.abc import Iterator

import pytest
import yaml

from tests.real_stack.clone import Stack
from tests.real_stack.engine import stack_scripts, told
from tests.stack import until_now

pytestmark = [pytest.mark.real, pytest.mark.timeout(900)]

ENGINE_IMAGE = "local/llama-server:debian"  # of images.sh; has no Python
BASE = "llmswap-test/llama-server:debian"
# The same, and what our stand-in for Python's image knows of where this machine gets packages from.
BASE_DOCKERFILE = f"""
FROM python:3.13-slim AS known
FROM {ENGINE_IMAGE}
COPY --from=known /etc/pip.conf /etc/pip.conf
COPY --from=known /etc/ssl/certs/ca-certificates.crt /etc/ssl/certs/ca-certificates.crt
"""
CONFIG = {
    "allowUnauthenticated": True,
    "allowedHosts": ["llmswap"],
    "models": {"tiny": {"cmd": "llama-server --port ${PORT} --metrics --model /models/tiny.gguf -c 1024 -t 1"}},
}


@pytest.fixture
def llama(stack: Stack, tmp_path) -> Iterator[Stack]:
    """Run llmswap on the image of llama.cpp."""
    tmp_path.chmod(0o755)
    models = tmp_path / "models"
    models.mkdir(mode=0o755)
    command = [sys.executable, stack_scripts() / "gen_tiny_gguf.py", models / "tiny.gguf"]
    subprocess.run(command, check=True, timeout=120, stdin=subprocess.DEVNULL, capture_output=True)
    (models / "tiny.gguf").chmod(0o644)
    (tmp_path / "Dockerfile").write_text(BASE_DOCKERFILE)
    stack.engine.run("docker", "build", "--quiet", "--tag", BASE, str(tmp_path))
    (stack.root / "deploy" / "llama.yaml").write_text(yaml.safe_dump(CONFIG))
    given = {"LLMSWAP_BASE_IMAGE": BASE, "LLMSWAP_TAG": "llama", "LLMSWAP_CONFIG": "llama.yaml"}
    with stack.otherwise(**given, LLMSWAP_MODELS=str(models)):
        stack.up("llmswap")
        yield stack


def test_a_real_engine_serves_from_llmswaps_own_container(llama: Stack):
    body = {"model": "tiny", "messages": [{"role": "user", "content": "tell me"}], "max_tokens": 8}
    request = urllib.request.Request(llama.llmswap + "/v1/chat/completions", json.dumps(body).encode())
    request.add_header("Content-Type", "application/json")
    with urllib.request.urlopen(request, timeout=90) as answer:
        assert json.load(answer)["usage"]["completion_tokens"] > 0
    told(f"a real llama-server served in llmswap's container, built on {ENGINE_IMAGE}")
    until_now(
        lambda: llama.samples('llamacpp:tokens_predicted_total{job="llmswap-upstream", model="tiny"}'),
        "the engine's own metrics are scraped through llmswap",
        60,
    )
    sockets = [line.split() for line in llama.compose("exec", "-T", "llmswap", "cat", "/proc/net/tcp").splitlines()[1:]]
    listening = {address for _, address, _, state, *_ in sockets if state == "0A"}
    assert len(listening) >= 2, "llmswap's port, and the engine's"
    assert {address for address in listening if address.startswith("00000000:")} == {f"00000000:{8080:04X}"}
