"""A book rebuilt from the stream: late, lapped and rescaled readers become whole and stay equal."""

from __future__ import annotations

from hypothesis import given, settings
from hypothesis import strategies as st

import lob
from book_stream import BookStream, Instrument, made_ring, unique_instance
from lob import _native
from lob.records import BookState, Flag, Reason, RecordType, build, parse
from lob.sorted_book import SortedBook


class Numbered:
    """Records as a ring's writer would number them."""

    def __init__(self) -> None:
        self.records: list[lob.Record] = []
        self.epoch = 1

    def put(self, record: bytes) -> None:
        copy = bytearray(record)
        copy[8:16] = (len(self.records) + 1).to_bytes(8, "little")
        copy[60:64] = self.epoch.to_bytes(4, "little")
        self.records.append(parse(bytes(copy)))


def fed(records: list[lob.Record]) -> SortedBook:
    book = SortedBook()
    for record in records:
        book.apply(record)
        book.check()
    return book


def equals(book: SortedBook, instrument: Instrument) -> bool:
    ours = book[instrument.symbol]
    bids, asks = instrument.levels()
    return (
        (ours.state, ours.reason) == (BookState.LIVE, Reason.NONE)
        and (ours.price_scale, ours.qty_scale) == (instrument.price_scale, instrument.qty_scale)
        and ours.bids() == bids
        and ours.asks() == asks
    )


def state_of(book: SortedBook) -> tuple[BookState, Reason]:
    return book["COIN0USDT"].state, book["COIN0USDT"].reason


def stream(seed: int, steps: int, instruments: int = 2) -> tuple[BookStream, Numbered]:
    numbered = Numbered()
    made = BookStream(numbered.put, seed=seed, instruments=instruments)
    made.begin()
    for _ in range(steps):
        made.step()
    return made, numbered


@given(st.integers(0, 2**32), st.integers(0, 200))
def test_reader_from_the_start_has_every_book(seed, steps):
    made, numbered = stream(seed, steps)
    book = fed(numbered.records)
    assert all(equals(book, instrument) for instrument in made.instruments)
    assert book.holes == book.refused == 0


@given(st.integers(0, 2**32), st.integers(1, 150), st.data())
def test_late_reader_that_knows_the_instruments_equals_the_early_one_after_a_refresh(seed, steps, data):
    made, numbered = stream(seed, steps)
    start = data.draw(st.integers(0, len(numbered.records)))
    known = [record for record in numbered.records[:start] if record.type is RecordType.INSTRUMENT]
    for instrument in made.instruments:
        made.snapshot(instrument, Flag.REFRESH)
        made.diff(instrument)
    late = SortedBook()
    for record in known:  # as a subscription tells them from the manifest
        late.apply(parse(unnumbered(record)))
    for record in numbered.records[start:]:
        late.apply(record)
        late.check()
    assert all(equals(late, instrument) for instrument in made.instruments)
    early = fed(numbered.records)
    assert [early[s].top() for s in early] == [late[s].top() for s in early]
    assert late.holes == 0


def unnumbered(record: lob.Record) -> bytes:
    body = {name: record.body[name] for name in record.body.dtype.names if name != "pad"}
    return build(
        RecordType.INSTRUMENT,
        body,
        instrument=int(record.header["instrument"]),
        version=int(record.header["version"]),
        epoch=int(record.header["epoch"]),
    )


@given(st.integers(0, 2**32), st.integers(1, 150), st.data())
def test_hole_makes_every_book_building_until_its_next_snapshot(seed, steps, data):
    made, numbered = stream(seed, steps)
    gap = data.draw(st.integers(1, len(numbered.records) - 1))
    lost = data.draw(st.integers(1, 5))
    for instrument in made.instruments:
        made.announce(instrument)  # what is lost may have been a new version
        made.snapshot(instrument, Flag.REFRESH)
    records = numbered.records
    lost = min(lost, len(records) - 2 * len(made.instruments) - gap)
    if lost < 1:
        return
    book = fed(records[:gap])
    book.apply(records[gap + lost])
    whole_at_once = records[gap + lost].type is RecordType.SNAPSHOT
    assert sum(b.whole for b in (book[s] for s in book)) <= int(whole_at_once)
    assert book.holes == 1
    for record in records[gap + lost + 1 :]:
        book.apply(record)
        book.check()
    assert all(equals(book, instrument) for instrument in made.instruments)


