"""`swapClass`, `swapClassByID` and `substitutes`."""

import pytest

from llmswap.config.load import loads
from llmswap.core.events import SwapClass
from tests.config.reading import by_name, model, one_problem, problems

CMD = "cmd: 'x ${PORT}'"


def test_requests_may_swap_unless_somebody_says_otherwise():
    found = model(f"models: {{m: {{{CMD}}}}}")
    assert (found.swap_class, found.swap_class_by_name) == (SwapClass.MAY_SWAP, {})


def test_a_name_with_a_swap_class_of_its_own_becomes_an_alias():
    text = f"models: {{m: {{{CMD}, swapClass: prefer-warm, swapClassByID: {{title: never-swap, m: may-swap}}}}}}"
    found = by_name(loads(text), "title")
    assert (found.id, found.aliases, found.swap_class) == ("m", ("title",), SwapClass.PREFER_WARM)
    assert found.swap_class_by_name == {"title": SwapClass.NEVER_SWAP, "m": SwapClass.MAY_SWAP}


def test_one_name_may_have_parameters_and_a_swap_class():
    by_id = "swapClassByID: {z: never-swap}, filters: {setParamsByID: {z: {a: 1}}}, aliases: [z]"
    found = model(f"models: {{m: {{{CMD}, {by_id}}}}}", "z")
    assert found.aliases == ("z",)
    assert found.filters.set_by_name == {"z": {"a": 1}}


def test_macros_work_in_the_names():
    text = f"macros: {{x: title}}\nmodels: {{m: {{{CMD}, swapClassByID: {{'${{MODEL_ID}}-${{x}}': never-swap}}}}}}"
    assert model(text, "m-title").swap_class_by_name == {"m-title": SwapClass.NEVER_SWAP}


@pytest.mark.parametrize("key", ["swapClass: never", "swapClassByID: {title: 1}"])
def test_a_class_that_does_not_exist_is_refused(key):
    found = one_problem(f"models: {{m: {{{CMD}, {key}}}}}")
    assert key.partition(":")[0] in found
    assert "may-swap" in found


def test_a_name_leads_to_one_model_only():
    models = f"models:\n  a: {{{CMD}, filters: {{setParamsByID: {{z: {{}}}}}}}}\n"
    found = one_problem(f"{models}  b: {{{CMD}, swapClassByID: {{z: never-swap}}}}\n")
    assert "config.yaml:3" in found
    assert "duplicate alias 'z': it leads to model 'a' (config.yaml:2)" in found
    found = one_problem(f"{models}  b: {{{CMD}, swapClassByID: {{a: never-swap}}}}\n")
    assert "'a' is the id of another model, in config.yaml:2" in found


def test_substitutes_are_found_by_any_name_under_both_schedulers():
    text = f"models: {{big: {{{CMD}, substitutes: [s, mid]}}, mid: {{{CMD}}}, small: {{{CMD}, aliases: [s]}}}}\n"
    for use in ("fifo", "fair"):
        fleet = loads(f"{text}routing: {{scheduler: {{use: {use}}}}}").fleet
        assert [fleet.models[name].substitutes for name in fleet.models] == [("small", "mid"), (), ()]


def test_substitutes_that_make_no_sense_are_refused():
    text = f"models: {{big: {{{CMD}, aliases: [b], substitutes: [b, smal, small, s]}}, small: {{{CMD}, aliases: [s]}}}}"
    found = problems(text)
    assert "models.big.substitutes[0]: 'b' is this model itself" in found
    assert "models.big.substitutes[1]: there is no model 'smal' (did you mean 'small'?)" in found
    assert "models.big.substitutes[3]: 's' is model 'small', which is listed as 'small'; keep one" in found


def test_other_substitutes_restart_nothing():
    text = "models: {big: {cmd: 'x ${PORT}'%s}, small: {cmd: 'x ${PORT}'}}"
    plain = loads(text % "").fleet.models["big"]
    other = loads(text % ", substitutes: [small], swapClass: never-swap").fleet.models["big"]
    assert plain.fingerprint == other.fingerprint
