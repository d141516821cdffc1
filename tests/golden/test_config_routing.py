"""llama-swap's behaviour when it reads a config: rows 28 to 45 of the reference's section 8.1."""

import pytest

from llmswap.config.load import load, loads
from llmswap.config.settings import PerformanceSettings
from llmswap.core.fleet import Router
from tests.config.reading import model, one_problem, problems, warnings

TWO = "models: {a: {cmd: 'x ${PORT}', aliases: [aa]}, b: {cmd: 'x ${PORT}'}}\n"


@pytest.mark.parametrize(
    ("key", "ttl_s"), [("", 300), ("ttl: -1", 300), ("ttl: 0", None), ("ttl: 600", 600), ("ttl: 60.5", 60)]
)
def test_g028_ttl_inherits_the_global_one(key, ttl_s):
    text = f"globalTTL: 300\nmodels: {{m: {{cmd: 'x ${{PORT}}', {key}}}}}"
    assert loads(text).fleet.models["m"].idle_ttl_s == ttl_s


def test_g028_negative_times_are_errors():
    assert "models.a.ttl: must be at least -1, got -2" in one_problem("models: {a: {cmd: 'x ${PORT}', ttl: -2}}")
    assert "globalTTL: must be at least 0" in one_problem("globalTTL: -1")
    assert "unloadTimeout: must be at least 0" in one_problem("unloadTimeout: -1")


def test_g028_unload_timeout_0_takes_the_global_one():
    text = (
        "unloadTimeout: 25\nmodels: {m: {cmd: 'x ${PORT}', unloadTimeout: 0}, n: {cmd: 'x ${PORT}', unloadTimeout: 3}}"
    )
    assert model(text).launch.stop_grace_s == 25
    assert model(text, "n").launch.stop_grace_s == 3


def test_g029_two_models_cannot_share_an_alias():
    found = one_problem("models:\n  a: {cmd: 'x ${PORT}', aliases: [z]}\n  b: {cmd: 'x ${PORT}', aliases: [z]}\n")
    assert "config.yaml:3:" in found
    assert "duplicate alias 'z' found in model 'b': it is also in config.yaml:2" in found


def test_g029_an_id_wins_over_an_alias():
    loaded = loads("models:\n  a: {cmd: 'x ${PORT}', aliases: [b, a]}\n  b: {cmd: 'x ${PORT}'}\n")
    assert loaded.fleet.names == {"a": "a", "b": "b"}
    assert "config.yaml:2:35: models.a.aliases[0]: alias 'b' leads nowhere" in warnings(loaded)
    assert "config.yaml:3" in warnings(loaded)


@pytest.mark.parametrize(
    ("groups", "message"),
    [
        ("{g: {members: [a]}, h: {members: [a]}}", "already in group 'g'"),
        ("{g: {members: [a, a]}}", "twice in this group"),
        ("{g: {members: [nobody]}}", "there is no model 'nobody'"),
    ],
)
def test_g030_groups_that_cannot_be_are_refused(groups, message):
    assert message in one_problem(f"{TWO}groups: {groups}")
    assert message in one_problem(f"{TWO}routing: {{router: {{settings: {{groups: {groups}}}}}}}")


def test_g031_legacy_and_new_spellings_do_not_mix():
    matrix = "matrix: {vars: {v: a}, sets: {s: v & b}}\n"
    groups = "groups: {g: {members: [a]}}\n"
    assert "cannot use both 'groups'" in problems(TWO + groups + matrix)
    assert "migrate" in one_problem(TWO + groups + "routing: {router: {use: group}}")
    assert "migrate" in one_problem(TWO + matrix + "routing: {router: {settings: {groups: {g: {members: [a]}}}}}")
    loaded = loads(TWO + groups + "routing: {scheduler: {settings: {fifo: {priority: {a: 5}}}}}")
    assert loaded.fleet.models["a"].priority == 5


