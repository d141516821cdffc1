import json

import jsonschema
import pytest

from llmswap.config.env import substitute
from llmswap.config.issues import Issues
from llmswap.config.load import loads
from llmswap.config.schema import json_schema
from llmswap.config.source import parse
from tests.config.corpus import CONFIGS, ENV
from tests.config.reading import issues, model, one_problem, problems, warnings

CMD = "cmd: 'x ${PORT}'"


def sections():
    schema = json_schema()
    yield "top level", schema["properties"]
    for name, section in schema["$defs"].items():
        yield name, section["properties"]


def test_every_key_has_a_description():
    silent = [
        f"{name}.{key}" for name, keys in sections() for key, value in keys.items() if not value.get("description")
    ]
    assert silent == []


def test_no_section_takes_unknown_keys():
    schema = json_schema()
    assert schema["additionalProperties"] is False
    assert [name for name, section in schema["$defs"].items() if section.get("additionalProperties") is not False] == []


def test_the_schema_is_one_that_editors_can_use():
    schema = json.loads(json.dumps(json_schema()))
    jsonschema.Draft202012Validator.check_schema(schema)
    validator = jsonschema.Draft202012Validator(schema)
    for path in CONFIGS.glob("*.yaml"):
        issues = Issues(path.name)
        source = parse(substitute(path.read_text(), ENV)[0], path.name, issues, {})
        assert source is not None
        assert [error.message for error in validator.iter_errors(source.root)] == []
    assert validator.is_valid({"globalTTL": 5, "models": {"m": {"ttl": "${t}", "unlisted": "yes"}}})
    assert not validator.is_valid({"globalTTL": "5"})
    assert not validator.is_valid({"modles": {}})


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("modles: {}", "modles: unknown key 'modles' (did you mean 'models'?)"),
        ("ttl: 5", "ttl: unknown key 'ttl' here: it belongs inside a model"),
        ("models: {m: {cmd: 'x ${PORT}', globalTTL: 5}}", "unknown key 'globalTTL' here: it belongs at the top level"),
        ("models: {m: {cmd: 'x ${PORT}', chekEndpoint: /}}", "(did you mean 'checkEndpoint'?)"),
        ("models: {m: {cmd: 'x ${PORT}', filters: {strip: a}}}", "models.m.filters.strip: unknown key 'strip'"),
        ("routing: {router: {settings: {group: {}}}}", "(did you mean 'groups'?)"),
        ("models: [a]", "models: must be a mapping, not a list"),
        ("models: {m: 5}", "models.m: must be a mapping, not a number"),
        ("models: {m: {cmd: ['${PORT}']}}", "models.m.cmd: must be a string, not a list"),
        ("models: {m: {cmd: 'x ${PORT}', aliases: a}}", "models.m.aliases: must be a list, not a string"),
        ("models: {m: {cmd: 'x ${PORT}', unlisted: maybe}}", "models.m.unlisted: must be true or false, not a string"),
        ("models: {m: {cmd: 'x ${PORT}', ttl: true}}", "models.m.ttl: must be a whole number, not true"),
        ("models: {m: {cmd: 'x ${PORT}', ttl: .inf}}", "models.m.ttl: must be a finite number"),
        ("models: {m: {cmd: 'x ${PORT}', ttl: 18446744073709551615}}", "models.m.ttl: is too large"),
        ("models: {m: {cmd: 'x ${PORT}', metadata: {a: [.nan]}}}", "models.m.metadata: must not hold .inf or .nan"),
        ('models: {m: {cmd: "x ${PORT} \\0"}}', "models.m.cmd: must not contain a NUL"),
        ("logToStdout: Proxy", "must be 'proxy', 'upstream', 'both' or 'none', not 'Proxy' (did you mean 'proxy'?)"),
        ("queueMax: 0", "queueMax: must be at least 1, got 0"),
        ("queueTimeout: 0", "queueTimeout: must be at least 1, got 0"),
        ("allowedHosts: ['https://a']", "allowedHosts[0]: must be a host name or address alone"),
        ("allowedOrigins: ['*']", "allowedOrigins[0]: must be an exact origin"),
        ("allowedOrigins: ['https://a.example/']", "allowedOrigins[0]: must be an exact origin"),
        ("trustedProxies: [proxy.example]", "trustedProxies[0]: must be an address or a network"),
    ],
)
def test_misfits_are_explained(text, message):
    assert message in one_problem(text)


