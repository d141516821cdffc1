"""`routing.scheduler.use: fair` and the keys that belong to it."""

import pytest

from llmswap.config.errors import ConfigError
from llmswap.config.load import loads
from llmswap.core.fleet import ModelId, Scheduling

MODELS = """
models:
  a: {cmd: "x ${PORT}", aliases: [one]}
  b: {cmd: "x ${PORT}", priority: 3, maxWait: 30, unloadDelay: 7, queueLimit: 5}
"""


def models_of(scheduler: str):
    fleet = loads(f"{MODELS}routing: {{scheduler: {scheduler}}}\n").fleet
    return fleet, fleet.models[ModelId("a")], fleet.models[ModelId("b")]


def test_llama_swaps_scheduler_has_no_bound():
    fleet, _, b = models_of("{use: fifo}")
    assert fleet.scheduling is Scheduling.FIFO
    assert b.max_wait_s == float("inf")


@pytest.mark.parametrize("scheduler", ["{}", "{use: fair}"])
def test_fair_is_the_default_has_its_defaults_and_a_models_own_keys_win(scheduler):
    fleet, a, b = models_of(scheduler)
    assert fleet.scheduling is Scheduling.FAIR
    assert (a.max_wait_s, a.hold_s, a.queue_limit, a.priority) == (120, None, 1000, 0)
    assert (b.max_wait_s, b.hold_s, b.queue_limit, b.priority) == (30, 7, 5, 3)


def test_the_schedulers_settings_hold_for_all_models_that_say_nothing():
    settings = "{fair: {maxWait: 0, hold: 15, queueLimit: 9, priority: {one: 4, b: 1}}}"
    _, a, b = models_of(f"{{use: fair, settings: {settings}}}")
    assert (a.max_wait_s, a.hold_s, a.queue_limit, a.priority) == (0, 15, 9, 4)
    assert (b.hold_s, b.priority) == (7, 3)


@pytest.mark.parametrize("use", ["use: fifo, ", "use: fair, ", ""])
def test_priorities_of_an_existing_config_and_a_models_own_count_under_every_scheduler(use):
    _, a, b = models_of(f"{{{use}settings: {{fifo: {{priority: {{a: 2}}}}}}}}")
    assert (a.priority, b.priority) == (2, 3)


def test_under_fair_its_own_priorities_win_over_those_of_fifo():
    _, a, _ = models_of("{settings: {fifo: {priority: {a: 2}}, fair: {priority: {one: 4}}}}")
    assert a.priority == 4


@pytest.mark.parametrize(
    ("key", "path"),
    [("hold: soon", "hold"), ("maxWait: -1", "maxWait"), ("queueLimit: 0", "queueLimit"), ("priority: {zz: 1}", "zz")],
)
def test_what_makes_no_sense_is_refused_with_its_place(key, path):
    with pytest.raises(ConfigError) as refused:
        models_of(f"{{use: fair, settings: {{fair: {{{key}}}}}}}")
    assert any(path in issue.path and issue.line == 5 for issue in refused.value.issues)
