"""Books rebuilt from the public stream, in sortedcontainers: what a subscriber keeps. Pure: records in, levels out.

A book is `building` until a full snapshot of it has passed, and again after anything that could have hidden a change
from it: a hole in the ring's sequence, a new epoch, a version that was never announced, a status that says the book
is not live. The book ring repeats a snapshot of every live book every few seconds, so a reader that came late, or was
lapped, is whole soon, and from there on equals one that was there from the start.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

from sortedcontainers import SortedDict

from lob.records import NO_INSTRUMENT, BookState, Flag, Reason, Record, RecordType
from lob.units import decimal_text

Levels = list[tuple[int, int]]
TextLevels = list[tuple[str, str]]


class InstrumentBook:
    """The book of one instrument. Prices and quantities are mantissas: value = mantissa / 10^scale."""

    def __init__(self, instrument: int, symbol: str) -> None:
        self.instrument = instrument
        self.symbol = symbol
        self.state = BookState.BUILDING
        self.reason = Reason.NONE
        self.last_seq = 0
        self.version = -1
        self.price_scale = 0
        self.qty_scale = 0
        self.exch_ns = 0
        self.recv_ns = 0
        self._needs_snapshot = True
        self._scales: dict[int, tuple[int, int]] = {}
        self._bids: Any = SortedDict()  # by -price: best first on both sides
        self._asks: Any = SortedDict()

    def bids(self, n: int | None = None) -> Levels:
        """(price, qty) mantissas, best first."""
        return [(-key, qty) for key, qty in self._bids.items()[:n]]

    def asks(self, n: int | None = None) -> Levels:
        return list(self._asks.items()[:n])

    def top(self, n: int | None = None) -> tuple[TextLevels, TextLevels]:
        """(bids, asks) as exact decimal text, best first."""
        return self._text(self.bids(n)), self._text(self.asks(n))

    def _text(self, levels: Levels) -> TextLevels:
        return [(decimal_text(price, self.price_scale), decimal_text(qty, self.qty_scale)) for price, qty in levels]

    @property
    def whole(self) -> bool:
        """Whether the levels are those of a full snapshot and all that followed it."""
        return not self._needs_snapshot

    def check(self) -> None:
        """Raises AssertionError if the book contradicts itself."""
        assert all(qty > 0 for qty in self._bids.values()), "a bid level without quantity"
        assert all(qty > 0 for qty in self._asks.values()), "an ask level without quantity"
        if self.state is BookState.LIVE:
            assert not self._needs_snapshot, "live without a snapshot"
            if self._bids and self._asks:
                assert -self._bids.peekitem(0)[0] < self._asks.peekitem(0)[0], "crossed"

    # -- changes, called by SortedBook ----------------------------------------------------------------------------

    def lose(self, state: BookState, reason: Reason) -> None:
        """Changes may have been missed: nothing counts until the next snapshot."""
        self.state, self.reason = state, reason
        self._needs_snapshot = True

    def adopt(self, instrument: int) -> None:
        """The same symbol under another id, in another epoch: versions of before mean nothing."""
        self.instrument, self.version = instrument, -1
        self._scales.clear()

    def announce(self, version: int, price_scale: int, qty_scale: int) -> None:
        self._scales[version] = (price_scale, qty_scale)
        self.turn_to(version)

    def turn_to(self, version: int) -> bool:
        """Read on at the scales of `version`; False if it was never announced. Levels are rescaled exactly."""
        if version == self.version:
            return True
        if version not in self._scales:
            return False
        price_scale, qty_scale = self._scales[version]
        if not self._rescale(price_scale - self.price_scale, qty_scale - self.qty_scale):
            self.lose(BookState.BUILDING, Reason.OUT_OF_RANGE)
            self._bids.clear()
            self._asks.clear()
        self.version, self.price_scale, self.qty_scale = version, price_scale, qty_scale
        return True

    def _rescale(self, price_exponent: int, qty_exponent: int) -> bool:
        """False, with nothing changed, if a level cannot be expressed at the new scales."""
        if price_exponent == 0 and qty_exponent == 0:
            return True
        sides = []
        for side in (self._bids, self._asks):
            levels = {}
            for key, qty in side.items():
                new_key, new_qty = _shifted(key, price_exponent), _shifted(qty, qty_exponent)
                if new_key is None or new_qty is None:
                    return False
                levels[new_key] = new_qty
            sides.append(SortedDict(levels))
        self._bids, self._asks = sides
        return True

    def replace(self, record: Record) -> None:
        self._bids = SortedDict({-price: qty for price, qty in record.bids.tolist()})
        self._asks = SortedDict(dict(record.asks.tolist()))
        refreshed = bool(int(record.header["flags"]) & Flag.REFRESH)
        # A refresh of a book that is whole here changes no state: a book under `upstream_silent` stays stale.
        if self._needs_snapshot or not refreshed:
            self.state, self.reason = BookState.LIVE, Reason.NONE
        self._needs_snapshot = False
        self._passed(record)

    def change(self, record: Record) -> None:
        for side, sign, levels in ((self._bids, -1, record.bids), (self._asks, 1, record.asks)):
            for price, qty in levels.tolist():
                if qty:
                    side[sign * price] = qty
                else:
                    side.pop(sign * price, None)
        self._passed(record)

    def _passed(self, record: Record) -> None:
        self.last_seq = int(record.body["last_seq"])
        self.exch_ns = int(record.header["exch_ns"])
        self.recv_ns = int(record.header["recv_ns"])

    def on_status(self, state: BookState, reason: Reason) -> None:
        if state is BookState.LIVE:
            if not self._needs_snapshot:
                self.state, self.reason = state, reason
            return
        # While upstream is silent nothing happens to the book: it may be called live again without a snapshot.
        if reason is Reason.UPSTREAM_SILENT and not self._needs_snapshot:
            self.state, self.reason = state, reason
        else:
            self.lose(state, reason)


class SortedBook:
    """All books of one stream, by symbol. Give it every record, in order, with `apply`."""

    def __init__(self) -> None:
        self.holes = 0  # times that records were missing or the ring had a new owner
        self.refused = 0  # records of an instrument or version never announced
        self._books: dict[int, InstrumentBook] = {}
        self._by_symbol: dict[str, InstrumentBook] = {}
        self._ring_seq = 0
        self._epoch: int | None = None

    def __getitem__(self, symbol: str) -> InstrumentBook:
        return self._by_symbol[symbol]

    def __contains__(self, symbol: str) -> bool:
        return symbol in self._by_symbol

    def __iter__(self) -> Iterator[str]:
        return iter(self._by_symbol)

    def __len__(self) -> int:
        return len(self._by_symbol)

    def check(self) -> None:
        """Raises AssertionError if a book contradicts itself."""
        for book in self._books.values():
            book.check()

    def apply(self, record: Record) -> InstrumentBook | None:
        """Take one record; the book that it touched, or None."""
        self._check_sequence(record)
        instrument = int(record.header["instrument"])
        if record.type is RecordType.INSTRUMENT:
            return self._announce(instrument, record)
        if record.type is RecordType.LOST:
            for book in self._books.values():
                if instrument in (NO_INSTRUMENT, book.instrument):
                    book.lose(BookState.BUILDING, Reason.LOST)
            return None
        if record.type not in (RecordType.SNAPSHOT, RecordType.DIFF, RecordType.STATUS):
            return self._books.get(instrument)
        found = self._books.get(instrument)
        if found is None:
            self.refused += 1
            return None
        if record.type is RecordType.STATUS:
            found.on_status(BookState(int(record.body["state"])), Reason(int(record.body["reason"])))
            return found
        if record.type is RecordType.DIFF and found._needs_snapshot:
            return found
        if not found.turn_to(int(record.header["version"])):
            self.refused += 1
            found.lose(BookState.BUILDING, Reason.LOST)
        elif record.type is RecordType.SNAPSHOT:
            found.replace(record)
        elif not found._needs_snapshot:  # it may have been lost by turning to another version
            found.change(record)
        return found

    def _announce(self, instrument: int, record: Record) -> InstrumentBook:
        book = self._books.get(instrument)
        if book is None or book.symbol != record.symbol:
            book = self._by_symbol.get(record.symbol)
            if book is None or self._books.get(book.instrument) is book:
                book = InstrumentBook(instrument, record.symbol)
            else:  # known from an epoch before: who holds it sees it become whole again
                book.adopt(instrument)
            self._books[instrument] = book
        self._by_symbol[book.symbol] = book
        book.announce(int(record.header["version"]), int(record.body["price_scale"]), int(record.body["qty_scale"]))
        return book

    def _check_sequence(self, record: Record) -> None:
        """A record that does not follow the one before, in number or owner, hides what happened in between.

        Records that a subscription itself makes (what the manifest says of instruments) have no number.
        """
        ring_seq, epoch = int(record.header["ring_seq"]), int(record.header["epoch"])
        if self._epoch is not None and epoch != self._epoch:
            self.holes += 1
            for book in self._books.values():
                book.lose(BookState.BUILDING, Reason.RESTARTED)
            self._books.clear()  # ids hold in one epoch; books are found by symbol until they are announced again
            self._ring_seq = 0
        self._epoch = epoch
        if ring_seq == 0:
            return
        if self._ring_seq not in (0, ring_seq - 1):
            self.holes += 1
            for book in self._books.values():
                book.lose(BookState.BUILDING, Reason.LOST)
        self._ring_seq = ring_seq


def _shifted(number: int, exponent: int) -> int | None:
    """number * 10^exponent if that is whole, else None."""
    if exponent >= 0:
        return int(number * 10**exponent)
    quotient, rest = divmod(number, 10**-exponent)
    return None if rest else quotient
