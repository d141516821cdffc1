"""Scenario files: all that ship can be played, every word means what it says, mistakes are told at their place."""

import re
from collections import Counter
from pathlib import Path
from random import Random

import pytest

from llmswap.config.errors import ConfigError
from llmswap.core.events import SwapClass
from llmswap.sim.whatif import scenario, vocabulary
from llmswap.sim.whatif.fleets import under_fair
from llmswap.sim.whatif.stage import play
from llmswap.sim.whatif.workload import Between, Ending

DOCS = Path(__file__).resolve().parents[3] / "docs"

# The named scenarios of the collection of users' reports; none may get lost.
NAMED = {
    *("opencode_fanout", "aider_architect", "claude_code_slots", "opencode_title", "opencode_startup_probe"),
    *("owui_chat_title_tags", "kilo_memory_summary", "fim_vs_chat", "rag_embed_rerank_llm", "voice_stt_llm_tts"),
    *("resident_lockout", "image_batch_vs_chat", "comfy_ws_pin", "judge_committee", "offline_pipeline"),
    *("discord_bot_rag_persona", "hermes_hindsight_loop", "tutor_player_coach", "shared_box_rogue", "ttl_race"),
    *("openclaw_seven_roles", "eval_shared_proxy"),
}


def test_every_scenario_of_the_collection_is_there():
    assert set(scenario.names()) == NAMED


@pytest.mark.parametrize("name", sorted(NAMED))
def test_it_can_be_played_and_every_caller_is_served(name):
    work = scenario.load(name).workload
    answers = []
    play(work, under_fair(work.fleet), 0, 2400, listeners=(answers.append,))
    assert {each.caller for each in answers if each.ending is Ending.DONE} == {each.name for each in work.callers}
    assert {each.call.model for each in answers} == set(work.fleet.models)


@pytest.mark.parametrize("name", sorted(NAMED))
def test_its_file_says_where_its_figures_are_from(name):
    text = (Path(scenario.__file__).parent / "scenarios" / f"{name}.yaml").read_text()
    comment = " ".join(line.lstrip("# ") for line in text.splitlines() if line.startswith("#"))
    assert "Our choice" in comment
    assert "From there" in comment or "Loads" in comment or "loads of" in comment


def test_the_documentation_lists_every_scenario_and_every_key():
    text = (DOCS / "scenarios.md").read_text()
    for name in NAMED:
        assert f"| `{name}` | {scenario.load(name).about} |" in text
    sections = (vocabulary.ScenarioFile, vocabulary.ModelCosts, vocabulary.CallerSection, vocabulary.StepSection)
    for section in sections:
        for key in scenario.known_keys(section):
            assert re.search(rf"^\| [^|]*`{key}`", text, re.MULTILINE), key


def test_the_example_of_the_documentation_can_be_played():
    example = re.search(r"```yaml\n(.*?)```", (DOCS / "scenarios.md").read_text(), re.DOTALL).group(1)
    work = scenario.loads(example, "my.yaml").workload
    assert play(work, work.fleet, 0, 600) > 50


MINIMAL = """
about: as little as can be
models: {m: {load: 3}}
callers: {c: {loop: [{model: m, takes: 2}]}}
"""


def test_what_is_left_out_has_a_default():
    found = scenario.loads(MINIMAL, "some/where/tiny.yaml")
    assert (found.name, found.about) == ("tiny", "as little as can be")
    work = found.workload
    assert work.costs["m"].load == Between(3, 3)
    assert work.costs["m"].stop == Between(1, 1)
    model = work.fleet.models["m"]
    assert (model.idle_ttl_s, model.concurrency_limit, model.substitutes) == (None, 10, ())
    assert [(group.name, group.members, group.swap) for group in work.fleet.groups] == [("(default)", ("m",), True)]
    (only,) = work.callers
    turn = scripted(only)[1]
    assert (turn.after_s, turn.wait) == (0, True)
    (call,) = turn.calls
    assert (call.service_s, call.patience_s, call.cold_s, call.retries_s) == (2, float("inf"), 0, ())


