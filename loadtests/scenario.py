"""Scenario files: which models there are, who calls them and how, and what must come of it.

`models`, `groups` and `callers` mean what they mean to `llmswap simulate` (docs/scenarios.md). A load test adds what a
simulation has no use for: which API a step uses, clients that leave in mid-stream, names nobody knows, thresholds.
All times are seconds of the scenario; a run multiplies them by its time scale.
"""

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import yaml

from loadtests import reading as read
from loadtests.reading import BadScenarioError, Counts, Span, Table

FOLDER = Path(__file__).parent / "scenarios"
APIS = ("chat", "whole", "completion", "embeddings", "rerank", "transcription", "speech", "image", "props", "socket")
SWAP_CLASSES = ("may-swap", "prefer-warm", "never-swap")
BEGINNINGS = ("stopped", "ready", "asleep")
POLICIES = ("fair", "fifo")


@dataclass(frozen=True, slots=True)
class Model:
    """One model, and what it costs.

    Attributes:
        load, stop, sleep, wake: Seconds; `sleep` is None for one that is stopped instead.
        ttl_s: Idle seconds until it is stopped; 0 never.
        begins: What it is before the first caller comes.
    """

    load: Span
    stop: Span
    sleep: Span | None
    wake: Span
    ttl_s: float
    concurrency_limit: int
    substitutes: tuple[str, ...]
    begins: str


@dataclass(frozen=True, slots=True)
class Step:
    """Some calls to one model.

    Attributes:
        model: Who is asked; empty for one of all models, by `popularity`.
        popularity: The k-th model is asked k**-popularity times as often as the first.
        takes: Seconds an answer takes once it is being served.
        leaves: How likely the client leaves in the first half of the stream.
        made_up: A name that nobody knows is asked for instead, another one each time.
    """

    model: str
    takes: Span
    think: Span
    patience: Span
    chance: float
    repeat: Counts
    burst: Counts
    background: bool
    swap_class: str
    cold: Span
    retry: tuple[float, ...]
    api: str
    leaves: float
    made_up: bool
    popularity: float


@dataclass(frozen=True, slots=True)
class Caller:
    """Some callers who do the same, each on their own.

    Attributes:
        first: Done once, before the loop.
        loop: Done over and over; empty for callers who are through after `first`.
    """

    name: str
    count: int
    start: Span
    first: tuple[Step, ...]
    loop: tuple[Step, ...]


@dataclass(frozen=True, slots=True)
class Limit:
    """A threshold: a figure of the score card must be within it."""

    figure: str
    least: float | None
    most: float | None


@dataclass(frozen=True, slots=True)
class Scenario:
    """A workload with its thresholds.

    Attributes:
        minutes: How long it runs, in its own minutes, unless told otherwise.
        time_scale: Real seconds for one of its own, with simulated upstreams.
        groups: Who may live together, as the config has it.
        config: What else goes into the config of the llmswap that is started for it.
        samples: Requests that must have ended in so many minutes for anything to be said.
        fails_under: Policies that its thresholds are meant to show up.
    """

    name: str
    about: str
    minutes: float
    time_scale: float
    models: Mapping[str, Model]
    groups: Mapping[str, Any]
    callers: tuple[Caller, ...]
    config: Mapping[str, Any]
    samples: int
    thresholds: tuple[Limit, ...]
    fails_under: tuple[str, ...]


def names() -> tuple[str, ...]:
    """List the scenarios that are shipped."""
    return tuple(sorted(path.stem for path in FOLDER.glob("*.yaml")))


def load(name: str) -> Scenario:
    """Read a shipped scenario, or a file: what ends in .yaml is a path.

    Raises:
        BadScenarioError: There is none, or it cannot be used.
    """
    path = Path(name)
    if path.suffix not in (".yaml", ".yml"):
        if name not in names():
            raise BadScenarioError(f"there is no scenario '{name}'; there are {', '.join(names())}")
        path = FOLDER / f"{name}.yaml"
    try:
        return loads(path.read_text("utf-8"), path.name)
    except OSError as error:
        raise BadScenarioError(f"{path}: {error.strerror}") from None
    except UnicodeDecodeError as error:
        raise BadScenarioError(f"{path}: is not UTF-8 text (byte {error.start})") from None


def loads(document: str, file: str) -> Scenario:
    """Read a scenario from text; it is named after its file.

    Raises:
        BadScenarioError: It cannot be used.
    """
    try:
        data = yaml.safe_load(document)
    except yaml.YAMLError as error:
        raise BadScenarioError(f"{file}: {error}") from None
    keys = ("about", "run", "models", "groups", "callers", "config", "samples", "thresholds", "failsUnder")
    top = Table(data, file, keys)
    run = Table(top.get("run", read.mapping), f"{file}.run", ("minutes", "scale"))
    models = {id_: _model(each, f"{file}.models.{id_}") for id_, each in top.get("models", read.mapping).items()}
    callers = [_caller(who, each, f"{file}.callers.{who}") for who, each in top.get("callers", read.mapping).items()]
    scenario = Scenario(
        name=Path(file).stem,
        about=top.get("about", read.text),
        minutes=run.get("minutes", read.positive),
        time_scale=run.get("scale", read.positive),
        models=models,
        groups=top.get("groups", read.mapping, {}),
        callers=tuple(callers),
        config=top.get("config", read.mapping, {}),
        samples=top.get("samples", read.whole),
        thresholds=tuple(_limits(top.get("thresholds", read.mapping), f"{file}.thresholds")),
        fails_under=top.get("failsUnder", read.texts, ()),
    )
    _check(scenario, file)
    return scenario


