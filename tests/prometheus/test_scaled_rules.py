"""Rules for a faster world: every duration is divided, and nothing else is touched."""

import pytest
import yaml

from tests.promql.reading import problems
from tests.real import scaled_rules
from tests.real.scaled_rules import divided, scaled, seconds


def rule(expr: str, **more: object) -> dict[str, object]:
    return {"groups": [{"name": "g", "rules": [{"alert": "A", "expr": expr, **more}]}]}


@pytest.mark.parametrize(
    ("before", "after"),
    [
        ("rate(x[30m])", "rate(x[300s])"),
        ("rate(x[1d] offset 1h)", "rate(x[14400s] offset 600s)"),
        ("max_over_time(x[1h:5m])", "max_over_time(x[600s:50s])"),
        ("x offset -1h30m", "x offset -900s"),
        ("job:x:ratio_rate5m > 600", "job:x:ratio_rate5m > 600"),
        ("increase(x[1s]) > 2.5", "increase(x[167ms]) > 2.5"),
    ],
)
def test_windows_and_offsets_are_divided_and_names_and_numbers_are_not(before, after):
    assert scaled(rule(before), 6)["groups"][0]["rules"][0]["expr"] == after


def test_waiting_times_and_intervals_are_divided():
    groups = rule("x", **{"for": "10m", "keep_firing_for": "1m"})
    groups["groups"][0]["interval"] = "30s"
    (group,) = scaled(groups, 6)["groups"]
    assert group["interval"] == "5s"
    assert (group["rules"][0]["for"], group["rules"][0]["keep_firing_for"]) == ("100s", "10s")


def test_a_window_keeps_a_floor_that_it_had():
    assert divided("5m", 60, 20) == "20s"
    assert divided("10s", 60, 20) == "10s"
    assert divided("0s", 60, 20) == "0s"


def test_what_is_no_duration_is_refused():
    with pytest.raises(ValueError, match="'5 minutes' is no duration such as 30s or 1h30m"):
        seconds("5 minutes")


def test_the_stacks_own_rules_stay_what_they_are(tmp_path):
    scaled_rules.write(tmp_path, 6)
    for path in scaled_rules.RULES.glob("*.yml"):
        old, new = (yaml.safe_load((folder / path.name).read_text()) for folder in (scaled_rules.RULES, tmp_path))
        for before, after in zip(old["groups"], new["groups"], strict=True):
            for was, now in zip(before["rules"], after["rules"], strict=True):
                assert {**now, "expr": 0, "for": 0} == {**was, "expr": 0, "for": 0}
                assert problems(now["expr"]) == []
                assert ("[" in was["expr"]) == (now["expr"] != was["expr"])
