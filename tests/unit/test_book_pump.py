"""The books between real rings: tools/lob-book/native/pump.hpp."""

from __future__ import annotations

import contextlib
import os
import secrets
import struct
import sys

import numpy as np
import pytest

from lob import _native as rings_native
from lob.records import BOARD_ENTRY, LEVEL, BookState, Flag, Reason, RecordType, RequestKind, build, parse
from lob.rings import InputRing, OutputRing
from lob.segments import Kind, RingState
from lob_book import _native

EVENTS_BYTES = 1 << 20


class Rings:
    """Event ring, book ring and board of one test, and a pump between them."""

    def __init__(
        self, stack, *, policy="wait", book_bytes=1 << 20, slots=4, depth=3, asks=True, clock="records", **options
    ):
        instance = f"t-{os.getpid()}-{secrets.token_hex(4)}"
        manifest = {"venue": "test"}

        def output(what, kind, **rest):
            ring = OutputRing(f"/lob.{instance}.{what}", kind, manifest=manifest, **rest)
            stack.callback(lambda: ring.close(RingState.CLOSED, remove=True))
            return ring

        self.events = output("events", Kind.SPSC, policy="wait", capacity_bytes=EVENTS_BYTES)
        self.book = output("book", Kind.BROADCAST, policy=policy, capacity_bytes=book_bytes)
        self.board_ring = output("board", Kind.BOARD, board_slots=slots, board_depth=depth)
        self.input = InputRing(self.events.name, "lob-book")
        stack.callback(self.input.close)
        self.reader = rings_native.BroadcastReader(self.book.segment, "oldest", 0)
        self.board = rings_native.Board(self.board_ring.segment)
        self.requests = self.events.requests
        options.setdefault("record_max_bytes", self.book.writer.record_max_bytes)
        self.books = _native.Books(board_depth=depth, asks=asks, **options)
        self.pump = _native.Pump(
            self.books, self.input.reader, self.book.writer, self.board, self.requests, clock, "auto"
        )
        self.sent = 0

    def send(self, kind, body, **rest):
        self.sent += 1
        header = {
            "instrument": 0,
            "version": 1,
            "connection": 0,
            "session": 1,
            "recv_ns": 10**18 + self.sent,
            "raw_seq": self.sent,
        }
        assert self.events.writer.write(build(kind, body, **(header | rest)))

    def instrument(self, id_=0, **rest):
        self.send(RecordType.INSTRUMENT, {"symbol": f"S{id_}".encode(), "joins": 1, "rule": 1} | rest, instrument=id_)

    def snapshot(self, seq, bids, asks, id_=0):
        body = {"first_seq": seq, "last_seq": seq, "rule": 1}
        self.send(RecordType.SNAPSHOT, body, bids=bids, asks=asks, instrument=id_, flags=int(Flag.ASKED))

    def diff(self, seq, bids=(), asks=(), id_=0):
        body = {"first_seq": seq, "last_seq": seq, "rule": 1}
        self.send(RecordType.DIFF, body, bids=list(bids), asks=list(asks), instrument=id_)

    def read(self):
        records = []
        while (record := self.reader.read()) is not None:
            records.append(parse(record))
        self.reader.publish()
        return records

    def entry(self, slot):
        entry, bids, asks = self.board.read(slot)
        return (
            np.frombuffer(entry, BOARD_ENTRY)[0],
            np.frombuffer(bids, LEVEL).tolist(),
            np.frombuffer(asks, LEVEL).tolist(),
        )


@pytest.fixture
def make():
    with contextlib.ExitStack() as stack:
        yield lambda **options: Rings(stack, **options)


def test_records_pass_from_ring_to_ring_with_one_commit_each(make):
    rings = make()
    rings.instrument()
    rings.snapshot(100, [(99, 1)], [(101, 1)])
    rings.diff(101, [(99, 2)])
    assert rings.pump.run(5) == (3, True, False)
    records = rings.read()
    assert [r.type for r in records] == [
        RecordType.INSTRUMENT, RecordType.STATUS, RecordType.SNAPSHOT, RecordType.STATUS, RecordType.BBO,
        RecordType.DIFF, RecordType.BBO,
    ]  # fmt: skip
    assert [int(r.header["ring_seq"]) for r in records] == list(range(1, 8))
    assert rings.book.writer.raw_seq == 3
    assert rings.input.reader.drained


def test_run_comes_back_when_its_time_is_over(make):
    rings = make()
    start_ns = rings_native.mono_ns()
    assert rings.pump.run(30) == (0, True, False)
    assert 25e6 < rings_native.mono_ns() - start_ns < 500e6


