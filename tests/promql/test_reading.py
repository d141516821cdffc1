"""What a query is blamed for, and what not."""

import pytest

from tests.promql.reading import labels, named, plain, problems

RIGHT = (
    "llmswap_queue_depth",
    'sum by (model) (rate(llmswap_requests_total{job=~"$job", outcome!="ok"}[$__rate_interval]))',
    'histogram_quantile(0.95, sum by (le) (rate(llmswap_stream_stall_seconds_bucket{model=~"${model:regex}"}[5m])))',
    'sum(llmswap_queue_wait_seconds_bucket{le="10.0"}) / (sum(llmswap_queue_wait_seconds_count) > 0)',
    'llmswap_model_host_memory_bytes * on (job, model) group_left () (llmswap_model_state{state="asleep"} == 1)',
    'llmswap_model_info * on (model) group_left (state) (llmswap_model_state{state=~"ready|asleep"} == 1)',
    "time() - llmswap_gpu_xid_last_timestamp_seconds < 300",
    "llmswap_queue_depth > $floor",
    "increase(llmswap_swaps_total[$__range]) / $__range_s",
    'label_replace(llmswap_model_load_estimate_seconds, "to_model", "$1", "model", "(.*)")',
    'llmswap_model_state{state="$state"} or llmswap_model_state_code',
    "topk(3, sum by (from_model, to_model) (increase(llmswap_swap_transitions_total[1h] offset 1d)))",
    'absent(up{job="llmswap"})',
    "llmswap_queue_depth / llmswap_queue_limit",
    "max_over_time(llmswap_queue_depth[1h:1m])",
    "sum without (model) (llmswap_queue_depth)",
    'llmswap_requests_total{outcome=~"upstream.*"}',
)

WRONG = {
    "sum(": "cannot be parsed",
    "llmswap_queue_length": "neither in names.py",
    'llmswap_queue_depth{mdoel="a"}': "no label `mdoel`",
    "sum by (gpu) (llmswap_queue_depth)": "sum: there is no label `gpu`",
    "sum without (gpu) (llmswap_queue_depth)": "sum: there is no label `gpu`",
    'llmswap_model_state{state="sleeping"}': "`state` is never 'sleeping'",
    'llmswap_model_state{state=~"ready|sleeping"}': "`state` is never 'sleeping'",
    'llmswap_model_state{state=~"snooz.+"}': "never matches 'snooz.+'",
    'llmswap_queue_wait_seconds_bucket{le="10"}': "`le` is never '10'",
    'llmswap_queue_wait_seconds_bucket{le="15.0"}': "`le` is never '15.0'",
    "rate(llmswap_queue_depth[5m])": "is a gauge",
    "llmswap_queue_depth / llmswap_gpu_utilization_ratio": "only one of them has gpu, model",
    "llmswap_queue_depth and on (job, gpu) llmswap_queue_limit": "there is no label `gpu`",
    "llmswap_queue_depth * on (model) group_left (backend) llmswap_queue_limit": "group: there is no label `backend`",
    "histogram_quantile(0.9, sum by (model) (rate(llmswap_swap_duration_seconds_bucket[5m])))": "no label `model`",
    "histogram_quantile(0.9, sum by (to_model) (rate(llmswap_swap_duration_seconds_bucket[5m])))": "no label `le`",
    'label_replace(llmswap_queue_depth, "a", "$1", "gpu", "(.*)")': "label_replace: there is no label `gpu`",
    '{job="llmswap"}': "names no series",
}


@pytest.mark.parametrize("query", RIGHT)
def test_a_right_query_has_no_problems(query: str) -> None:
    assert problems(query) == []


@pytest.mark.parametrize("query", WRONG)
def test_a_wrong_query_is_told_why(query: str) -> None:
    assert any(WRONG[query] in problem for problem in problems(query)), problems(query)


def test_the_labels_of_a_result_are_known() -> None:
    assert labels("llmswap_swaps_total") == {"job", "instance", "to_model", "kind", "outcome"}
    assert labels("sum by (model) (llmswap_queue_depth)") == {"model"}
    assert labels("sum(llmswap_queue_depth)") == frozenset()
    assert labels("llmswap_queue_depth * on (model) group_left (backend) llmswap_model_info") == {
        *("job", "instance", "model", "backend")
    }
    assert labels("llmswap_queue_depth / on (model) llmswap_queue_limit") == {"model"}
    assert labels("llmswap_queue_depth and on (model) llmswap_queue_limit") == {"job", "instance", "model"}
    assert labels('absent(up{job="llmswap"})') is None


def test_a_variable_becomes_what_its_place_asks_for() -> None:
    assert plain('rate(x{a="$a", b=~"[[b]]"}[$__rate_interval])') == 'rate(x{a="any_value", b=~"any_value"}[5m])'
    assert plain("x[$window] > $floor") == "x[5m] > 1"
    assert plain('label_replace(x, "a", "$1", "b", "(.*)$")') == 'label_replace(x, "a", "$1", "b", "(.*)$")'


def test_the_names_of_a_query_are_known() -> None:
    assert named('up == 0 or llmswap_queue_depth{model="a"} > 1') == {"up", "llmswap_queue_depth"}
