"""How engines are put to sleep and woken, by name: what `sleep.preset` stands for. Data only.

Steps come in the order that never needs more device memory than the awake engine does. Their time limits are far above
what was measured, because an engine that is given up in the middle of a step must be stopped. A first sleep of level 1
takes about a second for every 2 GiB of weights, since the host memory for them is pinned then.
"""

from collections.abc import Mapping
from types import MappingProxyType
from typing import Literal

from llmswap.config.settings import Sleeping, SleepQuery, SleepStep

Preset = Literal["vllm-l1", "vllm-l2", "sglang"]

VLLM_QUERY = SleepQuery("/is_sleeping", "is_sleeping")

# `mode=wait` is for versions whose default would cut requests short; older ones ignore it, and none has any in flight.
_VLLM_L1 = Sleeping(
    sleep=(SleepStep("/sleep?level=1&mode=wait", timeout_s=300.0),),
    wake=(SleepStep("/wake_up", timeout_s=120.0),),
    preset="vllm-l1",
    query=VLLM_QUERY,
)

# Weights first and read again at once: room for the KV cache is only taken when they are whole.
_VLLM_L2 = Sleeping(
    sleep=(SleepStep("/sleep?level=2&mode=wait", timeout_s=60.0),),
    wake=(
        SleepStep("/wake_up?tags=weights", timeout_s=120.0),
        SleepStep("/collective_rpc", body='{"method": "reload_weights"}', timeout_s=600.0),
        SleepStep("/wake_up?tags=kv_cache", timeout_s=120.0),
        SleepStep("/reset_prefix_cache", timeout_s=30.0),
    ),
    preset="vllm-l2",
    query=VLLM_QUERY,
    canary=True,
)

# It refuses requests without a JSON body. Paused by `abort`, it counts as idle; it dies if it must release while busy.
_SGLANG = Sleeping(
    sleep=(
        SleepStep("/pause_generation", body='{"mode": "abort"}', timeout_s=30.0),
        SleepStep("/release_memory_occupation", body="{}", timeout_s=300.0),
    ),
    wake=(
        SleepStep("/resume_memory_occupation", body="{}", timeout_s=300.0),
        SleepStep("/continue_generation", body="{}", timeout_s=30.0),
    ),
    preset="sglang",
)

PRESETS: Mapping[Preset, Sleeping] = MappingProxyType({"vllm-l1": _VLLM_L1, "vllm-l2": _VLLM_L2, "sglang": _SGLANG})
