"""What can be told of a board without a Grafana: it is up to date, complete, in its place, asks for what there is."""

import re
from xml.etree import ElementTree as ET

import pytest

from grafana.generate.__main__ import DASHBOARDS, PICTURES, write
from grafana.generate.frame import COLUMNS
from grafana.generate.sketch import sketch
from llmswap.telemetry import names
from tests.grafana.boards import ROOT, committed, panels, queries, shown
from tests.promql.reading import problems

UIDS = {"overview", "swaps", "queue", "requests", "model", "gpu", "capacity", "internals"}
PANELS_MAX = 24
TITLE_SIGNS = 6  # that fit above each column of a tile on a small screen
TILE_EMPTY_MAX = 16
UNITS = {
    *("short", "none", "s", "bytes", "percentunit", "reqps", "ops", "watt", "joule", "celsius", "hertz", "Bps"),
}
# dashboard-linter would have no matcher for `job` or `instance` missing. Targets and alerts are not only llmswap's.
NOT_OF_A_JOB = re.compile(
    r"\bALERTS\b|\bup\{|\bscrape_samples_scraped\{|\bvllm:|\bllamacpp:|\bjob:llmswap_\w+|\blocust_\w+\{"
)

SHOWN_NOWHERE = {
    names.TOKENS_PER_SECOND.name: "for wallboards that cannot compute; boards take the rate of the tokens",
}

each_board = pytest.mark.parametrize("name", sorted(committed()))


def test_the_boards_are_those_that_alerts_and_documents_name():
    assert {board["uid"] for board in committed().values()} == {f"llmswap-{uid}" for uid in UIDS}
    assert sorted(committed()) == sorted(f"{board['uid']}.json" for board in committed().values())


def test_what_is_committed_is_what_is_generated(tmp_path):
    (tmp_path / DASHBOARDS).mkdir(parents=True)
    (tmp_path / DASHBOARDS / "gone.json").write_text("{}")
    written = write(tmp_path)
    for folder in (DASHBOARDS, PICTURES):
        there = {path.relative_to(tmp_path) for path in (tmp_path / folder).iterdir()}
        assert there == {path for path in written if path.parent == folder}
        assert there == {path.relative_to(ROOT) for path in (ROOT / folder).iterdir()}, "run `make dashboards`"
    for path in written:
        assert (ROOT / path).read_text() == (tmp_path / path).read_text(), "run `make dashboards`"


def test_a_sketch_shows_every_panel_and_says_what_it_is():
    for board in committed().values():
        drawn = ET.fromstring(sketch(board))
        words = [element.text or "" for element in drawn.iter("{http://www.w3.org/2000/svg}text")]
        assert "sketch of the layout, not a screenshot" in words
        for panel in board["panels"]:
            assert any(panel["title"].startswith(word.rstrip("…").lstrip("▸▾ ")) for word in words[2:] if word), panel[
                "title"
            ]


def test_titles_are_unique():
    titles = [board["title"] for board in committed().values()]
    assert len(set(titles)) == len(titles)


@each_board
def test_ids_are_unique(name):
    ids = [panel["id"] for panel in panels(committed()[name])]
    assert all(number > 0 for number in ids)
    assert len(set(ids)) == len(ids)


@each_board
def test_no_panel_overlaps_another_or_leaves_the_grid(name):
    cells: dict[tuple[int, int], str] = {}
    for panel in panels(committed()[name]):
        place = panel["gridPos"]
        assert place["x"] + place["w"] <= COLUMNS, panel["title"]
        for x in range(place["x"], place["x"] + place["w"]):
            for y in range(place["y"], place["y"] + place["h"]):
                assert (x, y) not in cells, f"{panel['title']} lies on {cells[x, y]}"
                cells[x, y] = panel["title"]
    height = max(y for _, y in cells) + 1
    assert len(cells) == COLUMNS * height, "there is a hole in the grid"


@each_board
def test_a_board_is_not_overloaded(name):
    assert len([panel for panel in committed()[name]["panels"] if panel["type"] != "row"]) <= PANELS_MAX


@each_board
def test_boards_are_read_only_share_their_crosshair_and_lead_to_each_other(name):
    board = committed()[name]
    assert board["editable"] is False
    assert board["graphTooltip"] == 1
    (link,) = board["links"]
    assert (link["type"], link["tags"], link["keepTime"], link["includeVars"]) == (
        "dashboards",
        ["llmswap"],
        True,
        True,
    )
    assert link["tags"] == board["tags"]
    assert "placement" not in link, "in sight, not in a menu"
    assert len(board["description"]) > 20


@each_board
def test_variables_are_those_of_the_house(name):
    found = {variable["name"]: variable for variable in committed()[name]["templating"]["list"]}
    assert list(found)[:3] == ["datasource", "job", "instance"]
    assert set(found) <= {"datasource", "job", "instance", "model"}
    assert found["datasource"]["query"] == "prometheus"
    for variable in (found["job"], found["instance"]):
        assert (variable["multi"], variable["includeAll"], variable["allValue"]) == (True, True, ".+")
    for variable in list(found.values())[1:]:
        assert variable["refresh"] == 2, "the values follow the time range"
        assert variable["datasource"]["uid"] == "${datasource}"
        assert problems(variable["query"]["query"].removeprefix("label_values(").rpartition(",")[0]) == []


