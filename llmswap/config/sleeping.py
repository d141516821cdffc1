"""How each model sleeps and wakes, out of a preset or the user's own lists."""

import json
import re
from dataclasses import replace
from string import punctuation
from urllib.parse import quote

from llmswap.config.issues import Issues
from llmswap.config.presets import PRESETS, VLLM_QUERY
from llmswap.config.schema import ConfigFile
from llmswap.config.schema_models import ModelSection
from llmswap.config.schema_sleeping import SleepSection, StepSection
from llmswap.config.settings import PORT_MACRO, MemorySettings, Sleeping, SleepQuery, SleepStep
from llmswap.config.tree import Path
from llmswap.core.fleet import Model, ModelId

DEFAULT_TIMEOUT_S = 10
_FULL_URL = re.compile(r"[a-z][a-z0-9+.-]*://|//", re.IGNORECASE)


def memory(file: ConfigFile) -> MemorySettings:
    """Gather when device memory counts as free."""
    section = file.gpu_memory
    return MemorySettings(section.freed / 100, float(section.timeout), section.on_timeout == "start-anyway")


def sleeping(model: ModelId, section: ModelSection, file: ConfigFile, issues: Issues) -> Sleeping | None:
    """Gather how a model sleeps; None if it does not. Steps that are not used are checked all the same."""
    path = ("models", model)
    own = section.sleep
    sleep_s = own.sleep_timeout or file.sleep_request_timeout
    wake_s = own.wake_timeout or file.wake_request_timeout
    sleep = _steps(section.sleep_endpoints, (*path, "sleepEndpoints"), sleep_s, issues)
    wake = _steps(section.wake_endpoints, (*path, "wakeEndpoints"), wake_s, issues)
    lists = {"sleepEndpoints": sleep, "wakeEndpoints": wake}
    if (preset := own.preset) is not None:
        for key in (key for key, steps in lists.items() if steps):
            issues.error((*path, key), "cannot be used beside sleep.preset, which brings its own; remove one of them")
        return None if section.sleep_mode == "disable" else _tuned(_of_preset(PRESETS[preset], own), section)
    if section.sleep_mode != "enable":
        return None
    if sleep and wake:
        return _tuned(_of_lists(sleep, wake), section)
    if not any(issues.is_wrong((*path, key)) for key in (*lists, "sleep")):  # misfits were taken out
        missing = " and ".join(key for key, steps in lists.items() if not steps)
        issues.error((*path, "sleepMode"), f"enable needs {missing}: give both lists, or a sleep.preset")
    return None


def sleep_after_s(section: ModelSection, file: ConfigFile) -> float | None:
    """Give the idle seconds after which a model that can sleep is put to sleep."""
    return float(file.sleep_after if section.sleep_after is None else section.sleep_after) or None


def check_tiers(model: Model, section: ModelSection, issues: Issues) -> None:
    """Warn about keys that change nothing, because it does not sleep or is stopped before it would."""
    path = ("models", model.id)
    if not model.sleeps:
        for key, given in (("sleep", section.sleep.model_fields_set), ("sleepAfter", section.sleep_after)):
            if given and section.sleep_mode != "disable":
                issues.warn((*path, key), "has no effect: nothing says how it sleeps; give a sleep.preset")
    elif model.sleep_after_s is not None and model.idle_ttl_s is not None and model.idle_ttl_s <= model.sleep_after_s:
        message = (
            f"it never sleeps when idle: ttl stops it after {model.idle_ttl_s:g} s, sleepAfter is no less than that"
        )
        issues.warn((*path, "sleepAfter"), message)


def path_of(step: SleepStep) -> str:
    """Give a step's endpoint without its query."""
    return step.endpoint.partition("?")[0]


def _tuned(chosen: Sleeping, section: ModelSection) -> Sleeping:
    own = section.sleep
    return replace(
        chosen,
        query=chosen.query if own.verify else None,
        verify_memory=own.verify,
        awake_check=own.verify,
        residual_bytes=own.residual,
        warmup=own.warmup,
        canary=chosen.canary and own.verify if own.canary is None else own.canary,
        drain_s=float(own.drain_timeout),
    )


def _of_preset(preset: Sleeping, own: SleepSection) -> Sleeping:
    """Give a preset the model's time limits, if it has any. Global ones are for lists: a reload takes what it takes."""

    def limited(steps: tuple[SleepStep, ...], limit: int | None) -> tuple[SleepStep, ...]:
        return steps if limit is None else tuple(replace(step, timeout_s=float(limit)) for step in steps)

    return replace(preset, sleep=limited(preset.sleep, own.sleep_timeout), wake=limited(preset.wake, own.wake_timeout))


def _of_lists(sleep: tuple[SleepStep, ...], wake: tuple[SleepStep, ...]) -> Sleeping:
    """Take the user's own steps. If they are vLLM's routes, it is known how to verify them."""
    listed = Sleeping(sleep, wake, query=_known_query(sleep, wake))
    return replace(listed, canary=listed.query is not None and listed.level == 2)


def _known_query(sleep: tuple[SleepStep, ...], wake: tuple[SleepStep, ...]) -> SleepQuery | None:
    """Give the question that vLLM answers, if these are its routes."""
    asleep = any(path_of(step) == "/sleep" for step in sleep)
    return VLLM_QUERY if asleep and any(path_of(step) == "/wake_up" for step in wake) else None


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
    endpoint = quote(written.strip().partition("#")[0], safe=punctuation)
    if _FULL_URL.match(endpoint) or not endpoint:
        issues.error(path, "must be a path such as /sleep?level=1, which is sent to the model's proxy")
    return endpoint if endpoint.startswith("/") else f"/{endpoint}"


def _is_json(text: str) -> bool:
    try:
        json.loads(text.replace(PORT_MACRO, "1"))
    except ValueError:
        return False
    return True