WHOLE = """
about: every word once
models:
  m: {load: [3, 4], stop: [0.5, 1], ttl: 90, concurrencyLimit: 2, substitutes: [n]}
  n: {load: 1}
  o: {load: 1}
groups:
  small: {swap: false, exclusive: false, persistent: true, members: [n]}
callers:
  c:
    count: 2
    start: [7, 8]
    first:
      - {model: n, takes: 1}
    loop:
      - model: m
        takes: [2, 3]
        think: [5, 6]
        patience: [100, 200]
        repeat: [2, 4]
        burst: 3
        background: true
        swapClass: never-swap
        cold: [20, 30]
        retry: [0, 1.5]
      - {model: o, takes: 1, chance: 0.25}
"""


def scripted(caller, turns=60, seed=1):
    script = caller.script(Random(seed))
    made = [next(script)]
    while len(made) < turns:
        made.append(script.send(()))
    return made


def test_every_word_does_what_it_says():
    work = scenario.loads(WHOLE, "whole.yaml").workload
    model = work.fleet.models["m"]
    assert (model.idle_ttl_s, model.concurrency_limit, model.substitutes) == (90, 2, ("n",))
    small, rest = work.fleet.groups
    assert (small.name, small.members, small.swap, small.exclusive, small.persistent) == (
        *("small", ("n",)),
        *(False, False, True),
    )
    assert (rest.members, rest.swap, rest.exclusive, rest.persistent) == (("m", "o"), True, True, False)
    assert work.costs["m"].stop == Between(0.5, 1)
    assert [caller.name for caller in work.callers] == ["c", "c"]
    start, once, *rounds = scripted(work.callers[0], turns=400)
    assert start.calls == ()
    assert 7 <= start.after_s <= 8
    assert [call.model for call in once.calls] == ["n"]
    assert "n" not in {call.model for turn in rounds for call in turn.calls}
    bursts = [turn for turn in rounds if turn.calls[0].model == "m"]
    for turn in bursts:
        assert 5 <= turn.after_s <= 6
        assert not turn.wait
        assert len(turn.calls) == 3
        for call in turn.calls:
            assert 2 <= call.service_s <= 3
            assert 100 <= call.patience_s <= 200
            assert 20 <= call.cold_s <= 30
            assert call.retries_s == (0, 1.5)
            assert call.swap_class is SwapClass.NEVER_SWAP
    # A round is 2 to 4 bursts, and one time in four a call to the other model.
    others = [turn for turn in rounds if turn.calls[0].model == "o"]
    assert all(turn.wait for turn in others)
    assert 0.15 < len(others) / (len(bursts) / 3) < 0.35
    runs = "".join("o" if turn.calls[0].model == "o" else "m" for turn in rounds).split("o")
    assert {len(run) for run in runs[1:-1]} & {2, 3, 4}
    assert min(len(run) for run in runs[1:-1]) >= 2


def test_copies_of_a_caller_draw_for_themselves():
    work = scenario.loads(MINIMAL.replace("takes: 2", "takes: [1, 2]").replace("{loop", "{count: 2, loop"), "x.yaml")
    answers = []
    play(work.workload, work.workload.fleet, 0, 100, listeners=(answers.append,))
    firsts = Counter(each.call.service_s for each in answers[:2])
    assert len(firsts) == 2


