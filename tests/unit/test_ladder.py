"""Price levels of one side: tools/lob-book/native/ladder.hpp."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from sortedcontainers import SortedDict

import lob._native
from lob_book import _native

INT64_MAX = 2**63 - 1
INT64_MIN = -(2**63)

assert lob._native.LAYOUT_VERSION  # the ring types must be known before the books'

sides = st.sampled_from(["bid", "ask"])
near_prices = st.integers(1, 300)
any_prices = st.one_of(near_prices, st.integers(INT64_MIN, INT64_MAX), st.sampled_from([INT64_MIN, INT64_MAX, 0, -1]))
qtys = st.one_of(st.just(0), st.integers(1, INT64_MAX))
changes = st.lists(st.tuples(any_prices, qtys), max_size=300)


def plain_ladder(side: str) -> SortedDict:
    return SortedDict(lambda price: -price) if side == "bid" else SortedDict()


def set_plain(plain: SortedDict, price: int, qty: int) -> int:
    before = plain.get(price, 0)
    if qty:
        plain[price] = qty
    else:
        plain.pop(price, None)
    return before


@given(sides, changes)
def test_ladder_equals_sorteddict_after_every_change(side, changes):
    ladder, plain = _native.Ladder(side), plain_ladder(side)
    for price, qty in changes:
        assert ladder.set(price, qty) == set_plain(plain, price, qty)
        ladder.check()
        assert len(ladder) == len(plain)
        assert ladder.levels() == list(plain.items())
        assert ladder.best() == (plain.peekitem(0) if plain else (0, 0))
        assert ladder.qty_at(price) == plain.get(price, 0)


@settings(max_examples=25, deadline=None)
@given(sides, st.integers(0, 2**32 - 1), st.sampled_from([50, 400, 3000]), st.sampled_from([0.2, 0.5, 0.8]))
def test_ladder_equals_sorteddict_while_it_grows_and_shrinks(side, seed, width, removals):
    rng = np.random.default_rng(seed)
    ladder, plain = _native.Ladder(side), plain_ladder(side)
    for phase in (0.1, removals, 0.95):
        for _ in range(1500):
            price = int(rng.integers(1, width))
            qty = 0 if rng.random() < phase else int(rng.integers(1, 100))
            assert ladder.set(price, qty) == set_plain(plain, price, qty)
        ladder.check()
        assert ladder.levels() == list(plain.items())
        assert ladder.top(20) == list(plain.items()[:20])


def set_all(ladder, message):
    """The quantities before, in order."""
    prices, qtys = (np.array([level[i] for level in message], np.int64) for i in (0, 1))
    before = np.empty(len(message), np.int64)
    ladder.set_all(prices, qtys, before)
    return before.tolist()


@given(sides, st.lists(changes, max_size=8))
def test_message_is_the_same_as_its_levels_one_after_the_other(side, messages):
    ladder, plain = _native.Ladder(side), plain_ladder(side)
    for message in messages:
        assert set_all(ladder, message) == [set_plain(plain, price, qty) for price, qty in message]
        ladder.check()
        assert ladder.levels() == list(plain.items())


@settings(max_examples=25, deadline=None)
@given(sides, st.integers(0, 2**32 - 1), st.sampled_from([1, 31, 32, 33, 500]), st.sampled_from([100, 3000]))
def test_messages_in_which_chunks_split_and_join(side, seed, size, width):
    """Searched for in batches while the levels before them in the batch move, fill and empty the chunks."""
    rng = np.random.default_rng(seed)
    ladder, plain = _native.Ladder(side), plain_ladder(side)
    for phase in (0.1, 0.5, 0.95, 0.2):
        for _ in range(2000 // size):
            prices, removed = rng.integers(1, width, size), rng.random(size) < phase
            message = [(int(p), 0 if r else int(p) + size) for p, r in zip(prices, removed, strict=True)]
            assert set_all(ladder, message) == [set_plain(plain, price, qty) for price, qty in message]
            ladder.check()
        assert ladder.levels() == list(plain.items())


@given(sides, st.lists(st.tuples(any_prices, qtys), max_size=400), st.booleans())
def test_assign_takes_levels_in_any_order_and_the_last_of_a_price(side, levels, is_sorted):
    if is_sorted:
        levels = sorted(levels, reverse=side == "bid")
    ladder, plain = _native.Ladder(side), plain_ladder(side)
    ladder.set(17, 4)
    ladder.assign(levels)
    for price, qty in levels:
        set_plain(plain, price, qty)
    ladder.check()
    assert ladder.levels() == list(plain.items())


@given(sides, st.lists(st.tuples(near_prices, st.integers(1, 9)), max_size=300), st.integers(0, 300))
def test_truncate_keeps_the_best_levels_and_reports_the_others(side, levels, depth):
    ladder, plain = _native.Ladder(side), plain_ladder(side)
    ladder.assign(levels)
    plain.update(levels)
    cut = ladder.truncate(depth)
    ladder.check()
    assert ladder.levels() == list(plain.items()[:depth])
    assert sorted(cut) == sorted(plain.items()[depth:])


@given(
    sides,
    st.lists(st.tuples(st.integers(-(10**9), 10**9), st.integers(1, 10**9)), max_size=300),
    st.integers(0, 9),
    st.integers(0, 9),
)
def test_rescale_keeps_all_levels_and_can_be_undone(side, levels, price_exponent, qty_exponent):
    ladder = _native.Ladder(side)
    ladder.assign(levels)
    before = ladder.levels()
    assert ladder.rescale(price_exponent, qty_exponent)
    ladder.check()
    assert ladder.levels() == [(p * 10**price_exponent, q * 10**qty_exponent) for p, q in before]
    assert ladder.rescale(-price_exponent, -qty_exponent)
    ladder.check()
    assert ladder.levels() == before


@pytest.mark.parametrize(
    ("level", "exponents"),
    [
        ((9, 9), (19, 0)),
        ((9, 9), (0, 19)),
        ((INT64_MAX, 1), (1, 0)),
        ((1, INT64_MAX), (0, 1)),
        ((15, 10), (-1, 0)),
        ((10, 15), (0, -1)),
    ],
)
def test_rescale_that_does_not_fit_changes_nothing(level, exponents):
    ladder = _native.Ladder("ask")
    ladder.assign([(10, 10), level])
    before = ladder.levels()
    assert not ladder.rescale(*exponents)
    ladder.check()
    assert ladder.levels() == before


def test_removal_of_an_unknown_level_is_no_change():
    ladder = _native.Ladder("ask")
    assert ladder.set(100, 0) == 0
    assert ladder.set(100, 5) == 0
    assert ladder.set(101, 0) == 0
    assert ladder.levels() == [(100, 5)]
