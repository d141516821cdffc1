"""How each model sleeps and wakes, out of a preset or the user's own lists."""

import json
import re
from dataclasses import replace

from llmswap.config.issues import Issues
from llmswap.config.presets import PRESETS, VLLM_QUERY
from llmswap.config.schema import ConfigFile
from llmswap.config.schema_models import ModelSection
from llmswap.config.schema_sleeping import StepSection
from llmswap.config.settings import PORT_MACRO, MemorySettings, Sleeping, SleepQuery, SleepStep
from llmswap.config.tree import Path
from llmswap.core.fleet import ModelId

DEFAULT_TIMEOUT_S = 10
_FULL_URL = re.compile(r"[a-z][a-z0-9+.-]*://|//", re.IGNORECASE)


def memory(file: ConfigFile) -> MemorySettings:
    """Gather when device memory counts as free."""
    section = file.gpu_memory
    return MemorySettings(section.freed / 100, float(section.timeout), section.on_timeout == "start-anyway")


def sleeping(model: ModelId, section: ModelSection, file: ConfigFile, issues: Issues) -> Sleeping | None:
    """Gather how a model sleeps; None if it does not. Steps that are not used are checked all the same."""
    path = ("models", model)
    sleep = _steps(section.sleep_endpoints, (*path, "sleepEndpoints"), file.sleep_request_timeout, issues)
    wake = _steps(section.wake_endpoints, (*path, "wakeEndpoints"), file.wake_request_timeout, issues)
    enabled = section.sleep_mode == "enable"
    preset = section.sleep.preset
    if preset is not None:
        for key, steps in (("sleepEndpoints", sleep), ("wakeEndpoints", wake)):
            if steps:
                issues.error((*path, key), "cannot be used with sleep.preset, which brings its own; remove one of them")
        chosen = None if section.sleep_mode == "disable" else _of_preset(PRESETS[preset], file)
    elif not enabled:
        chosen = None
    elif sleep and wake:
        chosen = Sleeping(sleep, wake, query=_known_query(sleep, wake))
    else:
        missing = " and ".join(key for key, steps in (("sleepEndpoints", sleep), ("wakeEndpoints", wake)) if not steps)
        issues.error((*path, "sleepMode"), f"enable needs {missing}: give both lists, or a sleep.preset")
        chosen = None
    return None if chosen is None else _tuned(chosen, section)


def sleep_after_s(section: ModelSection, file: ConfigFile) -> float | None:
    """Give the idle seconds after which a model that can sleep is put to sleep."""
    return float(file.sleep_after if section.sleep_after is None else section.sleep_after) or None


def _tuned(chosen: Sleeping, section: ModelSection) -> Sleeping:
    own = section.sleep
    return replace(
        chosen,
        query=chosen.query if own.verify else None,
        verify_memory=own.verify,
        awake_check=own.verify,
        residual_bytes=own.residual,
        warmup=own.warmup,
        drain_s=float(own.drain_timeout),
    )


def _of_preset(preset: Sleeping, file: ConfigFile) -> Sleeping:
    """Give a preset its time limits: its own, unless the file has global ones."""

    def limited(steps: tuple[SleepStep, ...], timeout: int | None) -> tuple[SleepStep, ...]:
        return steps if timeout is None else tuple(replace(step, timeout_s=float(timeout)) for step in steps)

    return replace(
        preset,
        sleep=limited(preset.sleep, file.sleep_request_timeout),
        wake=limited(preset.wake, file.wake_request_timeout),
    )


def _known_query(sleep: tuple[SleepStep, ...], wake: tuple[SleepStep, ...]) -> SleepQuery | None:
    """Give the question that vLLM answers, if these are its routes."""
    asleep = any(_path(step) == "/sleep" for step in sleep)
    return VLLM_QUERY if asleep and any(_path(step) == "/wake_up" for step in wake) else None


def _path(step: SleepStep) -> str:
    return step.endpoint.partition("?")[0]


def _steps(listed: list[StepSection], path: Path, default: int | None, issues: Issues) -> tuple[SleepStep, ...]:
    default_s = DEFAULT_TIMEOUT_S if default is None else default
    steps = []
    for index, step in enumerate(listed):
        place = (*path, index)
        if step.body and not _is_json(step.body):
            issues.warn((*place, "body"), "is no JSON, but is sent as application/json")
        steps.append(
            SleepStep(
                _endpoint(step.endpoint, (*place, "endpoint"), issues),
                step.method,
                step.body,
                float(step.timeout or default_s),
            )
        )
    return tuple(steps)


def _endpoint(written: str, path: Path, issues: Issues) -> str:
    endpoint = written.strip().partition("#")[0]
    if _FULL_URL.match(endpoint) or not endpoint or any(char.isspace() for char in endpoint):
        issues.error(path, "must be a path such as /sleep?level=1, which is sent to the model's proxy")
    return endpoint if endpoint.startswith("/") else f"/{endpoint}"


def _is_json(text: str) -> bool:
    try:
        json.loads(text.replace(PORT_MACRO, "1"))
    except ValueError:
        return False
    return True
