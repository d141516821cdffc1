"""The command line: every flag, and what it becomes. Values that may change while running are in `knobs.py`."""

import argparse
import os
from collections.abc import Mapping
from dataclasses import dataclass, fields
from pathlib import Path
from typing import Any

from llmswap.fake_upstream.faults import FAULTS, BadFault, Faults
from llmswap.fake_upstream.knobs import BadKnob, Knobs
from llmswap.fake_upstream.profiles import COMPILE_CACHE_FACTOR, DEFAULT_PROFILE, PHASES, PROFILES

PERSONAS = ("generic", "llamacpp", "sglang", "vllm")
VLLM_VERSION = "0.33.0"
MODE_SINCE = (0, 17)


@dataclass(frozen=True, slots=True)
class Options:
    """What is fixed for one life of the process.

    Attributes:
        models: Names it serves under; the first is its own. Only `vllm` refuses other names.
        boot_s: Phase -> seconds, before the time scale.
        boot_since_spawn: They are counted from the spawn of the process: its own start-up is part of them.
        gpus: The GPUs it is spread over, as the machine numbers them.
        asleep_requests: What happens to requests while asleep: park, crash or 503.
        metrics: llama.cpp and SGLang serve /metrics only when told to.
        report_cached: vLLM and SGLang report cached tokens only when told to.
        dev_mode: vLLM serves its sleep routes only with VLLM_SERVER_DEV_MODE=1 in its environment.
        can_free: A sleep frees memory: vLLM with `--enable-sleep-mode`, SGLang with `--enable-memory-saver`.
        weights_backup: SGLang keeps released weights in host memory.
        health_generates: SGLang's /health makes a token.
        admin_key: SGLang wants it on its control routes; empty for none.
        idle_sleep_s: llama.cpp frees everything after so long without work; negative for never.
        router: llama.cpp was started without a model of its own; `models` are those it can load.
        models_max: How many models llama.cpp's router keeps loaded; 0 for any number.
        autoload: The router loads a model when it is asked for.
        workers: Processes of their own hold the GPU memory.
    """

    persona: str
    host: str
    port: int
    models: tuple[str, ...]
    boot_s: Mapping[str, float]
    boot_since_spawn: bool = False
    seed: int = 1
    context_tokens: int = 32_768
    ledger: Path | None = None
    gpu_total_gib: float = 80.0
    gpu_release_lag_s: float = 0.8
    gpus: tuple[int, ...] = (0,)
    workers: bool = False
    asleep_requests: str = "park"
    metrics: bool = False
    slots: bool = True
    report_cached: bool = False
    dev_mode: bool = False
    can_free: bool = True
    version: str = VLLM_VERSION
    weights_backup: bool = False
    health_generates: bool = True
    admin_key: str = ""
    idle_sleep_s: float = -1.0
    router: bool = False
    models_max: int = 4
    autoload: bool = True

    @property
    def old(self) -> bool:
        """Whether this is a vLLM from before the sleep modes."""
        return tuple(int(part) for part in self.version.split(".")[:2]) < MODE_SINCE


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Declare every flag."""
    parser.formatter_class = argparse.RawDescriptionHelpFormatter
    parser.description = "A simulated inference server: real contracts, invented words, no GPU."
    parser.epilog = _fault_help()
    parser.usage = "%(prog)s --port PORT [--persona PERSONA] [--model-profile PROFILE] [options]"
    who = parser.add_argument_group("who it is")
    who.add_argument("--persona", choices=PERSONAS, default="generic", help="whose contract it keeps")
    who.add_argument("--host", default="127.0.0.1", help="address to listen on")
    who.add_argument("--port", type=int, required=True, help="port to listen on; 0 for any, printed at start")
    who.add_argument("--model", "--served-model-name", "--alias", "-a", dest="models", nargs="+", default=[],
                     metavar="NAME", help="names it serves under (default: the profile's name)")  # fmt: skip
    who.add_argument("--model-profile", choices=tuple(PROFILES),
                     help="whose times and sizes it has (default: tiny, gguf-8b-q4 or 8b, by persona)")  # fmt: skip
    who.add_argument("--seed", type=int, default=1, help="same seed, same prompts: same answers and timings")
    who.add_argument("--max-model-len", "--ctx-size", "-c", type=int, default=32_768, metavar="N",
                     help="longer prompts are refused with 400")  # fmt: skip
    _add_engine_flags(parser.add_argument_group("flags of the real engines"))
    times = parser.add_argument_group("times and sizes (defaults by profile; times are before --time-scale)")
    times.add_argument("--boot", help=f"seconds, or PHASE=seconds,… with phases {', '.join(PHASES)}")
    times.add_argument("--boot-since-spawn", action="store_true",
                       help="count --boot from the spawn of the process, not from when it is up itself")  # fmt: skip
    times.add_argument("--compile-cache-hit", action="store_true", help="the compile phase takes 0.12 of its time")
    for knob in fields(Knobs):
        default = "" if knob.name not in _STATIC_DEFAULTS else f" (default {knob.default})"
        times.add_argument(
            knob.metadata["flag"], dest=knob.name, metavar="X", help=knob.metadata["help"].replace("%", "%%") + default
        )
    _add_gpu_flags(parser.add_argument_group("the GPUs that several fakes share"))
    wrong = parser.add_argument_group("what goes wrong")
    wrong.add_argument("--fail", action="append", default=[], metavar="NAME[:arg][@nth]", help="arm a fault, see below")
    wrong.add_argument("--ignore-sigterm", action="store_true", help="same as --fail ignore_sigterm")
    wrong.add_argument("--grandchild", nargs="?", const="plain", choices=("plain", "stubborn", "setsid"),
                       help="same as --fail orphan_grandchild:…")  # fmt: skip
    wrong.add_argument("--asleep-requests", choices=("park", "crash", "503"),
                       help="vllm: requests that arrive while asleep (default park; crash before 0.17)")  # fmt: skip


def _add_engine_flags(real: argparse._ArgumentGroup) -> None:
    real.add_argument("--metrics", "--enable-metrics", action="store_true", help="llamacpp, sglang: serve /metrics")
    real.add_argument("--no-slots", action="store_true", help="llamacpp: do not serve /slots")
    real.add_argument("--sleep-idle-seconds", type=float, default=-1.0, metavar="S",
                      help="llamacpp: free all memory after so long without work (times --time-scale)")  # fmt: skip
    real.add_argument("--models-dir", metavar="DIR", help="llamacpp: be a router for the names given as --model")
    real.add_argument("--models-max", type=int, default=4, metavar="N",
                      help="llamacpp router: models kept loaded; 0 for any number")  # fmt: skip
    real.add_argument("--no-models-autoload", action="store_true",
                      help="llamacpp router: load models only when told to")  # fmt: skip
    real.add_argument("--enable-prompt-tokens-details", "--enable-cache-report", action="store_true",
                      help="vllm, sglang: report cached tokens")  # fmt: skip
    real.add_argument("--enable-sleep-mode", action="store_true",
                      help="vllm: without it sleep answers 200 and frees nothing")  # fmt: skip
    real.add_argument("--vllm-version", default=VLLM_VERSION, metavar="X.Y",
                      help="vllm: before 0.17 sleep has no modes and answers are empty")  # fmt: skip
    real.add_argument("--enable-memory-saver", action="store_true",
                      help="sglang: without it release answers 200 and frees nothing")  # fmt: skip
    real.add_argument("--enable-weights-cpu-backup", action="store_true",
                      help="sglang: released weights come back by themselves")  # fmt: skip
    real.add_argument("--admin-api-key", default="", metavar="KEY", help="sglang: wanted on control routes")
    real.add_argument("--tensor-parallel-size", "--tp-size", "--tp", "-tp", type=int, metavar="N",
                      help="GPUs it is spread over, from CUDA_VISIBLE_DEVICES (default by profile)")  # fmt: skip


def _add_gpu_flags(gpu: argparse._ArgumentGroup) -> None:
    gpu.add_argument("--gpu-ledger", type=Path, metavar="PATH", help="file in which they account for their memory")
    gpu.add_argument("--gpu-total", type=float, default=80.0, metavar="GIB", help="size of each (default 80)")
    gpu.add_argument("--gpu-release-lag", type=float, default=0.8, metavar="S",
                     help="memory is free this long after exit or sleep (default 0.8)")  # fmt: skip
    gpu.add_argument("--worker-processes", action="store_true",
                     help="a process for each GPU holds the memory, not the one that serves")  # fmt: skip


_STATIC_DEFAULTS = {knob.name for knob in fields(Knobs) if isinstance(knob.default, (int, float, str))}


def resolve(args: argparse.Namespace) -> tuple[Options, Knobs, Faults]:
    """Make the parsed flags into what the program needs.

    Raises:
        BadKnob: A flag's value is wrong.
        BadFault: `--fail` names no fault, or gives it wrong arguments.
    """
    profile_name = args.model_profile or DEFAULT_PROFILE[args.persona]
    profile = PROFILES[profile_name]
    knobs = Knobs.of(profile)
    for knob in fields(Knobs):
        value = getattr(args, knob.name)
        if value is not None:
            knobs.turn(knob.name, value)
    boot_s = dict(profile.boot_s) if args.boot is None else _boot(args.boot, profile.boot_s)
    if args.compile_cache_hit:
        boot_s["compile"] *= COMPILE_CACHE_FACTOR
    fails = list(args.fail)
    fails += ["ignore_sigterm"] if args.ignore_sigterm else []
    fails += [f"orphan_grandchild:{args.grandchild}"] if args.grandchild else []
    options = Options(
        persona=args.persona,
        host=args.host,
        port=args.port,
        models=tuple(args.models) or (profile_name,),
        boot_s=boot_s,
        boot_since_spawn=args.boot_since_spawn,
        seed=args.seed,
        context_tokens=args.max_model_len,
        ledger=args.gpu_ledger,
        gpu_total_gib=args.gpu_total,
        gpu_release_lag_s=args.gpu_release_lag,
        gpus=_gpus(args.tensor_parallel_size or profile.gpus),
        workers=args.worker_processes,
        metrics=args.metrics,
        slots=not args.no_slots,
        report_cached=args.enable_prompt_tokens_details,
        **_sleep_options(args),
    )
    return options, knobs, Faults(fails, args.seed)


def _sleep_options(args: argparse.Namespace) -> dict[str, Any]:
    try:
        old = Options("vllm", "", 0, (), {}, version=args.vllm_version).old
    except ValueError as error:
        raise BadKnob(f"--vllm-version {args.vllm_version!r}: write it as X.Y") from error
    return {
        "dev_mode": os.environ.get("VLLM_SERVER_DEV_MODE") == "1",
        "health_generates": os.environ.get("SGLANG_ENABLE_HEALTH_ENDPOINT_GENERATION", "true").lower() != "false",
        "can_free": args.enable_memory_saver if args.persona == "sglang" else args.enable_sleep_mode,
        "version": args.vllm_version,
        "asleep_requests": args.asleep_requests or ("crash" if old else "park"),
        "weights_backup": args.enable_weights_cpu_backup,
        "admin_key": args.admin_api_key,
        "idle_sleep_s": args.sleep_idle_seconds,
        "router": args.persona == "llamacpp" and args.models_dir is not None,
        "models_max": args.models_max,
        "autoload": not args.no_models_autoload,
    }


def _gpus(count: int) -> tuple[int, ...]:
    """Find the machine's numbers of the first `count` visible GPUs."""
    visible = [int(part) for part in os.environ.get("CUDA_VISIBLE_DEVICES", "").split(",") if part.strip().isdecimal()]
    if not visible:
        return tuple(range(count))
    if len(visible) < count:
        raise BadKnob(f"it needs {count} GPUs and CUDA_VISIBLE_DEVICES shows {len(visible)}")
    return tuple(visible[:count])


def _boot(text: str, profile: Mapping[str, float]) -> dict[str, float]:
    """Read `--boot`: a bare number is the whole boot, split as the profile splits it."""
    try:
        if "=" not in text:
            whole = sum(profile.values())
            if whole == 0:
                return {phase: float(text) if phase == "weights" else 0.0 for phase in PHASES}
            return {phase: float(text) * share / whole for phase, share in profile.items()}
        given = {phase: float(value) for phase, _, value in (part.partition("=") for part in text.split(","))}
    except ValueError as error:
        raise BadKnob(f"--boot {text!r}: write seconds, or PHASE=seconds,…") from error
    if unknown := given.keys() - set(PHASES):
        raise BadKnob(f"--boot: no phase {min(unknown)!r}; there are {', '.join(PHASES)}")
    return dict(profile) | given


def _fault_help() -> str:
    lines = ["faults (@nth: only on that occasion; a fault without arguments takes :probability):"]
    for name, (args, doc) in FAULTS.items():
        lines.append(f"  {name + (':' + args if args else ''):38} {doc}")
    return "\n".join(lines)


__all__ = ["PERSONAS", "BadFault", "BadKnob", "Options", "add_arguments", "resolve"]
