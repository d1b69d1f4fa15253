"""Checksums of the venues: tools/lob-book/native/checksum.hpp."""

from __future__ import annotations

import zlib

import pytest
from hypothesis import given
from hypothesis import strategies as st

import lob._native  # noqa: F401  the ring types must be known before the books'
from lob_book import _native


@pytest.mark.parametrize(
    ("text", "value"),
    [
        ("", 0),
        ("123456789", 3421780262),
        ("3366.1:7:3366.8:9:3366:6:3368:8", 2413953002),
        ("3366.1:7:3366.8:9:3368:8:3372:8", 831078360),
        ("43231.1:4:43232.8:9:43231:6:43232.9:8", 2790465500),
        ("6000:1:6100:-3:5900:2:6200:-4", 1756193398),
        ("100:1:102:-3:101:2:103:-4", 1841538801),
    ],
)
def test_crc32_equals_the_published_vectors(text, value):
    assert _native.crc32(text.encode()) == value


@given(st.binary(max_size=200))
def test_crc32_equals_zlib_for_any_bytes(text):
    assert _native.crc32(text) == zlib.crc32(text)


def ladder(side, text, scale_price, scale_qty):
    levels = _native.Ladder(side)
    for level in text.split():
        price, qty = level.split("/")
        levels.set(round(float(price) * 10**scale_price), round(float(qty) * 10**scale_qty))
    return levels


def test_kraken_checksum_of_the_documents_example():
    asks = ladder(
        "ask",
        "45285.2/0.00100000 45286.4/1.54571953 45286.6/1.54571109 45289.6/1.54560911 45290.2/0.15890660"
        " 45291.8/1.54553491 45294.7/0.04454749 45296.1/0.35380000 45297.5/0.09945542 45299.5/0.18772827",
        1,
        8,
    )
    bids = ladder(
        "bid",
        "45283.5/0.10000000 45283.4/1.54582015 45282.1/0.10000000 45281.0/0.10000000 45280.3/1.54592586"
        " 45279.0/0.07990000 45277.6/0.03310103 45277.5/0.30000000 45277.3/1.54602737 45276.6/0.15445238",
        1,
        8,
    )
    assert _native.kraken_checksum(bids, asks) == 3310070434
    # Levels beyond the tenth do not count.
    asks.set(452_996, 7)
    bids.set(1, 7)
    assert _native.kraken_checksum(bids, asks) == 3310070434


def test_kraken_checksum_leaves_out_leading_zeros():
    asks, bids = _native.Ladder("ask"), _native.Ladder("bid")
    for step in range(10):
        asks.set(5005 + 5 * step, 500)
    for price in (5000, 4995, 4990, 4980, 4975, 4970, 4965, 4960, 4955, 4950):
        bids.set(price, 500)
    assert _native.kraken_checksum(bids, asks) == 974947235


def test_kraken_checksum_of_a_short_book_takes_the_levels_there_are():
    asks, bids = _native.Ladder("ask"), _native.Ladder("bid")
    assert _native.kraken_checksum(bids, asks) == 0
    asks.set(101, 20)
    bids.set(99, 30)
    bids.set(98, 40)
    assert _native.kraken_checksum(bids, asks) == zlib.crc32(b"10120" + b"9930" + b"9840")
