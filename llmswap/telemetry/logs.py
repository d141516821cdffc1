"""One log line for each thing an operator wants to read about: starts, stops, failures. Never prompts or secrets.

Each says in fields, too, what happened (docs/logs.md), and where that was the end of a swap, how the swap went.
"""

import logging
import math
from collections.abc import Callable
from dataclasses import dataclass

from llmswap.config.errors import ConfigIssue
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
from llmswap.runtime.logevents import Event, Value, events
from llmswap.telemetry import swap_outcomes

log = logging.getLogger(__name__)

SWAP_STARTED = "swap.started"
SWAP_FINISHED = "swap.finished"
READY = "upstream.ready"
ASLEEP = "upstream.asleep"
SLEEPING = "upstream.sleeping"
STOPPING = "upstream.stopping"
STOPPED = "upstream.stopped"
EXITED = "upstream.exited"
FAILED = "upstream.failed"
RELOADED = "config.reloaded"
REJECTED = "config.rejected"
LISTENING = "server.listening"
DRAINING = "server.draining"

_GIB = 1 << 30
_FAILED = {StartFailed: "start", SleepFailed: "sleep", WakeFailed: "wake"}

TraceOf = Callable[[ModelId], str]
"""Gives the trace of the last swap to a model that is over; empty if there is none."""


@dataclass(slots=True)
class _Swap:
    """A start or a wake that is under way; `outcome` and `error` once it is known to have come to nothing."""

    command: Start | Wake
    began_s: float
    outcome: str = ""
    error: str = ""

    @property
    def kind(self) -> str:
        return "cold" if isinstance(self.command, Start) else "wake"


def listening(address: str) -> Event:
    """Tell of an address that is served."""
    return Event(LISTENING, f"listening on {address}", {"address": address})


def rejected(issue: ConfigIssue) -> Event:
    """Tell of one thing for which a config was not put in force."""
    fields: dict[str, Value] = {"file": issue.file, "line": issue.line or None, "key": issue.path or None}
    return Event(REJECTED, f"reload refused: {issue}", {**fields, "error": issue.message})


