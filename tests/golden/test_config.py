"""llama-swap's behaviour when it reads a config: rows 1 to 27 of the reference's section 8.1."""

import pytest

from llmswap.config.command import split
from llmswap.config.load import load, loads
from tests.config.reading import model, one_problem, problems


def test_g001_an_empty_file_loads_with_defaults():
    loaded = loads("")
    assert loaded.fleet.models == {}
    assert loaded.warnings == ()
    section = model("models: {m: {cmd: 'x ${PORT}'}}").launch
    assert (section.port, section.ready_timeout_s, section.stop_grace_s) == (5800, 120, 10)


@pytest.mark.parametrize("seconds", ["5", "0", "-1"])
def test_g002_a_short_health_check_timeout_becomes_15(seconds):
    assert (
        model(f"healthCheckTimeout: {seconds}\nmodels: {{m: {{cmd: x, proxy: 'http://h:1'}}}}").launch.ready_timeout_s
        == 15
    )


@pytest.mark.parametrize("port", ["-99", "abcd", '"6000"'])
def test_g003_a_bad_start_port_is_an_error(port):
    assert "startPort: must be" in one_problem(f"startPort: {port}")


def test_g003_start_port_may_be_a_macro():
    text = 'macros: {P: 6000}\nstartPort: "${P}"\nmodels: {m: {cmd: "x ${PORT}"}}'
    assert model(text).launch.port == 6000


def test_g004_ports_follow_byte_order_and_are_only_taken_where_used():
    text = """
models:
  b: {cmd: "x ${PORT}"}
  a9: {cmd: "x", proxy: "http://h:1"}
  a10: {cmd: "x ${PORT}"}
  B: {cmd: "x ${PORT}"}
"""
    ports = {name: found.launch.port for name, found in loads(text).settings.models.items()}
    assert ports == {"B": 5800, "a10": 5801, "a9": None, "b": 5802}


def test_g005_the_default_proxy_needs_port_in_cmd():
    assert "proxy uses ${PORT} but cmd does not" in one_problem("models: {m: {cmd: x}}")


def test_g006_port_comes_through_macros_and_reaches_every_value():
    text = """
macros: {args: "--port ${PORT}"}
startPort: 9000
models:
  m:
    cmd: server ${args}
    aliases: ["at-${PORT}"]
    checkEndpoint: /health/${PORT}
    metadata: {port: "${PORT}", text: "on ${PORT}"}
    env: ["P=${PORT}"]
"""
    found = model(text)
    assert found.aliases == ("at-9000",)
    assert found.metadata == {"port": 9000, "text": "on 9000"}
    launch = found.launch.at_port(9000)
    assert (launch.cmd, launch.env) == ("server --port 9000", ("P=9000",))
    assert (launch.check_path, launch.proxy) == ("/health/9000", "http://localhost:9000")


@pytest.mark.parametrize("key", ["env: ['P=${PORT}']", "cmdStop: kill ${PORT}"])
def test_g007_port_only_outside_cmd_is_an_error(key):
    text = f"models:\n  m:\n    cmd: x\n    proxy: http://h:1\n    {key}\n"
    assert "'${PORT}': it is only available when cmd uses it" in one_problem(text)


@pytest.mark.parametrize("stop", ["kill ${PID}", "${killer}"])
def test_g008_pid_stays_in_cmd_stop(stop):
    text = f'macros: {{killer: "kill ${{PID}}"}}\nmodels: {{m: {{cmd: "x ${{PORT}}", cmdStop: "{stop}"}}}}'
    assert model(text).launch.cmd_stop == "kill ${PID}"


@pytest.mark.parametrize("key", ['cmd: "x ${PORT} ${PID}"', 'cmd: "x ${PORT}"\n    metadata: {pid: "${PID}"}'])
def test_g008_pid_elsewhere_is_an_error(key):
    assert "'${PID}': it is only available in cmdStop" in one_problem(f"models:\n  m:\n    {key}\n")


@pytest.mark.parametrize("name", ["PORT", "PID", "MODEL_ID"])
def test_g009_reserved_macro_names_are_refused(name):
    assert f"macros.{name}: macro name '{name}' is reserved" in one_problem(f"macros: {{{name}: x}}")
    text = f"models: {{m: {{cmd: x, proxy: 'http://h:1', macros: {{{name}: x}}}}}}"
    assert f"models.m.macros.{name}: macro name '{name}' is reserved" in one_problem(text)


def test_g010_a_macro_name_has_at_most_63_characters():
    assert loads(f"macros: {{{'a' * 63}: x}}").warnings == ()
    assert "longer than 63" in one_problem(f"macros: {{{'a' * 64}: x}}")


