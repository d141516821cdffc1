from llmswap.config.env import substitute
from llmswap.config.load import loads
from tests.config.reading import model, one_problem, problems


def test_a_value_is_text_before_it_is_yaml():
    text = "models: {m: {cmd: 'x ${PORT}', ttl: ${env.N}, aliases: [${env.LIST}]}}"
    loaded = loads(text, env={"N": "60", "LIST": "a, b"})
    assert loaded.fleet.models["m"].idle_ttl_s == 60
    assert loaded.settings.models["m"].aliases == ("a", "b")


def test_a_value_may_hold_another_variable_once():
    assert substitute("${env.A}", {"A": "<${env.B}>", "B": "${env.C}", "C": "c"})[0] == "<${env.C}>"


def test_other_forms_are_left_alone():
    text = "${env.} ${env.1A} $env.A ${ENV.A} ${env.A-B}"
    assert substitute(text, {"A": "x"}) == (text, {})


def test_backslashes_stay_visible_outside_double_quotes():
    text = "models: {m: {cmd: 'x ${PORT}', name: '${env.P}'}}"
    assert model(text, env={"P": "C:\\x"}).name == "C:\\\\x"


def test_every_missing_variable_is_reported_at_its_place():
    found = problems("logLevel: ${env.A}\nmodels:\n  m:\n    cmd: x ${PORT} ${env.B}\n    ttl: ${env.C}\n")
    assert "config.yaml:1:11: logLevel: environment variable 'A'" in found
    assert "config.yaml:4:10: models.m.cmd: environment variable 'B'" in found
    assert "config.yaml:5:10: models.m.ttl: environment variable 'C'" in found
    assert len(found.splitlines()) == 3


def test_a_missing_variable_hides_no_other_error():
    found = problems("logLevel: ${env.A}\nglobalTTL: x\n")
    assert "'A' is not set" in found
    assert "globalTTL: must be a whole number" in found


def test_a_missing_variable_makes_no_second_error_on_its_line():
    assert "'A' is not set" in one_problem('globalTTL: "${env.A}"')


def test_a_missing_variable_in_a_key_is_found():
    assert "'A' is not set" in one_problem("x-${env.A}: 1")


def test_no_message_shows_a_value():
    for text in (
        "a: [${env.K}",
        "apiKeys: ['${env.K} x']",
        "x: *${env.K}",
        "x: !${env.K} y",
        "logLevel: {a: ${env.K}}",
    ):
        assert "s3cr3t" not in problems(text, {"K": "s3cr3t"})
