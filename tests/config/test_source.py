import pytest

from llmswap.config.errors import ConfigError
from llmswap.config.issues import Issues
from llmswap.config.source import Source, parse
from llmswap.config.tree import find_place, plain


def read(text: str) -> Source:
    issues = Issues("c.yaml")
    source = parse(text, "c.yaml", issues, {})
    issues.check()
    assert source is not None
    return source


def refused(text: str) -> str:
    issues = Issues("c.yaml")
    parse(text, "c.yaml", issues, {})
    with pytest.raises(ConfigError) as caught:
        issues.check()
    return str(caught.value)


def test_remembers_where_things_stand():
    root = read("a:\n  b: [1,\n    x]\n").root
    assert find_place(root, ("a",)) == ("c.yaml", 1, 1)
    assert find_place(root, ("a", "b", 1)) == ("c.yaml", 3, 5)
    assert find_place(root, ("a", "missing", "deeper")) == ("c.yaml", 1, 1)
    assert find_place(root, ("nothing",)) is None


@pytest.mark.parametrize("text", ["", "# only a comment\n", "---\n", "~", "--- \n...\n"])
def test_nothing_is_an_empty_mapping(text):
    assert read(text).root == {}


def test_only_the_first_document_is_read():
    assert read("a: 1\n---\nb: [broken\n").root == {"a": 1}


@pytest.mark.parametrize("text", ["[a]", "word", "5", "|\n text"])
def test_the_top_level_must_be_a_mapping(text):
    assert "the top level must be a mapping" in refused(text)


def test_duplicate_keys_are_all_reported_with_both_places():
    found = refused("a: 1\nb:\n  c: 1\n  'c': 2\na: 3\n")
    assert "c.yaml:4:3: b.c: the key 'c' is here twice: first on line 3" in found
    assert "c.yaml:5:1: a: the key 'a' is here twice: first on line 1" in found


def test_merges_yield_to_own_keys_and_to_earlier_merges():
    text = "x: &x {a: 1, b: 1}\ny: &y {b: 2, c: 2}\nz: {<<: [*x, *y], c: 3}\n"
    root = read(text).root
    assert plain(root)["z"] == {"a": 1, "b": 1, "c": 3}
    assert list(root["z"]) == ["c", "a", "b"]
    assert find_place(root, ("z", "b")) == ("c.yaml", 1, 14)


def test_a_quoted_merge_key_is_an_ordinary_key():
    assert plain(read("'<<': {a: 1}").root) == {"<<": {"a": 1}}


def test_anchors_are_copied_wherever_they_are_used():
    root = read("a: &a {k: v}\nb: *a\nc: [*a, *a]\n&n name: 1\nd: *n\n").root
    assert plain(root) == {"a": {"k": "v"}, "b": {"k": "v"}, "c": [{"k": "v"}] * 2, "name": 1, "d": "name"}


def test_tells_which_top_level_keys_hold_anchors():
    assert read("defs: {x: &x 1}\nuses: [*x]\nplain: 1\n").anchored == {"defs"}


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("a: *nobody", "no anchor"),
        ("a: &a [*a]", "no anchor"),
        ("a: {<<: 5}", "`<<` takes a mapping"),
        ("? [x]\n: y", "a key must be"),
        ("a: !!python/object/apply:os.system [id]", "tag is not supported"),
        ("a: !!python/name:os.system", "tag is not supported"),
        ("a: !!binary aGk=", "tag is not supported"),
        ("a: !!int x", "does not fit its tag"),
        ("a: [1", "not valid YAML: while parsing a flow sequence that begins on line 1, did not find"),
        ("a:\n\tb: 1", "indent with blanks, not tabs"),
        ("a: b: c", "c.yaml:1:5: not valid YAML: mapping values are not allowed in this context; quote a value"),
        ("a: \x00", "not valid YAML: "),
        ("a: " + "[" * 65 + "]" * 65, "nested deeper than 64"),
    ],
)
def test_what_it_refuses(text, message):
    assert message in refused(text)


@pytest.mark.parametrize(("text", "value"), [("!!str 12", "12"), ("! 12", "12"), ("!!int 0x10", 16), ("!!float 3", 3)])
def test_explicit_tags(text, value):
    assert read(f"a: {text}").root["a"] == value


def test_aliases_cannot_multiply_without_end():
    lines = ["a0: &a0 [x, x, x, x, x, x, x, x, x, x]"]
    lines += [f"a{n}: &a{n} [{', '.join([f'*a{n - 1}'] * 10)}]" for n in range(1, 9)]
    assert "aliases expand to more than 100000 nodes" in refused("\n".join(lines))


def test_aliases_cannot_nest_without_end():
    chain = ["c0: &c0 [x]", *(f"c{n}: &c{n} [*c{n - 1}]" for n in range(1, 80))]
    assert "aliases nest deeper than 64" in refused("\n".join(chain))


def test_keys_are_taken_as_written():
    assert list(read("123: a\n1.10: b\ntrue: c\n0x1F: d\n'q': e").root) == ["123", "1.10", "true", "0x1F", "q"]


def test_a_large_file_is_refused_unread():
    assert "larger than 8 MiB" in refused("#" * (8 * 2**20 + 1))


def test_reads_without_libyaml_just_the_same(monkeypatch):
    import yaml

    monkeypatch.setattr("llmswap.config.source._Parser", yaml.SafeLoader)
    assert plain(read("a: &a {k: [1, yes, 1e3]}\nb: *a\n").root) == {
        "a": {"k": [1, "yes", 1000.0]},
        "b": {"k": [1, "yes", 1000.0]},
    }
    assert "not valid YAML" in refused("a: [1")
    assert "not valid YAML" in refused("a: \x00")
