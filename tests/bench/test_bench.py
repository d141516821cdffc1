"""The bench measures what it says: its own parts against one another, without a proxy."""

import pytest

from tests.bench import contenders
from tests.bench.__main__ import table
from tests.bench.figures import FLAT_OUT, Row, apply_load, cpu_per_unit, cpu_rows


@pytest.fixture
def upstream(tmp_path):
    with contenders.upstream(tmp_path) as upstream:
        yield upstream


def test_requests_are_all_sent_and_their_cost_is_noted(upstream):
    load = apply_load(upstream, "requests", "--connections", 4, "--count", 4000, "--rate", 0)
    assert load.clean
    assert load.seen["statuses"] == {"200": 4000}
    assert load.cpu_s > 0
    assert upstream.rss_mb > 5


def test_the_pace_is_kept(upstream):
    load = apply_load(upstream, "requests", "--connections", 4, "--count", 100, "--rate", 200)
    assert load.seen["requests"] == 100
    assert 0.4 < load.seen["wall_s"] < 2


def test_every_token_of_every_stream_is_timed(upstream):
    load = apply_load(upstream, "streams", "--connections", 10, "--chunks", 5, "--rate", 50)
    assert load.clean
    assert load.seen["chunks"] == 50
    assert 0 < load.seen["gap_ms"]["p50"] <= load.seen["gap_ms"]["max"]


def test_a_proxy_costs_more_than_none(upstream, tmp_path):
    with contenders.relay(tmp_path, upstream.port) as relay:
        costs = cpu_per_unit([upstream, relay], 1, FLAT_OUT, quick=True)
    assert costs["relay"][0] > costs["upstream"][0] > 0


def test_medians_are_compared_with_nginx_and_only_the_subject_has_a_bound():
    costs = {"nginx": [1.0, 2.0, 9.0], "tuned nginx": [1.5], "relay": [10.0], "ours": [5.0, 6.0, 70.0]}
    rows = cpu_rows("CPU", costs, "ours", 2.5)
    assert [(row.value, row.bound, row.passed) for row in rows] == [
        (3.0, 2.5, False),
        (4.0, None, True),
        (5.0, None, True),
    ]
    assert "FAIL" in table(rows)
    assert Row("errors", 0, "", 0).passed