@each_board
def test_a_board_uses_the_variables_that_it_has_and_no_others(name):
    board = committed()[name]
    names_of = {variable["name"] for variable in board["templating"]["list"]}
    queries = " ".join(t["expr"] for panel in panels(board) for t in panel.get("targets", []) if "expr" in t)
    used = set(re.findall(r"\$(\w+)", queries)) - {"__rate_interval", "__range"}
    assert used == names_of - {"datasource"}


@each_board
def test_swaps_reloads_restarts_and_alerts_are_marked(name):
    marks = {mark["name"]: mark for mark in committed()[name]["annotations"]["list"]}
    assert list(marks) == ["Swaps", "Config reloads", "Restarts", "Alerts"]
    for mark in marks.values():
        assert mark["useValueForTime"] == (mark["name"] != "Alerts")
        assert ("* 1000" in mark["target"]["expr"]) == mark["useValueForTime"], "the moment is in milliseconds"


@each_board
def test_a_panel_says_what_it_is_what_to_do_and_why_it_is_empty(name):
    for panel in shown(committed()[name]):
        where = panel["title"]
        assert len(panel["description"]) > 20, where
        if panel["type"] == "text":
            assert panel["options"]["content"]
            continue
        empty = panel["fieldConfig"]["defaults"]["noValue"]
        if panel["type"] == "stat":
            assert len(where) <= TITLE_SIGNS * panel["gridPos"]["w"], where
            assert 0 < len(empty) <= TILE_EMPTY_MAX, where
        else:
            assert len(empty) > 12, where
        assert panel["datasource"]["uid"] in {"${datasource}", "tempo"}, where
        letters = [target["refId"] for target in panel["targets"]]
        assert len(set(letters)) == len(letters) > 0, where


@each_board
def test_every_figure_has_a_unit(name):
    for panel in shown(committed()[name]):
        if panel["type"] == "text":
            continue
        fields = panel["fieldConfig"]
        assert fields["defaults"]["unit"] in UNITS, panel["title"]
        if panel["type"] == "heatmap":
            assert panel["options"]["yAxis"]["unit"] in UNITS, panel["title"]
        changed = {change["value"] for o in fields["overrides"] for change in o["properties"] if change["id"] == "unit"}
        assert changed <= {*UNITS, "string"}, panel["title"]


@each_board
def test_only_histograms_are_heat_maps_and_only_moments_are_tables(name):
    forms = {"heatmap": ("heatmap", True), "table": ("table", False)}
    for panel in shown(committed()[name]):
        for target in panel.get("targets", []):
            if "expr" in target:
                wanted = forms.get(panel["type"], ("time_series", target["range"]))
                assert (target["format"], target["range"]) == wanted, panel["title"]
                assert target["range"] is not target["instant"], panel["title"]


def test_descriptions_name_no_metric_that_there_is_not():
    known = {metric.name for metric in names.EVERY}
    parts = re.compile(r"_(bucket|count|sum)$")
    named = {
        metric
        for board in committed().values()
        for panel in shown(board)
        for metric in re.findall(r"\bllmswap_[a-z_]+[a-z](?![a-z_*])", panel["description"])
    }
    assert len(named) > 60
    assert {metric for metric in named if metric not in known and parts.sub("", metric) not in known} == set()


@each_board
def test_a_query_asks_for_what_there_is(name):
    found = {place: trouble for place, query in queries(committed()[name]) if (trouble := problems(query))}
    assert found == {}


@each_board
def test_a_query_is_narrowed_by_job_and_instance(name):
    for place, query in queries(committed()[name]):
        bare = re.sub(r'"[^"]*"', "", query)
        assert NOT_OF_A_JOB.search(query) or "job=~" in bare, place
        if not NOT_OF_A_JOB.search(query):
            assert not re.search(r"\b(llmswap|process)_\w+(?![\w{])", bare), f"{place}: a metric without matchers"
            for selector in re.findall(r"\b(?:llmswap|process)_\w+\{[^}]*\}", query):
                assert 'job=~"$job", instance=~"$instance"' in selector, place


@each_board
def test_rates_follow_the_scrape_interval_and_counters_are_never_shown_bare(name):
    for place, query in queries(committed()[name]):
        assert set(re.findall(r"\brate\([^\[]*\[([^\]]+)\]", query)) <= {"$__rate_interval"}, place
        for counter in re.finditer(r"\w+_total\{[^}]*\}", query):
            assert re.search(r"(rate|increase)\($", query[: counter.start()]), f"{place}: {counter.group()} only grows"


def test_every_family_is_on_some_board():
    asked = " ".join(query for board in committed().values() for _, query in queries(board))
    shown_of = {metric.name for metric in names.EVERY if re.search(rf"\b{metric.name}(_bucket|_count|_sum)?\{{", asked)}
    missing = {metric.name for metric in names.EVERY} - shown_of
    assert missing == SHOWN_NOWHERE.keys(), "put it on a board, or say here why it is on none"
