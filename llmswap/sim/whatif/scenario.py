"""Scenario files -> Workloads. The named ones lie in `scenarios/`; a user's own may lie anywhere."""

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from functools import partial
from importlib.resources import files
from itertools import chain, cycle
from pathlib import Path
from random import Random

from pydantic import ValidationError
from pydantic_core import ErrorDetails

from llmswap.config.errors import ConfigError, ConfigIssue
from llmswap.config.explain import known_keys
from llmswap.config.issues import Issues
from llmswap.config.kinds import Section
from llmswap.config.schema_routing import GroupSection
from llmswap.config.source import parse
from llmswap.config.tree import Path as KeyPath
from llmswap.core.fleet import Fleet, Group, Model, ModelId
from llmswap.sim.whatif.vocabulary import (
    CallerSection,
    Counts,
    ModelCosts,
    ScenarioFile,
    Span,
    StepSection,
)
from llmswap.sim.whatif.workload import Between, Call, Caller, Costs, Script, Turn, Workload

DEFAULT_GROUP = "(default)"
_SHIPPED = files(__package__) / "scenarios"


@dataclass(frozen=True, slots=True)
class Scenario:
    """A named workload.

    Attributes:
        about: What it is, in one line.
    """

    name: str
    about: str
    workload: Workload


def names() -> tuple[str, ...]:
    """List the named scenarios."""
    return tuple(sorted(file.name.removesuffix(".yaml") for file in _SHIPPED.iterdir() if file.name.endswith(".yaml")))


def load(name: str) -> Scenario:
    """Read a named scenario, or a file of one: what ends in .yaml or .yml, or holds a slash, is a path.

    Raises:
        ConfigError: There is none, or it cannot be used.
    """
    path = Path(name)
    if path.suffix not in (".yaml", ".yml") and len(path.parts) == 1:
        if name in names():
            return loads((_SHIPPED / f"{name}.yaml").read_text("utf-8"), f"{name}.yaml")
        hint = Issues(name).hint(name, names()) or "; the path of a file ends in .yaml"
        raise ConfigError([ConfigIssue(name, 0, 0, "", f"there is no scenario of this name{hint}")])
    try:
        return loads(path.read_text("utf-8-sig"), name)
    except OSError as error:
        raise ConfigError([ConfigIssue(name, 0, 0, "", f"cannot read the file: {error.strerror}")]) from None
    except UnicodeDecodeError as error:
        raise ConfigError([ConfigIssue(name, 0, 0, "", f"is not UTF-8 text (byte {error.start})")]) from None


def loads(text: str, file: str) -> Scenario:
    """Read a scenario from text; it is named after its file.

    Raises:
        ConfigError: It cannot be used.
    """
    issues = Issues(file)
    source = parse(text, file, issues, {})
    issues.check()
    assert source is not None, "what cannot be parsed is an issue"
    issues.root = source.root
    try:
        scenario = ScenarioFile.model_validate(source.root)
    except ValidationError as error:
        for detail in error.errors(include_url=False):
            path = tuple(part for part in detail["loc"] if part != "[key]")
            issues.error(path, _message(detail, path, issues))
        issues.check()
        raise
    _check(scenario, issues)
    issues.check()
    name = Path(file).stem
    models = {ModelId(id_): _model(ModelId(id_), section) for id_, section in scenario.models.items()}
    fleet = Fleet(models, {str(model): model for model in models}, _groups(scenario))
    costs = {ModelId(id_): _costs(each) for id_, each in scenario.models.items()}
    callers = [
        Caller(who, partial(_act, section)) for who, section in scenario.callers.items() for _ in range(section.count)
    ]
    return Scenario(name, scenario.about, Workload(name, fleet, costs, tuple(callers)))


def _message(detail: ErrorDetails, path: KeyPath, issues: Issues) -> str:
    kind = detail["type"]
    if kind == "extra_forbidden":
        parents = [part for part in path[:-1] if isinstance(part, str)]
        known = _keys_below(parents)
        return f"unknown key '{path[-1]}'{issues.hint(str(path[-1]), known)}; known are: {', '.join(known)}"
    if kind == "missing":
        return f"the key '{path[-1]}' is required here"
    if kind in {"too_short", "string_too_short"}:
        return "must not be empty"
    return detail["msg"][:1].lower() + detail["msg"][1:]


