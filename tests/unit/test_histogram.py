"""Histograms of the stages: the native one counts as a plain list does, and Python knows its buckets."""

from __future__ import annotations

import math
from collections import Counter
from itertools import pairwise

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from lob import _native
from lob_trace import bars
from lob_trace.histogram import BUCKETS, LOWER_NS, UPPER_NS, Histogram
from lob_trace.messages import histogram as of_array

VALUE_MAX = 0xFFFFFFFF
durations = st.one_of(st.integers(0, VALUE_MAX), st.integers(0, 40).map(lambda e: min((1 << e) - 1, VALUE_MAX)))


def counted(values: list[int]) -> Histogram:
    native = _native.Histogram()
    for value in values:
        native.record(value)
    return Histogram.of(*native.counts())


def test_buckets_follow_one_another_without_a_hole_and_are_at_most_a_128th_wide() -> None:
    assert LOWER_NS[0] == 0 and UPPER_NS[-1] == VALUE_MAX and len(LOWER_NS) == BUCKETS
    assert (LOWER_NS[1:] == UPPER_NS[:-1] + 1).all()
    assert ((UPPER_NS - LOWER_NS) * 128 <= LOWER_NS).all()


@given(st.lists(durations, max_size=200))
def test_every_value_is_counted_once_in_the_bucket_that_holds_it(values: list[int]) -> None:
    plain: Counter[int] = Counter(int(np.searchsorted(UPPER_NS, value)) for value in values)
    found = counted(values)
    assert {int(i): int(found.counts[i]) for i in np.flatnonzero(found.counts)} == dict(plain)
    assert found.count == len(values) and found.max_ns == max(values, default=0)
    assert (of_array(np.array(values, np.float64)).counts == found.counts).all()


def test_what_is_larger_than_the_largest_is_counted_as_the_largest() -> None:
    found = counted([VALUE_MAX + 1, 1 << 63])
    assert found.counts[-1] == 2 and found.quantile_ns(0.5) == VALUE_MAX


@given(st.lists(durations, min_size=1, max_size=300), st.sampled_from([0.001, 0.5, 0.9, 0.99, 0.999, 1.0]))
def test_quantiles_are_those_of_a_sorted_list_but_for_the_width_of_a_bucket(values: list[int], quantile: float) -> None:
    exact = sorted(values)[max(1, math.ceil(quantile * len(values))) - 1]
    found = counted(values).quantile_ns(quantile)
    assert found is not None and exact <= found <= exact * (1 + 1 / 128)


@given(st.lists(durations, max_size=100), st.lists(durations, max_size=100))
def test_sums_and_differences_are_those_of_the_lists(first: list[int], second: list[int]) -> None:
    together = counted(first) + counted(second)
    both = counted(first + second)
    assert (together.counts == both.counts).all() and together.max_ns == both.max_ns
    later = both.since(counted(first))
    assert (later.counts == counted(second).counts).all()
    assert max(second, default=0) <= later.max_ns <= max(second, default=0) * (1 + 1 / 128)


def test_nothing_counted_has_no_quantile() -> None:
    assert Histogram.empty().quantile_ns(0.5) is None and bars.bins(Histogram.empty()) == []


@given(st.lists(st.integers(1, 10**9), min_size=1, max_size=300))
def test_bars_hold_every_value_once_and_are_few(values: list[int]) -> None:
    found = bars.bins(counted(values))
    assert sum(one.count for one in found) == len(values)
    assert len(found) <= bars.ROWS_MAX + 3
    for one, following in pairwise(found):
        assert one.high_ns == following.low_ns and one.low_ns < following.low_ns
    assert all(len(line) <= 79 for line in bars.lines(found))


@pytest.mark.parametrize(("values", "edges"), [
    ([1000, 1100, 1200, 1300], {1000.0, 1300.0}),
    ([1000, 10_000, 100_000, 1_000_000], {1000.0, 10_000.0, 100_000.0}),
])  # fmt: skip
def test_bars_have_round_edges_equal_or_growing_as_the_values_lie(values: list[int], edges: set[float]) -> None:
    found = bars.bins(counted(values * 50))
    assert edges <= {one.low_ns for one in found}
    growing = values[-1] > 8 * values[0]
    widths = [one.high_ns - one.low_ns for one in found if one.high_ns is not None]
    assert (max(widths) > 10 * min(widths)) is growing
