"""llmsnap's documented way of putting vLLM to sleep, over simulated engines that share one GPU."""

from pathlib import Path
from typing import Any

import aiohttp

from llmswap.fake_upstream import gpus
from tests.stack import Program, Stack, fake, listening_ports, one

# As in llmsnap's own documentation, key for key.
RECIPES: dict[str, dict[str, Any]] = {
    "level 1": {
        "sleepMode": "enable",
        "sleepEndpoints": [{"endpoint": "/sleep?level=1", "method": "POST"}],
        "wakeEndpoints": [{"endpoint": "/wake_up", "method": "POST"}],
    },
    "level 2": {
        "sleepMode": "enable",
        "sleepEndpoints": [{"endpoint": "/sleep?level=2", "method": "POST"}],
        "wakeEndpoints": [
            {"endpoint": "/wake_up", "method": "POST"},
            {"endpoint": "/collective_rpc", "method": "POST", "body": '{"method":"reload_weights"}'},
            {"endpoint": "/reset_prefix_cache", "method": "POST"},
        ],
    },
}


class Box:
    """A machine with one GPU of 48 GiB; every engine takes 40 of them."""

    def __init__(self, stack: Stack, directory: Path) -> None:
        self.ledger = directory / "gpu.json"
        self._stack = stack

    def engine(self, name: str, recipe: str = "level 1", /, *flags: str, config: Any = None, **options: Any) -> Any:
        """Give a model's config: a recipe, and what is said beside it. Options are the simulated engine's."""
        said = {
            "persona": "vllm",
            "enable_sleep_mode": True,
            "time_scale": 0.01,
            "boot": 0,
            "gpu_ledger": self.ledger,
            "gpu_total": 48,
            "gpu_release_lag": 0,
            "first_sleep_extra": 0,
            "output_tokens": "exact:3",
            **options,
        }
        env = ["VLLM_SERVER_DEV_MODE=1"]
        return {"cmd": fake(name, *flags, **said), "env": env, **RECIPES[recipe], **(config or {})}

    def start(self, models: dict[str, Any], **config: Any) -> Program:
        """Start llmswap with these models, and the order of llmsnap: nobody is kept for its callers."""
        return self._stack.start({"models": models, "routing": {"scheduler": {"use": "fifo"}}, **config})

    def used_bytes(self) -> int:
        """Give what is held of the GPU now."""
        return gpus.read(self.ledger).gpus[0].used_bytes

    def check_memory(self) -> None:
        """Insist that no engine ever wanted memory that another still held."""
        machine = gpus.read(self.ledger)
        assert machine.refused == 0, machine.refusals
        assert 0 < machine.gpus[0].peak_bytes <= machine.gpus[0].total_bytes


async def book(program: Program, model: str) -> dict[str, Any]:
    """Read all that a simulated engine has noted, from its own port, past llmswap."""
    port = one(listening_ports(program.upstream_pid(model)), f"port of {model}")
    async with aiohttp.ClientSession() as http, http.get(f"http://127.0.0.1:{port}/_fake/journal") as response:
        noted: dict[str, Any] = await response.json()
        return noted


async def arm(program: Program, model: str, fault: str) -> None:
    """Arm a fault of a simulated engine that runs."""
    port = one(listening_ports(program.upstream_pid(model)), f"port of {model}")
    url = f"http://127.0.0.1:{port}/_fake/fail"
    async with aiohttp.ClientSession() as http, http.post(url, json={"fail": fault}) as response:
        assert response.status == 200, await response.text()


def control_calls(noted: dict[str, Any]) -> list[str]:
    """Give the control calls of a journal, in order; state queries, probes and work left out."""
    calls = [f"{call['method']} {call['path']}" for call in noted["calls"]]
    quiet = ("/health", "/v1/", "/_fake", "/is_sleeping")
    return [call for call in calls if not call.partition(" ")[2].startswith(quiet)]


def operations(noted: dict[str, Any]) -> list[tuple[str, str]]:
    """Give what the engine went through, and how each ended."""
    return [(entry["kind"], entry["result"]) for entry in noted["operations"]]


async def order(http: aiohttp.ClientSession, program: Program, verb: str, model: str) -> tuple[int, Any]:
    """Give an order to sleep or to wake; gives the status and the JSON answer."""
    async with http.post(f"{program.url}/api/models/{verb}/{model}") as response:
        return response.status, await response.json()


async def status(http: aiohttp.ClientSession, program: Program, model: str) -> dict[str, Any]:
    """Give a model's entry of `/api/status`."""
    async with http.get(program.url + "/api/status") as response:
        entries = (await response.json())["models"]
    found: dict[str, Any] = one([entry for entry in entries if entry["model"] == model], model)
    return found
