"""The rule files without a Prometheus: what they name exists, and each alert says what it should, and is tested."""

import re
from functools import cache
from pathlib import Path
from typing import Any

import pytest
import yaml

from llmswap.runtime.xids import HARDWARE
from tests.promql.catalogue import recorded
from tests.promql.reading import labels, named, problems

ROOM = Path(__file__).parents[2] / "prometheus"
RUNBOOK_URL = "https://github.com/llmswap/llmswap/blob/main/prometheus/RUNBOOK.md"
GRAFANA = "{{ $externalLabels.grafana }}"
DASHBOARDS = {path.stem for path in (ROOM.parent / "grafana" / "dashboards").glob("*.json")}
SEVERITIES = {"critical", "warning", "info"}
ANNOTATIONS = ["summary", "description", "runbook_url", "dashboard_url"]


@cache
def rules() -> tuple[dict[str, Any], ...]:
    return tuple(
        rule
        for path in sorted((ROOM / "rules").glob("*.yml"))
        for group in yaml.safe_load(path.read_text())["groups"]
        for rule in group["rules"]
    )


ALERTS = {rule["alert"]: rule for rule in rules() if "alert" in rule}


def told(rule: dict[str, Any]) -> frozenset[str]:
    """Give the labels of an alert: those of its query and those that it is given."""
    found = labels(rule["expr"])
    assert found is not None
    return found | set(rule["labels"]) | {"alertname"}


def test_every_query_names_what_exists():
    wrong = {rule.get("alert") or rule["record"]: problems(rule["expr"]) for rule in rules()}
    assert {name: found for name, found in wrong.items() if found} == {}


def test_every_rule_is_there_once():
    assert len(ALERTS) + len(recorded()) == len(rules()) > 30
    files = (yaml.safe_load(path.read_text()) for path in (ROOM / "rules").glob("*.yml"))
    groups = [group["name"] for file in files for group in file["groups"]]
    assert len(groups) == len(set(groups))


def test_a_recorded_name_says_by_what_it_is_aggregated():
    wrong = {}
    for name, query in recorded().items():
        level, metric, operations = name.split(":")
        by = labels(query)
        assert by is not None
        known = sorted(by, key=level.find)
        if "_".join(known) != level or not operations or not metric.startswith("llmswap_"):
            wrong[name] = known
    assert wrong == {}


@pytest.mark.parametrize("name", ALERTS)
def test_an_alert_says_what_is_the_matter_and_where_to_read_on(name):
    rule = ALERTS[name]
    assert re.fullmatch(r"LLMSwap([A-Z][a-zA-Z]+)", name)
    assert rule["labels"]["severity"] in SEVERITIES
    notes = rule["annotations"]
    assert list(notes) == ANNOTATIONS
    assert notes["summary"].endswith(".")
    assert notes["description"].endswith(".")
    assert "$value" not in notes["summary"], "a summary that changes is another alert each time"
    assert notes["runbook_url"] == f"{RUNBOOK_URL}#{name.lower()}"
    board = re.match(rf"{re.escape(GRAFANA)}/d/(llmswap-\w+)(\?|$)", notes["dashboard_url"])
    assert board is not None
    assert board.group(1) in DASHBOARDS
    used = set(re.findall(r"\$labels\.(\w+)", " ".join([*notes.values(), *rule["labels"].values()])))
    assert used <= (labels(rule["expr"]) or set())


def test_alerts_about_a_model_have_it_in_the_label_model():
    about = [name for name, rule in ALERTS.items() if told(rule) & {"to_model", "from_model"}]
    assert about
    assert [name for name in about if "model" not in told(ALERTS[name])] == []


def test_xids_that_need_a_reset_are_those_that_llmswap_counts_from_the_start():
    (codes,) = re.findall(r'xid=~"([\d|]+)"', ALERTS["LLMSwapGPUXid"]["expr"])
    assert tuple(map(int, codes.split("|"))) == HARDWARE


def test_in_tests_what_alerts_read_is_recorded_first():
    """Among groups that are not named promtool's order is random, and those come before the others."""
    order = [
        group["name"]
        for name in ("recording", "alerts")
        for group in yaml.safe_load((ROOM / "rules" / f"{name}.yml").read_text())["groups"]
    ]
    for path in (ROOM / "tests").glob("*.yml"):
        assert yaml.safe_load(path.read_text())["group_eval_order"] == order, path.name


@cache
def cases() -> tuple[tuple[str, dict[str, Any]], ...]:
    """Give name and check of each promtool test."""
    found = []
    for path in sorted((ROOM / "tests").glob("*.yml")):
        content = yaml.safe_load(path.read_text())
        assert {path.name for path in (ROOM / "rules").glob("*.yml")} == {Path(f).name for f in content["rule_files"]}
        found += [(test["name"], check) for test in content["tests"] for check in test.get("alert_rule_test", ())]
    return tuple(found)


@pytest.mark.parametrize("name", ALERTS)
def test_an_alert_is_tested_to_fire_and_to_stay_silent(name):
    mine = [(title, check["exp_alerts"]) for title, check in cases() if check["alertname"] == name]
    assert any(alerts for title, alerts in mine if title.startswith(f"{name} fires"))
    assert any(not alerts for title, alerts in mine if title.startswith(f"{name} stays silent"))


def test_every_case_is_named_after_its_alert_and_what_it_shows():
    for title, check in cases():
        verbs = ("fires",) if check["exp_alerts"] else ("stays silent", "fires")  # what fires may be silent before
        assert title.startswith(tuple(f"{check['alertname']} {verb} " for verb in verbs)), title
        assert check["alertname"] in ALERTS, title


def test_a_test_uses_series_as_llmswap_exposes_them():
    wrong = {}
    for path in sorted((ROOM / "tests").glob("*.yml")):
        for test in yaml.safe_load(path.read_text())["tests"]:
            for series in test["input_series"]:
                if found := problems(series["series"]):
                    wrong[f"{path.name}: {series['series']}"] = found
    assert wrong == {}


def test_every_series_that_an_alert_reads_is_in_one_of_its_tests():
    """Or else it would be silent for want of data, whatever its thresholds."""
    given: dict[str, set[str]] = {}
    for path in sorted((ROOM / "tests").glob("*.yml")):
        for test in yaml.safe_load(path.read_text())["tests"]:
            for check in test.get("alert_rule_test", ()):
                if check["exp_alerts"]:
                    inputs = {series["series"].partition("{")[0] for series in test["input_series"]}
                    given.setdefault(check["alertname"], set()).update(inputs)
    for name, rule in ALERTS.items():
        reads = {raw for series in named(rule["expr"]) for raw in (named(recorded().get(series, series)))}
        assert reads <= given[name], name


def test_every_recorded_series_is_read_by_an_alert_or_tested_by_itself():
    tests = (
        check
        for path in (ROOM / "tests").glob("*.yml")
        for test in yaml.safe_load(path.read_text())["tests"]
        for check in test.get("promql_expr_test", ())
    )
    seen = {series for check in tests if check["exp_samples"] for series in named(check["expr"])}
    seen |= {series for rule in ALERTS.values() for series in named(rule["expr"])}
    assert sorted(set(recorded()) - seen) == []
