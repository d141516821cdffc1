"""Policies as they are written on the command line: `fair,hold=10,maxWait=60,priority.coder=5`, and sweeps of them."""

from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from difflib import get_close_matches
from itertools import product
from math import isfinite

from llmswap.core.fleet import Fleet, Model, ModelId, Scheduling
from llmswap.sim.whatif.fleets import under_fair, under_fifo

Change = Callable[[Model], Model]

BASES: Mapping[Scheduling, Callable[[Fleet], Fleet]] = {Scheduling.FIFO: under_fifo, Scheduling.FAIR: under_fair}
FAIR_KEYS = ("hold", "maxWait", "queueLimit")
PRIORITY = "priority."
KEYS = (*FAIR_KEYS, "concurrencyLimit", f"{PRIORITY}MODEL")


class PolicyError(ValueError):
    """A policy or a sweep cannot be understood; the message says where and what to do."""


@dataclass(frozen=True, slots=True)
class Policy:
    """Some rules to put the models of a workload under.

    Attributes:
        label: As it was written.
        swept: It is one of a sweep.
    """

    label: str
    fleet: Fleet
    swept: bool = False


def parse(text: str, fleet: Fleet) -> Policy:
    """Put a fleet under a policy as `--policy` names it.

    Raises:
        PolicyError: It is none.
    """
    base, *settings = [part.strip() for part in text.split(",")]
    if base not in tuple(Scheduling):
        raise PolicyError(f"--policy {text}: '{base}' is no policy: begin with {' or '.join(Scheduling)}")
    made = BASES[Scheduling(base)](fleet)
    for setting in settings:
        key, _, value = setting.partition("=")
        made = change(made, key, value, f"--policy {text}")
    return Policy(",".join((base, *settings)), made)


def sweep(texts: Sequence[str], policies: Iterable[Policy]) -> list[Policy]:
    """Vary every policy that is `fair` by all combinations of the values given; leave the others as they are.

    Args:
        texts: Each `key=value,value,…`.
        policies: What to vary.

    Raises:
        PolicyError: A text cannot be understood.
    """
    axes = [_axis(text) for text in texts]
    made: list[Policy] = []
    for policy in policies:
        if policy.fleet.scheduling is not Scheduling.FAIR:
            made.append(policy)
            continue
        for values in product(*(values for _, values in axes)):
            fleet, label = policy.fleet, policy.label
            for (key, _), value in zip(axes, values, strict=True):
                fleet = change(fleet, key, value, f"--sweep {key}={value}")
                label += f",{key}={value}"
            made.append(Policy(label, fleet, swept=True))
    return made


def _axis(text: str) -> tuple[str, list[str]]:
    key, equals, values = text.partition("=")
    if not equals or not values:
        raise PolicyError(
            f"--sweep {text}: write key=value,value,… (a journal's path goes before --sweep); keys: {', '.join(KEYS)}"
        )
    return key, list(dict.fromkeys(value.strip() for value in values.split(",")))


def change(fleet: Fleet, key: str, value: str, where: str) -> Fleet:
    """Change one setting, of every model or of the one that the key names.

    Raises:
        PolicyError: There is no such key, or the value does not fit it.
    """
    if key in FAIR_KEYS and fleet.scheduling is not Scheduling.FAIR:
        raise PolicyError(f"{where}: '{key}' is a key of fair; {fleet.scheduling} has none of it")
    models = dict(fleet.models)
    if key.startswith(PRIORITY):
        name = key.removeprefix(PRIORITY)
        model = fleet.resolve(name)
        if model is None:
            raise PolicyError(f"{where}: there is no model '{name}'{_hint(name, fleet.names)}")
        models[model] = replace(models[model], priority=_whole(value, where, least=None))
    else:
        changed = _change(key, value, where)
        models = {model: changed(each) for model, each in models.items()}
    return replace(fleet, models=models)


def _change(key: str, value: str, where: str) -> Change:
    match key:
        case "hold":
            hold_s = None if value == "auto" else _seconds(value, where, "auto or ")
            return lambda model: replace(model, hold_s=hold_s)
        case "maxWait":
            max_wait_s = _seconds(value, where)
            return lambda model: replace(model, max_wait_s=max_wait_s)
        case "queueLimit":
            queue_limit = _whole(value, where, least=1)
            return lambda model: replace(model, queue_limit=queue_limit)
        case "concurrencyLimit":
            concurrency_limit = _whole(value, where, least=1)
            return lambda model: replace(model, concurrency_limit=concurrency_limit)
    raise PolicyError(f"{where}: there is no key '{key}'{_hint(key, KEYS)}; keys: {', '.join(KEYS)}")


def _seconds(text: str, where: str, besides: str = "") -> float:
    try:
        seconds = float(text)
    except ValueError:
        seconds = -1.0
    if not isfinite(seconds) or seconds < 0:
        raise PolicyError(f"{where}: '{text}' is not {besides}a number of seconds, 0 or more")
    return seconds


def _whole(text: str, where: str, *, least: int | None) -> int:
    try:
        number = int(text)
    except ValueError:
        number = None
    if number is None or (least is not None and number < least):
        raise PolicyError(f"{where}: '{text}' is not a whole number{'' if least is None else f', {least} or more'}")
    return number


def _hint(name: str, known: Iterable[str]) -> str:
    close = get_close_matches(name, list(known), 1)
    return f" (did you mean '{close[0]}'?)" if close else ""


def covering(fleet: Fleet, wanted: Fleet, file: str) -> Fleet:
    """Check that a config knows every model of a workload.

    Raises:
        PolicyError: It lacks some.
    """
    missing: list[ModelId] = [model for model in wanted.models if model not in fleet.models]
    if missing:
        raise PolicyError(
            f"--config {file}: it lacks {', '.join(missing)}, which the workload asks for: give the config that was "
            f"recorded with other rules, or name its models so"
        )
    return fleet
