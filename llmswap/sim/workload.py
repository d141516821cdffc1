"""What is asked of a world: its models and rules, who comes when and for what, what the operator does meanwhile."""

from dataclasses import dataclass, replace
from random import Random

from llmswap.core.events import (
    DrainRequested,
    Event,
    FleetReloaded,
    LoadRequested,
    SleepRequested,
    SwapClass,
    UnloadRequested,
)
from llmswap.core.fleet import Fleet, Group, MatrixRules, Model, ModelId, Router, Scheduling
from llmswap.sim.engine import tick

GHOST = ModelId("ghost")  # a model that no fleet has
_SWAP_CLASSES = (*[SwapClass.MAY_SWAP] * 6, SwapClass.PREFER_WARM, SwapClass.NEVER_SWAP)


@dataclass(frozen=True, slots=True)
class Arrival:
    """A client that comes at some time for some model, stays for so long, and is served in so long."""

    at_s: float
    model: ModelId
    patience_s: float
    service_s: float
    swap_class: SwapClass


@dataclass(frozen=True, slots=True)
class Order:
    """An operator's action at some time."""

    at_s: float
    event: Event


@dataclass(frozen=True, slots=True)
class Plan:
    """Everything asked of one world. Times count from its beginning."""

    fleet: Fleet
    arrivals: tuple[Arrival, ...]
    orders: tuple[Order, ...]


def draw_plan(rng: Random, *, impatient: float, reload_race: float, start_s: float) -> Plan:
    """Draw a fleet, its clients and its operator."""
    fleet = draw_fleet(rng, rng.randint(1, 8))
    horizon_s = rng.choice((5.0, 60.0, 600.0))
    orders, fleets = _orders(rng, fleet, horizon_s, start_s)
    models = list(dict.fromkeys(model for each in fleets for model in each.models))
    arrivals = [
        Arrival(
            at_s=at_s,
            model=GHOST if rng.random() < reload_race / 4 else rng.choice(models),
            patience_s=tick(rng.choice((0.0, 0.5, 5.0, 50.0)) * rng.random()) if rng.random() < impatient else 1e6,
            service_s=tick(rng.choice((0.0, 0.2, 2.0, 20.0)) * rng.random()),
            swap_class=rng.choice(_SWAP_CLASSES),
        )
        for at_s in _times(rng, rng.choice((5, 20, 40, 80)), horizon_s)
    ]
    return Plan(fleet, tuple(arrivals), tuple(orders))


def fairly(plan: Plan) -> Plan:
    """Give the same plan under `fair`, each model with bounds and holds of its own."""

    def order(order: Order) -> Order:
        event = order.event
        return Order(order.at_s, FleetReloaded(_fair(event.fleet))) if isinstance(event, FleetReloaded) else order

    return Plan(_fair(plan.fleet), plan.arrivals, tuple(map(order, plan.orders)))


def _fair(fleet: Fleet) -> Fleet:
    models = {model.id: _fair_model(model) for model in fleet.models.values()}
    return replace(fleet, models=models, scheduling=Scheduling.FAIR)


def _fair_model(model: Model) -> Model:
    rng = Random(model.fingerprint)  # noqa: S311  the same model draws the same
    return replace(
        model,
        max_wait_s=rng.choice((0.0, 1.0, 10.0, 120.0)),
        hold_s=rng.choice((None, None, 0.0, 2.0, 20.0)),
        queue_limit=rng.choice((2, 1000, 1000)),
    )


def draw_fleet(rng: Random, size: int) -> Fleet:
    """Draw models and the rules they live by."""
    ids = [ModelId(f"m{index}") for index in range(size)]
    return _with_rules(rng, {model: _draw_model(rng, model) for model in ids})


def draw_change(rng: Random, fleet: Fleet) -> Fleet:
    """Draw what an edit of the config may do: change, remove or add models, change the rules, or nothing."""
    models = dict(fleet.models)
    for model in list(models):
        fate = rng.random()
        if fate < 0.2:
            models[model] = _draw_model(rng, model)
        elif fate < 0.35 and len(models) > 1:
            del models[model]
    if rng.random() < 0.3:
        new = ModelId(f"m{rng.randint(0, 9)}")
        models.setdefault(new, _draw_model(rng, new))
    if models == dict(fleet.models) and rng.random() < 0.7:
        return fleet
    return _with_rules(rng, models)


