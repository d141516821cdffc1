"""What Grafana is given to start with fits the stack, the boards and the spans."""

import re

import pytest
import yaml

from llmswap.telemetry import span_names
from tests.grafana.boards import ROOT, committed, shown
from tests.promql.reading import problems

PROVISIONING = ROOT / "grafana" / "provisioning"
SERVICES = yaml.safe_load((ROOT / "docker-compose.yml").read_text())["services"]
SOURCES = {
    source["uid"]: source
    for source in yaml.safe_load((PROVISIONING / "datasources" / "stack.yaml").read_text())["datasources"]
}
(PROVIDER,) = yaml.safe_load((PROVISIONING / "dashboards" / "llmswap.yaml").read_text())["providers"]


def test_the_sources_are_those_that_boards_and_links_name():
    assert set(SOURCES) == {"prometheus", "tempo", "alertmanager", "loki"}
    named = {
        panel["datasource"]["uid"] for board in committed().values() for panel in shown(board) if "datasource" in panel
    }
    assert named - {"${datasource}"} <= set(SOURCES)
    for board in committed().values():
        assert board["templating"]["list"][0]["current"]["value"] in SOURCES
    linked = re.findall(
        r"(?:datasourceUid|alertmanagerUid): (\w+)", (PROVISIONING / "datasources" / "stack.yaml").read_text()
    )
    assert len(linked) >= 5
    assert set(linked) <= set(SOURCES)


@pytest.mark.parametrize("uid", SOURCES)
def test_a_source_is_a_service_of_the_stack_that_nobody_can_edit(uid):
    source = SOURCES[uid]
    assert source["url"].removeprefix("http://").partition(":")[0] in SERVICES
    assert source["editable"] is False
    assert source["access"] == "proxy"


def test_only_one_source_is_the_default():
    assert [uid for uid, source in SOURCES.items() if source.get("isDefault")] == ["prometheus"]


def test_the_rate_interval_is_made_of_the_real_scrape_interval():
    jobs = yaml.safe_load((ROOT / "prometheus" / "prometheus.yml").read_text())["scrape_configs"]
    (ours,) = [job for job in jobs if job["job_name"] == "llmswap"]
    assert SOURCES["prometheus"]["jsonData"]["timeInterval"] == ours["scrape_interval"]


def test_a_span_leads_to_metrics_of_its_model_and_an_exemplar_to_its_trace():
    links = SOURCES["tempo"]["jsonData"]["tracesToMetrics"]
    known = {value for value in vars(span_names).values() if isinstance(value, str)}
    assert {tag["key"] for tag in links["tags"]} <= known
    assert {tag["value"] for tag in links["tags"]} == {"model"}
    for query in links["queries"]:
        assert problems(query["query"].replace("$$__tags", 'model="a"')) == []
        assert re.search(r"(?<!\$)\$(?!\$)", query["query"].replace("$$", "")) is None, "a lone $ is the environment's"
    assert SOURCES["prometheus"]["jsonData"]["exemplarTraceIdDestinations"][0]["name"] == "trace_id"


def test_the_boards_are_read_from_where_the_stack_puts_them():
    mounted = [volume.split(":") for volume in SERVICES["grafana"]["volumes"]]
    places = {target: source for source, target, *_ in mounted}
    assert places[PROVIDER["options"]["path"]] == "./grafana/dashboards"
    assert places["/etc/grafana/provisioning"] == "./grafana/provisioning"
    assert (PROVIDER["disableDeletion"], PROVIDER["allowUiUpdates"]) == (True, False)


def test_alerts_lead_to_boards_that_there_are():
    rules = "".join(path.read_text() for path in (ROOT / "prometheus" / "rules").glob("*.yml"))
    linked = set(re.findall(r"/d/([\w-]+)", rules))
    assert len(linked) >= 5
    assert linked <= {board["uid"] for board in committed().values()}


def test_boards_speak_of_alerts_that_there_are():
    rules = "".join(path.read_text() for path in (ROOT / "prometheus" / "rules").glob("*.yml"))
    words = " ".join(panel["description"] for board in committed().values() for panel in shown(board))
    spoken_of = set(re.findall(r"`(LLMSwap[A-Z]\w+)`", words))
    assert len(spoken_of) >= 5
    assert spoken_of <= set(re.findall(r"alert: (\w+)", rules))


def test_nobody_is_told_by_default():
    files = {path.relative_to(PROVISIONING).as_posix() for path in PROVISIONING.rglob("*") if path.is_file()}
    assert {name for name in files if name.endswith((".yaml", ".yml", ".json"))} == {
        "datasources/stack.yaml",
        "dashboards/llmswap.yaml",
    }
