"""One log line for each thing an operator wants to read about: starts, stops, failures. Never prompts or secrets."""

import logging

from llmswap.core.commands import Sleep, SleepCause, Start, Stop, StopCause, Wake
from llmswap.core.events import (
    DrainRequested,
    FleetReloaded,
    Generation,
    SleepFailed,
    StartFailed,
    StopFailed,
    UpstreamAsleep,
    UpstreamExited,
    UpstreamReady,
    UpstreamStopped,
    WakeFailed,
)
from llmswap.core.fleet import ModelId
from llmswap.core.step import Step

log = logging.getLogger(__name__)

_GIB = 1 << 30
_FAILED = {StartFailed: "start", SleepFailed: "sleep", WakeFailed: "wake"}


class StepLog:
    """An Observer that logs what happens to upstreams, with durations."""

    def __init__(self) -> None:
        self._began_s: dict[tuple[ModelId, Generation], float] = {}

    def __call__(self, step: Step) -> None:
        """Log the step's event, then its commands."""
        self._log_event(step)
        for command in step.commands:
            if isinstance(command, Start | Wake | Sleep | Stop):
                self._began_s[command.model, command.generation] = step.at_s
                _log_command(command)

    def _log_event(self, step: Step) -> None:
        match step.event:
            case UpstreamReady(model=model, generation=generation):
                log.info("%s: ready after %.2f s", model, self._took_s(step.at_s, model, generation))
            case UpstreamAsleep(model=model, generation=generation, host_bytes=kept):
                rest = "" if kept is None else f", keeps {kept / _GIB:.1f} GiB of host memory"
                log.info("%s: asleep after %.2f s%s", model, self._took_s(step.at_s, model, generation), rest)
            case StartFailed() | SleepFailed() | WakeFailed() as failed:
                took_s = self._took_s(step.at_s, failed.model, failed.generation)
                what = _FAILED[type(failed)]
                log.warning("%s: %s failed after %.2f s: %s", failed.model, what, took_s, failed.reason)
            case UpstreamExited(model=model, reason=reason):
                log.warning("%s: exited by itself: %s", model, reason)
            case UpstreamStopped(model=model, generation=generation):
                log.info("%s: stopped after %.2f s", model, self._took_s(step.at_s, model, generation))
            case StopFailed(model=model, reason=reason):
                log.error("%s: cannot be stopped, its memory stays reserved: %s", model, reason)
            case FleetReloaded(fleet=fleet):
                log.info("config reloaded: %d models", len(fleet.models))
            case DrainRequested(deadline_s=deadline_s):
                log.info("draining, for %.0f s at most", max(0.0, deadline_s - step.at_s))

    def _took_s(self, at_s: float, model: ModelId, generation: Generation) -> float:
        return at_s - self._began_s.pop((model, generation), at_s)


def _log_command(command: Start | Wake | Sleep | Stop) -> None:
    match command:
        case Start():
            log.info("%s: starting (generation %d%s)", command.model, command.generation, _evicting(command))
        case Wake():
            log.info("%s: waking (generation %d%s)", command.model, command.generation, _evicting(command))
        case Sleep():
            log.info("%s: falling asleep (%s)", command.model, _why(command))
        case Stop():
            log.info("%s: stopping (%s)%s", command.model, _why(command), ", by force" if command.force else "")


def _evicting(command: Start | Wake) -> str:
    return f", after evicting {', '.join(command.evicted)}" if command.evicted else ""


def _why(command: Sleep | Stop) -> str:
    evicted = command.cause in (StopCause.EVICT, SleepCause.EVICT)
    return f"to make room for {command.evicted_for}" if evicted else command.cause
