"""Sequence rules: tools/lob-book/native/sync.hpp, by vectors made from the venues' documents."""

from __future__ import annotations

import pytest

import lob._native  # noqa: F401  the ring types must be known before the books'
from lob.records import BookState, Flag, RecordType, SequenceRule, build
from lob_book import _native

RANGE, CHAIN, STEP, NONE = SequenceRule.RANGE, SequenceRule.CHAIN, SequenceRule.STEP, SequenceRule.NONE


def book_at(rule, seq, joins):
    books = _native.Books()
    body = {"symbol": b"X", "rule": rule, "joins": joins}
    books.feed(build(RecordType.INSTRUMENT, body, instrument=0, version=1, connection=0, session=1), 1)
    flags = int(Flag.ASKED) if joins else 0
    numbers = {"first_seq": seq, "last_seq": seq, "rule": rule}
    books.feed(build(RecordType.SNAPSHOT, numbers, instrument=0, version=1, connection=0, session=1, flags=flags), 1)
    assert books.describe_one(0)["state"] == BookState.LIVE
    return books


def verdict(books, rule, first, last, prev):
    before = books.describe_one(0)
    body = {"first_seq": first, "last_seq": last, "prev_seq": prev, "rule": rule}
    books.feed(build(RecordType.DIFF, body, instrument=0, version=1, connection=0, session=1), 1)
    after = books.describe_one(0)
    if after["gaps"] > before["gaps"]:
        return "gap"
    if after["stale_dropped"] > before["stale_dropped"]:
        return "stale"
    assert after["updates"] == before["updates"] + 1
    assert after["last_seq"] == last
    return "apply"


@pytest.mark.parametrize(
    ("rule", "joins", "snapshot", "messages"),
    [
        # Binance spot: U, u
        (
            RANGE,
            True,
            160,
            [(150, 160, 0, "stale"), (158, 165, 0, "apply"), (166, 170, 0, "apply"), (172, 175, 0, "gap")],
        ),
        (RANGE, True, 160, [(161, 165, 0, "apply"), (100, 165, 0, "stale"), (100, 166, 0, "apply")]),
        (RANGE, True, 160, [(162, 165, 0, "gap")]),
        # Binance USD-M: U, u, pu
        (
            CHAIN,
            True,
            160,
            [(140, 159, 130, "stale"), (155, 170, 150, "apply"), (190, 200, 170, "apply"), (201, 210, 199, "gap")],
        ),
        (CHAIN, True, 160, [(150, 160, 149, "apply"), (161, 170, 160, "apply")]),
        (CHAIN, True, 160, [(165, 170, 160, "apply")]),
        (CHAIN, True, 160, [(163, 170, 162, "gap")]),
        # OKX: prevSeqId, seqId; a keep-alive and a reset
        (CHAIN, False, 15, [(15, 15, 15, "apply"), (3, 3, 15, "apply"), (5, 5, 3, "apply"), (9, 9, 6, "gap")]),
        (CHAIN, False, 15, [(12, 18, 14, "gap")]),
        (STEP, False, 7, [(7, 7, 0, "stale"), (8, 8, 0, "apply"), (6, 6, 0, "stale"), (10, 10, 0, "gap")]),
        (NONE, False, 0, [(0, 0, 0, "apply"), (5, 5, 0, "apply"), (1, 1, 0, "apply")]),
    ],
)
def test_message_is_applied_dropped_or_a_gap_as_the_venue_says(rule, joins, snapshot, messages):
    books = book_at(rule, snapshot, joins)
    for first, last, prev, expected in messages:
        assert verdict(books, rule, first, last, prev) == expected, (first, last, prev)