def _model(value: object, where: str) -> Model:
    keys = ("load", "stop", "sleep", "wake", "ttl", "concurrencyLimit", "substitutes", "begins")
    table = Table(value, where, keys)
    return Model(
        load=table.get("load", read.span),
        stop=table.get("stop", read.span, (1.0, 1.0)),
        sleep=table.get("sleep", read.span) if "sleep" in table.items else None,
        wake=table.get("wake", read.span, (1.0, 4.0)),
        ttl_s=table.get("ttl", read.number, 0.0),
        concurrency_limit=table.get("concurrencyLimit", read.whole, 10),
        substitutes=table.get("substitutes", read.texts, ()),
        begins=table.get("begins", read.one_of(*BEGINNINGS), "stopped"),
    )


def _caller(who: str, value: object, where: str) -> Caller:
    table = Table(value, where, ("count", "start", "first", "loop"))
    first, loop = (_steps(table.items.get(key, []), f"{where}.{key}") for key in ("first", "loop"))
    if not first and not loop:
        raise BadScenarioError(f"{where}: does nothing; it needs `loop`, or `first`")
    if loop and not any(step.think[1] > 0 or (step.takes[1] > 0 and not step.background) for step in loop):
        raise BadScenarioError(f"{where}.loop: a round takes no time; give a step some `think`")
    count, start = table.get("count", read.whole, 1), table.get("start", read.span, (0.0, 0.0))
    return Caller(who, count, start, first, loop)


def _steps(value: object, where: str) -> tuple[Step, ...]:
    return tuple(_step(item, f"{where}[{index}]") for index, item in enumerate(read.several(value, where)))


def _step(value: object, where: str) -> Step:
    simulated = ("model", "takes", "think", "patience", "chance", "repeat", "burst", "background", "swapClass", "cold")
    table = Table(value, where, (*simulated, "retry", "api", "leaves", "madeUp", "popularity"))
    if ("model" in table.items) == ("popularity" in table.items):
        raise BadScenarioError(f"{where}: needs either `model` or `popularity`")
    return Step(
        model=table.get("model", read.text, ""),
        takes=table.get("takes", read.span),
        think=table.get("think", read.span, (0.0, 0.0)),
        patience=table.get("patience", read.patience, read.NEVER),
        chance=table.get("chance", read.chance, 1.0),
        repeat=table.get("repeat", read.counts, (1, 1)),
        burst=table.get("burst", read.counts, (1, 1)),
        background=table.get("background", read.flag, default=False),
        swap_class=table.get("swapClass", read.one_of(*SWAP_CLASSES), "may-swap"),
        cold=table.get("cold", read.span, (0.0, 0.0)),
        retry=table.get("retry", read.pauses, ()),
        api=table.get("api", read.one_of(*APIS), "chat"),
        leaves=table.get("leaves", read.chance, 0.0),
        made_up=table.get("madeUp", read.flag, default=False),
        popularity=table.get("popularity", read.positive, 0.0),
    )


def _limits(value: Mapping[str, object], where: str) -> list[Limit]:
    limits = []
    for figure, bounds in value.items():
        table = Table(bounds, f"{where}.{figure}", ("least", "most", "exactly"))
        if not table.items:
            raise BadScenarioError(f"{where}.{figure}: needs `least`, `most` or `exactly`")
        if "exactly" in table.items:
            exactly = table.get("exactly", read.number)
            limits.append(Limit(figure, exactly, exactly))
            continue
        least, most = (table.get(key, read.number) if key in table.items else None for key in ("least", "most"))
        limits.append(Limit(figure, least, most))
    return limits


def _check(scenario: Scenario, file: str) -> None:
    """Check what one key must know of another."""
    known = scenario.models
    if not known or not scenario.callers:
        raise BadScenarioError(f"{file}: needs models and callers")
    asked = [
        (step.model, f"{file}.callers.{caller.name}.{key}[{index}].model")
        for caller in scenario.callers
        for key, steps in (("first", caller.first), ("loop", caller.loop))
        for index, step in enumerate(steps)
        if step.model
    ]
    asked += [(other, f"{file}.models.{id_}.substitutes") for id_, each in known.items() for other in each.substitutes]
    for group, section in scenario.groups.items():
        members = read.mapping(section, f"{file}.groups.{group}").get("members")
        asked += [
            (member, f"{file}.groups.{group}.members") for member in read.texts(members, f"{file}.groups.{group}")
        ]
    for name, where in asked:
        if name not in known:
            raise BadScenarioError(f"{where}: there is no model '{name}'; list it under `models`")
    for policy in scenario.fails_under:
        if policy not in POLICIES:
            raise BadScenarioError(f"{file}.failsUnder: must be of {', '.join(POLICIES)}")
    for id_, model in known.items():
        if model.begins == "asleep" and model.sleep is None:
            raise BadScenarioError(f"{file}.models.{id_}: begins asleep, but cannot sleep; give it `sleep`")
