"""Mutated recordings through decoder and book: never a crash, and never a wrong book under `live`.

Lines of the shipped recordings are dropped, doubled, moved and damaged, then go through the native parser on real
rings into the native books. Beside them runs a plain book, fed by the plain oracle with every message that the oracle
can read. Whenever a native book says `live`, its sequence number and all its levels must be those of the plain one.

What the plain book takes from the native side is only what makes books forget: a link, a `lost` record, that a snapshot
was taken, that a book has left `live`. What a message says, which diffs extend a snapshot, and what the levels are
then, it finds out by itself. That a book should have left `live`, or gone live, is proven in tests/differential.
"""

from __future__ import annotations

import gzip
from dataclasses import dataclass, field
from decimal import Decimal
from functools import cache
from pathlib import Path
from typing import Any

import orjson
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

import lob._native  # noqa: F401  the ring types must be known before the books'
from differential import oracle
from lob import venues
from lob.records import NO_INSTRUMENT, BookState, Reason, Record, RecordType, parse
from lob_book import _native
from parse_rings import Bench

RECORDINGS = Path(__file__).resolve().parent.parent / "recordings"
VENUES = ("binance", "binance-usdm", "coinbase", "kraken")
HOW = ("cut", "drop")
RING_BYTES = 1 << 20
T0_NS = 1_760_000_000_000_000_000
LOOK_EVERY = 8  # messages between two comparisons of all levels; also at each change of a state, and at the end
BYTES = [bytes([c]) for c in b'{}[]",:\\ 0123456789.-e\x00\x80\xff']
NUMBERS = [b"0", b"1", b"-1", b"9" * 19, b"9" * 30, b"1e5", b"0.00000001", b"118000.01", b"0.000000000000000000001"]

Line = tuple[str, str, bytes]  # what ("in", "http", "sent", "connect"), its URL, its text
Levels = tuple[dict[Decimal, Decimal], dict[Decimal, Decimal]]


@cache
def recorded(venue: str, how: str) -> tuple[Line, ...]:
    lines = []
    with gzip.open(RECORDINGS / f"{venue}-mutated-{how}.jsonl.gz") as file:
        for line in map(orjson.loads, file):
            what = {"out": "connect" if line.get("event") == "connect" else "sent"}.get(line["dir"], line["dir"])
            lines.append((what, line.get("url", ""), line["raw"].encode()))
    return tuple(lines)


@cache
def decoded(venue_name: str, line: Line) -> tuple[tuple[dict[str, Any], ...], bool]:
    """(snapshots and diffs as the oracle reads them; whether it could read the line)."""
    venue = venues.load(venue_name)
    what, url, text = line
    shape, symbol = venue.shape, ""
    if what == "http":
        answer = venue.http_answer(url)
        if answer is None or answer.kind != "snapshot":
            return (), True
        shape, symbol = venue.snapshot_shape, answer.symbol
    elif what != "in":
        return (), True
    status, events = oracle.decode(shape, text, venue.rule, symbol)
    return tuple(event for event in events if event["kind"] in ("snapshot", "diff")), status != "bad"


# -- mutations --------------------------------------------------------------------------------------------------------


def damaged(draw: st.DrawFn, text: bytes, other: bytes) -> bytes:
    """A byte changed, a number changed, the end cut off, a piece doubled, or the end of another message."""
    if not text:
        return draw(st.sampled_from(BYTES))
    at = draw(st.integers(0, len(text) - 1))
    kind = draw(st.sampled_from(["number", "number", "digit", "byte", "cut", "double", "other"]))
    if kind in ("number", "digit"):
        while at < len(text) and not 48 <= text[at] <= 57:
            at += 1
        end = at
        while end < len(text) and text[end] in b"0123456789.":
            end += 1
        if at == len(text):
            return text
        if kind == "digit":
            return text[:at] + draw(st.sampled_from(BYTES[11:21])) + text[at + 1 :]
        return text[:at] + draw(st.sampled_from(NUMBERS)) + text[end:]
    if kind == "byte":
        return text[:at] + draw(st.sampled_from(BYTES)) + text[at + 1 :]
    if kind == "cut":
        return text[:at]
    if kind == "double":
        end = min(len(text), at + draw(st.integers(1, 60)))
        return text[:end] + text[at:]
    return text[:at] + other[at:]