WRONG = {
    "models: {m: {load: 3, laod: 4}}": "models.m.laod: unknown key 'laod' (did you mean 'load'?)",
    "models: {m: {load: [5, 3]}}": "models.m.load: must be a number, or [least, most], at least 0",
    "models: {m: {load: -1}}": "models.m.load: must be a number",
    "models: {m: {load: .inf}}": "models.m.load: must be a number",
    "models: {m: {load: true}}": "models.m.load: must be a number",
    "models: {m: {load: soon}}": "models.m.load: must be a number",
    "models: {m: {}}": "models.m.load: the key 'load' is required here",
    "models: {}": "models: must not be empty",
    "models: {m: {load: 3, substitutes: [x]}}": "models.m.substitutes[0]: there is no model 'x'",
    "groups: {g: {members: [mm]}}": "groups.g.members[0]: there is no model 'mm' (did you mean 'm'?)",
    "groups: {g: {members: [m]}, h: {members: [m]}}": "groups.h.members[0]: model 'm' is in group 'g' already",
    "groups: {g: {members: [m, m]}}": "groups.g.members[1]: model 'm' is in group 'g' already",
    "groups: {g: {member: [m]}}": "groups.g.member: unknown key 'member' (did you mean 'members'?)",
    "callers: {c: {loop: []}}": "callers.c.loop: must not be empty",
    "callers: {c: {}}": "callers.c.loop: the key 'loop' is required here",
    "callers: {c: {lop: [], loop: [{model: m, takes: 2}]}}": "callers.c.lop: unknown key 'lop' (did you mean 'loop'?)",
    "callers: {c: {loop: [{model: x, takes: 2}]}}": "callers.c.loop[0].model: there is no model 'x'",
    "callers: {c: {first: [{model: x, takes: 2}], loop: [{model: m, takes: 2}]}}": "callers.c.first[0].model: there is",
    "callers: {c: {loop: [{model: m}]}}": "callers.c.loop[0].takes: the key 'takes' is required here",
    "callers: {c: {loop: [{model: m, takes: 2, thnk: 1}]}}": "callers.c.loop[0].thnk: unknown key 'thnk' (did you mean",
    "callers: {c: {loop: [{model: m, takes: 2, chance: 2}]}}": "callers.c.loop[0].chance: must be more than 0",
    "callers: {c: {loop: [{model: m, takes: 2, repeat: 0}]}}": "callers.c.loop[0].repeat: must be a whole number",
    "callers: {c: {loop: [{model: m, takes: 2, burst: 1.5}]}}": "callers.c.loop[0].burst: must be a whole number",
    "callers: {c: {loop: [{model: m, takes: 2, patience: 0}]}}": "callers.c.loop[0].patience: must be more than 0",
    "callers: {c: {loop: [{model: m, takes: 2, swapClass: no}]}}": "callers.c.loop[0].swapClass: must be one of may-",
    "callers: {c: {loop: [{model: m, takes: 2, retry: [-1]}]}}": "callers.c.loop[0].retry: must be a list",
    "callers: {c: {loop: [{model: m, takes: 2, retry: 1}]}}": "callers.c.loop[0].retry: must be a list of numbers",
    "callers: {c: {loop: [{model: m, takes: 0}]}}": "callers.c.loop: a round takes no time",
    "callers: {c: {loop: [{model: m, takes: 2, background: true}]}}": "callers.c.loop: a round takes no time",
    "caller: {}": "caller: unknown key 'caller' (did you mean 'callers'?)",
    "about: ''": "about: must not be empty",
}


@pytest.mark.parametrize("line", WRONG)
def test_a_mistake_is_told_with_its_file_line_and_key(line):
    key = line.partition(":")[0]
    lines = [each for each in MINIMAL.strip().splitlines() if not each.startswith(f"{key}:")]
    with pytest.raises(ConfigError) as caught:
        scenario.loads("\n".join([*lines, line]), "mine.yaml")
    assert f"mine.yaml:{len(lines) + 1}:" in str(caught.value)
    assert WRONG[line] in str(caught.value)


def test_all_mistakes_are_told_at_once():
    text = MINIMAL.replace("load: 3", "load: x").replace("takes: 2", "takes: y")
    with pytest.raises(ConfigError) as caught:
        scenario.loads(text, "mine.yaml")
    assert [issue.path for issue in caught.value.issues] == ["models.m.load", "callers.c.loop[0].takes"]


def test_what_is_no_yaml_is_told_with_its_line():
    with pytest.raises(ConfigError, match=r"mine\.yaml:3:.*not valid YAML"):
        scenario.loads("about: x\nmodels: {\n", "mine.yaml")


def test_a_file_of_the_users_own_is_played(tmp_path):
    path = tmp_path / "mine.yml"
    path.write_text(MINIMAL)
    assert scenario.load(str(path)).name == "mine"


@pytest.mark.parametrize(
    ("name", "message"),
    [
        ("opencode_fan", "there is no scenario of this name (did you mean 'opencode_fanout'?)"),
        ("zzz", "there is no scenario of this name; the path of a file ends in .yaml"),
        ("./no/such/file.yaml", "./no/such/file.yaml: cannot read the file: No such file or directory"),
    ],
)
def test_what_is_not_there_is_told(name, message):
    with pytest.raises(ConfigError) as caught:
        scenario.load(name)
    assert message in str(caught.value)


def test_a_file_that_is_not_text_is_told(tmp_path):
    path = tmp_path / "mine.yaml"
    path.write_bytes(b"about: \xff")
    with pytest.raises(ConfigError, match="not UTF-8"):
        scenario.load(str(path))