def _draw_model(rng: Random, model: ModelId) -> Model:
    drawn = Model(
        model,
        concurrency_limit=rng.choice((1, 3, 10, 10)),
        idle_ttl_s=rng.choice((None, 0.5, 5.0, 60.0)),
        priority=rng.choice((0, 0, 0, 1, 5)),
        queue_timeout_s=rng.choice((0.5, 10.0, 600.0, 600.0)),
        sleeps=rng.random() < 0.7,
        sleep_after_s=rng.choice((None, 0.5, 20.0)),
        substitutes=tuple(ModelId(f"m{rng.randint(0, 7)}") for _ in range(rng.choice((0, 1, 2)))),
    )
    return replace(drawn, fingerprint=f"{rng.getrandbits(16):x}")


def _with_rules(rng: Random, models: dict[ModelId, Model]) -> Fleet:
    names = {str(model): model for model in models}
    queue_max = rng.choice((3, 20, 2000, 2000, 2000, 2000))
    if rng.random() < 0.4:
        made = Fleet(models, names, matrix=_draw_matrix(rng, list(models)), router=Router.MATRIX, queue_max=queue_max)
    else:
        made = Fleet(models, names, groups=_draw_groups(rng, list(models)), queue_max=queue_max)
    return replace(made, sleepers_max=rng.choice((None, 0, 1, 2)), sleepers_host_bytes=rng.choice((None, 10)))


def _draw_groups(rng: Random, models: list[ModelId]) -> tuple[Group, ...]:
    if rng.random() < 0.3:
        return (Group("(default)", tuple(models)),)
    parts: list[list[ModelId]] = [[] for _ in range(rng.randint(1, 4))]
    for model in models:
        rng.choice(parts).append(model)
    return tuple(
        Group(
            name=f"g{index}",
            members=tuple(part),
            swap=rng.random() < 0.6,
            exclusive=rng.random() < 0.6,
            persistent=rng.random() < 0.2,
        )
        for index, part in enumerate(parts)
    )


def _draw_matrix(rng: Random, models: list[ModelId]) -> MatrixRules:
    sets: dict[str, str] = {}
    for index in range(rng.randint(1, 3)):
        factors = []
        for _ in range(rng.randint(1, 3)):
            choices = [*rng.sample(models, rng.randint(1, min(3, len(models)))), *(f"+{name}" for name in sets)]
            factors.append(f"({' | '.join(rng.sample(choices, rng.randint(1, min(3, len(choices)))))})")
        sets[f"s{index}"] = " & ".join(factors)
    costs = {model: rng.randint(1, 10) for model in models if rng.random() < 0.3}
    return MatrixRules({}, sets, costs)


def _times(rng: Random, count: int, horizon_s: float) -> list[float]:
    """Draw moments, some alone and some in bursts, many on whole seconds, where they meet deadlines."""
    bursts = [tick(rng.uniform(0, horizon_s)) for _ in range(3)]
    times = []
    for _ in range(count):
        kind = rng.random()
        if kind < 0.4:
            times.append(rng.choice(bursts))
        elif kind < 0.7:
            times.append(float(rng.randint(0, int(horizon_s))))
        else:
            times.append(tick(rng.uniform(0, horizon_s)))
    return sorted(times)


def _orders(rng: Random, fleet: Fleet, horizon_s: float, start_s: float) -> tuple[list[Order], list[Fleet]]:
    fleets = [fleet]
    orders: list[Order] = []
    for at_s in _times(rng, rng.choice((0, 0, 2, 8)), horizon_s):
        models = list(fleets[-1].models)
        kind = rng.random()
        if kind < 0.35:
            orders.append(
                Order(at_s, UnloadRequested(tuple(rng.sample([*models, GHOST], rng.randint(0, len(models))))))
            )
        elif kind < 0.55:
            orders.append(Order(at_s, LoadRequested(rng.choice([*models, GHOST]))))
        elif kind < 0.7:
            by_s = start_s + at_s + tick(rng.choice((0.0, 5.0, 60.0)))
            orders.append(Order(at_s, SleepRequested(rng.choice([*models, GHOST]), by_s)))
        else:
            fleets.append(draw_change(rng, fleets[-1]))
            orders.append(Order(at_s, FleetReloaded(fleets[-1])))
    if rng.random() < 0.4:
        at_s = tick(rng.uniform(0.6, 1.0) * horizon_s)
        grace_s = tick(rng.choice((0.0, 2.0, 30.0)))
        orders.append(Order(at_s, DrainRequested(start_s + at_s + grace_s)))
        if rng.random() < 0.4:
            second_s = at_s + tick(grace_s * rng.random())
            orders.append(Order(second_s, DrainRequested(start_s + second_s)))
    return orders, fleets
