"""One log line for each thing an operator wants to read about: starts, stops, failures. Never prompts or secrets."""

import logging

from llmswap.core.commands import Start, Stop, StopCause
from llmswap.core.events import (
    DrainRequested,
    FleetReloaded,
    Generation,
    StartFailed,
    StopFailed,
    UpstreamExited,
    UpstreamReady,
    UpstreamStopped,
)
from llmswap.core.fleet import ModelId
from llmswap.core.step import Step

log = logging.getLogger(__name__)


class StepLog:
    """An Observer that logs what happens to upstreams, with durations."""

    def __init__(self) -> None:
        self._began_s: dict[tuple[ModelId, Generation], float] = {}

    def __call__(self, step: Step) -> None:
        """Log the step's event, then its commands."""
        self._log_event(step)
        for command in step.commands:
            if isinstance(command, Start):
                self._began_s[command.model, command.generation] = step.at_s
                evicted = f", after evicting {', '.join(command.evicted)}" if command.evicted else ""
                log.info("%s: starting (generation %d%s)", command.model, command.generation, evicted)
            elif isinstance(command, Stop):
                self._began_s[command.model, command.generation] = step.at_s
                why = f"to make room for {command.evicted_for}" if command.cause is StopCause.EVICT else command.cause
                log.info("%s: stopping (%s)%s", command.model, why, ", by force" if command.force else "")

    def _log_event(self, step: Step) -> None:
        match step.event:
            case UpstreamReady(model=model, generation=generation):
                log.info("%s: ready after %.2f s", model, self._took_s(step.at_s, model, generation))
            case StartFailed(model=model, generation=generation, reason=reason):
                log.warning(
                    "%s: start failed after %.2f s: %s", model, self._took_s(step.at_s, model, generation), reason
                )
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
