"""Draining rings into arrays: the same rows as records read one by one, whatever the batches, laps and epochs."""

from __future__ import annotations

from collections.abc import Iterator

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from lob import _native
from lob.names import ring_name
from lob.records import HEADER, ROWS, RecordType, build, parse
from lob.rings import InputRing, OutputRing
from lob.segments import Kind, open_segment
from processes.peer import Peer, eventually, own_instance

CAPACITY = 4096
ANY = _native.ANY_TYPE
TYPES = [*ROWS, RecordType.RAW_FRAME, RecordType.DIFF]


@pytest.fixture
def name() -> Iterator[str]:
    with own_instance() as instance:
        yield ring_name(instance, "public")


def row_dtype(kind: int) -> np.dtype[np.void]:
    return HEADER if kind == ANY else ROWS[RecordType(kind)]


def made(kind: RecordType, number: int, levels: int) -> bytes:
    """A record in which every number field is told by `number`."""
    if kind is RecordType.RAW_FRAME:
        return build(kind, text=b"x" * levels, raw_seq=number)
    if kind in (RecordType.SNAPSHOT, RecordType.DIFF):
        return build(kind, {"last_seq": number}, bids=[(number, n) for n in range(levels)], raw_seq=number)
    fields = {field: number % 251 for field in ROWS[kind].names[14:] if field not in ("pad", "symbol", "detail")}
    return build(kind, fields, raw_seq=number, instrument=number, exch_ns=-number)


STEPS = st.lists(
    st.one_of(
        st.tuples(st.just("write"), st.lists(st.tuples(st.sampled_from(TYPES), st.integers(0, 9)), max_size=60)),
        st.tuples(st.just("drain"), st.lists(st.tuples(st.sampled_from([ANY, *map(int, ROWS)]), st.integers(1, 40)),
                                             min_size=1, max_size=5, unique_by=lambda pair: pair[0])),
        st.tuples(st.just("drop"), st.none()),
        st.tuples(st.just("owner"), st.none()),
    ),
    max_size=12,
)  # fmt: skip


@pytest.mark.parametrize("kind", [Kind.SPSC, Kind.BROADCAST])
@given(steps=STEPS)
@settings(max_examples=150, deadline=None)
def test_rows_are_what_reading_record_by_record_gives(kind: Kind, steps: list) -> None:
    """Two rings that get the same records (spsc has one reader), or two readers of one, lapped alike."""
    with own_instance() as instance:
        if kind is Kind.SPSC:
            names = [ring_name(instance, what) for what in ("a", "b")]
            rings = [OutputRing(one, kind, policy="wait", capacity_bytes=CAPACITY) for one in names]
            fast, slow = (_native.SpscReader(ring.segment) for ring in rings)
        else:
            rings = [OutputRing(ring_name(instance, "a"), kind, policy="drop", capacity_bytes=CAPACITY)]
            fast, slow = (_native.BroadcastReader(rings[0].segment, "oldest") for _ in range(2))
        number = 0
        for what, how in [*steps, ("drain", [(ANY, 7), (int(RecordType.BBO), 5)])]:
            if what == "write":
                for record_kind, levels in how:
                    number += 1
                    for ring in rings:
                        ring.writer.write(made(record_kind, number, levels))
            elif what == "drop":
                for ring in rings:
                    ring.writer.drop()
            elif what == "owner":
                for ring in rings:
                    ring.writer.take_over(1)
            else:
                compare(fast, slow, how, kind is Kind.BROADCAST)
        for ring in rings:
            ring.close(0, remove=True)


def without_epoch(row: bytes) -> bytes:
    """Two rings made one after the other may begin in different seconds, hence epochs."""
    return row[:60] + row[64:]


def compare(fast, slow, wanted, may_lap: bool) -> None:
    rows: dict[int, list[bytes]] = {kind: [] for kind, _ in wanted}
    passed, batches = 0, []
    while True:
        arrays = [np.zeros(room, row_dtype(kind)) for kind, room in wanted]
        pairs = zip((kind for kind, _ in wanted), arrays, strict=True)
        batch, epoch, *counts = fast.drain(*(one for pair in pairs for one in pair))
        if not batch:
            assert not any(counts) and fast.drained
            break
        passed += batch
        batches.append(batch)
        for (kind, _), array, count in zip(wanted, arrays, counts, strict=True):
            rows[kind] += [without_epoch(row.tobytes()) for row in array[:count]]
            assert set(array[:count]["epoch"].tolist()) <= {epoch}
            if kind == ANY:
                assert count == batch and (np.diff(array[:count]["ring_seq"].astype(np.int64)) == 1).all()
    records = []
    while (record := slow.read()) is not None:
        records.append(record)
    assert passed == len(records)
    expected: dict[int, list[bytes]] = {kind: [] for kind, _ in wanted}
    for record in records:
        for kind in (ANY, int(parse(record).type)):
            if kind in expected:
                expected[kind].append(without_epoch(record[: row_dtype(kind).itemsize]))
    assert rows == expected
    if may_lap:
        assert (fast.lost, fast.laps, fast.seq) == (slow.lost, slow.laps, slow.seq)