def test_g032_the_router_is_chosen_by_use():
    both = "{groups: {g: {members: [a, b], swap: false}}, matrix: {vars: {v: a}, sets: {s: v & b}}}"
    assert "needs a matrix" in one_problem(f"{TWO}routing: {{router: {{use: matrix}}}}")
    grouped = loads(f"{TWO}routing: {{router: {{use: group, settings: {both}}}}}")
    assert grouped.fleet.router is Router.GROUP
    assert grouped.fleet.groups[0].members == ("a", "b")
    solved = loads(f"{TWO}routing: {{router: {{use: matrix, settings: {both}}}}}")
    assert solved.fleet.router is Router.MATRIX
    assert loads(f"{TWO}matrix: {{sets: {{s: a & b}}}}").fleet.router is Router.MATRIX
    assert "must be 'group' or 'matrix'" in one_problem(f"{TWO}routing: {{router: {{use: martix}}}}")
    assert "must be 'fifo'" in one_problem(f"{TWO}routing: {{scheduler: {{use: lifo}}}}")


def test_g033_a_priority_needs_a_model():
    found = one_problem(TWO + "routing: {scheduler: {settings: {fifo: {priority: {nobody: 1}}}}}")
    assert "routing.scheduler.settings.fifo.priority.nobody: there is no model 'nobody'" in found


@pytest.mark.parametrize(
    ("matrix", "message"),
    [
        ("{vars: {a_b: a}, sets: {s: a}}", "var 'a_b' must be 1 to 32"),
        (f"{{vars: {{{'v' * 33}: a}}, sets: {{s: a}}}}", "must be 1 to 32"),
        ("{vars: {v: aa}, sets: {s: v}}", "'aa' is an alias; write the model's id, 'a'"),
        ("{vars: {v: nobody}, sets: {s: v}}", "matrix.vars.v: there is no model 'nobody'"),
        ("{evict_costs: {a: 0}, sets: {s: a}}", "must be at least 1, got 0"),
        ("{evict_costs: {a: -1}, sets: {s: a}}", "must be at least 1, got -1"),
        ("{evict_costs: {q: 2}, sets: {s: a}}", "matrix.evict_costs.q: there is no such model"),
        ("{sets: {s: +nothing}}", "matrix.sets.s: there is no set 'nothing'"),
        ("{sets: {s: a & +t, t: b | +s}}", "matrix.sets.s: refers to itself"),
        ("{sets: {s: a | +s}}", "matrix.sets.s: refers to itself"),
        ("{sets: {s: a & nobody}}", "matrix.sets.s: there is no var or model 'nobody'"),
        ("{sets: {s: ''}}", "matrix.sets.s:"),
        ("{vars: {v: a}}", "matrix.sets: at least one set is needed"),
    ],
)
def test_g034_a_matrix_that_cannot_be_is_refused(matrix, message):
    assert message in one_problem(f"{TWO}matrix: {matrix}")


def test_g034_a_var_shadows_a_model_id():
    rules = loads(TWO + "matrix: {vars: {a: b}, evict_costs: {a: 7}, sets: {s: a}}").fleet.matrix
    assert rules.vars == {"a": "b"}
    assert rules.evict_costs == {"b": 7}


@pytest.mark.parametrize(
    ("peers", "message"),
    [
        ("{p: {models: [x]}}", "peers.p.proxy: the key 'proxy' is required"),
        ("{p: {proxy: 'http://h'}}", "peers.p.models: the key 'models' is required"),
        ("{p: {proxy: 'http://h', models: []}}", "peers.p.models: must not be empty"),
        ("{p: {proxy: '://bad', models: [x]}}", "peers.p.proxy: must be a URL"),
        ("{a: {proxy: 'http://h', models: [b/c]}, a/b: {proxy: 'http://h', models: [c]}}", "'a/b/c' is ambiguous"),
        ("{p: {proxy: 'http://h', models: [model]}}", "'p/model' is already the name of a model"),
        ("{p: {proxy: 'http://h', models: [alias]}}", "'p/alias' is already the name of a model or alias"),
        ("{p: {proxy: 'http://h', models: [by-id]}}", "'p/by-id' is already the name of a model or alias"),
        ("{p: {proxy: 'http://h', models: [pick]}}", "'p/pick' is already the name of a selector"),
        ("{p: {proxy: 'http://h', models: [pin]}}", "'p/pin' is already the name of a profile's pin"),
    ],
)
def test_g035_peers_are_checked(peers, message):
    text = f"""
models:
  p/model: {{cmd: 'x ${{PORT}}', aliases: [p/alias], filters: {{setParamsByID: {{p/by-id: {{a: 1}}}}}}}}
selectors: {{p/pick: {{strategy: pin, targets: [p/model]}}}}
profiles: {{day: {{pins: {{p/pin: p/model}}}}}}
peers: {peers}
"""
    assert message in problems(text)