class StepLog:
    """An Observer that logs what happens to upstreams, with durations. Tracing is to see Steps before it."""

    def __init__(self, trace_of: TraceOf | None = None) -> None:
        self._began_s: dict[tuple[ModelId, Generation], float] = {}
        self._swaps: dict[tuple[ModelId, Generation], _Swap] = {}
        self._trace_of = trace_of

    def __call__(self, step: Step) -> None:
        """Log the step's event, then its commands."""
        self._log_event(step)
        for command in step.commands:
            if isinstance(command, Start | Wake | Sleep | Stop):
                self._began_s[command.model, command.generation] = step.at_s
                self._log_command(command, step.at_s)

    def _log_event(self, step: Step) -> None:
        at_s, info = step.at_s, logging.INFO
        match step.event:
            case UpstreamReady(model=model, generation=generation):
                took_s = self._took_s(at_s, model, generation)
                ended = self._over(at_s, model, generation, swap_outcomes.OK)
                _say(info, f"{model}: ready after {took_s:.2f} s", READY, ended, _life(step.event, took_s))
            case UpstreamAsleep(model=model, generation=generation, host_bytes=kept):
                took_s = self._took_s(at_s, model, generation)
                rest = "" if kept is None else f", keeps {kept / _GIB:.1f} GiB of host memory"
                fields = _life(step.event, took_s, host_bytes=kept)
                _say(info, f"{model}: asleep after {took_s:.2f} s{rest}", ASLEEP, fields=fields)
            case StartFailed() | SleepFailed() | WakeFailed() as failed:
                self._log_failure(failed, at_s)
            case UpstreamExited(model=model, generation=generation, reason=reason):
                self._note(step.event)
                _say(logging.WARNING, f"{model}: exited by itself: {reason}", EXITED, fields=_life(step.event))
            case UpstreamStopped(model=model, generation=generation):
                took_s = self._took_s(at_s, model, generation)
                ended = self._over(at_s, model, generation, swap_outcomes.ABORTED)
                _say(info, f"{model}: stopped after {took_s:.2f} s", STOPPED, ended, _life(step.event, took_s))
            case StopFailed(model=model, generation=generation, reason=reason):
                ended = self._over(at_s, model, generation, swap_outcomes.ABORTED)
                said = f"{model}: cannot be stopped, its memory stays reserved: {reason}"
                _say(logging.ERROR, said, FAILED, ended, _life(step.event, what="stop"))
            case FleetReloaded(fleet=fleet):
                _say(
                    info, f"config reloaded: {len(fleet.models)} models", RELOADED, fields={"models": len(fleet.models)}
                )
            case DrainRequested(deadline_s=deadline_s):
                left_s = max(0.0, deadline_s - at_s)
                _say(info, f"draining, for {left_s:.0f} s at most", DRAINING, fields={"limit_s": left_s})

    def _log_failure(self, failed: StartFailed | SleepFailed | WakeFailed, at_s: float) -> None:
        took_s = self._took_s(at_s, failed.model, failed.generation)
        what = _FAILED[type(failed)]
        ended: tuple[Event, ...] = ()
        if not isinstance(failed, SleepFailed):
            self._note(failed)
        if isinstance(failed, StartFailed):
            ended = self._over(at_s, failed.model, failed.generation, swap_outcomes.ABORTED)
        said = f"{failed.model}: {what} failed after {took_s:.2f} s: {failed.reason}"
        _say(logging.WARNING, said, FAILED, ended, _life(failed, took_s, what=what))

    def _log_command(self, command: Start | Wake | Sleep | Stop, at_s: float) -> None:
        fields: dict[str, Value] = {"model": command.model, "generation": command.generation, "cause": command.cause}
        match command:
            case Start() | Wake():
                decided_s = command.decided_s
                known = decided_s is not None and math.isfinite(decided_s)
                swap = _Swap(command, decided_s if known and decided_s is not None else at_s)
                self._swaps[command.model, command.generation] = swap
                verb = "starting" if isinstance(command, Start) else "waking"
                said = f"{command.model}: {verb} (generation {command.generation}{_evicting(command)})"
                fields |= {**_told(swap), "drain_s": at_s - swap.began_s}
                _say(logging.INFO, said, SWAP_STARTED, fields=fields)
            case Sleep():
                fields["evicted_for"] = command.evicted_for
                _say(logging.INFO, f"{command.model}: falling asleep ({_why(command)})", SLEEPING, fields=fields)
            case Stop():
                fields |= {"evicted_for": command.evicted_for, "force": command.force}
                said = f"{command.model}: stopping ({_why(command)}){', by force' if command.force else ''}"
                _say(logging.INFO, said, STOPPING, fields=fields)

    def _note(self, event: StartFailed | WakeFailed | UpstreamExited) -> None:
        """Note why a swap comes to nothing; after a wake or an exit it is over when what is left is gone."""
        swap = self._swaps.get((event.model, event.generation))
        if swap is not None:
            swap.outcome, swap.error = swap.outcome or swap_outcomes.outcome_of(event), swap.error or event.reason

    def _over(self, at_s: float, model: ModelId, generation: Generation, outcome: str) -> tuple[Event, ...]:
        """Give the end of the swap that this was, if it was one."""
        swap = self._swaps.pop((model, generation), None)
        if swap is None:
            return ()
        outcome, duration_s = swap.outcome or outcome, at_s - swap.began_s
        fields: dict[str, Value] = {
            "model": model,
            "generation": generation,
            "cause": swap.command.cause,
            **_told(swap),
            "outcome": outcome,
            "duration_s": duration_s,
            "trace_id": (self._trace_of(model) or None) if self._trace_of is not None else None,
            "error": swap.error or None,
        }
        return (Event(SWAP_FINISHED, f"{model}: {swap.kind} swap {outcome} after {duration_s:.2f} s", fields),)

    def _took_s(self, at_s: float, model: ModelId, generation: Generation) -> float:
        return at_s - self._began_s.pop((model, generation), at_s)


_Ends = UpstreamReady | UpstreamAsleep | StartFailed | SleepFailed | WakeFailed
_Life = _Ends | UpstreamExited | UpstreamStopped | StopFailed


def _say(
    level: int, message: str, name: str, more: tuple[Event, ...] = (), fields: dict[str, Value] | None = None
) -> None:
    """Log a line that is an event, and those that go with it."""
    log.log(level, "%s", message, extra=events((Event(name, message, fields or {}), *more)))


def _life(event: _Life, took_s: float | None = None, **more: Value) -> dict[str, Value]:
    """Give the fields of what happened to an upstream."""
    reason = getattr(event, "reason", None)
    return {"model": event.model, "generation": event.generation, "duration_s": took_s, **more, "error": reason}


def _told(swap: _Swap) -> dict[str, Value]:
    return {"kind": swap.kind, "evicted": swap.command.evicted, "caller": swap.command.caller or None}


def _evicting(command: Start | Wake) -> str:
    return f", after evicting {', '.join(command.evicted)}" if command.evicted else ""


def _why(command: Sleep | Stop) -> str:
    evicted = command.cause in (StopCause.EVICT, SleepCause.EVICT)
    return f"to make room for {command.evicted_for}" if evicted else command.cause