def test_one_bad_model_hides_nothing_else_and_makes_nothing_up():
    text = f"""
models:
  a: 5
  b: {{{CMD}, ttl: x, aliases: [bb]}}
  c: {{{CMD}, unknown: 1}}
groups: {{g: {{members: [a, b, c, stranger]}}}}
hooks: {{on_startup: {{preload: [bb]}}}}
"""
    found = [(issue.line, issue.path) for issue in issues(text)]
    assert found == [
        (3, "models.a"),
        (4, "models.b.ttl"),
        (5, "models.c.unknown"),
        (6, "groups.g.members[3]"),
    ]


def test_a_misspelt_models_key_makes_no_other_errors_up():
    assert "did you mean 'models'" in one_problem(f"modles: {{a: {{{CMD}}}}}\ngroups: {{g: {{members: [a]}}}}")


def test_issues_come_in_the_order_of_the_file():
    lines = [issue.line for issue in issues("globalTTL: x\nzzz: 1\nlogToStdout: y\nmodels: {m: {cmd: x}}\nyyy: 2\n")]
    assert lines == [1, 2, 3, 4, 5]


@pytest.mark.parametrize(
    ("written", "text"),
    [
        ("0123", "83"),
        ("1e3", "1000"),
        ("1.10", "1.1"),
        ("true", "true"),
        ("2024-01-02", "2024-01-02T00:00:00Z"),
        ("yes", "yes"),
    ],
)
def test_scalars_in_string_fields_are_rendered_after_parsing(written, text):
    assert model(f"models: {{m: {{{CMD}, name: {written}}}}}").name == text


@pytest.mark.parametrize("word", ["yes", "Yes", "on", "y", "true", '"yes"'])
def test_words_for_true_in_bool_fields(word):
    assert model(f"models: {{m: {{{CMD}, unlisted: {word}}}}}").unlisted is True


@pytest.mark.parametrize("word", ["no", "off", "N", "false"])
def test_words_for_false_in_bool_fields(word):
    assert (
        model(f"sendLoadingState: true\nmodels: {{m: {{{CMD}, sendLoadingState: {word}}}}}").send_loading_state is False
    )


def test_null_means_absent():
    keys = f"{CMD}, ttl: ~, proxy: ~, filters: ~, timeouts: {{connect: ~}}"
    loaded = loads(f"globalTTL: ~\nlogToStdout:\nstore: ~\ngroups: {{g: ~}}\nmodels: {{m: {{{keys}}}}}")
    assert loaded.settings.log.to_stdout == "proxy"
    assert loaded.settings.models["m"].launch.proxy == "http://localhost:${PORT}"
    assert loaded.settings.models["m"].timeouts.connect_s == 30
    assert loaded.fleet.groups[0].swap is True


def test_a_null_model_is_refused_clearly():
    assert "models.m.proxy: proxy uses ${PORT} but cmd does not" in problems("models: {m: ~}")


def test_x_keys_and_anchor_holders_are_nobodys_business():
    assert loads("x-anything: [1]\n.defs: &d {a: 1}\nmore: {b: &b 2}\n").warnings == ()
    assert "unknown key 'more'" in one_problem("more: {b: 2}\n")


def test_a_store_where_nobody_may_look_is_an_issue_like_any_other():
    """Path.is_dir raises for it, which would end a running llmswap at its next reload."""
    assert "store.path: lies in a directory that does not exist" in one_problem(f"store: {{path: '/{'x' * 300}/db'}}")
    assert "is not supported yet" in warnings(loads("store: {path: activity.db}"))


def test_an_unknown_key_does_not_hide_what_else_is_wrong_in_its_section():
    found = problems("models: {m: {cmd: 'x ${PORT}'}}\ngroups:\n  g: {member: [m]}\n  h: {members: [nobody]}\n")
    assert "groups.g.member: unknown key 'member' (did you mean 'members'?)" in found
    assert "groups.h.members[0]: there is no model 'nobody'" in found
