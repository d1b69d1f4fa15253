"""The live table: what stands in a row, and that it fits 80 columns."""

from __future__ import annotations

import io

import pytest
from rich.console import Console

from book_stream import BookStream
from lob import _native
from lob.records import BookState, Reason
from lob.table import LiveTable, Row, count, short, table_of

WIDE: Row = (
    "1000000MOGUSDT", int(BookState.STALE), int(Reason.UPSTREAM_SILENT),
    6160012, 2**62, 6160050, 123456789, 2, 8, 10_000_000, 1, 4_294_967_295,
)  # fmt: skip


def drawn(table: object) -> list[str]:
    console = Console(file=io.StringIO(), width=80)
    console.print(table)
    assert isinstance(console.file, io.StringIO)
    return console.file.getvalue().splitlines()


def test_row_tells_state_best_prices_spread_rate_age_and_latency():
    row: Row = ("BTCUSDT", int(BookState.LIVE), 0, 6160000, 27, 6160050, 100000000, 2, 8, 150, 5_000_000_000, 42_000)
    lines = drawn(table_of("lob-book", [row], {"BTCUSDT": 100}, 0.5, 5_070_000_000))
    assert lines[-1].split() == ["BTCUSDT", "live", "2.7e-7", "61600", "61600.5", "1", "0.5", "100", "70", "42"]


def test_missing_side_is_a_dash():
    row: Row = ("BTCUSDT", int(BookState.BUILDING), 0, 0, 0, 6160050, 5, 2, 0, 0, 0, 0)
    assert drawn(table_of("x", [row], {}, 1.0, 0))[-1].split() == [
        "BTCUSDT",
        "building",
        "-",
        "-",
        "61600.5",
        "5",
        "-",
        "0",
        "-",
        "-",
    ]


def test_book_that_is_not_live_says_why():
    row: Row = ("BTCUSDT", int(BookState.STALE), int(Reason.CHECKSUM), 0, 0, 0, 0, 2, 0, 0, 0, 0)
    assert "checksum" in drawn(table_of("x", [row], {}, 1.0, 0))[-1]


def test_widest_row_is_under_80_columns():
    lines = drawn(table_of("x", [WIDE], {WIDE[0]: 0}, 0.25, 10**15))
    assert len(lines) == 3 and max(len(line.rstrip()) for line in lines) <= 80
    assert all(number in lines[-1] for number in ("61600.12", "61600.5", "0.38", "40M", "silent", "999M", "4294k"))


@pytest.mark.parametrize(
    ("text", "cut"),
    [
        ("0.00012345", "0.00012"),
        ("1", "1"),
        ("0.00000027", "2.7e-7"),
        ("123456789.5", "123M"),
        ("123456.5", "123k"),
        ("12345.67", "12345.6"),
    ],
)
def test_quantity_is_cut_for_the_eye(text, cut):
    assert short(text) == cut


@pytest.mark.parametrize(("number", "text"), [(0, "0"), (99_999, "99999"), (100_000, "100k"), (12_345_678, "12M")])
def test_count_has_at_most_five_characters(number, text):
    assert count(number) == text


def test_tops_follow_a_stream():
    tops = _native.Tops()
    made = BookStream(tops.apply, seed=1)
    made.begin()
    for _ in range(200):
        made.step()
    for instrument, row in zip(made.instruments, tops.rows(), strict=True):
        bids, asks = instrument.levels()
        assert row[0] == instrument.symbol
        assert row[1] == int(BookState.LIVE)
        assert (row[3], row[4]) == (bids or [(0, 0)])[0]
        assert (row[5], row[6]) == (asks or [(0, 0)])[0]
        assert (row[7], row[8]) == (instrument.price_scale, instrument.qty_scale)


def test_table_is_drawn_four_times_a_second_and_left_at_the_end():
    console = Console(file=io.StringIO(), width=80, height=24, force_terminal=True)
    calls = []

    def rows() -> list[Row]:
        calls.append(1)
        return [WIDE]

    table = LiveTable("lob-book", rows, console)
    for tenth in range(11):
        table.tick(now_s=100 + tenth / 10)
    assert len(calls) == 4
    table.close()
    assert isinstance(console.file, io.StringIO)
    assert "61600.12" in console.file.getvalue()