@pytest.mark.parametrize(
    ("macro", "message"),
    [
        ("a.b: x", "letters, digits"),
        ("a: [x]", "scalar type"),
        ("a: {b: c}", "scalar type"),
        ("a: ~", "scalar type"),
        ("a: 2024-01-02", "scalar type"),
        ("a: x${a}", "self-reference"),
    ],
)
def test_g010_bad_macros_are_refused(macro, message):
    assert message in one_problem(f"macros:\n  {macro}\n")


def test_g011_macros_use_earlier_ones_but_not_later_ones():
    cmd = '\nmodels: {m: {cmd: "${C} ${PORT}"}}'
    assert model('macros:\n  A: x\n  B: "${A}"\n  C: "${B}"' + cmd).launch.cmd == "x ${PORT}"
    found = one_problem('macros:\n  C: "${B}"\n  B: "${A}"\n  A: x' + cmd)
    assert "unknown macro '${B}': it is declared after the macro that uses it" in found


def test_g012_a_model_overrides_a_macro_inside_another_macro():
    text = """
macros: {tag: base, msg: "v-${tag}"}
models:
  m: {cmd: "${msg} ${PORT}", macros: {tag: own}}
  n: {cmd: "${msg} ${PORT}"}
"""
    assert model(text).launch.cmd == "v-own ${PORT}"
    assert model(text, "n").launch.cmd == "v-base ${PORT}"


def test_g013_scopes_of_macros():
    text = 'macros: {g: "${only}"}\nmodels: {m: {cmd: "${g} ${PORT}", macros: {only: x}}}'
    assert "unknown macro '${only}'" in one_problem(text)
    text = 'macros: {g: x}\nmodels: {m: {cmd: "${own} ${PORT}", macros: {own: "${g}y"}}}'
    assert model(text).launch.cmd == "xy ${PORT}"
    text = 'models: {m: {cmd: "x ${PORT}", macros: {own: y}}, n: {cmd: "${own} ${PORT}"}}'
    assert "models.n.cmd: unknown macro '${own}'" in one_problem(text)


def test_g014_an_exact_macro_keeps_its_type():
    text = """
macros: {t: 0.7, n: 60, yes: true}
models:
  m:
    cmd: x ${PORT}
    ttl: ${n}
    capabilities: {tools: "${yes}"}
    metadata: {t: "${t}", text: "at ${t}"}
"""
    found = model(text)
    assert found.metadata == {"t": 0.7, "text": "at 0.7"}
    assert found.capabilities.tools is True
    assert loads(text).fleet.models[found.id].idle_ttl_s == 60


def test_g015_an_embedded_macro_is_a_string_and_fits_no_number():
    text = 'macros: {N: 6}\nmodels: {m: {cmd: "x ${PORT}", ttl: "${N}0"}}'
    assert "models.m.ttl: must be a whole number, not a string" in one_problem(text)


def test_g016_comment_lines_in_cmd_vanish_before_macros():
    text = "models:\n  m:\n    cmd: |\n      server\n        # not ${there} at all\n      --port ${PORT}\n"
    assert split(model(text).launch.cmd) == ["server", "--port", "${PORT}"]


def test_g017_comment_lines_brought_by_macros_vanish_when_it_is_split():
    text = """
macros:
  args: |
    # words of a comment
    --a 1
models:
  m:
    cmd: |
      server --port ${PORT}
      ${args}
      --b # not a comment
"""
    expected = ["server", "--port", "${PORT}", "--a", "1", "--b", "#", "not", "a", "comment"]
    assert split(model(text).launch.cmd) == expected


def test_g018_continuations_blank_lines_and_quoting():
    text = """
models:
  m:
    cmd: |
      server \\
        --port ${PORT} \\

          # indented comment
        --name '"mixed" quotes' "and 'these'" a'b'"c"
"""
    expected = ["server", "--port", "${PORT}", "--name", '"mixed" quotes', "and 'these'", "abc"]
    assert split(model(text).launch.cmd) == expected


@pytest.mark.parametrize(
    ("text", "words"),
    [
        (r'"\$x"', ["$x"]),
        ('a "open end', ["a", "open end"]),
        ("a 'open end", ["a", "open end"]),
        ('a "" b', ["a", "", "b"]),
        ("a\rb c", ["a\rb", "c"]),
    ],
)
def test_g019_splitting_is_not_shlex(text, words):
    assert split(text) == words