def _keys_below(parents: list[str]) -> list[str]:
    """List the keys that the section at a path may have."""
    section: type[Section] = ScenarioFile
    if parents[:1] == ["models"]:
        section = ModelCosts
    elif parents[:1] == ["groups"]:
        section = GroupSection
    elif parents[:1] == ["callers"]:
        section = StepSection if len(parents) > 2 else CallerSection
    return known_keys(section)


def _check(scenario: ScenarioFile, issues: Issues) -> None:
    """Check what one key must know of another."""
    known = scenario.models
    for id_, model in known.items():
        for index, other in enumerate(model.substitutes):
            _check_model(other, ("models", id_, "substitutes", index), known, issues)
    seen: dict[str, str] = {}
    for group, section in scenario.groups.items():
        for index, member in enumerate(section.members):
            path = ("groups", group, "members", index)
            _check_model(member, path, known, issues)
            if member in seen:
                issues.error(path, f"model '{member}' is in group '{seen[member]}' already; keep one")
            seen[member] = group
    for who, caller in scenario.callers.items():
        for key, steps in (("first", caller.first), ("loop", caller.loop)):
            for index, step in enumerate(steps):
                _check_model(step.model, ("callers", who, key, index, "model"), known, issues)
        if not any(_takes_time(step) for step in caller.loop):
            issues.error(("callers", who, "loop"), "a round takes no time; give a step some `think`")


def _check_model(name: str, path: KeyPath, known: Mapping[str, object], issues: Issues) -> None:
    if name not in known:
        issues.error(path, f"there is no model '{name}'{issues.hint(name, known)}; list it under `models`")


def _takes_time(step: StepSection) -> bool:
    return step.think[1] > 0 or (step.takes[1] > 0 and not step.background)


def _model(id_: ModelId, section: ModelCosts) -> Model:
    return Model(
        id_,
        concurrency_limit=section.concurrency_limit,
        idle_ttl_s=float(section.ttl) or None,
        substitutes=tuple(map(ModelId, section.substitutes)),
        sleeps=section.sleep is not None,
    )


def _costs(section: ModelCosts) -> Costs:
    load, stop = Between(*section.load), Between(*section.stop)
    return Costs(load, stop, Between(*(section.sleep or section.stop)), Between(*section.wake))


def _groups(scenario: ScenarioFile) -> tuple[Group, ...]:
    """Partition the models; those in no group make up the default one."""
    taken = {member for section in scenario.groups.values() for member in section.members}
    groups = {name: (section.members, section) for name, section in scenario.groups.items()}
    rest = [id_ for id_ in scenario.models if id_ not in taken]
    if rest:
        members, section = groups.get(DEFAULT_GROUP, ([], GroupSection()))
        groups[DEFAULT_GROUP] = ([*members, *rest], section)
    return tuple(
        Group(name, tuple(map(ModelId, members)), section.swap, section.exclusive, section.persistent)
        for name, (members, section) in groups.items()
    )


def _act(section: CallerSection, rng: Random) -> Script:
    """Do what a caller's section says, for ever."""
    yield Turn(_draw(rng, section.start))
    for step in chain(section.first, cycle(section.loop)):
        if rng.random() < step.chance:
            for _ in range(_count(rng, step.repeat)):
                yield Turn(_draw(rng, step.think), tuple(_calls(rng, step)), wait=not step.background)


def _calls(rng: Random, step: StepSection) -> Iterator[Call]:
    model = ModelId(step.model)
    for _ in range(_count(rng, step.burst)):
        takes_s, patience_s, cold_s = _draw(rng, step.takes), _draw(rng, step.patience), _draw(rng, step.cold)
        yield Call(model, takes_s, patience_s, step.swap_class, cold_s, step.retry)


def _draw(rng: Random, span: Span) -> float:
    return span[0] if span[0] == span[1] else rng.uniform(*span)


def _count(rng: Random, counts: Counts) -> int:
    return rng.randint(*counts)
