"""What a command line says of the engine it starts, and whether that engine can sleep as it is told to.

Only for warnings: in doubt (a wrapper script, a config file of its own) it says nothing.
"""

import re
from collections.abc import Mapping
from enum import StrEnum
from itertools import pairwise
from pathlib import PurePath
from urllib.parse import parse_qs

from llmswap.config.issues import Issues
from llmswap.config.schema import ConfigFile
from llmswap.config.schema_models import ModelSection
from llmswap.config.settings import Launch, Sleeping, SleepStep
from llmswap.config.sleeping import path_of
from llmswap.config.tree import Path

_DEV_MODE = "VLLM_SERVER_DEV_MODE"
_WEIGHTS_LOST = "its weights are lost when it sleeps"


class Engine(StrEnum):
    """An engine that a command line can be known by."""

    VLLM = "vLLM"
    SGLANG = "SGLang"


_OF_PRESET = {"vllm-l1": Engine.VLLM, "vllm-l2": Engine.VLLM, "sglang": Engine.SGLANG}
_PROGRAMS = {"vllm": Engine.VLLM, "sglang": Engine.SGLANG}
_MARKS = {
    "vllm.entrypoints.": Engine.VLLM,
    "vllm/vllm-openai": Engine.VLLM,
    "sglang.launch_server": Engine.SGLANG,
    "lmsysorg/sglang": Engine.SGLANG,
}


class Command:
    """A command line, as far as it can be read.

    Attributes:
        engine: What it starts, if that is clear.
        options: The names of its `--options`, with hyphens; None if there may be more than stand in it.
    """

    def __init__(self, cmd: str) -> None:
        words = re.findall(r"[^\s'\"]+", cmd)
        self.text = cmd
        self.engine = _engine(words)
        options = {word.partition("=")[0].replace("_", "-") for word in words if word.startswith("--")}
        self.options = None if "--config" in options else options

    def lacks(self, option: str) -> bool:
        """Whether it certainly has no such option."""
        return self.options is not None and option not in self.options

    def has(self, option: str) -> bool:
        """Whether it certainly has it."""
        return self.options is not None and option in self.options


def _engine(words: list[str]) -> Engine | None:
    for word, following in pairwise([*words, ""]):
        if following == "serve" and (found := _PROGRAMS.get(PurePath(word).name)):
            return found
        for mark, engine in _MARKS.items():
            if word.startswith(mark) or f"/{mark}" in word:
                return engine
    return None


def check_engine(
    launch: Launch, section: ModelSection, file: ConfigFile, env: Mapping[str, str], issues: Issues
) -> None:
    """Warn where what is known of an engine says that it will not sleep or wake as the config has it."""
    sleeping = launch.sleeping
    if sleeping is None:
        return
    path = ("models", launch.model)
    command = Command(launch.cmd)
    chosen = _OF_PRESET.get(sleeping.preset)
    if chosen and command.engine not in {None, chosen}:
        issues.warn((*path, "sleep", "preset"), f"is for {chosen}, but cmd starts {command.engine}")
    elif command.engine is Engine.VLLM and any(path_of(step) == "/sleep" for step in sleeping.sleep):
        _check_vllm(command, section, env, path, issues)
    elif command.engine is Engine.SGLANG and any(
        path_of(step) == "/release_memory_occupation" for step in sleeping.sleep
    ):
        _check_sglang(command, sleeping, path, issues)
    if not sleeping.preset:
        _check_lists(section, sleeping, file, path, issues)


def _check_vllm(command: Command, section: ModelSection, env: Mapping[str, str], path: Path, issues: Issues) -> None:
    if command.lacks("--enable-sleep-mode"):
        issues.warn((*path, "cmd"), "has no --enable-sleep-mode: vLLM would say that it sleeps, and free nothing")
    own = dict(item.split("=", 1) for item in section.env if "=" in item)
    given = own.get(_DEV_MODE, env.get(_DEV_MODE, ""))
    if given in {"", "0"} and _DEV_MODE not in command.text and not command.has("--env-file"):
        issues.warn((*path, "env"), f"lacks {_DEV_MODE}=1: without it vLLM has no routes for sleeping")
    if command.has("--api-key") or "VLLM_API_KEY" in own:
        for key in (key for key in ("warmup", "canary") if getattr(section.sleep, key)):
            issues.warn((*path, "sleep", key), "does nothing: its request carries no key, and this vLLM wants one")


def _check_sglang(command: Command, sleeping: Sleeping, path: Path, issues: Issues) -> None:
    if command.lacks("--enable-memory-saver"):
        issues.warn((*path, "cmd"), "has no --enable-memory-saver: SGLang would say that it sleeps, and free nothing")
    reads_again = any(path_of(step) == "/update_weights_from_disk" for step in sleeping.wake)
    if command.lacks("--enable-weights-cpu-backup") and not reads_again:
        issues.warn(
            (*path, "cmd"), f"has no --enable-weights-cpu-backup: {_WEIGHTS_LOST}, and it would answer nonsense"
        )
    for option in ("--api-key", "--admin-api-key"):
        if command.has(option):
            issues.warn((*path, "cmd"), f"has {option}, but the requests that put it to sleep carry no key")


def _check_lists(section: ModelSection, sleeping: Sleeping, file: ConfigFile, path: Path, issues: Issues) -> None:
    drops = any(path_of(step) == "/sleep" and _level(step) == "2" for step in sleeping.sleep)
    if drops and not any("reload_weights" in step.body for step in sleeping.wake):
        hint = """add /collective_rpc with body '{"method": "reload_weights"}'"""
        issues.warn((*path, "wakeEndpoints"), f"{_WEIGHTS_LOST} at level 2, and nothing here reads them again: {hint}")
    for index, step in enumerate(sleeping.sleep):
        limited = section.sleep_endpoints[index].timeout or section.sleep.sleep_timeout or file.sleep_request_timeout
        if not limited and path_of(step) == "/sleep" and _level(step) == "1":
            message = (
                "may take llmsnap's 10 s, but a first sleep at level 1 takes longer from about 8B on; set a timeout"
            )
            issues.warn((*path, "sleepEndpoints", index), message)


def _level(step: SleepStep) -> str:
    return parse_qs(step.endpoint.partition("?")[2]).get("level", ["1"])[-1]
