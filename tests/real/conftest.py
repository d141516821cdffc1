"""A real llama-server with tiny random models, built once and kept outside the repository."""

import os
import subprocess
import sys
import tempfile
import zlib
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest

from tests.stack import Program, Stack

ROOT = Path(__file__).resolve().parents[2]
BUILD_LIMIT_S = 300
# Answers in a blink / speaks slowly enough to be interrupted. Neither ends an answer by itself.
ENDLESS = ("--eos-bias", "-30")
MODELS = {
    "quick": ENDLESS,
    "slow": (*ENDLESS, "--embd", "320", "--layers", "5", "--heads", "5", "--ff", "1280", "--seed", "7"),
}


@dataclass(frozen=True, slots=True)
class Llama:
    """Where the real things are."""

    server: Path
    models: dict[str, Path]

    def command(self, model: str, *flags: str) -> str:
        """Give the command line of an upstream."""
        words = (
            self.server,
            "--host 127.0.0.1 --port ${PORT} --model",
            self.models[model],
            "-c 4096 -np 2 -t 1",
            *flags,
        )
        return " ".join(map(str, words))


@pytest.fixture(scope="session")
def llama() -> Llama:
    """Unpack llama-server and write the models, if that has not been done before."""
    stack = Path(os.environ.get("LLMSWAP_STACK") or ROOT.parent / "shared" / "stack").resolve()
    script = stack / "llama_local.sh"
    if not script.exists():
        message = f"{script} is not there: the real-stack checks cannot run (LLMSWAP_STACK names another place)"
        pytest.fail(message) if os.environ.get("CI") else pytest.skip(message)
    place = Path(os.environ.get("DK") or Path(tempfile.gettempdir()) / "llmswap-stack")
    server = place / "llama" / "llama-server"
    if not server.exists():
        subprocess.run(["bash", script, server.parent], check=True, timeout=BUILD_LIMIT_S, stdin=subprocess.DEVNULL)
    models = {}
    for name, flags in MODELS.items():
        recipe = zlib.crc32(" ".join(flags).encode())
        models[name] = path = place / "models" / f"llmswap-{name}-{recipe:08x}.gguf"
        if not path.exists():
            path.parent.mkdir(parents=True, exist_ok=True)
            part = path.with_suffix(f".{os.getpid()}")
            command = [sys.executable, stack / "gen_tiny_gguf.py", part, "--name", name, *flags]
            subprocess.run(command, check=True, timeout=BUILD_LIMIT_S, stdin=subprocess.DEVNULL)
            part.replace(path)
    return Llama(server, models)


@pytest.fixture(scope="module")
def served(llama: Llama, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Program]:
    """Serve two chat models and an embedding model, one at a time, to all tests of a module."""
    config: dict[str, Any] = {
        "models": {
            "quick": {"cmd": llama.command("quick"), "aliases": ["gpt-4o-mini", "claude-3-5-haiku-latest"]},
            "slow": {"cmd": llama.command("slow"), "aliases": ["gpt-4o"], "description": "speaks slowly"},
            "embedder": {"cmd": llama.command("quick", "--embeddings", "--pooling", "mean")},
        },
    }
    stack = Stack(tmp_path_factory.mktemp("real"))
    yield stack.start(config)
    stack.close()
