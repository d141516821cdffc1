"""Faults of configs: what a bad file does, and does not do. Rows of the reference's fault table by number."""

import time

import pytest

from llmswap.config.errors import ConfigError
from llmswap.config.load import load, loads
from tests.config.corpus import HARMLESS, bombs
from tests.config.reading import issues, one_problem, problems

BOMBS = dict(bombs())
TWO = "models:\n  a: {cmd: 'x ${PORT}', aliases: [z]}\n  b: {cmd: 'x ${PORT}', aliases: [%s]}\n"


@pytest.mark.parametrize(
    ("content", "line", "message"),
    [
        (b"models:\n  m: {cmd: [\n", 3, "not valid YAML"),
        (b"models:\n  m:\n    cmd: x ${PORT}\n\tttl: 5\n", 4, "not valid YAML"),
        (b"models:\n  m: {cmd: 'x ${PORT}', ttl: soon}\n", 2, "must be a whole number"),
        (b"\xff\xfe\x00", 0, "is not UTF-8 text"),
        (b"just words", 1, "the top level must be a mapping"),
    ],
)
def test_F077_a_bad_file_is_refused_with_file_line_and_reason(tmp_path, content, line, message):
    path = tmp_path / "config.yaml"
    path.write_bytes(content)
    with pytest.raises(ConfigError) as caught:
        load(path, None, {})
    (issue,) = caught.value.issues
    assert issue.file == str(path)
    assert (issue.line, message in issue.message) == (line, True)


def test_F077_an_empty_file_is_a_config_without_models(tmp_path):
    # A file of 0 bytes is what another process sees during a write; whoever reloads must not take it for an order.
    path = tmp_path / "config.yaml"
    path.touch()
    assert load(path, None, {}).fleet.models == {}


def test_F081_a_duplicate_alias_names_both_places():
    found = one_problem(TWO % "z")
    assert "config.yaml:3:" in found
    assert "config.yaml:2" in found


def test_F081_an_unknown_group_member_names_both_places():
    found = one_problem(TWO % "y" + "groups:\n  g:\n    members:\n      - c\n")
    assert "config.yaml:7:9: groups.g.members[0]: there is no model 'c'" in found
    assert "models are defined in config.yaml:1" in found


def test_F081_a_cyclic_macro_names_both_places():
    found = one_problem("macros:\n  one: ${two}\n  two: ${one}\n")
    assert "config.yaml:2" in found
    assert "config.yaml:3" in found


def test_F081_all_of_them_come_at_once():
    text = "macros: {o: '${p}', p: '${o}'}\n" + TWO % "z" + "groups: {g: {members: [c]}}\n"
    assert [issue.line for issue in issues(text)] == [1, 4, 5]


@pytest.mark.parametrize("name", BOMBS)
def test_F082_a_bomb_is_refused_or_read_within_a_second(name):
    refused = False
    began_s = time.process_time()
    try:
        loads(BOMBS[name])
    except ConfigError:
        refused = True
    assert time.process_time() - began_s < 1
    assert refused is (name not in HARMLESS)


@pytest.mark.parametrize(
    "tag", ["!!python/object/apply:os.system ['exit 1']", "!!python/name:os.system", "!!python/object:x.Y {}"]
)
def test_F082_a_python_tag_makes_no_object(tag):
    assert "this tag is not supported" in problems(f"x-any: {tag}")