@pytest.mark.parametrize(
    ("selector", "message"),
    [
        ("s: {targets: [a]}", "strategy: the key 'strategy' is required"),
        ("s: {strategy: best, targets: [a]}", "must be 'pin', 'warm' or 'spillover'"),
        ("s: {strategy: pin, targets: []}", "targets: must not be empty"),
        ("s: {strategy: pin, targets: [nobody]}", "there is no model 'nobody'"),
        ("s: {strategy: pin, targets: [t]}, t: {strategy: pin, targets: [a]}", "selectors cannot be chained"),
        ("a: {strategy: pin, targets: [a]}", "'a' is already the name of a model"),
        ("aa: {strategy: pin, targets: [a]}", "'aa' is already the name of a model, an alias"),
        ("s: {strategy: warm, targets: [a, p/far]}", "'p/far' belongs to a peer"),
        ("s: {strategy: spillover, targets: [a], settings: {spillover: 0}}", "must be at least 1, got 0"),
        ("s: {strategy: spillover, targets: [a, aa]}", "'aa' leads to a model that is already a target"),
        ("s: {strategy: spillover, targets: [a, b]}", "cannot run at the same time"),
    ],
)
def test_g036_selectors_are_checked(selector, message):
    peers = "peers: {p: {proxy: 'http://h', models: [far]}}\n"
    assert message in problems(f"{TWO}{peers}selectors: {{{selector}}}")


@pytest.mark.parametrize(
    "routing",
    [
        "groups: {g: {members: [a, b], swap: false}}",
        "matrix: {sets: {s: a & b}}",
    ],
)
def test_g036_targets_that_may_run_together_are_fine(routing):
    text = f"{TWO}peers: {{p: {{proxy: 'http://h', models: [far]}}}}\n{routing}\n"
    loaded = loads(f"{text}selectors: {{far: {{strategy: spillover, targets: [a, b]}}}}")
    assert "selectors: is not supported yet" in warnings(loaded)


@pytest.mark.parametrize(
    ("profiles", "message"),
    [
        ("[a, b]", "legacy list syntax"),
        ("{day: [a, b]}", "legacy list syntax"),
        ("{day: {pins: {}}}", "pins: must not be empty"),
        ("{day: {description: x}}", "the key 'pins' is required"),
        ("{day: {pins: {x: y, y: a}}}", "'y' is another pin"),
        ("{day: {pins: {x: nobody}}}", "there is no model 'nobody'"),
    ],
)
def test_g037_profiles_are_checked(profiles, message):
    assert message in one_problem(f"{TWO}profiles: {profiles}")


def test_g037_a_null_target_disables_a_name():
    assert "not supported yet" in warnings(loads(TWO + "profiles: {day: {pins: {x: ~, y: '', z: aa}}}"))


@pytest.mark.parametrize("key", ["", "upstream: {ignorePaths: []}"])
def test_g038_the_default_ignored_paths(key):
    (pattern,) = loads(key).settings.ignore_paths
    assert pattern.search("/favicon.ico")
    assert pattern.search("/x.json")
    assert not pattern.search("/v1/models")
    assert not pattern.search("/x.json\n")


@pytest.mark.parametrize("pattern", ["(", "a(?=b)", "(?<!a)b", "(a)\\1", "[z-a]"])
def test_g038_an_invalid_pattern_is_an_error(pattern):
    assert "upstream.ignorePaths[1]: " in one_problem(f"upstream: {{ignorePaths: [ok, '{pattern}']}}")


@pytest.mark.parametrize("every", ["4s", "10", "10.5", "fast", "-6s", "5sec"])
def test_g039_a_bad_sampling_interval_is_an_error(every):
    assert "performance.every: " in one_problem(f"performance: {{every: {every}}}")


@pytest.mark.parametrize(("every", "every_s"), [("1m30s", 90), ("5s", 5), ("0s", 0), ("~", 0), ("1.5h", 5400)])
def test_g039_sampling_intervals(every, every_s):
    loaded = loads(f"performance: {{every: {every}}}")
    assert loaded.settings.performance == PerformanceSettings(every_s=every_s)
    assert loaded.warnings == ()
    assert loads("performance: {disabled: true}").settings.performance.disabled


