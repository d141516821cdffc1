"""The runbook has all that somebody who is woken at night wants to know, and names nothing that is not there."""

import re

import pytest

from tests.prometheus.test_rules import ALERTS, DASHBOARDS, ROOM
from tests.promql.reading import problems

DOCS = ROOM.parent / "docs"
PAGE = (ROOM / "RUNBOOK.md").read_text()
SECTIONS = dict(re.findall(r"^## (\S+)\n(.*?)(?=^## |\Z)", PAGE, re.MULTILINE | re.DOTALL))
PARTS = ["**Means.**", "**See.**", "**Change.**"]
# What looks like a key of the configuration and is none.
NO_KEYS = re.compile(r"LLMSwap.*|.*\.(md|yml|hostpid)|deploy/.*|.*promql.*|60\.0|config\.rejected")


def test_every_alert_has_its_heading_in_the_order_of_the_rules():
    assert list(SECTIONS) == [name for name in SECTIONS if name in ALERTS]
    assert set(SECTIONS) == set(ALERTS)


@pytest.mark.parametrize("name", ALERTS)
def test_a_section_says_what_it_means_how_to_see_it_and_what_to_change(name):
    section = SECTIONS[name]
    assert re.findall(r"^\*\*\w+\.\*\*", section, re.MULTILINE) == PARTS
    assert all(len(part) > 40 for part in re.split(r"\*\*\w+\.\*\*", section)[1:])


def test_every_query_names_what_exists():
    queries = [line for block in re.findall(r"```promql\n(.*?)```", PAGE, re.DOTALL) for line in block.splitlines()]
    assert len(queries) > len(ALERTS)
    assert {query: found for query in queries if (found := problems(query))} == {}


def test_what_it_points_to_is_there():
    for target in re.findall(r"\]\(([^)]+)\)", PAGE):
        path, _, anchor = target.partition("#")
        page = (ROOM / path).read_text() if path else PAGE
        headings = {re.sub(r"[^\w -]", "", line).strip().replace(" ", "-").lower() for line in page.splitlines()}
        assert not anchor or anchor in headings, target
    assert set(re.findall(r"`(llmswap-(?!upstream)\w+)`", PAGE)) <= DASHBOARDS


def test_every_key_that_it_tells_to_change_is_one():
    keys = (DOCS / "configuration.md").read_text()
    text = re.sub(r"```.*?```", "", PAGE, flags=re.DOTALL)
    words = set(re.findall(r"`([A-Za-z_]+(?:\.[A-Za-z_]+)*)(?::[^`]*)?`", text))
    named = {word for word in words if re.search(r"[a-z][A-Z]|\.", word) and not NO_KEYS.fullmatch(word)}
    assert len(named) > 20
    assert sorted(word for word in named if not re.search(rf"(?<![\w]){re.escape(word)}(?![\w])", keys)) == []


def test_every_label_value_in_its_tables_of_causes_is_one():
    text = (DOCS / "metrics.md").read_text()
    for row in re.findall(r"^\| `(\w+)` \| (?!the)", PAGE, re.MULTILINE):
        assert f"`{row}`" in text, row