def test_time_is_looked_at_after_each_record_that_is_large(make, monkeypatch):
    """32 of them would take longer than a reader waits for a sign of life."""
    monkeypatch.setattr(sys.modules[__name__], "EVENTS_BYTES", 1 << 25)
    rings = make(policy="drop", book_bytes=1 << 25)
    for id_ in range(4):
        rings.instrument(id_)
    rings.pump.run(50, 0)
    bids, asks = [(10**7 - n, 1 + n) for n in range(40_000)], [(10**7 + 1 + n, 1 + n) for n in range(40_000)]
    for id_ in range(4):
        rings.snapshot(10, bids, asks, id_)
    assert [rings.pump.run(0, 0)[0] for _ in range(4)] == [1, 1, 1, 1]


def test_full_ring_blocks_and_nothing_is_applied_twice(make):
    rings, free = make(book_bytes=4096), make()
    seen, expected = [], []
    for each in (rings, free):
        each.instrument()
        each.snapshot(1, [(99, 1)], [(101, 1)])
        for seq in range(2, 200):
            each.diff(seq, [(99 - seq % 7, seq), (99, seq)])
    blocked = 0
    for _ in range(2000):
        records, idle, is_blocked = rings.pump.run(2)
        blocked += is_blocked
        seen += rings.read()
        if idle and not records:
            break
    free.pump.run(100)
    expected = free.read()
    assert blocked > 3

    def plain(records):
        return [(r.type, bytes(r.body.tobytes()), r.bids.tobytes(), r.asks.tobytes()) for r in records]

    assert plain(seen) == plain(expected)
    assert rings.books.describe_one(0)["updates"] == 198


def test_output_larger_than_the_whole_ring_still_gets_through(make):
    """A link that goes down with many books: more statuses than the ring holds at once."""
    rings = make(book_bytes=4096, asks=False)
    for id_ in range(200):
        rings.instrument(id_)
    rings.send(RecordType.LINK, {"up": 1})
    rings.send(RecordType.LINK, {"up": 0})
    seen = []
    for _ in range(2000):
        records, idle, _blocked = rings.pump.run(2)
        seen += rings.read()
        if idle and not records:
            break
    down = [r for r in seen if r.type is RecordType.STATUS and r.body["reason"] == Reason.LINK_DOWN]
    assert sorted(int(r.header["instrument"]) for r in down) == list(range(200))


def test_policy_drop_never_waits(make):
    rings = make(policy="drop", book_bytes=4096)
    rings.instrument()
    rings.snapshot(1, [(99, 1)], [(101, 1)])
    for seq in range(2, 300):
        rings.diff(seq, [(99, seq)])
    records, _idle, blocked = rings.pump.run(50)
    assert (records, blocked) == (300, False)


def test_board_shows_the_top_and_is_written_only_when_the_top_changes(make):
    rings = make()
    rings.instrument()
    rings.snapshot(100, [(99, 1), (98, 2), (97, 3), (96, 4)], [(101, 1)])
    rings.pump.run(1)
    entry, bids, asks = rings.entry(0)
    assert (bids, asks) == ([(99, 1), (98, 2), (97, 3)], [(101, 1)])
    assert (entry["state"], entry["symbol"], entry["last_seq"]) == (BookState.LIVE, b"S0", 100)
    assert entry["ring_seq"] == rings.book.writer.next_seq - 1
    updates = int(entry["updates"])
    rings.diff(101, [(96, 9), (50, 1)])
    rings.pump.run(1)
    assert rings.entry(0)[0]["updates"] == updates
    for seq, bid, top in [
        (102, (97, 0), [(99, 1), (98, 2), (96, 9)]),
        (103, (100, 5), [(100, 5), (99, 1), (98, 2)]),
        (104, (98, 7), [(100, 5), (99, 1), (98, 7)]),
    ]:
        rings.diff(seq, [bid])
        rings.pump.run(1)
        updates += 1
        entry, bids, _ = rings.entry(0)
        assert (bids, entry["updates"], entry["last_seq"]) == (top, updates, seq)


def test_instruments_beyond_the_board_are_counted_and_still_kept(make):
    rings = make(slots=2)
    for id_ in range(5):
        rings.instrument(id_)
        rings.snapshot(1, [(99, 1)], [(101, 1)], id_)
    rings.pump.run(5)
    assert rings.pump.beyond_board == 3
    assert rings.books.live == 5


