"""The state machine of the books, without rings: tools/lob-book/native/books.hpp."""

from __future__ import annotations

import itertools
import zlib

import pytest

import lob._native  # noqa: F401  the ring types must be known before the books'
from lob.records import (
    NO_CONNECTION,
    BookState,
    Flag,
    Outcome,
    Reason,
    RecordType,
    RequestKind,
    Scope,
    SequenceRule,
    build,
    parse,
)
from lob_book import _native

S = 1_000_000_000
T0 = 1_700_000_000 * S


class Bench:
    """Books and one instrument, fed by hand."""

    def __init__(self, *, rule=SequenceRule.RANGE, joins=True, scope=Scope.INSTRUMENT, **options):
        self.facts = {"depth": 0, "truncates": 0, "checksum_rule": 0, "price_scale": 2, "qty_scale": 3}
        self.facts |= {key: options.pop(key) for key in list(options) if key in self.facts}
        if "bound" in options:
            options["depth"] = options.pop("bound")
        self.facts |= {"symbol": b"BTCUSDT", "rule": rule, "scope": scope, "joins": joins}
        self.books = _native.Books(**options)
        self.ring_seq = itertools.count(1)
        self.now = T0
        self.version = 1
        self.session = 1
        self.rule, self.scope = rule, scope
        self.announced = self.instrument()

    def feed(self, kind, body, **rest):
        header = {
            "ring_seq": next(self.ring_seq),
            "epoch": 1,
            "connection": 0,
            "session": self.session,
            "recv_ns": self.now,
        }
        header |= {"raw_seq": 1000 + header["ring_seq"], "instrument": 0, "version": self.version} | rest
        return [parse(record) for record in self.books.feed(build(kind, body, **header), self.now)]

    def instrument(self, **rest):
        return self.feed(RecordType.INSTRUMENT, self.facts, **rest)

    def snapshot(self, seq, bids=(), asks=(), *, asked=None, **rest):
        flags = int(Flag.ASKED) if (self.facts["joins"] if asked is None else asked) else 0
        body = {"first_seq": seq, "last_seq": seq, "rule": self.rule, "scope": self.scope, **rest.pop("body", {})}
        return self.feed(RecordType.SNAPSHOT, body, bids=list(bids), asks=list(asks), flags=flags, **rest)

    def diff(self, first, last, prev=0, bids=(), asks=(), **rest):
        body = {"first_seq": first, "last_seq": last, "prev_seq": prev, "rule": self.rule, "scope": self.scope}
        return self.feed(RecordType.DIFF, body | rest.pop("body", {}), bids=list(bids), asks=list(asks), **rest)

    def live(self):
        out = self.snapshot(100, [(99, 1), (98, 2)], [(101, 1), (102, 2)])
        assert self.state == BookState.LIVE
        return out

    @property
    def facts_now(self):
        return self.books.describe_one(0, 100)

    @property
    def state(self):
        return self.facts_now["state"]

    @property
    def sides(self):
        return self.facts_now["bids"], self.facts_now["asks"]


def kinds(records):
    return [record.type for record in records]


def states(records):
    return [
        (BookState(int(r.body["state"])), Reason(int(r.body["reason"]))) for r in records if r.type is RecordType.STATUS
    ]


def levels(side):
    return [(int(level["price"]), int(level["qty"])) for level in side]


def test_new_instrument_is_announced_building_and_asks_for_its_snapshot():
    bench = Bench()
    assert kinds(bench.announced) == [RecordType.INSTRUMENT, RecordType.STATUS]
    assert states(bench.announced) == [(BookState.BUILDING, Reason.NONE)]
    assert bench.books.take_requests() == [(1, RequestKind.SNAPSHOT, Reason.NONE, "BTCUSDT")]


def test_instrument_whose_snapshot_is_in_the_stream_asks_for_nothing():
    bench = Bench(joins=False)
    assert bench.books.take_requests() == []


