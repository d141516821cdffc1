"""What the configuration tells of each model: facts for a metric's labels. In doubt a fact is empty, never a guess."""

import re
from collections.abc import Mapping
from typing import NamedTuple

from llmswap.config.settings import ModelSettings
from llmswap.core.fleet import ModelId
from llmswap.telemetry.backends import UNKNOWN, backends_of
from llmswap.telemetry.names import WAKE2

_QUANTIZATION = re.compile(r"--quantization[ =](\S+)")
_GGUF = re.compile(r"[-._]((?:I?Q\d\w*|F16|BF16|F32|MXFP4))(?:[-._]\w+)*\.gguf", re.IGNORECASE)
_NAMED = re.compile(r"[-_](AWQ|GPTQ|FP8|NVFP4|INT8|INT4)\b", re.IGNORECASE)
_CONTEXT = re.compile(r"(?:--ctx-size|-c|--max-model-len|--context-length)[ =](\d+)\b")
_GPUS = re.compile(r"(?:--tensor-parallel-size|-tp|--tp|--tp-size)[ =](\d+)\b")
_VISIBLE = re.compile(r"(?:CUDA|HIP|ROCR)_VISIBLE_DEVICES=(.*)")
_LONGEST = 64


class Facts(NamedTuple):
    """The labels of `model_info`, in its order.

    Attributes:
        sleep_level: `1` or `2`; `0` if it does not sleep.
        gpus: The devices it may see, or else how many it is spread over.
    """

    backend: str
    quantization: str
    context: str
    sleep_level: str
    gpus: str


UNTOLD = Facts(UNKNOWN, "", "", "0", "")


def facts_of(models: Mapping[ModelId, ModelSettings | None]) -> dict[ModelId, Facts]:
    """Read the facts off the configuration of all models."""
    told = {model: settings for model, settings in models.items() if settings is not None}
    backends = backends_of({model: settings.launch for model, settings in told.items()})
    found = dict.fromkeys(models, UNTOLD)
    for model, settings in told.items():
        launch = settings.launch
        level = "0" if launch.sleeping is None else "2" if backends[model].wake == WAKE2 else "1"
        context = str(settings.capabilities.context or _first(launch.cmd, _CONTEXT))
        quantization = _first(launch.cmd, _QUANTIZATION, _GGUF, _NAMED)
        seen = next((match[1] for item in launch.env if (match := _VISIBLE.match(item))), "")
        gpus = seen or _first(launch.cmd, _GPUS)
        facts = (backends[model].name, quantization, context, level, gpus)
        found[model] = Facts(*(fact[:_LONGEST] for fact in facts))
    return found


def _first(text: str, *patterns: re.Pattern[str]) -> str:
    return next((match[1] for pattern in patterns if (match := pattern.search(text))), "")