@st.composite
def mutated(draw: st.DrawFn, venue: str) -> list[Line]:
    lines = list(recorded(venue, draw(st.sampled_from(HOW))))
    for _ in range(draw(st.integers(1, 6))):
        at = draw(st.integers(0, len(lines) - 1))
        kind = draw(st.sampled_from(["drop", "double", "again", "swap", "move", "damage", "damage", "damage"]))
        what, url, text = lines[at]
        other = draw(st.integers(0, len(lines) - 1))
        if kind == "drop":
            del lines[at : at + draw(st.integers(1, 3))]
        elif kind == "double":
            lines.insert(at, lines[at])
        elif kind == "again":
            lines.insert(other, lines[at])
        elif kind == "swap":
            at = min(at, len(lines) - 2)
            lines[at], lines[at + 1] = lines[at + 1], lines[at]
        elif kind == "move":
            lines.insert(min(other, len(lines) - 1), lines.pop(at))
        else:
            lines[at] = (what, url, damaged(draw, text, lines[other][2]))
        if len(lines) < 2:
            break
    return lines


# -- the plain book ---------------------------------------------------------------------------------------------------


@dataclass
class PlainBook:
    rule: str
    depth: int = 0  # levels a side that are kept; 0: all
    levels: Levels = field(default_factory=lambda: ({}, {}))
    last_seq: int = 0
    joining: bool = False  # a REST snapshot has been taken, and no diff since
    snapshot: dict[str, Any] | None = None  # the newest one, taken or not
    diffs: list[dict[str, Any]] = field(default_factory=list)  # that may extend a snapshot by REST

    def take(self, snapshot: dict[str, Any], joins: bool) -> None:
        self.levels = ({}, {})
        self.change(snapshot)
        self.last_seq, self.joining = snapshot["last_seq"], joins

    def change(self, event: dict[str, Any]) -> None:
        for levels, side, sign in zip(self.levels, ("bids", "asks"), (-1, 1), strict=True):
            for price, qty in event[side]:
                if qty.value:
                    levels[price.value] = qty.value
                else:
                    levels.pop(price.value, None)
            for price in sorted(levels, key=lambda p: sign * p)[self.depth or len(levels) :]:
                del levels[price]
        self.last_seq = event["last_seq"]

    def extend(self) -> None:
        """By the diffs that follow, as the venue says; those that do not follow are left."""
        waiting, self.diffs = self.diffs, []
        for diff in waiting:
            first, last, prev = diff["first_seq"], diff["last_seq"], diff["prev_seq"]
            if self.rule == "chain":
                old = self.joining and last < self.last_seq
                follows = (prev <= self.last_seq or first <= self.last_seq) if self.joining else prev == self.last_seq
            else:
                old, follows = last <= self.last_seq, first <= self.last_seq + 1
            if old:
                continue
            if not follows:
                self.diffs.append(diff)
                break
            self.change(diff)
            self.joining = False