def test_requests_travel_to_the_event_rings_queue(make):
    rings = make()
    rings.instrument()
    rings.pump.run(1)
    id_, kind, reason, symbol = rings.requests.take()
    assert (id_, kind, reason, symbol) == (1, RequestKind.SNAPSHOT, Reason.NONE, "S0")
    assert rings.requests.take() is None


def test_clock_of_the_host_repeats_a_request_without_any_record(make):
    rings = make(clock="host")
    rings.instrument()
    start_ns = rings_native.mono_ns()
    taken = []
    while len(taken) < 2 and rings_native.mono_ns() - start_ns < 5e9:
        rings.pump.run(50)
        while (request := rings.requests.take()) is not None:
            taken.append(request)
    assert len(taken) == 2
    assert 0.9e9 < rings_native.mono_ns() - start_ns < 2e9


def test_new_owner_upstream_makes_stale_before_its_first_record(make):
    rings = make()
    rings.instrument()
    rings.snapshot(100, [(99, 1)], [(101, 1)])
    rings.pump.run(1)
    rings.read()
    rings.events.writer.take_over(os.getpid())
    rings.pump.run(1)
    statuses = [r for r in rings.read() if r.type is RecordType.STATUS]
    assert (statuses[0].body["state"], statuses[0].body["reason"]) == (BookState.STALE, Reason.LOST)
    assert rings.entry(0)[0]["state"] == BookState.RESYNCING


def test_silence_makes_board_and_ring_stale_and_its_end_live_again(make):
    rings = make()
    rings.instrument()
    rings.snapshot(100, [(99, 1)], [(101, 1)])
    rings.pump.run(1)
    rings.pump.upstream_silent(True)
    assert rings.entry(0)[0]["reason"] == Reason.UPSTREAM_SILENT
    rings.pump.upstream_silent(False)
    entry, bids, _ = rings.entry(0)
    assert (entry["state"], bids) == (BookState.LIVE, [(99, 1)])


def test_new_owner_met_at_the_end_of_the_silence_keeps_the_book_stale(make):
    rings = make(asks=False)
    rings.instrument()
    rings.snapshot(100, [(99, 1)], [(101, 1)])
    rings.pump.run(1)
    rings.pump.upstream_silent(True)
    rings.events.writer.take_over(os.getpid())
    rings.pump.upstream_silent(False)
    assert (rings.entry(0)[0]["state"], rings.entry(0)[0]["reason"]) == (BookState.STALE, Reason.LOST)


def test_repaired_board_has_no_half_written_slot_and_nothing_live(make):
    rings = make()
    for id_ in (0, 1):
        rings.instrument(id_)
        rings.snapshot(100, [(99, 1)], [(101, 1)], id_)
    rings.pump.run(5)
    # An owner that died inside slot 1 leaves its stamp odd.
    with open(f"/dev/shm{rings.board_ring.name.replace('/', '/', 1)}", "r+b") as segment:  # noqa: PTH123
        stride = (192 + 2 * 3 * 16 + 127) // 128 * 128
        at = os.fstat(segment.fileno()).st_size - 4 * stride + stride
        segment.seek(at)
        (stamp,) = struct.unpack("<Q", segment.read(8))
        assert stamp % 2 == 0
        segment.seek(at)
        segment.write(struct.pack("<Q", stamp + 1))
    assert rings.board.read(1) is None
    rings.pump.repair_board()
    for slot in (0, 1):
        entry, bids, _ = rings.entry(slot)
        assert (entry["state"], entry["reason"]) == (BookState.STALE, Reason.RESTARTED)
        assert bids == ([(99, 1)] if slot == 0 else [])
    assert rings.entry(2)[0]["updates"] == 0


@pytest.mark.parametrize("repeat", [1, 2])
def test_replay_gives_the_same_records_every_time(make, repeat):
    def output():
        rings = make(asks=False)
        rings.instrument()
        rings.snapshot(100, [(99, 1)], [(101, 1)])
        for seq in range(101, 150):
            rings.send(
                RecordType.DIFF,
                {"first_seq": seq, "last_seq": seq, "rule": 1},
                bids=[(99, seq)],
                recv_ns=10**18 + seq * 10**9,
            )
        seen = []
        for _ in range(repeat * 10):
            rings.pump.run(1)
            seen += rings.read()
        return [
            (r.type, int(r.header["ring_seq"]), int(r.header["flags"]), r.body.tobytes(), r.bids.tobytes())
            for r in seen
        ]

    first = output()
    assert first == output()
    assert sum(flags == Flag.REFRESH for *_, flags, _body, _bids in first) == 5
