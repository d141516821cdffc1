"""A named scenario as a world that runs twenty times as fast, once for the simulator and once for real processes.

Some of what llmswap knows is in seconds and does not shrink with the world (how long answers count towards the pace of
a box, the first hold). So the simulator is not asked about the scenario and its results divided by twenty: it is asked
about the fast world itself, under the same rules.
"""

from collections.abc import Callable
from dataclasses import dataclass, replace
from pathlib import Path
from random import Random
from typing import Any

from llmswap.core.fleet import Scheduling
from llmswap.sim.whatif.workload import Answer, Between, Call, Caller, Costs, Script, Turn, Workload
from tests.stack import fake

TIME_SCALE = 0.05  # real seconds for one of the scenario's
EXIT_S = 0.05  # real seconds that a simulated upstream takes to end when told to end at once
MAX_WAIT_S, QUEUE_TIMEOUT_S = 120, 600  # the defaults, in the scenario's seconds; shrunk they are whole seconds still


def shrunk(workload: Workload) -> Workload:
    """Make a scenario's workload that takes TIME_SCALE of its time: the same demand, draw by draw, but faster.

    Loads and stops take their mean, as the simulated upstreams are told to.
    """
    costs = {
        model: Costs(_fixed(_mean_s(cost.load) * TIME_SCALE), _fixed(_mean_s(cost.stop) * TIME_SCALE))
        for model, cost in workload.costs.items()
    }
    return replace(workload, costs=costs, callers=tuple(map(_shrunk_caller, workload.callers)))


def _fixed(seconds: float) -> Between:
    return Between(seconds, seconds)


def _mean_s(duration: object) -> float:
    assert isinstance(duration, Between), f"a scenario's durations are ranges, not {duration}"
    return (duration.least_s + duration.most_s) / 2


def _shrunk_caller(caller: Caller) -> Caller:
    return replace(caller, script=_Fast(caller.script))


@dataclass(frozen=True, slots=True)
class _Fast:
    """A caller's behaviour, with every duration of it shrunk. Scenarios' callers do not ask what time it is."""

    script: Callable[[Random], Script]

    def __call__(self, rng: Random) -> Script:
        script = self.script(rng)
        answers: tuple[Answer, ...] | None = None
        while True:
            try:
                turn = next(script) if answers is None else script.send(answers)
            except StopIteration:
                return
            calls, along = tuple(map(_shrunk_call, turn.calls)), tuple(map(_shrunk_caller, turn.along))
            answers = yield Turn(turn.after_s * TIME_SCALE, calls, turn.wait, along)


def _shrunk_call(call: Call) -> Call:
    return replace(
        call,
        service_s=call.service_s * TIME_SCALE,
        patience_s=call.patience_s * TIME_SCALE,
        cold_s=call.cold_s * TIME_SCALE,
        retries_s=tuple(pause_s * TIME_SCALE for pause_s in call.retries_s),
        waits_s=call.waits_s * TIME_SCALE,
    )


def config(workload: Workload, scheduling: Scheduling, journal: Path) -> dict[str, Any]:
    """Make the config of a real llmswap that serves a scenario's models, one at a time, TIME_SCALE as slow.

    Args:
        workload: As the scenario has it, not shrunk.
        scheduling: The policy, with its defaults shrunk.
        journal: Where it records.
    """
    (group,) = workload.fleet.groups
    assert group.swap, "one model at a time is all that the config says"
    fair = {"maxWait": round(MAX_WAIT_S * TIME_SCALE)}
    return {
        "models": {str(model): {"cmd": _upstream(str(model), cost)} for model, cost in workload.costs.items()},
        "queueTimeout": round(QUEUE_TIMEOUT_S * TIME_SCALE),
        "routing": {"scheduler": {"use": str(scheduling), "settings": {"fair": fair}}},
        "journal": {"path": str(journal)},
    }


def _upstream(model: str, cost: Costs) -> str:
    """Give the command line of one: it takes what its costs are, its own coming up included."""
    return fake(
        model,
        "--boot-since-spawn",
        time_scale=TIME_SCALE,
        boot=_mean_s(cost.load),
        sigterm_delay=max(0.0, _mean_s(cost.stop) - EXIT_S / TIME_SCALE),
        output_tokens="exact:1",
    )
