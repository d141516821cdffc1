"""Two hundred random swaps by sleep: the whole program, simulated engines of three kinds, one GPU that a driver reads.

Nothing here is real but the processes; it stands here because it takes half a minute. Shorter: tests/faults, row 55.
"""

import asyncio
import json
import random
import sys
from collections import Counter
from pathlib import Path
from typing import Any

import aiohttp
import pytest

from llmswap.fake_upstream.gpus import GIB, read
from tests.dialogue import CHAT
from tests.stack import Program, Stack, fake
from tests.stub_gpu import StubGpu

pytestmark = pytest.mark.real

SWAPS = 200
REQUESTS = 260  # some find their model up
CLIENTS = 2
TIME_SCALE = 0.01
TOTAL_GIB = 48.0
# What is awake and all that sleeps fit with 3 to 4 GiB to spare: not even the small model may be early.
LARGE = {"gpu_ready": 30, "gpu_weights": 16, "gpu_l1": 1, "gpu_l2": 1}
SMALL = {"gpu_ready": 8, "gpu_weights": 4, "gpu_l1": 0.5, "gpu_l2": 0.5}
SLEEPERS_MAX = 5  # of the six that could sleep while two are awake: so some are stopped, and start cold
SELDOM = "other-sg"
SLOWLY_FREED = {"l1", "sg"}  # longer than the next model needs to wake, if it is not waited for
KINDS: dict[str, dict[str, Any]] = {
    "vllm-l1": {"persona": "vllm", "enable_sleep_mode": True},
    "vllm-l2": {"persona": "vllm", "enable_sleep_mode": True},
    "sglang": {"persona": "sglang", "enable_memory_saver": True, "enable_weights_cpu_backup": True},
}
MODELS = {
    "l1": ("vllm-l1", LARGE),
    "l2": ("vllm-l2", LARGE),
    "sg": ("sglang", LARGE),
    "other-l1": ("vllm-l1", LARGE),
    "other-l2": ("vllm-l2", LARGE),
    "other-sg": ("sglang", LARGE),
    "small-l1": ("vllm-l1", SMALL),
    "small-sg": ("sglang", SMALL),
}
# Stops a model as SIGTERM does, and keeps its journal: a process takes its own with it.
STOPPER = """
import os, signal, socket, sys
port, pid, folder = int(sys.argv[1]), int(sys.argv[2]), sys.argv[3]
with socket.create_connection(("127.0.0.1", port), 5) as link:
    link.sendall(b"GET /_fake/journal HTTP/1.0\\r\\n\\r\\n")
    answer = b"".join(iter(lambda: link.recv(65536), b""))
with open(f"{folder}/{pid}.json", "wb") as kept:
    kept.write(answer.partition(b"\\r\\n\\r\\n")[2])
os.kill(pid, signal.SIGTERM)
"""


class Box(StubGpu):
    """A llmswap with eight models of two sizes, of which one each may be awake."""

    def __init__(self, stack: Stack, folder: Path) -> None:
        super().__init__(folder, TOTAL_GIB)
        self.stack, self.journals = stack, folder / "journals"
        self.journals.mkdir()
        self.stopper = folder / "stopper.py"
        self.stopper.write_text(STOPPER)
        stack.environ |= {**self.environ, "VLLM_SERVER_DEV_MODE": "1"}

    def start(self) -> Program:
        groups = {"large": [], "small": []}
        for name in MODELS:
            groups["small" if name.startswith("small") else "large"].append(name)
        return self.stack.start(
            {
                "models": {name: self._model(name, *kind) for name, kind in MODELS.items()},
                "groups": {name: {"members": members, "exclusive": False} for name, members in groups.items()},
                "sleepers": {"max": SLEEPERS_MAX},
                "routing": {"scheduler": {"use": "fifo"}},
            }
        )

    def _model(self, name: str, preset: str, size: dict[str, float]) -> dict[str, Any]:
        engine = {
            **KINDS[preset],
            **size,
            "time_scale": TIME_SCALE,
            "boot": 2,
            "sigterm_delay": 0,
            "gpu_ledger": self.ledger,
            "gpu_total": TOTAL_GIB,
            "gpu_release_lag": (0.25 if name in SLOWLY_FREED else 0.05) / TIME_SCALE,
            "output_tokens": "exact:5",
        }
        stop = f"{sys.executable} -I -S {self.stopper} ${{PORT}} ${{PID}} {self.journals}"
        return {"cmd": fake(name, **engine), "cmdStop": stop, "sleep": {"preset": preset}}

    def kept(self) -> list[dict[str, Any]]:
        """Every journal that was kept."""
        return [json.loads(path.read_text()) for path in self.journals.iterdir()]


@pytest.fixture
def box(stack, tmp_path):
    return Box(stack, tmp_path)


async def client(http: aiohttp.ClientSession, program: Program, asked: list[str], heard: dict[str, set[str]]) -> None:
    """Take the next model off the list and ask it the same as always, until none is left."""
    while asked:
        model = asked.pop()
        body = {"model": model, "messages": [{"role": "user", "content": f"Who is {model}?"}]}
        async with http.post(program.url + CHAT, json=body) as answer:
            assert answer.status == 200, f"{await answer.text()}\n{program.log_text()[-8000:]}"
            heard[model].add((await answer.json())["choices"][0]["message"]["content"])


def random_models(rng: random.Random) -> list[str]:
    """Choose whom to ask, never one of the last two: so most requests are a swap."""
    asked: list[str] = []
    for _ in range(REQUESTS):
        names = [name for name in MODELS if name not in asked[-2:]]
        asked += rng.choices(names, [1 if name == SELDOM else 4 for name in names])
    return asked


@pytest.mark.timeout(180)
async def test_200_random_swaps_send_nothing_to_who_sleeps_and_never_want_memory_that_is_not_free(box, http):
    asked = random_models(random.Random(200))
    heard: dict[str, set[str]] = {name: set() for name in MODELS}
    program = box.start()
    await asyncio.gather(*(client(http, program, asked, heard) for _ in range(CLIENTS)))
    program.terminate()
    assert await program.exited() == 0
    assert [name for name, texts in heard.items() if len(texts) != 1] == []  # half awake, it would speak in other words
    log = program.log_text()
    assert log.count(": starting") + log.count(": waking") >= SWAPS
    journals = box.kept()
    assert len(journals) == log.count(": starting")  # of every life, not only of the last ones
    assert sum(journal["asleep_requests"] for journal in journals) == 0
    done = Counter((entry["kind"], entry["result"]) for journal in journals for entry in journal["operations"])
    assert {result for _, result in done} == {"ok"}
    assert done["wake", "ok"] + done["resume", "ok"] > 100
    assert len(journals) > len(MODELS)
    machine = read(box.ledger)
    assert machine.refused == 0, machine.refusals
    assert 40 * GIB < machine.gpus[0].peak_bytes <= machine.gpus[0].total_bytes
