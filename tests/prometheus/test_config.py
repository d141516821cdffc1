"""The stack's scrape config and its Alertmanager's: who is asked, within which bounds, who is told."""

import re
from urllib.parse import urlsplit

import pytest
import yaml

from llmswap.proxy.routes import table
from tests.prometheus.test_rules import ALERTS, ROOM, told

CONFIG = yaml.safe_load((ROOM / "prometheus.yml").read_text())
ALERTMANAGER = yaml.safe_load((ROOM / "alertmanager.yml").read_text())
COMPOSE = yaml.safe_load((ROOM.parent / "docker-compose.yml").read_text())
JOBS = {job["job_name"]: job for job in CONFIG["scrape_configs"]}
STATIC = {
    "llmswap": "llmswap:8080",
    "node": "node-exporter:9100",
    "prometheus": "localhost:9090",
    "alertmanager": "alertmanager:9093",
    "grafana": "grafana:3000",
    "tempo": "tempo:3200",
}


def test_everybody_is_asked_and_nobody_without_bounds():
    found = {name: job["static_configs"] for name, job in JOBS.items() if "static_configs" in job}
    assert found == {name: [{"targets": [target]}] for name, target in STATIC.items()}
    assert set(JOBS) == {*STATIC, "llmswap-upstream", "locust"}
    assert [name for name, job in JOBS.items() if not 1000 <= job["sample_limit"] <= 20000] == []


def test_targets_are_services_of_the_stack():
    hosts = {target.partition(":")[0] for target in STATIC.values()} - {"localhost"}
    assert hosts <= set(COMPOSE["services"])


def test_engines_are_found_where_llmswap_lists_them():
    (discovery,) = JOBS["llmswap-upstream"]["http_sd_configs"]
    url = urlsplit(discovery["url"])
    assert url.netloc == STATIC["llmswap"]
    assert ("GET", url.path) in {(route.method, route.path) for route in table()}


def test_who_tests_under_load_is_asked_only_while_there_and_no_alert_is_about_that():
    assert "static_configs" not in JOBS["locust"]
    matched = [
        name
        for name, rule in ALERTS.items()
        for job in re.findall(r'job=~?"([^"]+)"', rule["expr"])
        if re.fullmatch(job, "locust")
    ]
    assert matched == []


def test_alerts_go_to_the_alertmanager_and_do_not_carry_the_address_of_grafana():
    (alertmanager,) = CONFIG["alerting"]["alertmanagers"]
    assert alertmanager["static_configs"] == [{"targets": [STATIC["alertmanager"]]}]
    assert CONFIG["rule_files"] == ["rules/*.yml"]
    assert set(CONFIG["global"]["external_labels"]) == {"grafana"}
    assert {"regex": "grafana", "action": "labeldrop"} in CONFIG["alerting"]["alert_relabel_configs"]


def test_nobody_is_told_by_default():
    assert ALERTMANAGER["receivers"] == [{"name": ALERTMANAGER["route"]["receiver"]}]
    assert "routes" not in ALERTMANAGER["route"]


@pytest.mark.parametrize("rule", ALERTMANAGER["inhibit_rules"], ids=lambda rule: rule["source_matchers"][0])
def test_what_silences_and_what_is_silenced_exist_and_have_the_labels_that_must_agree(rule):
    def alerts(matchers: list[str]) -> set[str]:
        found = set(ALERTS)
        for matcher in matchers:
            operator, value = re.fullmatch(r'alertname(=~|!=|=)"([^"]+)"', matcher).groups()
            matches = {name for name in ALERTS if re.fullmatch(value, name)}
            assert matches
            found = found - matches if operator == "!=" else found & matches
        return found

    source, target = alerts(rule["source_matchers"]), alerts(rule["target_matchers"])
    assert len(source) == 1
    assert target
    assert not source & target
    assert all(set(rule["equal"]) <= told(ALERTS[name]) for name in source)
    assert any(set(rule["equal"]) <= told(ALERTS[name]) for name in target)