class Check:
    """One run: lines in; AssertionError if a live book is not the plain one."""

    def __init__(self, venue_name: str) -> None:
        self.venue_name = venue_name
        self.venue = venues.load(venue_name)
        self.joins = self.venue.snapshot == "rest"
        self.bench = Bench(venue_name, raw_bytes=RING_BYTES, event_bytes=RING_BYTES)
        self.books = _native.Books(asks=False)
        self.plain: dict[str, PlainBook] = {}
        self.before: dict[int, tuple[int, int]] = {}  # instrument -> state, snapshots
        self.symbols: dict[int, str] = {}
        self.messages = self.live_looks = 0

    def run(self, lines: list[Line]) -> None:
        for line in lines:
            self.line(line)
        self.books.check()
        self.look(everything=True)

    def line(self, line: Line) -> None:
        what, url, text = line
        self.messages += 1
        recv_ns = T0_NS + self.messages
        if what == "connect":
            self.bench.session += 1
            self.bench.link(url)
        elif what == "sent":
            self.bench.put(RecordType.RAW_SENT, text, url)
        elif what == "http":
            self.bench.http(url, text, recv_ns=recv_ns)
        else:
            self.bench.frame(text, recv_ns=recv_ns)
        events, readable = decoded(self.venue_name, line)
        for event in events:
            self.plain_event(event)
        lost = self.native_events(recv_ns)
        assert readable or lost or what == "http", f"lost without a word: {text!r}"
        self.books.check()
        self.look(everything=not self.messages % LOOK_EVERY)

    def plain_event(self, event: dict[str, Any]) -> None:
        book = self.plain.setdefault(event["symbol"], PlainBook(self.venue.rule))
        if event["kind"] == "snapshot":
            book.snapshot = event
            if not self.joins:
                book.take(event, False)
        elif self.joins:
            book.diffs.append(event)
        else:
            book.change(event)

    def native_events(self, now_ns: int) -> bool:
        """Through parser and books; whether the parser said that something is lost."""
        lost = False
        while True:
            self.bench.run()
            fresh = False
            while (raw := self.bench.reader.read()) is not None:
                fresh = True
                record = parse(raw)
                self.forget(record)
                lost = lost or record.type is RecordType.LOST
                for out in self.books.feed(raw, now_ns):
                    parse(out)
            if not fresh and self.bench.input.drained:
                return lost

    def forget(self, record: Record) -> None:
        """What voids the diffs that were kept."""
        instrument = int(record.header["instrument"])
        if record.type is RecordType.INSTRUMENT:
            self.symbols[instrument] = record.symbol
            book = self.plain.setdefault(record.symbol, PlainBook(self.venue.rule))
            book.depth = int(record.body["depth"]) if self.venue.truncates else 0
        elif record.type in (RecordType.LOST, RecordType.LINK):
            for id_, symbol in self.symbols.items():
                if instrument in (NO_INSTRUMENT, id_):
                    self.plain[symbol].diffs.clear()

    def look(self, *, everything: bool) -> None:
        for id_, symbol in self.symbols.items():
            facts = self.books.describe_one(id_, 0)
            if facts is None:
                continue
            plain = self.plain[symbol]
            state, snapshots = self.before.get(id_, (int(BookState.BUILDING), 0))
            self.before[id_] = facts["state"], facts["snapshots"]
            live = facts["state"] == BookState.LIVE
            if self.joins and facts["snapshots"] > snapshots:
                assert plain.snapshot is not None
                plain.take(plain.snapshot, True)
            if live:
                if self.joins:
                    plain.extend()
                if everything or state != BookState.LIVE:
                    self.compare(id_, plain)
            elif state == BookState.LIVE:
                plain.diffs = plain.diffs[-1:] if facts["reason"] == Reason.GAP else []

    def compare(self, id_: int, plain: PlainBook) -> None:
        facts = self.books.describe_one(id_, 1 << 20)
        assert facts is not None
        self.live_looks += 1
        assert self.venue.rule == "none" or facts["last_seq"] == plain.last_seq, facts["symbol"]
        for side, levels, sign in zip(("bids", "asks"), plain.levels, (-1, 1), strict=True):
            native = [
                (Decimal(price).scaleb(-facts["price_scale"]), Decimal(qty).scaleb(-facts["qty_scale"]))
                for price, qty in facts[side]
            ]
            assert native == sorted(levels.items(), key=lambda level: sign * level[0]), f"{facts['symbol']} {side}"


# -- the tests --------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("how", HOW)
@pytest.mark.parametrize("venue", VENUES)
def test_books_of_a_recording_are_compared_while_they_live(venue: str, how: str) -> None:
    """That the fuzz test below compares something."""
    check = Check(venue)
    check.run(list(recorded(venue, how)))
    assert check.live_looks > 10
    assert all(facts["state"] == BookState.LIVE for facts in check.books.describe(0))


@pytest.mark.parametrize("venue", VENUES)
def test_a_live_book_is_right_whatever_happened_to_the_messages(venue: str) -> None:
    @settings(max_examples=150, deadline=None, suppress_health_check=list(HealthCheck))
    @given(mutated(venue))
    def run(lines: list[Line]) -> None:
        Check(venue).run(lines)

    run()
