import pytest

from llmswap.config.load import loads
from tests.config.reading import by_name, one_problem, problems, warnings

A = "a: {cmd: 'x ${PORT}', aliases: [aa]}"
B = "b: {cmd: 'x ${PORT}'}"
MODELS = f"models: {{{A}, {B}}}\n"


def test_names_are_case_sensitive_and_untrimmed():
    fleet = loads("models: {A: {cmd: 'x ${PORT}', aliases: [' x', '']}}").fleet
    assert fleet.resolve("A") == "A"
    assert fleet.resolve(" x") == "A"
    assert fleet.resolve("") == "A"
    assert fleet.resolve("a") is None
    assert fleet.resolve("x") is None


def test_aliases_twice_in_one_model_are_refused():
    assert "duplicate alias 'z'" in one_problem("models: {m: {cmd: 'x ${PORT}', aliases: [z, z]}}")


def test_a_param_set_may_be_named_like_an_own_alias():
    loaded = loads("models: {m: {cmd: 'x ${PORT}', aliases: [z], filters: {setParamsByID: {z: {a: 1}}}}}")
    assert by_name(loaded, "z").aliases == ("z",)


def test_two_models_cannot_share_a_param_set_name():
    by_id = "cmd: 'x ${PORT}', filters: {setParamsByID: {z: {a: 1}}}"
    found = one_problem(f"models:\n  m: {{{by_id}}}\n  n: {{{by_id}}}\n")
    assert "duplicate alias 'z': it leads to model 'm' (config.yaml:2)" in found


def test_models_keep_the_order_of_the_file():
    assert list(loads("models: {z: {cmd: 'x ${PORT}'}, a: {cmd: 'x ${PORT}'}}").fleet.models) == ["z", "a"]


def test_models_in_no_group_share_the_default_one():
    (group,) = loads(MODELS).fleet.groups
    assert (group.name, group.members) == ("(default)", ("a", "b"))
    assert (group.swap, group.exclusive, group.persistent) == (True, True, False)


def test_a_group_called_default_keeps_its_members_and_takes_the_rest():
    (group,) = loads(MODELS + "groups: {(default): {members: [b], swap: false}}").fleet.groups
    assert (group.members, group.swap) == (("b", "a"), False)


def test_an_alias_in_a_group_stands_for_its_model():
    loaded = loads(MODELS + "groups: {g: {members: [aa]}}")
    assert loaded.fleet.groups[0].members == ("a",)
    assert "'aa' is an alias: the group takes its model, 'a'" in warnings(loaded)


def test_a_model_cannot_slip_into_two_groups_by_its_alias():
    assert "already in group 'g'" in one_problem(MODELS + "groups: {g: {members: [a]}, h: {members: [aa]}}")


def test_group_flags():
    text = "groups: {g: {members: [a], swap: no, exclusive: off, persistent: true}, empty: {}}"
    group, empty, _ = loads(MODELS + text).fleet.groups
    assert (group.swap, group.exclusive, group.persistent) == (False, False, True)
    assert empty.members == ()


def test_groups_are_there_when_the_matrix_rules():
    fleet = loads(MODELS + "matrix: {sets: {s: a & b}}").fleet
    assert [group.members for group in fleet.groups] == [("a", "b")]


def test_matrix_sets_keep_their_order_and_costs_follow_vars():
    text = "matrix: {vars: {v: a}, evict_costs: {v: 3, b: 2}, sets: {z: v, a: b}}"
    matrix = loads(MODELS + text).fleet.matrix
    assert matrix is not None
    assert list(matrix.sets) == ["z", "a"]
    assert matrix.evict_costs == {"a": 3, "b": 2}
    assert "already has another cost" in one_problem(MODELS + text.replace("b: 2", "a: 2"))


def test_a_priority_given_to_an_alias_works():
    routing = "routing: {scheduler: {use: fifo, settings: {fifo: {priority: {aa: 7}}}}}"
    assert loads(MODELS + routing).fleet.models["a"].priority == 7
    assert "already has priority 7 as 'aa'" in one_problem(MODELS + routing.replace("aa: 7", "aa: 7, a: 8"))


def test_preload_takes_aliases_and_warns_about_strangers():
    loaded = loads(MODELS + "hooks: {on_startup: {preload: [b, ' aa ', a, bb, '']}}")
    assert loaded.settings.preload == ("b", "a")
    assert "preload[3]: there is no model 'bb' (did you mean" in warnings(loaded)
    assert "preload[4]: there is no model ''" in warnings(loaded)


@pytest.mark.parametrize(("level", "effective"), [("DEBUG", "debug"), ("warn", "warn"), ("loud", "info")])
def test_log_levels(level, effective):
    loaded = loads(f"logLevel: {level}")
    assert loaded.settings.log.level == effective
    assert bool(loaded.warnings) is (level == "loud")


@pytest.mark.parametrize(("name", "effective"), [("RFC3339", "rfc3339"), ("", ""), ("iso", "")])
def test_log_time_formats(name, effective):
    assert loads(f"logTimeFormat: '{name}'").settings.log.time_format == effective


def test_a_broken_matrix_and_a_broken_group_are_both_reported():
    found = problems(MODELS + "routing: {router: {settings: {groups: {g: {members: [q]}}, matrix: {sets: {s: zz}}}}}")
    assert "there is no model 'q'" in found
    assert "routing.router.settings.matrix.sets.s: there is no var or model 'zz'" in found
