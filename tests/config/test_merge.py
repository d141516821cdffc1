import pytest

from llmswap.config.errors import ConfigError
from llmswap.config.load import load


def write(folder, *texts):
    for number, text in enumerate(texts):
        (folder / f"{number}.yaml").write_text(text)
    return folder


def refused(config, folder):
    with pytest.raises(ConfigError) as caught:
        load(config, folder, {})
    return str(caught.value)


def test_the_config_file_comes_first_then_the_directory_by_name(tmp_path):
    folder = tmp_path / "conf.d"
    folder.mkdir()
    write(folder, "apiKeys: [second]", "apiKeys: [third]")
    config = tmp_path / "config.yaml"
    config.write_text("apiKeys: [first]")
    assert load(config, folder, {}).settings.access.api_keys == ("first", "second", "third")


def test_mappings_merge_at_every_depth(tmp_path):
    write(tmp_path, "upstream: {ignorePaths: [a]}", "upstream: {allowControl: true, ignorePaths: [b]}")
    settings = load(None, tmp_path, {}).settings
    assert settings.access.allow_control is True
    assert [pattern.pattern for pattern in settings.ignore_paths] == ["a", "b"]


def test_an_empty_value_yields(tmp_path):
    write(tmp_path, "globalTTL:\nlogLevel: warn\n", "globalTTL: 5\nlogLevel:\n")
    assert load(None, tmp_path, {}).settings.log.level == "warn"


@pytest.mark.parametrize(("one", "other"), [("1", '"1"'), ("true", "1"), ("a", "b"), ("1", "1.0")])
def test_scalars_must_agree_in_value_and_type(tmp_path, one, other):
    write(tmp_path, f"logTimeFormat: {one}", f"logTimeFormat: {other}")
    found = refused(None, tmp_path)
    assert "1.yaml:1:1: logTimeFormat: conflict at 'logTimeFormat'" in found
    assert "0.yaml:1" in found


@pytest.mark.parametrize("path", ["models", "groups", "profiles", "selectors", "peers", "matrix"])
def test_identities_cannot_be_defined_twice(tmp_path, path):
    write(tmp_path, f"{path}: {{x: {{}}}}", f"{path}: {{x: {{}}}}")
    assert f"{path}.x: duplicate {path} 'x'" in refused(None, tmp_path)


@pytest.mark.parametrize("kind", ["groups", "matrix"])
def test_identities_below_routing_cannot_be_defined_twice(tmp_path, kind):
    text = f"routing: {{router: {{settings: {{{kind}: {{x: {{}}}}}}}}}}"
    write(tmp_path, text, text)
    assert f"duplicate {kind} 'x'" in refused(None, tmp_path)


def test_every_broken_file_is_reported_at_once(tmp_path):
    write(tmp_path, "a: [", "b: {", "models: {}")
    found = refused(None, tmp_path)
    assert "0.yaml:" in found
    assert "1.yaml:" in found


def test_issues_name_the_file_they_are_in(tmp_path):
    write(tmp_path, "models: {m: {cmd: 'x ${PORT}'}}", "models:\n  n:\n    ttl: x\n")
    assert "1.yaml:3:5: models.n.ttl: must be a whole number" in refused(None, tmp_path)


@pytest.mark.parametrize(
    ("make", "message"),
    [
        (lambda path: path.mkdir(), "cannot read the file"),
        (lambda path: None, "cannot read the file: No such file"),
        (lambda path: path.write_bytes(b"a: \xff"), "is not UTF-8 text"),
    ],
)
def test_a_file_that_cannot_be_read(tmp_path, make, message):
    path = tmp_path / "config.yaml"
    make(path)
    assert message in refused(path, None)


def test_a_byte_order_mark_is_no_content(tmp_path):
    path = tmp_path / "config.yaml"
    path.write_bytes(b"\xef\xbb\xbflogLevel: warn\n")
    assert load(path, None, {}).settings.log.level == "warn"


def test_a_missing_directory_and_no_source_at_all(tmp_path):
    assert "cannot read the directory" in refused(None, tmp_path / "none")
    assert "no configuration sources found" in refused(None, None)
