"""`llmswap simulate` from its command line, in process."""

import json
import xml.etree.ElementTree as ET

import pytest

from llmswap.cli import main
from llmswap.core import events as ev
from llmswap.core.fleet import ModelId
from llmswap.core.step import Step
from llmswap.sim.whatif import scenario
from llmswap.sim.whatif.fleets import under_fair
from tests.sim.whatif import journals

CONFIG = """\
models:
  orchestrator: {cmd: "serve --port ${PORT}"}
  explorer: {cmd: "serve --port ${PORT}"}
  coder: {cmd: "serve --port ${PORT}"}
groups: {all: {swap: false, members: [orchestrator, explorer, coder]}}
"""


@pytest.fixture
def simulate(capsys):
    """Run the command; gives (exit code, stdout, stderr)."""

    def run(*arguments):
        try:
            code = main(["simulate", *map(str, arguments)])
        except SystemExit as end:
            code = end.code
        out, err = capsys.readouterr()
        return code, out, err

    return run


@pytest.fixture
def json_of(simulate):
    def run(*arguments):
        code, out, err = simulate(*arguments, "--json")
        assert (code, err) == (0, "")
        return json.loads(out)

    return run


@pytest.fixture(scope="module")
def journal(tmp_path_factory):
    """Four hours of opencode_fanout under fair, with a hold of 10 s."""
    path = tmp_path_factory.mktemp("journal") / "journal.jsonl"
    workload = scenario.load("opencode_fanout").workload
    journals.record(path, workload, under_fair(workload.fleet, hold_s=10.0), 1, 4 * 3600.0)
    return path


def policies(told):
    return [row["policy"] for row in told["rows"]]


def test_the_named_scenarios_are_listed_with_a_line_each(simulate):
    code, out, _ = simulate("--list")
    assert code == 0
    assert [line.split()[0] for line in out.splitlines()] == list(scenario.names())
    assert len(out.splitlines()) == 22


def test_a_scenario_is_played_under_fifo_and_fair(json_of):
    told = json_of("--scenario", "opencode_fanout")
    assert policies(told) == ["fifo", "fair"]
    fifo, fair = told["rows"]
    assert fair["completed_per_h"] > 1.5 * fifo["completed_per_h"]
    assert fifo["swaps"] > fair["swaps"]
    source = told["source"]
    assert (source["kind"], source["name"], source["seeds"]) == ("scenario", "opencode_fanout", 5)
    assert source["duration_s"] == 3600


def test_the_json_holds_the_whole_score(json_of):
    row = json_of("--scenario", "fim_vs_chat", "--seeds", 1, "--policy", "fair")["rows"][0]
    assert set(row["waits"]) == {"requests", "completed", "p50_s", "p95_s", "worst_s"}
    assert set(row["by_model"]) == set(scenario.load("fim_vs_chat").workload.fleet.models)
    assert set(row["by_caller"]) == {caller.name for caller in scenario.load("fim_vs_chat").workload.callers}
    assert {"evicted", "for", "count"} == set(row["evictions"][0])
    assert 0 < row["lost_share"] < 1
    assert row["lost_share"] == pytest.approx(row["lost_s"] / row["duration_s"])


def test_the_same_command_gives_the_same_answer(simulate):
    asked = ("--scenario", "claude_code_slots", "--seeds", 2)
    assert simulate(*asked) == simulate(*asked)


def test_the_tables_fit_a_terminal(simulate):
    code, out, _ = simulate("--scenario", "opencode_fanout", "--policy", "fifo", "--policy", "fair,hold=10,maxWait=60")
    assert code == 0
    assert max(map(len, out.splitlines())) <= 100
    for expected in ("1 h, mean of 5 seeds", "waits by model", "explorer for coder"):
        assert expected in out


def test_waits_are_told_by_caller_where_callers_are_not_just_models(simulate):
    assert "waits by caller" in simulate("--scenario", "aider_architect", "--seeds", 1)[1]
    assert "waits by caller" not in simulate("--scenario", "opencode_fanout", "--seeds", 1)[1]


def test_settings_of_a_policy_are_obeyed(json_of):
    told = json_of(
        *("--scenario", "opencode_fanout", "--hours", 2),
        *(
            "--policy",
            "fair,hold=0",
            "--policy",
            "fair,hold=60,maxWait=600",
            "--policy",
            "fair,priority.coder=5,hold=0",
        ),
    )
    eager, patient, favoured = told["rows"]
    assert patient["swaps"] < 0.5 * eager["swaps"]
    assert favoured["by_model"]["coder"]["p50_s"] < eager["by_model"]["coder"]["p50_s"]


def test_a_sweep_is_a_row_each_and_names_the_best(simulate, json_of):
    asked = ("--scenario", "opencode_fanout", "--seeds", 1, "--sweep", "hold=0,10,auto", "maxWait=60,300")
    told = json_of(*asked)
    assert policies(told) == [
        "fifo",
        *(f"fair,hold={hold},maxWait={bound}" for hold in ("0", "10", "auto") for bound in ("60", "300")),
    ]
    (best,) = [row for row in told["rows"] if row["best"]]
    assert best["completed"] >= 0.99 * max(row["completed"] for row in told["rows"])
    _, out, _ = simulate(*asked)
    assert f"* {best['policy']}" in out
    assert f"* {best['policy']}: " in out[out.index("Best of the sweep") :]


def test_the_policy_of_a_config_can_be_tried(json_of, tmp_path):
    config = tmp_path / "together.yaml"
    config.write_text(CONFIG)
    told = json_of("--scenario", "opencode_fanout", "--config", config, "--policy", "fifo")
    fifo, together = told["rows"]
    assert together["policy"] == str(config)
    assert (fifo["swaps"] > 50, together["swaps"]) == (True, 3)


