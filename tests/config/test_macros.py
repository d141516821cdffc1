import pytest

from llmswap.config.load import loads
from tests.config.reading import model, one_problem, problems

CMD = "cmd: 'x ${PORT}'"


def test_macros_that_use_each_other_in_a_circle_are_refused_even_unused():
    found = one_problem("macros:\n  a: ${b}\n  b: x ${c}\n  c: ${a}\n")
    assert "macros use each other in a circle" in found
    for place in ("a in config.yaml:2", "b in config.yaml:3", "c in config.yaml:4"):
        assert place in found


def test_unused_macros_may_hold_anything():
    assert loads('macros: {a: "${b} ${PORT}", b: x}').warnings == ()


def test_an_unknown_macro_is_named_with_a_suggestion():
    text = "macros: {model_dir: /m}\nmodels:\n  m:\n    cmd: x ${PORT} ${modeldir}\n    env: ['A=${nope}']\n"
    found = problems(text)
    assert "config.yaml:4:5: models.m.cmd: unknown macro '${modeldir}' (did you mean 'model_dir'?)" in found
    assert "config.yaml:5:11: models.m.env[0]: unknown macro '${nope}'" in found
    assert "unknown macro '${PROT}' (did you mean 'PORT'?)" in problems(
        "models: {m: {cmd: 'x ${PROT}', proxy: 'http://h'}}"
    )


def test_leftovers_are_found_everywhere():
    text = "logTimeFormat: ${x}\nhooks: {on_startup: {preload: ['${MODEL_ID}']}}\n"
    found = problems(f"{text}models: {{m: {{{CMD}, metadata: {{a: [{{b: '${{y}}'}}]}}}}}}")
    assert "logTimeFormat: unknown macro '${x}'" in found
    assert "hooks.on_startup.preload[0]: unknown macro '${MODEL_ID}': it is only available inside models" in found
    assert "models.m.metadata.a[0].b: unknown macro '${y}'" in found


def test_other_dollar_forms_pass_through():
    assert (
        model(f"models: {{m: {{{CMD}, name: '${{a.b}} ${{}} $X ${{ a }} ${{ü}}'}}}}").name
        == "${a.b} ${} $X ${ a } ${ü}"
    )


def test_anchor_holders_may_hold_macros_of_a_model():
    text = "defs: &d {cmd: 'x ${PORT} ${own}'}\nmodels: {m: {<<: *d, macros: {own: y}}}"
    assert model(text).launch.cmd == "x ${PORT} y"


def test_a_model_macro_takes_the_position_of_the_global_one():
    # `a` is declared before `b`, and the model's `a` keeps that place, so it cannot use `b`.
    text = f'macros: {{a: 1, b: 2}}\nmodels: {{m: {{{CMD}, name: "${{a}}", macros: {{a: "<${{b}}>"}}}}}}'
    assert "unknown macro '${b}': it is declared after the macro that uses it" in one_problem(text)


def test_types_survive_through_chains_but_not_through_text():
    macros = 'macros: {n: 5, chain: "${n}", text: "n=${n}"}\n'
    text = f'{macros}models: {{m: {{{CMD}, metadata: {{a: "${{chain}}", b: "${{text}}"}}}}}}'
    assert model(text).metadata == {"a": 5, "b": "n=5"}


def test_numbers_in_text_are_printed_like_gos():
    text = (
        f'macros: {{a: 1.0, b: 1e10, c: 0x10, d: true}}\nmodels: {{m: {{{CMD}, name: "${{a}} ${{b}} ${{c}} ${{d}}"}}}}'
    )
    assert model(text).name == "1 1e+10 16 true"


def test_ports_do_not_run_past_the_last_one():
    text = "startPort: 65535\nmodels: {a: {cmd: 'x ${PORT}'}, b: {cmd: 'x ${PORT}'}}"
    assert "models.b: no port is left for this model: 65536 is above 65535" in one_problem(text)


def test_macro_blocks_must_be_mappings():
    assert "macros: must be a mapping" in one_problem("macros: [a]")
    assert "models.m.macros: must be a mapping" in one_problem(f"models: {{m: {{{CMD}, macros: x}}}}")


def test_macros_cannot_multiply_without_end():
    doubling = "\n".join(f'  m{n}: "${{m{n - 1}}}${{m{n - 1}}}"' for n in range(1, 60))
    found = problems(f"macros:\n  m0: xxxxxxxx\n{doubling}\nmodels: {{m: {{cmd: '${{m59}} ${{PORT}}'}}}}")
    assert "macros expand to more text than a config can reasonably hold" in found


def test_a_port_in_a_comment_that_a_macro_brings_is_none():
    """The comment goes before the command runs: a port for it would never be filled in."""
    macros, cmd = 'macros: {srv: "server\\n# --port ${PORT} ${OTHER}"}', 'cmd: "${srv}"'
    found = one_problem(f"{macros}\nmodels: {{m: {{{cmd}}}}}")
    assert "models.m.proxy: proxy uses ${PORT} but cmd does not" in found
    launch = model(f"{macros}\nmodels: {{m: {{{cmd}, proxy: 'http://127.0.0.1:9'}}}}").launch
    assert (launch.cmd, launch.port) == ("server", None)


@pytest.mark.parametrize(("written", "port"), [("6e3", 6000), ("6000.9", 6000), (".inf", 0)])
def test_ports_begin_at_a_start_port_that_is_written_as_a_fraction(written, port):
    text = f"startPort: {written}\nmodels: {{m: {{{CMD}}}}}"
    if port:
        assert model(text).launch.port == port
    else:
        assert "startPort: must be a finite number" in one_problem(text)
