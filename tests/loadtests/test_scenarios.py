"""The shipped scenarios: those of the simulator mean here what they mean there; and what a file may say."""

from itertools import islice
from math import inf
from random import Random

import pytest
import yaml

from llmswap.config.load import loads as loads_config
from llmswap.core.fleet import Scheduling
from llmswap.sim.whatif import scenario as simulated
from llmswap.sim.whatif.workload import Between
from loadtests import scenario, score
from loadtests.box import config, policy_of
from loadtests.gate import judge
from loadtests.reading import BadScenarioError
from loadtests.script import cast
from tests.loadtests.runs import RUN, sample, seen

OWN = {"hit", "pingpong", "zipf", "burst", "starve", "disconnect", "long", "unknown", "overload"}
TURNS = 60


def turns_here(actor):
    return [
        (
            turn.after_s,
            turn.wait,
            [(c.model, c.takes_s, c.patience_s, c.swap_class, c.cold_s, c.retries_s) for c in turn.calls],
        )
        for turn in islice(actor.turns(), TURNS)
    ]


def turns_there(caller, seed, number):
    script = caller.script(Random(f"{seed}/caller/{number}/{caller.name}"))
    turns = [next(script)]
    while len(turns) < TURNS:
        turns.append(script.send(()))
    return [
        (
            turn.after_s,
            turn.wait,
            [(c.model, c.service_s, c.patience_s, str(c.swap_class), c.cold_s, c.retries_s) for c in turn.calls],
        )
        for turn in turns
    ]


def test_there_are_the_simulators_scenarios_and_nine_of_our_own():
    assert set(scenario.names()) == set(simulated.names()) | OWN
    assert not set(simulated.names()) & OWN


@pytest.mark.parametrize("name", simulated.names())
def test_a_scenario_offers_what_the_simulator_offers_draw_by_draw(name):
    here, there = scenario.load(name), simulated.load(name)
    assert here.about == there.about
    for seed in (1, 2):
        actors, callers = cast(here, seed), there.workload.callers
        assert [actor.name for actor in actors] == [caller.name for caller in callers]
        for number, (actor, caller) in enumerate(zip(actors, callers, strict=True)):
            assert turns_here(actor) == turns_there(caller, seed, number)


def together(fleet):
    return {(frozenset(each.members), each.swap, each.exclusive, each.persistent) for each in fleet.groups}


@pytest.mark.parametrize("name", simulated.names())
def test_a_scenarios_models_cost_and_live_together_as_in_the_simulator(name, tmp_path):
    here, there = scenario.load(name), simulated.load(name).workload
    assert list(here.models) == [str(model) for model in there.fleet.models]
    for id_, model in there.fleet.models.items():
        own, costs = here.models[id_], there.costs[id_]
        assert (Between(*own.load), Between(*own.stop)) == (costs.load, costs.stop)
        assert (own.ttl_s or None, own.concurrency_limit) == (model.idle_ttl_s, model.concurrency_limit)
        assert own.begins == "stopped"
    fleet = loads_config(yaml.safe_dump(config(here, "fair", 1.0, tmp_path / "journal"))).fleet
    assert together(fleet) == together(there.fleet)


@pytest.mark.parametrize("name", scenario.names())
@pytest.mark.parametrize("policy", scenario.POLICIES)
def test_llmswap_takes_the_config_of_every_scenario_under_every_policy(name, policy, tmp_path):
    play = scenario.load(name)
    fleet = loads_config(yaml.safe_dump(config(play, policy, play.time_scale, tmp_path / "journal"))).fleet
    assert fleet.scheduling is Scheduling(policy)
    assert set(fleet.models) == set(play.models)
    for id_, model in fleet.models.items():
        assert model.queue_timeout_s == round(600 * play.time_scale)
        assert model.sleeps == (play.models[id_].sleep is not None)
        assert model.concurrency_limit == play.models[id_].concurrency_limit
        if policy == "fair":
            assert model.max_wait_s == max(1, round(120 * play.time_scale))