def test_g040_the_store_needs_a_place(tmp_path):
    assert "store.path: must not be empty" in one_problem("store: {path: ' '}")
    assert "store.path: must not be empty" in one_problem("store: {}")
    assert "is a directory" in one_problem(f"store: {{path: '{tmp_path}'}}")
    assert "does not exist" in one_problem(f"store: {{path: '{tmp_path}/none/db'}}")
    (tmp_path / "db").touch()
    assert "store: is not supported yet" in warnings(loads(f"store: {{path: '{tmp_path}/db'}}"))


@pytest.mark.parametrize(("limit", "effective"), [(10, 50), (60, 60)])
def test_g042_comfyui_gets_its_own_limits(limit, effective):
    keys = f"cmd: 'x ${{PORT}}', concurrencyLimit: {limit}, compat: {{ignoreWebsockets: false}}"
    text = f"models: {{comfyui_auto: {{{keys}}}}}"
    loaded = loads(text)
    assert loaded.fleet.models["comfyui_auto"].concurrency_limit == effective
    assert loaded.settings.models["comfyui_auto"].ignore_websockets is True


def files(folder, **texts):
    for name, text in texts.items():
        (folder / f"{name}.yaml").write_text(text)
    return folder


def refused(folder, config=None):
    from llmswap.config.errors import ConfigError

    with pytest.raises(ConfigError) as caught:
        load(config, folder, {})
    return str(caught.value)


def test_g043_files_of_a_directory_are_merged(tmp_path):
    preload = "\nglobalTTL: 60\nhooks: {on_startup: {preload: [%s]}}"
    one = "apiKeys: [k1]\nmacros: {p: --port}\nmodels: {a: {cmd: 'x ${PORT}'}}" + preload % "a"
    two = "apiKeys: [k2]\nmodels: {b: {cmd: 'x ${p} ${PORT}'}}" + preload % "b"
    files(tmp_path, one=one, two=two, empty="# nothing\n")
    (tmp_path / "three.yml").write_text("models:\nlogLevel: warn")
    (tmp_path / "notes.txt").write_text("models: [broken")
    (tmp_path / "sub.yaml").mkdir()
    loaded = load(None, tmp_path, {})
    assert list(loaded.fleet.models) == ["a", "b"]
    assert loaded.settings.access.api_keys == ("k1", "k2")
    assert loaded.settings.preload == ("a", "b")
    assert loaded.settings.log.level == "warn"
    assert loaded.settings.models["b"].launch.cmd == "x --port ${PORT}"


def test_g043_sources_that_contradict_each_other_are_refused(tmp_path):
    model = "models: {a: {cmd: 'x ${PORT}'}}"
    found = refused(files(tmp_path, one=model, two=model))
    assert "two.yaml:1:10: models.a: duplicate models 'a'" in found
    assert "one.yaml:1" in found
    files(tmp_path, one="globalTTL: 1", two="globalTTL: 2")
    assert "conflict at 'globalTTL'" in refused(tmp_path)
    files(tmp_path, one="startPort: 1", two="startPort: [1]")
    assert "incompatible YAML node kinds" in refused(tmp_path)


def test_g043_a_config_inside_the_directory_is_refused(tmp_path):
    files(tmp_path, one="")
    assert "read twice" in refused(tmp_path, tmp_path / "one.yaml")


def test_g043_an_empty_directory_alone_is_refused(tmp_path):
    assert "no configuration sources found" in refused(tmp_path)


def test_g044_a_number_may_be_a_model_id():
    assert list(loads("models:\n  123: {cmd: 'x ${PORT}'}\n  1.10: {cmd: 'x ${PORT}'}\n").fleet.models) == [
        "123",
        "1.10",
    ]


def test_g045_capabilities_are_checked():
    assert "capabilities.in[0]: must be 'text', 'audio' or 'image'" in one_problem(
        "models: {m: {cmd: 'x ${PORT}', capabilities: {in: [video]}}}"
    )
    assert "capabilities.context: must be at least 0" in one_problem(
        "models: {m: {cmd: 'x ${PORT}', capabilities: {context: -1}}}"
    )
