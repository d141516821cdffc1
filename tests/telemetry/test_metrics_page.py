"""docs/metrics.md holds every family and every value of a closed label, as the code has them."""

import pytest

from llmswap.telemetry import names
from tests.telemetry.metrics_page import PAGE, SECTIONS, filled, tables

CLOSED = (
    names.STARTS,
    names.RESIDENCIES,
    names.TOKEN_TYPES,
    names.WAIT_OUTCOMES,
    names.WAIT_CAUSES,
    names.SWAP_OUTCOMES,
    names.SWAP_PHASES,
    names.TRIGGERS,
    names.DECISIONS,
    names.EXIT_REASONS,
    names.GPU_PHASES,
    names.HEALTH_RESULTS,
    names.SPAN_RESULTS,
    names.MEMORY_KINDS,
    (names.UNKNOWN_MODEL, names.NOBODY, names.OTHER_CALLER, names.OTHER_CODE, names.CACHED_KNOWN),
)


def test_the_page_is_as_the_code_has_it() -> None:
    page = PAGE.read_text()
    assert page == filled(page), "run python -m tests.telemetry.metrics_page"
    for section, table in tables().items():
        assert table in page, f"the page lacks the marks of {section}"


def test_every_family_is_in_one_table() -> None:
    everything = "".join(tables().values())
    assert [metric.name for metric in names.EVERY if everything.count(f"| `{metric.name}` |") != 1] == []
    assert len(SECTIONS) == everything.count("| metric |")


@pytest.mark.parametrize("values", CLOSED, ids=lambda values: values[0])
def test_closed_values_are_explained(values: tuple[str, ...]) -> None:
    page = PAGE.read_text()
    assert [value for value in values if f"`{value}`" not in page] == []


def test_names_follow_the_conventions() -> None:
    assert len({metric.name for metric in names.EVERY}) == len(names.EVERY)
    for metric in names.EVERY:
        assert metric.name.endswith("_total") == (metric.kind is names.Kind.COUNTER), metric.name
        assert not {"type", "le", "job", "instance"} & set(metric.labels), metric.name
        assert list(metric.buckets) == sorted(set(metric.buckets)), metric.name
        assert metric.help.endswith("."), metric.name
