"""lob_connect/backoff.py, and how a Retry-After is read."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from lob_connect.backoff import Backoff, Budget
from lob_connect.rest import retry_after_s


def test_waits_double_from_one_second_to_thirty() -> None:
    backoff = Backoff(lambda: 0.0)
    assert [backoff.next_s() for _ in range(7)] == [1, 2, 4, 8, 16, 30, 30]


def test_jitter_takes_up_to_a_half_off() -> None:
    backoff = Backoff(lambda: 1.0)
    assert [backoff.next_s() for _ in range(3)] == [0.5, 1, 2]


def test_connection_that_held_a_while_makes_the_next_wait_short() -> None:
    backoff = Backoff(lambda: 0.0)
    for _ in range(5):
        backoff.next_s()
    backoff.held(5.0)
    assert backoff.next_s() == 30
    backoff.held(31.0)
    assert backoff.next_s() == 1


def test_budget_makes_the_request_wait_until_enough_has_grown_old() -> None:
    budget = Budget(100)
    for at in (0.0, 10.0, 20.0):
        assert budget.delay_s(at, 30) == 0
        budget.spend(at, 30)
    assert budget.delay_s(30.0, 10) == 0
    assert budget.delay_s(30.0, 11) == 30.0  # the first one leaves the window at 60
    assert budget.delay_s(30.0, 50) == 40.0
    assert budget.delay_s(60.0, 40) == 0


def test_request_larger_than_the_budget_goes_alone() -> None:
    budget = Budget(100)
    assert budget.delay_s(0.0, 250) == 0
    budget.spend(0.0, 250)
    assert budget.delay_s(1.0, 1) == 59.0


@given(st.lists(st.tuples(st.floats(0, 20), st.floats(1, 60)), max_size=60))
def test_budget_is_never_exceeded_in_any_minute(requests: list[tuple[float, float]]) -> None:
    budget = Budget(100)
    now, spent = 0.0, []
    for gap, units in requests:
        now += gap
        while (wait := budget.delay_s(now, units)) > 0:
            now += wait
        budget.spend(now, units)
        spent.append((now, units))
    for start, _ in spent:
        assert sum(units for at, units in spent if start <= at < start + 59.999) <= 100 + 1e-6


@pytest.mark.parametrize(
    ("text", "seconds"),
    [("7", 7.0), ("0", 0.0), ("-3", 0.0), (None, None), ("soon", None), ("Thu, 01 Jan 1970 00:01:40 GMT", 90.0)],
)
def test_retry_after_is_seconds_or_a_date(text: str | None, seconds: float | None) -> None:
    assert retry_after_s(text, 10.0) == seconds