def test_g020_an_unset_environment_variable_is_named():
    found = one_problem("models:\n  m:\n    cmd: ${env.NOPE} ${PORT}\n")
    assert "config.yaml:3:" in found
    assert "environment variable 'NOPE' is not set" in found


@pytest.mark.parametrize(
    "comment", ["# ${env.NOPE}\nlogLevel: info", "  # ${env.NOPE}", "logLevel: info # ${env.NOPE}"]
)
def test_g020_an_unset_variable_in_a_comment_is_ignored(comment):
    assert loads(comment).fleet.models == {}


def test_g020_a_hash_line_in_a_block_scalar_is_no_yaml_comment():
    found = problems("models:\n  m:\n    cmd: |\n      x ${PORT}\n      # ${env.NOPE}\n")
    assert "environment variable 'NOPE' is not set" in found


@pytest.mark.parametrize("value", ["a\nb", "a\rb", "a\0b"])
def test_g021_a_line_break_in_a_variable_is_an_error(value):
    found = one_problem("logTimeFormat: ${env.X}", {"X": value})
    assert "environment variable 'X' contains a line break or a NUL" in found


def test_g021_quotes_and_backslashes_survive_in_double_quotes():
    value = 'say "hi" C:\\new'
    assert model('models: {m: {cmd: "${PORT}", name: "${env.X}"}}', env={"X": value}).name == value


def test_g022_a_key_from_the_environment_in_flow_style(tmp_path):
    text = "apiKeys: [${env.K}]"
    assert loads(text, env={"K": "secret"}).settings.access.api_keys == ("secret",)
    (tmp_path / "keys.yaml").write_text(text)
    assert load(None, tmp_path, {"K": "secret"}).settings.access.api_keys == ("secret",)
    assert "empty api key found in apiKeys" in one_problem('apiKeys: ["${env.K}"]', {"K": ""})


def test_g022_an_empty_unquoted_key_is_an_error_and_not_an_open_door():
    assert "apiKeys[0]: empty api key found in apiKeys" in one_problem("apiKeys: [${env.K}]", {"K": ""})
    assert "apiKeys[0]: empty api key found in apiKeys" in one_problem("apiKeys:\n  - ${env.K}\n", {"K": ""})


@pytest.mark.parametrize("key", ["' a'", "'a '", "'a b'"])
def test_g023_blanks_in_keys_are_refused_by_index(key):
    found = one_problem(f"apiKeys: [good, {key}]")
    assert "apiKeys[1]: api key cannot contain spaces" in found


def test_g024_anchored_macros_expand_in_each_models_scope():
    text = """
defs: &common
  cmd: server --model ${path} --port ${PORT}
models:
  a: {<<: *common, macros: {path: one}}
  b: {<<: *common, macros: {path: two}}
"""
    assert model(text, "a").launch.cmd == "server --model one --port ${PORT}"
    assert model(text, "b").launch.cmd == "server --model two --port ${PORT}"


def test_g025_macros_in_keys_are_literal_but_for_set_params_by_id():
    text = """
macros: {x: high, y: high}
models:
  m:
    cmd: x ${PORT}
    metadata: {"${x}": 1}
    filters: {setParamsByID: {"${MODEL_ID}:${x}": {a: 1}}}
"""
    found = model(text)
    assert found.metadata == {"${x}": 1}
    assert found.filters.set_by_name == {"m:high": {"a": 1}}
    clash = text.replace("{a: 1}", '{a: 1}, "${MODEL_ID}:${y}": {b: 1}')
    assert "resolve to the same value 'm:high'" in one_problem(clash)
    assert "unknown macro '${z}'" in one_problem(text.replace("${MODEL_ID}:${x}", "${z}"))


def test_g026_set_params_by_id_brings_aliases():
    text = "models:\n  m:\n    cmd: x ${PORT}\n    filters: {setParamsByID: {m: {a: 1}, fast: {b: 1}}}\n"
    loaded = loads(text)
    assert loaded.fleet.names == {"m": "m", "fast": "m"}
    other_id = text + "  fast: {cmd: 'x ${PORT}'}\n"
    assert "'fast' is the id of another model" in one_problem(other_id)
    other_alias = text + "  n: {cmd: 'x ${PORT}', aliases: [fast]}\n"
    assert "duplicate alias 'fast'" in one_problem(other_alias)


@pytest.mark.parametrize("key", ["strip_params", "stripParams"])
def test_g027_stripped_params_are_a_clean_sorted_set(key):
    text = f"models: {{m: {{cmd: 'x ${{PORT}}', filters: {{{key}: 'model, top_k, top_k, , temperature'}}}}}}"
    assert model(text).filters.strip == ("temperature", "top_k")
