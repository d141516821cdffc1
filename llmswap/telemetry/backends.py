"""What the configuration tells of a model that spans want to name: its engine, and how deep it sleeps."""

import re
from collections.abc import Mapping
from dataclasses import dataclass

from llmswap.config.engines import Command, Engine
from llmswap.config.settings import Launch
from llmswap.core.fleet import ModelId
from llmswap.telemetry.names import WAKE1, WAKE2

UNKNOWN = "unknown"
_NAMES = {Engine.VLLM: "vllm", Engine.SGLANG: "sglang"}
_LLAMA = re.compile(r"(^|[\s/'\"])(llama-server|llama\.cpp)\b")


@dataclass(frozen=True, slots=True)
class Backend:
    """One model's engine.

    Attributes:
        name: `vllm`, `sglang`, `llama_cpp` or `unknown`: a closed set.
        wake: What a wake of it is called: `wake1`, or `wake2` where sleeping drops the weights.
    """

    name: str = UNKNOWN
    wake: str = WAKE1


def backends_of(launches: Mapping[ModelId, Launch]) -> dict[ModelId, Backend]:
    """Tell what each model runs on, as far as its command says."""
    return {model: Backend(_name(launch.cmd), _wake(launch)) for model, launch in launches.items()}


def _name(cmd: str) -> str:
    engine = Command(cmd).engine
    if engine is not None:
        return _NAMES[engine]
    return "llama_cpp" if _LLAMA.search(cmd) else UNKNOWN


def _wake(launch: Launch) -> str:
    return WAKE2 if launch.sleeping is not None and launch.sleeping.level == 2 else WAKE1