@pytest.mark.parametrize("name", scenario.names())
def test_every_threshold_is_of_a_figure_that_the_card_of_its_scenario_has(name):
    play = scenario.load(name)
    callers = {(caller.name, step.model or next(iter(play.models))) for caller in play.callers
               for step in (*caller.first, *caller.loop)}  # fmt: skip
    samples = [sample(caller=who, model=model, call=number) for number, (who, model) in enumerate(sorted(callers))]
    card = judge(score.card(seen(samples), RUN), play)
    assert play.thresholds
    assert [row["figure"] for row in card["thresholds"] if row["why"].startswith("there is no such figure")] == []


def test_settings_of_a_policy_shrink_with_the_scenario(tmp_path):
    own = config(scenario.load("opencode_fanout"), "fair,hold=40,maxWait=60", 0.05, tmp_path / "journal")
    assert own["routing"]["scheduler"]["settings"] == {"fair": {"maxWait": 3, "hold": 2}}
    assert policy_of("fair,hold=auto") == ("fair", {"hold": "auto"})
    for wrong in ("fare", "fair,hold", "fair,=3"):
        with pytest.raises(ValueError, match=r"there is no policy|write a setting"):
            policy_of(wrong)


SMALL = """
about: a test
run: {minutes: 1, scale: 0.1}
models: {m: {load: 1}}
callers: {c: {loop: [{model: m, takes: 1, think: 1}]}}
samples: 1
thresholds: {done: {least: 1}}
"""


def test_what_is_left_out_has_the_simulators_defaults():
    play = scenario.loads(SMALL, "small.yaml")
    (caller,) = play.callers
    (step,) = caller.loop
    assert (step.patience, step.chance, step.repeat, step.burst, step.retry) == ((inf, inf), 1.0, (1, 1), (1, 1), ())
    assert (step.api, step.leaves, step.made_up, play.fails_under) == ("chat", 0.0, False, ())
    assert play.models["m"].stop == (1.0, 1.0)


@pytest.mark.parametrize(
    ("was", "now", "complaint"),
    [
        ("takes: 1", "takse: 1", r"small.yaml.callers.c.loop\[0\]: unknown key 'takse'; did you mean 'takes'"),
        ("takes: 1, ", "", r"small.yaml.callers.c.loop\[0\]: the key 'takes' is required"),
        ("takes: 1", "takes: [2, 1]", r"loop\[0\].takes: must be a number, or \[least, most\]"),
        ("model: m", "model: x", "there is no model 'x'; list it under `models`"),
        ("model: m, ", "", "needs either `model` or `popularity`"),
        ("think: 1", "chance: 2", "chance: must be more than 0 and at most 1"),
        ("think: 1", "api: telnet", "api: must be one of chat, whole"),
        ("think: 1", "burst: 0", "burst: must be a whole number"),
        ("takes: 1, think: 1", "takes: 0", "a round takes no time"),
        ("least: 1", "leats: 1", "thresholds.done: unknown key 'leats'; did you mean 'least'"),
        ("{least: 1}", "{}", "thresholds.done: needs `least`, `most` or `exactly`"),
        ("load: 1", "load: 1, begins: asleep", "begins asleep, but cannot sleep"),
        ("minutes: 1", "minutes: 0", "run.minutes: must be more than 0"),
        ("samples: 1\n", "", "the key 'samples' is required"),
        ("about: a test", "about: [", "small.yaml: "),
    ],
)
def test_a_mistake_is_told_with_its_place_and_what_would_be_right(was, now, complaint):
    assert was in SMALL
    with pytest.raises(BadScenarioError, match=complaint):
        scenario.loads(SMALL.replace(was, now), "small.yaml")


def test_a_scenario_of_ones_own_is_read_from_its_path(tmp_path):
    (tmp_path / "mine.yaml").write_text(SMALL)
    assert scenario.load(str(tmp_path / "mine.yaml")).name == "mine"
    for missing in ("mine", str(tmp_path / "none.yaml")):
        with pytest.raises(BadScenarioError, match=r"no scenario 'mine'|No such file"):
            scenario.load(missing)
