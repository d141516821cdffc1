"""What an event costs must not depend on how many wait. Generous bounds: the machine may be busy with other tests."""

import pytest

from tests.bench.scheduler import BUDGETS_US, measure


def best_us(models, waiting):
    return min(measure(models, waiting, events=2000) for _ in range(3))


@pytest.mark.parametrize(("models", "waiting"), BUDGETS_US)
def test_an_event_stays_within_three_times_its_budget(models, waiting):
    assert best_us(models, waiting) < 3 * BUDGETS_US[models, waiting]


def test_ten_times_as_many_waiters_do_not_cost_more_per_event():
    assert best_us(20, 5000) < 2.5 * best_us(20, 500)