def test_a_batch_ends_before_a_hole_and_before_another_epoch_and_before_a_full_array(name: str) -> None:
    ring = OutputRing(name, Kind.BROADCAST, policy="drop", capacity_bytes=1 << 16)
    reader = _native.BroadcastReader(ring.segment, "oldest")
    heads, trades = np.empty(10, HEADER), np.empty(3, ROWS[RecordType.TRADE])
    trade, status = build(RecordType.TRADE), build(RecordType.STATUS)

    def batch() -> tuple[list[int], int, int]:
        _, epoch, count, _ = reader.drain(ANY, heads, int(RecordType.TRADE), trades)
        return heads[:count]["ring_seq"].tolist(), epoch, reader.lost

    first = ring.writer.epoch
    for record in (trade, status, trade):
        ring.writer.write(record)
    ring.writer.drop()
    ring.writer.drop()
    for record in (trade, trade, status, trade, trade):
        ring.writer.write(record)
    ring.writer.take_over(1)
    ring.writer.write(trade)
    assert batch() == ([1, 2, 3], first, 0)  # before the hole
    assert batch() == ([6, 7, 8, 9], first, 2)  # before a fourth trade
    assert batch() == ([10], first, 2)  # before the epoch
    assert batch() == ([11], first + 1, 2)
    assert batch() == ([], 0, 2)


def test_what_cannot_be_drained_into_is_refused(name: str) -> None:
    ring = OutputRing(name, Kind.BROADCAST, policy="drop", capacity_bytes=CAPACITY)
    reader = _native.BroadcastReader(ring.segment, "oldest")
    ring.writer.write(build(RecordType.BBO))
    rows = np.empty(8, ROWS[RecordType.BBO])
    for pairs in ((), (19,), (int(RecordType.DIFF), rows), (1 << 20, rows), (-1, rows), ("bbo", rows), (19, rows) * 17):
        with pytest.raises((ValueError, TypeError, OverflowError)):
            reader.drain(*pairs)
    for array in (bytes(120), bytearray(119), rows[::2], np.empty(2, HEADER)):
        with pytest.raises((ValueError, BufferError)):
            reader.drain(19, array)
    assert reader.drain(19, bytearray(120))[0] == 1


def test_rows_are_never_torn_though_the_writer_laps_us_all_the_time(name: str) -> None:
    """Another process writes at full speed into a ring of 30 records; every word of a row is of one record."""
    ring = OutputRing(name, Kind.BROADCAST, policy="drop", capacity_bytes=CAPACITY)
    ring.close(1, remove=False)
    peer = Peer()
    try:
        same = f"{name!r}, Kind.BROADCAST, policy='drop', capacity_bytes={CAPACITY}"
        peer.do(f"ring = OutputRing({same}, keep=True)")
        peer.do(
            "body = lambda n: dict.fromkeys(records.BBO_BODY.names, n)\n"
            "made = [records.build(records.RecordType.BBO, body(n), raw_seq=n, exch_ns=n) for n in range(1, 1000)]"
        )
        reader = _native.BroadcastReader(open_segment(name, writable=False), "oldest")
        peer.start(
            "end = time.monotonic() + 20\n"
            "while time.monotonic() < end and ring.segment.facts()['readers'] == []:\n"
            "    for _ in range(50):\n"
            "        for one in made: ring.writer.write(one)"
        )
        # Row by row we are slower than the writer: every few records it is in the middle of the one that we copy.
        rows = np.empty(1000, ROWS[RecordType.BBO])
        ones = [rows[i : i + 1] for i in range(len(rows))]
        seen, first, last = 0, 0, 0

        def read() -> bool:
            nonlocal seen, first, last
            whole = [reader.drain(19, one)[2] == 1 for one in ones]
            part = rows[whole]
            if len(part):
                numbers = part["raw_seq"].astype(np.int64)
                for field in ("exch_ns", "last_seq", "bid_price", "bid_qty", "ask_price", "ask_qty"):
                    assert (part[field].astype(np.int64) == numbers).all()
                ring_seqs = part["ring_seq"].astype(np.int64)
                assert (np.diff(ring_seqs) > 0).all() and ring_seqs[0] > last
                first, last = first or int(ring_seqs[0]), int(ring_seqs[-1])
                seen += len(part)
            return seen > 10_000 and reader.laps > 300

        eventually(read, "10,000 rows and 300 laps")
        assert seen + reader.lost == last - first + 1
        stop = InputRing(name, "stop")  # its slot tells the peer to end
        peer.answer()
        stop.close()
    finally:
        peer.kill()
