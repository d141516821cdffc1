"""One question to the simulator, from the command line's flags to what was found."""

import argparse
import os
from collections.abc import Callable, Sequence
from dataclasses import dataclass

from llmswap.config import load as config
from llmswap.core.fleet import Fleet, Scheduling
from llmswap.sim.whatif import policies, recorded, scenario
from llmswap.sim.whatif.compare import Make, Progress, Row, film, simulate
from llmswap.sim.whatif.findings import Findings, praise
from llmswap.sim.whatif.plot import Panel, draw
from llmswap.sim.whatif.policies import Policy, PolicyError
from llmswap.sim.whatif.timeline import Timeline

SCENARIO_SEEDS, SCENARIO_HOURS = 5, 1.0

Tell = Callable[[float, str], None]  # how far it is, 0 to 1, and with what


@dataclass(frozen=True, slots=True)
class Study:
    """What to compare.

    Attributes:
        recording: What was recorded, as a row and to look at; None for a scenario.
        policies: If there is a recording, the first is the one it was recorded under.
    """

    kind: str
    name: str
    about: str
    make: Make
    duration_s: float
    seeds: Sequence[int]
    policies: Sequence[Policy]
    recording: tuple[Row, Timeline] | None = None
    notes: tuple[str, ...] = ()


def plan(args: argparse.Namespace, tell: Tell) -> Study:
    """Make a study of what was asked for.

    Raises:
        PolicyError: The flags do not say what to compare.
        ConfigError: The scenario, or a config, cannot be used.
        JournalError: The journal cannot be used.
    """
    if bool(args.journal) == bool(args.scenario):
        raise PolicyError("give a JOURNAL or --scenario NAME, one of them (--list names the scenarios)")
    if args.journal:
        if not args.journal.exists() and (
            args.journal.suffix in {".yaml", ".yml"} or str(args.journal) in scenario.names()
        ):
            raise PolicyError(f"{args.journal} is no journal; play a scenario with --scenario {args.journal}")
        if args.hours is not None:
            raise PolicyError("--hours: a journal is as long as it is; leave it out")
        return _of_journal(args, tell)
    return _of_scenario(args)


def _of_scenario(args: argparse.Namespace) -> Study:
    found = scenario.load(args.scenario)
    return Study(
        "scenario",
        found.name,
        found.about,
        lambda _seed: found.workload,
        3600.0 * (args.hours or SCENARIO_HOURS),
        range(1, 1 + (args.seeds or SCENARIO_SEEDS)),
        _distinct(_policies(args, found.workload.fleet)),
    )


def _of_journal(args: argparse.Namespace, tell: Tell) -> Study:
    told = recorded.read(args.journal, lambda share: tell(share, f"reading {args.journal.name}"))
    same = Policy(f"as recorded, simulated ({told.fleet.scheduling})", told.fleet)
    return Study(
        "journal",
        told.name,
        f"{len(told.requests)} recorded request{'' if len(told.requests) == 1 else 's'}",
        told.workload,
        told.duration_s,
        range(1, 1 + (args.seeds or 1)),
        _distinct([same, *_policies(args, told.fleet)]),
        (Row("as recorded", told.score), told.timeline),
        told.notes,
    )


def _policies(args: argparse.Namespace, fleet: Fleet) -> list[Policy]:
    """Give what to compare: what was asked for, else the two policies there are."""
    asked = args.policy or ([] if args.config else list(Scheduling))
    chosen = [policies.parse(text, fleet) for text in asked]
    for path in args.config:
        loaded = config.load(path, None, os.environ).fleet
        chosen.append(Policy(str(path), policies.covering(loaded, fleet, str(path))))
    if not args.sweep:
        return chosen
    if not any(policy.fleet.scheduling is Scheduling.FAIR for policy in chosen):
        chosen.append(policies.parse(Scheduling.FAIR, fleet))
    return policies.sweep(args.sweep, chosen)


def _distinct(chosen: Sequence[Policy]) -> list[Policy]:
    """Leave out what would be played twice."""
    made: list[Policy] = []
    for policy in chosen:
        if policy.fleet not in [other.fleet for other in made]:
            made.append(policy)
    return made


def carry_out(study: Study, tell: Tell) -> Findings:
    """Play all there is to play."""
    rows = [] if study.recording is None else [study.recording[0]]
    simulated = []
    for number, policy in enumerate(study.policies):
        simulated.append(simulate(study.make, policy, study.seeds, study.duration_s, _part(study, number, tell)))
    return Findings(
        study.kind,
        study.name,
        study.about,
        study.duration_s,
        len(study.seeds),
        rows + simulated,
        simulated[0] if rows else None,
        study.notes,
    )


def _part(study: Study, number: int, tell: Tell) -> Progress:
    """Make a play's progress a part of the whole."""
    label, many = study.policies[number].label, len(study.policies)
    return lambda share: tell((number + share) / many, label)


def picture(study: Study, findings: Findings) -> str:
    """Draw what is told in full, as SVG."""
    panels = []
    for row in findings.told_in_full:
        if row.policy is not None:
            timeline = film(study.make, row.policy, study.seeds[0], study.duration_s)
            panels.append(Panel(row.label, praise(row.score), timeline, _bound_s(row.policy.fleet)))
        elif study.recording is not None:
            panels.append(Panel(row.label, praise(row.score), study.recording[1], _bound_s(study.policies[0].fleet)))
    return draw(f"{study.name}: {study.about}", panels)


def _bound_s(fleet: Fleet) -> float | None:
    """Give the bound, if it is one for all models."""
    bounds_s = {model.max_wait_s for model in fleet.models.values()}
    bound_s = bounds_s.pop() if len(bounds_s) == 1 else float("inf")
    return None if fleet.scheduling is Scheduling.FIFO or bound_s == float("inf") else bound_s