def test_snapshot_stands_before_the_status_live_and_the_best_prices_after_it():
    out = Bench().live()
    assert kinds(out) == [RecordType.SNAPSHOT, RecordType.STATUS, RecordType.BBO]
    assert levels(out[0].bids) == [(99, 1), (98, 2)]
    assert levels(out[0].asks) == [(101, 1), (102, 2)]
    assert states(out) == [(BookState.LIVE, Reason.NONE)]


def test_diffs_that_waited_are_replayed_onto_the_snapshot_and_old_ones_dropped():
    bench = Bench()
    assert bench.diff(90, 95, bids=[(50, 5)]) == []
    assert bench.diff(96, 101, bids=[(98, 0)]) == []
    assert bench.diff(102, 103, asks=[(101, 7)]) == []
    out = bench.snapshot(100, [(99, 1), (98, 2)], [(101, 1)])
    assert kinds(out) == [RecordType.SNAPSHOT, RecordType.STATUS, RecordType.BBO]
    assert int(out[0].body["last_seq"]) == 103
    assert bench.sides == ([(99, 1)], [(101, 7)])
    assert bench.facts_now["stale_dropped"] == 1
    assert bench.facts_now["updates"] == 2
    assert bench.facts_now["resyncs"] == 0


def test_snapshot_older_than_the_first_diff_kept_is_not_used_and_asked_again():
    bench = Bench()
    bench.books.take_requests()
    bench.diff(105, 110, bids=[(99, 1)])
    out = bench.snapshot(100, [(97, 1)], [(101, 1)])
    assert states(out) == [(BookState.BUILDING, Reason.SNAPSHOT_OLD)]
    assert bench.sides == ([], [])
    assert bench.books.take_requests() == []
    bench.now += S
    bench.books.tick(bench.now)
    assert bench.books.take_requests() == [(2, RequestKind.SNAPSHOT, Reason.SNAPSHOT_OLD, "BTCUSDT")]
    bench.snapshot(104, [(97, 1)], [(101, 1)])
    assert bench.sides == ([(99, 1), (97, 1)], [(101, 1)])


def test_gap_makes_the_book_stale_before_it_asks_and_the_diff_waits():
    bench = Bench()
    bench.live()
    bench.books.take_requests()
    out = bench.diff(103, 104, bids=[(99, 9)])
    assert states(out) == [(BookState.STALE, Reason.GAP), (BookState.RESYNCING, Reason.GAP)]
    assert bench.books.take_requests() == [(2, RequestKind.SNAPSHOT, Reason.GAP, "BTCUSDT")]
    assert bench.sides[0] == [(99, 1), (98, 2)]
    bench.diff(105, 105, bids=[(97, 1)])
    bench.snapshot(102, [(99, 1)], [(101, 1)])
    assert bench.sides == ([(99, 9), (97, 1)], [(101, 1)])
    assert bench.facts_now["gaps"] == 1
    assert bench.facts_now["resyncs"] == 1


