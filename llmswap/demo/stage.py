"""The demo's scenery: three simulated models on one simulated GPU, written as the config file anybody could write."""

import json
import shlex
import socket
import sys
from dataclasses import dataclass
from pathlib import Path

GPU_GIB = 24.0
MAX_WAIT_S = 40.0  # at time scale 1; with the default of 120 s a newcomer would watch nothing swap for half a minute
PLOT = "Simulated engines{speed}. big-reasoner needs the GPU alone, hence the swaps."
GROUPS = """
groups:
  together:            # these two fit beside each other ...
    swap: false
    members: [small-chat, coder]
  alone:               # ... but not beside this one
    members: [big-reasoner]
"""


@dataclass(frozen=True, slots=True)
class Part:
    """One simulated model. Its times are at time scale 1 and roughly those of real quantised models; estimates.

    Attributes:
        load_s: From spawn to ready.
        itl_ms: Between two tokens.
    """

    model: str
    gib: float
    load_s: float
    ttft_ms: float
    itl_ms: float


CAST = (
    Part("small-chat", 4.0, 3.0, 60, 9),
    Part("coder", 15.0, 7.0, 120, 16),
    Part("big-reasoner", 22.0, 12.0, 250, 30),
)


def write_config(folder: Path, time_scale: float, journal: Path) -> Path:
    """Write config.yaml into the folder, and give its path."""
    lines = [
        "# The config of this demo. The commands are simulated servers; yours would be llama-server or vllm.",
        "logToStdout: none     # the demo's own view tells the story",
        "journal:              # what happens, for `llmswap simulate` and `llmswap replay`",
        f"  path: {json.dumps(str(journal), ensure_ascii=False)}",
        "routing:",
        "  scheduler:",
        "    settings:",
        "      fair:",
        f"        maxWait: {max(1, round(MAX_WAIT_S * time_scale))}       # whoever waits longer goes first",
        "models:",
    ]
    for part in CAST:
        lines += [f"  {part.model}:", "    cmd: |"]
        lines += [f"      {line}" for line in _command(part, folder, time_scale)]
    path = folder / "config.yaml"
    path.write_text("\n".join(lines) + GROUPS)
    return path


def _command(part: Part, folder: Path, time_scale: float) -> list[str]:
    return [
        f"{shlex.quote(sys.executable)} -m llmswap.fake_upstream --port ${{PORT}}",
        f"--persona llamacpp --model {part.model} --time-scale {time_scale:g}",
        f"--boot {part.load_s:g} --ttft {part.ttft_ms:g} --itl {part.itl_ms:g} --output-tokens lognormal:120",
        f"--gpu-ready {part.gib:g} --gpu-ledger {shlex.quote(str(ledger_path(folder)))} --gpu-total {GPU_GIB:g}",
        "--max-num-seqs 4",
    ]


def ledger_path(folder: Path) -> Path:
    """Give the file in which the simulated servers share the GPU."""
    return folder / "gpu.json"


def is_free(port: int) -> bool:
    """Say whether a loopback port can be listened on."""
    try:
        socket.create_server(("127.0.0.1", port)).close()
    except OSError:
        return False
    return True