def test_a_journal_is_shown_as_it_was_and_as_it_would_have_been(simulate, json_of, journal):
    told = json_of(journal)
    assert policies(told) == ["as recorded", "as recorded, simulated (fair)", "fifo", "fair"]
    recorded, again, fifo, _ = told["rows"]
    assert (recorded["simulated"], again["simulated"]) == (False, True)
    assert again["swaps"] == pytest.approx(recorded["swaps"], rel=0.05)
    assert fifo["completed"] < 0.75 * recorded["completed"]
    _, out, _ = simulate(journal)
    assert "The simulation agrees with the recording: " in out


def test_what_was_recorded_is_not_played_twice(json_of, journal):
    told = json_of(journal, "--policy", "fair,hold=10")
    assert policies(told) == ["as recorded", "as recorded, simulated (fair)"]


def test_a_journal_of_one_step_is_no_special_case(simulate, tmp_path):
    path, picture = tmp_path / "short.jsonl", tmp_path / "out.svg"
    arrival = Step(0, ev.RequestArrived(ev.RequestId(1), ModelId("coder")), ())
    journals.write(path, scenario.load("opencode_fanout").workload.fleet, [arrival])
    code, out, err = simulate(path, "--plot", picture)
    assert (code, err) == (0, "")
    assert "1 recorded request\n" in out
    assert "note: coder: no load was recorded; 30 s are taken" in out
    ET.parse(picture)


def test_a_picture_is_drawn_of_all_that_is_told(simulate, journal, tmp_path):
    picture = tmp_path / "out.svg"
    code, _, err = simulate(journal, "--sweep", "hold=0,20", "--plot", picture)
    assert (code, err) == (0, "")
    said = [element.text for element in ET.parse(picture).iter("{http://www.w3.org/2000/svg}text")]
    assert {"as recorded", "as recorded, simulated (fair)", "fifo"} <= set(said)
    assert len({"fair,hold=0", "fair,hold=20"} & set(said)) == 1


def test_a_run_too_short_for_a_request_is_told_and_drawn(simulate, tmp_path):
    picture = tmp_path / "out.svg"
    code, out, err = simulate("--scenario", "opencode_fanout", "--seeds", 1, "--hours", "0.00001", "--plot", picture)
    assert (code, err) == (0, "")
    assert "waits by" not in out
    assert ET.fromstring(picture.read_text()).tag.endswith("svg")


def test_a_picture_that_cannot_be_written_is_said_so(simulate, tmp_path):
    code, out, err = simulate("--scenario", "ttl_race", "--seeds", 1, "--plot", tmp_path / "no" / "out.svg")
    assert code == 1
    assert "swaps" in out
    assert "cannot be written" in err


@pytest.mark.parametrize(
    ("arguments", "expected"),
    [
        ((), "give a JOURNAL or --scenario NAME"),
        (("{journal}", "--scenario", "ttl_race"), "give a JOURNAL or --scenario NAME"),
        (("{journal}", "--hours", "2"), "a journal is as long as it is"),
        (("/no/such.jsonl",), "there is no such journal"),
        (("{config}",), "is not a journal"),
        (("--scenario", "opencode_fan"), "opencode_fanout"),
        (("--scenario", "no/such.yaml"), "no/such.yaml"),
        (("--scenario", "ttl_race", "--policy", "lru"), "begin with fifo or fair"),
        (("--scenario", "ttl_race", "--policy", "fair,holt=3"), "did you mean 'hold'?"),
        (("--scenario", "ttl_race", "--policy", "fair,hold"), "'' is not auto or a number of seconds"),
        (("--scenario", "ttl_race", "--policy", "fair,hold=-1"), "'-1' is not auto or a number of seconds"),
        (("--scenario", "ttl_race", "--policy", "fair,maxWait=nan"), "'nan' is not a number of seconds"),
        (("--scenario", "ttl_race", "--policy", "fair,queueLimit=0"), "'0' is not a whole number, 1 or more"),
        (("--scenario", "ttl_race", "--policy", "fifo,hold=3"), "'hold' is a key of fair"),
        (("--scenario", "opencode_fanout", "--policy", "fair,priority.codr=1"), "did you mean 'coder'?"),
        (("--scenario", "ttl_race", "--sweep", "hold"), "write key=value,value"),
        (("--scenario", "ttl_race", "--sweep", "hold=1,x"), "--sweep hold=x"),
        (("--scenario", "ttl_race", "--config", "{config}"), "it lacks"),
        (("--scenario", "ttl_race", "--config", "/no/such.yaml"), "cannot read the file"),
        (("ttl_race",), "--scenario ttl_race"),
        (("/no/such.yaml",), "--scenario /no/such.yaml"),
        (("--scenario", "ttl_race", "--seeds", "0"), "0 is not a whole number, 1 or more"),
        (("--scenario", "ttl_race", "--seeds", "many"), "many is not a whole number, 1 or more"),
        (("--scenario", "ttl_race", "--hours", "long"), "long is not a positive number"),
        (("--scenario", "ttl_race", "--hours", "inf"), "inf is not a positive number"),
    ],
)
def test_what_cannot_be_done_is_said_in_a_line(simulate, journal, tmp_path, arguments, expected):
    config = tmp_path / "config.yaml"
    config.write_text(CONFIG)
    code, out, err = simulate(*(text.format(journal=journal, config=config) for text in arguments))
    assert code == 2
    assert out == ""
    assert expected in err
    assert "Traceback" not in err