def test_requests_are_repeated_with_backoff_until_a_snapshot_came():
    bench = Bench()
    asked_s = []
    for _ in range(200):
        bench.books.tick(bench.now)
        asked_s += [(bench.now - T0) // S for _ in bench.books.take_requests()]
        bench.now += S
    assert asked_s == [0, 1, 3, 7, 15, 31, 61, 91, 121, 151, 181]
    bench.live()
    assert bench.books.due_ns > bench.now


def test_refused_request_is_counted_and_the_book_stale_until_it_asks_again():
    bench = Bench()
    bench.live()
    bench.diff(110, 110)
    (_, (id_, *_)) = bench.books.take_requests()
    assert bench.state == BookState.RESYNCING
    out = bench.feed(RecordType.ANSWER, {"request_id": id_, "outcome": Outcome.REFUSED}, connection=NO_CONNECTION)
    assert states(out) == [(BookState.STALE, Reason.GAP)]
    assert bench.facts_now["refused"] == 1


def test_replay_asks_for_nothing_and_stays_stale():
    bench = Bench(asks=False)
    bench.live()
    assert states(bench.diff(110, 110)) == [(BookState.STALE, Reason.GAP)]
    bench.books.tick(bench.now + 100 * S)
    assert bench.books.take_requests() == []


def test_snapshot_asked_for_is_ignored_while_the_book_is_live():
    bench = Bench()
    bench.live()
    assert bench.snapshot(200, [(1, 1)], [(2, 1)]) == []
    assert bench.facts_now["snapshots_ignored"] == 1
    assert bench.facts_now["last_seq"] == 100


def test_snapshot_in_the_stream_replaces_a_live_book():
    bench = Bench(joins=False, rule=SequenceRule.NONE)
    bench.live()
    out = bench.snapshot(0, [(90, 1)], [(91, 1)])
    assert kinds(out) == [RecordType.SNAPSHOT, RecordType.BBO]
    assert bench.sides == ([(90, 1)], [(91, 1)])


def test_diff_record_holds_exactly_what_changed():
    bench = Bench()
    bench.live()
    # unchanged, removed, set twice, set and taken back, removal of an unknown level
    bids = [(99, 1), (98, 0), (97, 5), (97, 6), (96, 4), (96, 0), (95, 0)]
    out = bench.diff(101, 101, bids=bids)
    assert kinds(out) == [RecordType.DIFF]
    assert sorted(levels(out[0].bids)) == [(97, 6), (98, 0)]
    assert levels(out[0].asks) == []
    assert bench.facts_now["level_updates"] == len(bids)


def test_diff_without_effect_makes_no_record_but_moves_the_number():
    bench = Bench()
    bench.live()
    assert bench.diff(101, 105, bids=[(99, 1)]) == []
    assert bench.facts_now["last_seq"] == 105
    assert kinds(bench.diff(106, 106, bids=[(99, 2)])) == [RecordType.DIFF, RecordType.BBO]


def test_levels_cut_by_truncation_are_removals_in_the_diff():
    bench = Bench(rule=SequenceRule.NONE, joins=False, depth=2, truncates=1)
    bench.live()
    out = bench.diff(0, 0, bids=[(100, 3)])
    assert sorted(levels(out[0].bids)) == [(98, 0), (100, 3)]
    # A level that comes in and is cut by the same message never was.
    out = bench.diff(0, 0, bids=[(97, 3), (99, 7)])
    assert levels(out[0].bids) == [(99, 7)]
    assert bench.facts_now["levels_fallen"] == 0


def test_levels_beyond_the_bound_fall_off_and_are_counted():
    bench = Bench(bound=2)
    bench.live()
    out = bench.diff(101, 101, asks=[(100, 5), (105, 1)])
    assert sorted(levels(out[0].asks)) == [(100, 5), (102, 0)]
    assert bench.facts_now["levels_fallen"] == 2


def test_wrong_checksum_makes_the_book_stale_and_the_right_one_is_counted():
    bench = Bench(rule=SequenceRule.NONE, joins=False, checksum_rule=1)
    right = {"has_checksum": 1, "checksum": zlib.crc32(b"1011991")}
    bench.snapshot(0, [(99, 1)], [(101, 1)], body=right)
    assert bench.facts_now["checksums_ok"] == 1
    out = bench.diff(0, 0, bids=[(99, 2)], body=right)
    assert states(out) == [(BookState.STALE, Reason.CHECKSUM)]
    assert RecordType.DIFF not in kinds(out)
    # Live for a moment only: it waits before it resubscribes.
    bench.books.tick(bench.now + S)
    assert bench.books.take_requests() == [(1, RequestKind.RESYNC, Reason.CHECKSUM, "BTCUSDT")]


@pytest.mark.parametrize("price", [101, 103])
def test_locked_or_crossed_book_is_stale(price):
    bench = Bench()
    bench.live()
    bench.now += 60 * S
    out = bench.diff(101, 101, bids=[(price, 1)])
    assert states(out) == [(BookState.STALE, Reason.CROSSED), (BookState.RESYNCING, Reason.CROSSED)]


def test_book_with_one_side_empty_is_not_crossed():
    bench = Bench()
    bench.snapshot(100, [], [(101, 1)])
    assert bench.state == BookState.LIVE


def test_finer_scale_keeps_every_level_and_waiting_diffs_too():
    bench = Bench()
    bench.diff(101, 101, bids=[(97, 4)])
    bench.facts |= {"price_scale": 4, "qty_scale": 5}
    bench.version = 2
    bench.instrument()
    bench.snapshot(100, [(9900, 100)], [(10100, 100)])
    assert bench.sides == ([(9900, 100), (9700, 400)], [(10100, 100)])
    bench.facts |= {"price_scale": 5}
    bench.version = 3
    out = bench.instrument()
    assert kinds(out) == [RecordType.INSTRUMENT, RecordType.SNAPSHOT]
    assert int(out[1].header["flags"]) == Flag.REFRESH
    assert int(out[1].header["version"]) == 3
    assert bench.sides == ([(99000, 100), (97000, 400)], [(101000, 100)])
    # The best prices are the same prices.
    assert kinds(bench.diff(102, 102, bids=[(96000, 1)])) == [RecordType.DIFF]


def test_scale_that_no_longer_fits_drops_the_book():
    bench = Bench()
    bench.snapshot(100, [(99, 10**18)], [(101, 1)])
    bench.facts |= {"qty_scale": 5}
    bench.version = 2
    out = bench.instrument()
    assert states(out)[0] == (BookState.STALE, Reason.OUT_OF_RANGE)
    assert bench.sides == ([], [])
    assert bench.facts_now["out_of_range"] == 1


def test_record_of_an_unannounced_version_is_refused():
    bench = Bench()
    bench.live()
    out = bench.diff(101, 101, bids=[(99, 5)], version=2)
    assert states(out)[0] == (BookState.STALE, Reason.BAD_MESSAGE)
    assert bench.sides[0] == [(99, 1), (98, 2)]


def test_new_session_voids_the_book_before_its_first_record_counts():
    bench = Bench()
    bench.live()
    bench.diff(101, 101, bids=[(99, 4)])
    bench.books.take_requests()
    bench.session = 2
    out = bench.diff(102, 102, bids=[(99, 5)])
    assert states(out) == [(BookState.BUILDING, Reason.SESSION)]
    assert bench.sides == ([], [])
    assert bench.facts_now["backlog"] == 1
    assert len(bench.books.take_requests()) == 1
    assert bench.diff(103, 103, session=1) == []
    assert bench.facts_now["dropped"] == 1


def test_link_down_makes_stale_and_asks_only_when_it_is_up_again():
    bench = Bench()
    bench.live()
    bench.books.take_requests()
    out = bench.feed(RecordType.LINK, {"up": 0}, instrument=0xFFFFFFFF)
    assert states(out) == [(BookState.STALE, Reason.LINK_DOWN)]
    bench.snapshot(105, [(1, 1)], [(2, 1)])
    assert bench.state == BookState.STALE
    assert bench.books.take_requests() == []
    bench.session = 2
    out = bench.feed(RecordType.LINK, {"up": 1}, instrument=0xFFFFFFFF)
    assert states(out) == [(BookState.BUILDING, Reason.SESSION)]
    assert len(bench.books.take_requests()) == 1


@pytest.mark.parametrize("change", ["hole", "owner"])
def test_hole_or_new_owner_of_the_ring_makes_all_books_stale_first(change):
    bench = Bench()
    bench.live()
    bench.books.take_requests()
    if change == "hole":
        next(bench.ring_seq)
    out = bench.diff(101, 101, bids=[(99, 5)], epoch=2 if change == "owner" else 1)
    assert states(out) == [(BookState.STALE, Reason.LOST), (BookState.RESYNCING, Reason.LOST)]
    assert bench.books.holes == (change == "hole")


def test_loss_of_another_connection_does_not_concern_the_book():
    bench = Bench()
    bench.live()
    assert bench.feed(RecordType.LOST, {"scope": Scope.CONNECTION}, connection=7) == []
    out = bench.feed(RecordType.LOST, {"scope": Scope.CONNECTION, "reason": Reason.OVERSIZE}, connection=0)
    assert states(out)[0] == (BookState.STALE, Reason.OVERSIZE)


def test_silence_upstream_keeps_the_book_and_the_next_sign_of_life_revives_it():
    bench = Bench()
    bench.live()
    out = [parse(r) for r in bench.books.upstream_silent(True, bench.now)]
    assert states(out) == [(BookState.STALE, Reason.UPSTREAM_SILENT)]
    out = [parse(r) for r in bench.books.upstream_silent(False, bench.now)]
    assert kinds(out) == [RecordType.SNAPSHOT, RecordType.STATUS]
    assert int(out[0].header["flags"]) == Flag.REFRESH
    bench.books.upstream_silent(True, bench.now)
    out = bench.diff(101, 101, bids=[(98, 5)])
    assert kinds(out) == [RecordType.SNAPSHOT, RecordType.STATUS, RecordType.DIFF]


def test_hole_met_during_the_silence_is_not_forgotten_with_it():
    bench = Bench()
    bench.live()
    bench.books.upstream_silent(True, bench.now)
    next(bench.ring_seq)
    assert states(bench.diff(101, 101))[0] == (BookState.STALE, Reason.LOST)
    assert bench.books.upstream_silent(False, bench.now) == []


def test_parsers_word_on_silence_counts_for_all_books():
    bench = Bench()
    bench.live()
    silent = {"state": BookState.STALE, "reason": Reason.UPSTREAM_SILENT}
    assert states(bench.feed(RecordType.STATUS, silent, instrument=0xFFFFFFFF)) == [
        (BookState.STALE, Reason.UPSTREAM_SILENT)
    ]
    awake = {"state": BookState.LIVE, "reason": Reason.NONE}
    assert states(bench.feed(RecordType.STATUS, awake, instrument=0xFFFFFFFF)) == [(BookState.LIVE, Reason.NONE)]


def test_full_snapshot_is_repeated_every_refresh_interval():
    bench = Bench()
    bench.live()
    times = []
    for step in range(40):
        now = bench.now + step * S
        for record in map(parse, bench.books.tick(now)):
            if record.type is RecordType.SNAPSHOT:
                times.append(step)
                assert int(record.header["flags"]) == Flag.REFRESH
    assert len(times) == 3
    assert {b - a for a, b in itertools.pairwise(times)} == {10}


def test_snapshot_larger_than_the_ring_takes_leaves_the_book_stale_without_asking():
    bench = Bench(record_max_bytes=200)
    bench.books.take_requests()
    out = bench.snapshot(100, [(99, 1), (98, 1), (97, 1)], [(101, 1), (102, 1), (103, 1)])
    assert states(out) == [(BookState.STALE, Reason.OVERSIZE)]
    assert kinds(out) == [RecordType.STATUS]
    bench.books.tick(bench.now + 100 * S)
    assert bench.books.take_requests() == []


def test_record_that_says_more_levels_than_it_holds_is_no_crash():
    bench = Bench()
    bench.live()
    record = bytearray(build(RecordType.DIFF, {"rule": 1}, instrument=0, version=1, connection=0, session=1))
    record[80 + 32 : 80 + 36] = (0xFFFFFFFF).to_bytes(4, "little")
    out = [parse(r) for r in bench.books.feed(bytes(record), bench.now)]
    assert states(out)[0] == (BookState.STALE, Reason.BAD_MESSAGE)
    assert bench.facts_now["bad_records"] == 1


def test_backlog_is_bounded_by_records_and_by_bytes():
    for bound in ({"backlog_records": 3}, {"backlog_bytes": 3 * (80 + 40 + 16)}):
        bench = Bench(**bound)
        for seq in range(101, 111):
            bench.diff(seq, seq, bids=[(99, seq)])
        assert bench.facts_now["backlog"] == 3
        assert bench.facts_now["buffer_dropped"] == 7
        bench.snapshot(107, [(1, 1)], [(200, 1)])
        assert bench.sides[0] == [(99, 110), (1, 1)]


def test_trades_pass_through_with_their_times_and_the_cause():
    bench = Bench()
    (out,) = bench.feed(
        RecordType.TRADE,
        {"trade_id": 5, "price": 99, "qty": 3},
        exch_ns=T0,
        origin_ns=1,
        raw_seq=77,
        stage_ns=(5, 6, 0, 0),
    )
    assert (int(out.body["trade_id"]), int(out.header["raw_seq"]), int(out.header["exch_ns"])) == (5, 77, T0)
    assert out.header["stage_ns"][:2].tolist() == [5, 6]
    assert out.header["stage_ns"][2] > 0


def test_restored_book_is_first_stale_then_building_and_asks():
    books = _native.Books()
    body = {"symbol": b"BTCUSDT", "joins": 1, "rule": 1}
    books.restore(build(RecordType.INSTRUMENT, body, instrument=4, version=2, connection=1), T0)
    out = [parse(record) for record in books.take_records()]
    assert kinds(out) == [RecordType.INSTRUMENT, RecordType.STATUS, RecordType.STATUS]
    assert states(out) == [(BookState.STALE, Reason.RESTARTED), (BookState.BUILDING, Reason.RESTARTED)]
    books.tick(T0)
    assert books.take_requests() == [(1, RequestKind.SNAPSHOT, Reason.RESTARTED, "BTCUSDT")]


def test_many_requests_at_once_are_paced():
    books = _native.Books(requests_per_s=20, requests_burst=20)
    for id_ in range(100):
        body = {"symbol": f"S{id_}".encode(), "joins": 1, "rule": 1}
        books.feed(build(RecordType.INSTRUMENT, body, instrument=id_, version=1), T0)
    counts = []
    for second in range(5):
        books.tick(T0 + second * S)
        for step in range(1, 20):
            books.tick(T0 + second * S + step * S // 20)
        counts.append(len({symbol for *_, symbol in books.take_requests()}))
    assert counts[0] <= 41
    assert sum(counts) >= 100
    assert max(counts) <= 41


def test_connections_numbers_are_checked_once_a_message_and_count_for_all_its_books():
    bench = Bench(rule=SequenceRule.STEP, scope=Scope.CONNECTION, joins=False)
    other = dict(bench.facts, symbol=b"ETHUSDT")
    bench.feed(RecordType.INSTRUMENT, other, instrument=1)
    bench.snapshot(10, [(99, 1)], [(101, 1)], raw_seq=1)
    bench.snapshot(10, [(49, 1)], [(51, 1)], raw_seq=1, instrument=1, asked=False)
    bench.feed(RecordType.SEQUENCE, {"seq": 11, "rule": 3, "scope": 1}, instrument=0xFFFFFFFF, raw_seq=2)
    bench.diff(12, 12, bids=[(98, 1)], raw_seq=3)
    bench.diff(12, 12, bids=[(97, 1)], raw_seq=3, flags=int(Flag.CONTINUED))
    assert bench.sides[0] == [(99, 1), (98, 1), (97, 1)]
    out = bench.diff(14, 14, bids=[(98, 5)], raw_seq=4)
    assert [(int(r.header["instrument"]), *states([r])[0]) for r in out if states([r])][:2] == [
        (0, BookState.STALE, Reason.GAP),
        (1, BookState.STALE, Reason.GAP),
    ]
    assert bench.facts_now["gaps"] == 1
    bench.snapshot(15, [(99, 1)], [(101, 1)], raw_seq=5)
    assert bench.state == BookState.LIVE
    assert bench.books.describe_one(1, 1)["state"] != BookState.LIVE