def test_diff_before_a_snapshot_changes_nothing():
    made, numbered = stream(seed=3, steps=0, instruments=1)
    book = fed(numbered.records[:2])
    made.diff(made.instruments[0])
    book.apply(numbered.records[-2])
    assert book["COIN0USDT"].bids() == book["COIN0USDT"].asks() == []
    assert book["COIN0USDT"].state is BookState.BUILDING


def test_version_never_announced_makes_the_book_building():
    made, numbered = stream(seed=4, steps=3, instruments=1)
    book = fed(numbered.records)
    made.instruments[0].version += 1
    made.diff(made.instruments[0])
    book.apply(numbered.records[-2])
    assert book["COIN0USDT"].state is BookState.BUILDING
    assert book.refused == 1


def test_levels_are_rescaled_exactly_when_finer_digits_arrive():
    made, numbered = stream(seed=5, steps=10, instruments=1)
    instrument = made.instruments[0]
    before = fed(numbered.records)["COIN0USDT"].top()
    made.rescale(instrument)
    book = fed(numbered.records[:-1])  # without the snapshot that follows
    assert book["COIN0USDT"].version == instrument.version
    assert book["COIN0USDT"].top() == before
    assert equals(book, instrument)
    assert fed(numbered.records)["COIN0USDT"].top() == before


def test_levels_that_do_not_fit_coarser_scales_make_the_book_building():
    made, numbered = stream(seed=6, steps=0, instruments=1)
    instrument = made.instruments[0]
    instrument.bids, instrument.asks = {12345: 7}, {}
    made.snapshot(instrument)
    instrument.price_scale, instrument.version = 0, 2
    made.announce(instrument)
    book = fed(numbered.records)["COIN0USDT"]
    assert (book.state, book.reason) == (BookState.BUILDING, Reason.OUT_OF_RANGE)
    assert book.bids() == []


def test_new_epoch_makes_every_book_building_and_the_same_object_whole_again():
    made, numbered = stream(seed=7, steps=20)
    book = SortedBook()
    for record in numbered.records:
        book.apply(record)
    held = book["COIN0USDT"]
    at = len(numbered.records)
    numbered.epoch = 2
    made.announce(made.instruments[0])
    made.diff(made.instruments[0])
    for record in numbered.records[at:]:
        book.apply(record)
    assert (held.state, held.reason) == (BookState.BUILDING, Reason.RESTARTED)
    assert book["COIN1USDT"].state is BookState.BUILDING
    made.snapshot(made.instruments[0])
    book.apply(numbered.records[-1])
    assert book["COIN0USDT"] is held
    assert equals(book, made.instruments[0])


def test_silence_keeps_the_levels_and_live_comes_back_without_a_snapshot():
    made, numbered = stream(seed=8, steps=20, instruments=1)
    instrument = made.instruments[0]
    made.status(instrument, BookState.STALE, Reason.UPSTREAM_SILENT)
    book = fed(numbered.records)
    assert state_of(book) == (BookState.STALE, Reason.UPSTREAM_SILENT)
    made.status(instrument, BookState.LIVE)
    book.apply(numbered.records[-1])
    assert equals(book, instrument)


def test_stale_book_is_not_live_again_without_a_snapshot():
    made, numbered = stream(seed=9, steps=20, instruments=1)
    made.status(made.instruments[0], BookState.STALE, Reason.GAP)
    made.status(made.instruments[0], BookState.LIVE)
    book = fed(numbered.records)["COIN0USDT"]
    assert (book.state, book.whole) == (BookState.STALE, False)


@settings(max_examples=15, deadline=None)
@given(seed=st.integers(0, 2**32), pauses=st.lists(st.integers(1, 300), min_size=1, max_size=6))
def test_lapped_reader_of_a_real_ring_equals_the_writer_after_a_refresh(seed, pauses):
    with made_ring(unique_instance(), capacity_bytes=1 << 14) as ring:
        made = BookStream(ring.writer.write, seed=seed)
        reader = _native.BroadcastReader(ring.segment, "oldest")
        book = SortedBook()
        made.begin()
        for steps in pauses:
            for _ in range(steps):
                made.step()
            read_all(reader, book)
        for instrument in made.instruments:
            made.announce(instrument)
            made.snapshot(instrument, Flag.REFRESH)
            read_all(reader, book)
        assert all(equals(book, instrument) for instrument in made.instruments)
        assert (book.holes > 0) == (reader.lost > 0)


def read_all(reader: _native.BroadcastReader, book: SortedBook) -> None:
    while (record := reader.read()) is not None:
        book.apply(parse(record))
        book.check()
