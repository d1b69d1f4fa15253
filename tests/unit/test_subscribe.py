"""lob.subscribe on real rings, written by the test."""

from __future__ import annotations

import select
import subprocess
import sys
import time
from pathlib import Path

import numpy as np
import pytest

import lob
from book_stream import BookStream, made_ring, unique_instance
from lob.instruments import entry, instrument_records
from lob.records import HEADER, LEVEL, ROWS, BookState, Flag, RecordType, build, parse
from lob.rings import OutputRing
from lob.segments import Kind, RingState, unlink


@pytest.fixture
def instance():
    return unique_instance()


def drained(subscription: lob.Subscription) -> list[lob.Record]:
    records = []
    while (record := subscription.poll()) is not None:
        records.append(record)
    return records


def test_oldest_gives_all_that_is_there_and_newest_what_comes(instance):
    with made_ring(instance, "public") as ring:
        made = BookStream(ring.writer.write, seed=1)
        made.begin()
        written = ring.writer.next_seq - 1
        with lob.subscribe(f"shm:{ring.name}", start="oldest") as old, lob.subscribe(f"shm:{ring.name}") as new:
            assert [int(r.header["ring_seq"]) for r in drained(old)] == list(range(1, written + 1))
            assert drained(new) == []
            made.status(made.instruments[0], BookState.LIVE)
            assert [r.type for r in drained(new)] == [RecordType.STATUS]


def test_late_subscriber_knows_the_instruments_from_the_manifest_and_becomes_whole(instance):
    with made_ring(instance, "public") as ring:
        announced: list[bytes] = []
        made = BookStream(lambda record: (announced.append(record), ring.writer.write(record)), seed=2)
        made.begin()
        ring.manifest["instruments"] = [
            entry(record) for record in map(parse, announced) if record.type is RecordType.INSTRUMENT
        ]
        ring.write_manifest()
        with lob.subscribe(f"shm:{ring.name}") as late:
            book = lob.SortedBook()
            for instrument in made.instruments:
                made.diff(instrument)
                made.snapshot(instrument, Flag.REFRESH)
                made.diff(instrument)
            for record in drained(late):
                book.apply(record)
            for instrument in made.instruments:
                assert (book[instrument.symbol].bids(), book[instrument.symbol].asks()) == instrument.levels()
                assert book[instrument.symbol].state is BookState.LIVE


def test_entries_of_the_manifest_are_the_records_they_were_made_from():
    body = {"symbol": b"BTCUSDT", "price_scale": 2, "qty_scale": 8, "depth": 5, "joins": 1}
    record = build(RecordType.INSTRUMENT, body, instrument=3, version=2, connection=1, epoch=9)
    assert instrument_records({"instruments": [entry(parse(record)), {"id": 1}, None, 5]}, 9) == [record]
    assert instrument_records({"instruments": "no list"}, 0) == instrument_records({}, 0) == []


def test_lapped_subscriber_is_told_how_many_it_lost(instance):
    with made_ring(instance, "public", capacity_bytes=1 << 14) as ring:
        made = BookStream(ring.writer.write, seed=3)
        made.begin()
        with lob.subscribe(f"shm:{ring.name}", start="oldest") as slow:
            first = slow.poll()
            for _ in range(1000):
                made.step()
            rest = drained(slow)
            assert first is not None and slow.lost > 0
            assert 1 + len(rest) + slow.lost == ring.writer.next_seq - 1


def test_subscription_leaves_no_trace_unless_registered(instance):
    with made_ring(instance, "public") as ring:
        BookStream(ring.writer.write, seed=4).begin()
        with lob.subscribe(f"shm:{ring.name}", start="oldest") as one:
            drained(one)
            assert ring.segment.facts()["readers"] == []
        with lob.subscribe(f"shm:{ring.name}", start="oldest", register=True, who="strategy") as one:
            drained(one)
            (reader,) = ring.segment.facts()["readers"]
            assert reader["name"] == "strategy"
            assert reader["position"] == ring.segment.facts()["tail"]
        assert ring.segment.facts()["readers"] == []


def test_iteration_ends_when_the_ring_is_closed_and_read(instance):
    with made_ring(instance, "public") as ring:
        BookStream(ring.writer.write, seed=5).begin()
        ring.writer.set_state(int(RingState.CLOSED))
        with lob.subscribe(f"shm:{ring.name}", start="oldest") as subscription:
            assert len(list(subscription)) == ring.writer.next_seq - 1
            assert subscription.closed


def test_writer_without_a_sign_of_life_is_silent(instance):
    with made_ring(instance, "public") as ring:
        ring.writer.beat()
        with lob.subscribe(f"shm:{ring.name}") as subscription:
            assert not subscription.silent
            deadline = time.monotonic() + 5
            while not subscription.silent and time.monotonic() < deadline:
                time.sleep(0.02)
            assert subscription.silent
            ring.writer.beat()
            assert not subscription.silent
            ring.close(RingState.PAUSED, remove=False)
            assert subscription.silent


def test_ring_made_anew_is_read_from_its_beginning_in_another_epoch(instance):
    with made_ring(instance, "public") as ring:
        made = BookStream(ring.writer.write, seed=6)
        made.begin()
        with lob.subscribe(f"shm:{ring.name}", start="oldest") as subscription:
            book = lob.SortedBook()
            for record in drained(subscription):
                book.apply(record)
            ring.close(RingState.PAUSED, remove=True)
            again = OutputRing(ring.name, Kind.BROADCAST, manifest={"venue": "test"})
            try:
                made.put = again.writer.write
                for instrument in made.instruments:
                    made.announce(instrument)
                    made.diff(instrument)
                    made.snapshot(instrument)
                deadline = time.monotonic() + 5
                while time.monotonic() < deadline:
                    record = subscription.poll(0.1)
                    if record is not None:
                        book.apply(record)
                        if int(record.header["ring_seq"]) == again.writer.next_seq - 1:
                            break
                assert book.holes >= 1
                for instrument in made.instruments:
                    assert (book[instrument.symbol].bids(), book[instrument.symbol].asks()) == instrument.levels()
            finally:
                again.close(RingState.CLOSED, remove=True)


def test_missing_ring_is_named(instance):
    with pytest.raises(lob.NoRing, match=f"no ring named /lob.{instance}.public"):
        lob.subscribe(f"shm:/lob.{instance}.public")


@pytest.mark.parametrize("uri", ["/lob.x.public", "udp://1.2.3.4:5", "shm:", "shm:x", ""])
def test_uri_that_is_none_is_refused(uri):
    with pytest.raises(ValueError):
        lob.subscribe(uri)


def test_ring_of_another_kind_is_refused(instance):
    name = f"/lob.{instance}.events"
    ring = OutputRing(name, Kind.SPSC)
    try:
        for register in (False, True):
            with pytest.raises(lob.WrongLayout):
                lob.subscribe(f"shm:{name}", register=register)
    finally:
        ring.close(RingState.CLOSED, remove=True)
        unlink(name)


# -- batches --------------------------------------------------------------------------------------------------------


def rows_of(subscription: lob.Subscription, *kinds: RecordType) -> list[list[bytes]]:
    """All rows that are there, by kind."""
    arrays = [np.empty(16, ROWS[kind]) for kind in kinds]
    rows: list[list[bytes]] = [[] for _ in kinds]
    while any(map(len, parts := subscription.drain(*arrays))):
        for taken, part in zip(rows, parts, strict=True):
            taken += [row.tobytes() for row in part]
    return rows


def test_batches_hold_what_iteration_gives(instance):
    with made_ring(instance, "public") as ring:
        written: list[bytes] = []
        made = BookStream(lambda record: (written.append(record), ring.writer.write(record)), seed=7)
        with lob.subscribe(f"shm:{ring.name}", start="oldest") as one, lob.subscribe(f"shm:{ring.name}") as other:
            made.begin()
            for _ in range(300):
                made.step()
            kinds = (RecordType.BBO, RecordType.STATUS, RecordType.INSTRUMENT)
            records = drained(one)
            for kind, rows in zip(kinds, rows_of(other, *kinds), strict=True):
                expected = [r.header.tobytes() + r.body.tobytes() for r in records if r.type is kind]
                assert rows == expected and len(rows) > 2
            assert other.lost == one.lost == 0
            for instrument in made.instruments:
                known = other.instruments[instrument.number, instrument.version]
                scales = (instrument.price_scale, instrument.qty_scale)
                assert known == lob.Instrument(instrument.symbol, *scales)
                assert (instrument.number, 1) in other.instruments  # rows of the version before can still be read


def test_headers_of_all_records_and_no_rows_of_types_that_did_not_come(instance):
    with made_ring(instance, "public") as ring:
        BookStream(ring.writer.write, seed=8).begin()
        with lob.subscribe(f"shm:{ring.name}", start="oldest") as subscription:
            headers, trades = np.empty(100, lob.HEADER), np.empty(1, lob.ROWS[RecordType.TRADE])
            all_of_them, none = subscription.drain(headers, trades)
            assert all_of_them["ring_seq"].tolist() == list(range(1, ring.writer.next_seq)) and not len(none)
            assert np.shares_memory(all_of_them, headers)
            assert [len(part) for part in subscription.drain(headers, trades)] == [0, 0]


@pytest.mark.parametrize("polled", [1, 2, 3, 4, 5])
def test_polling_and_draining_in_turn_give_each_record_once(instance, polled):
    """Also what poll has read and keeps back behind the manifest's instruments."""
    with made_ring(instance, "public") as ring:
        made = BookStream(ring.writer.write, seed=9)
        scales = {"version": 1, "price_scale": 2, "qty_scale": 5}
        ring.manifest["instruments"] = [{"id": i.number, "symbol": i.symbol, **scales} for i in made.instruments]
        ring.write_manifest()
        with lob.subscribe(f"shm:{ring.name}") as subscription:
            for instrument in made.instruments:
                made.status(instrument, BookState.LIVE)
                made.diff(instrument)
            numbers = []
            for _ in range(polled):
                record = subscription.poll()
                numbers.append(int(record.header["ring_seq"]))
            (headers,) = subscription.drain(np.empty(1, HEADER))
            numbers += headers["ring_seq"].tolist()
            (headers,) = subscription.drain(np.empty(50, HEADER))
            numbers += headers["ring_seq"].tolist()
            assert [n for n in numbers if n] == list(range(1, ring.writer.next_seq))
            assert {known.symbol for known in subscription.instruments.values()} == {i.symbol for i in made.instruments}


def test_late_batches_know_the_instruments_from_the_manifest(instance):
    with made_ring(instance, "public") as ring:
        made = BookStream(ring.writer.write, seed=10)
        made.begin()
        with lob.subscribe(f"shm:{ring.name}") as late:
            ring.manifest["instruments"] = [
                {"id": 0, "version": 1, "symbol": "COIN0USDT", "price_scale": 2, "qty_scale": 5}, {"id": "none"}
            ]  # fmt: skip
            ring.write_manifest()
            made.diff(made.instruments[0])
            assert len(rows_of(late, RecordType.BBO)[0]) == 1
            assert dict(late.instruments) == {(0, 1): lob.Instrument("COIN0USDT", 2, 5)}


def test_lapped_batches_have_no_hole_inside_and_lost_tells_what_is_missing(instance):
    with made_ring(instance, "public", capacity_bytes=1 << 14) as ring:
        made = BookStream(ring.writer.write, seed=11)
        made.begin()
        with lob.subscribe(f"shm:{ring.name}", start="oldest") as slow:
            headers = np.empty(100, HEADER)
            at = read = len(slow.drain(headers)[0])
            for _ in range(5):
                for _ in range(300):
                    made.step()
                while len(part := slow.drain(headers)[0]):
                    assert (np.diff(part["ring_seq"].astype(np.int64)) == 1).all()
                    read += len(part)
                    assert read + slow.lost == int(part["ring_seq"][-1]) > at
                    at = int(part["ring_seq"][-1])
            assert slow.lost > 1000 and at == ring.writer.next_seq - 1


def test_batches_go_on_in_the_ring_made_anew_and_its_instruments(instance):
    with made_ring(instance, "public") as ring:
        made = BookStream(ring.writer.write, seed=12)
        made.begin()
        with lob.subscribe(f"shm:{ring.name}", start="oldest") as subscription:
            rows_of(subscription, RecordType.STATUS)
            assert (1, 1) in subscription.instruments
            ring.close(RingState.PAUSED, remove=True)
            again = OutputRing(ring.name, Kind.BROADCAST, manifest={"venue": "test"})
            try:
                body = {"symbol": b"NEW", "price_scale": 1}
                again.writer.write(build(RecordType.INSTRUMENT, body, instrument=0, version=1))
                again.writer.write(build(RecordType.BBO, {"bid_price": 5}, instrument=0, version=1))
                (bbos,) = subscription.drain(np.empty(9, ROWS[RecordType.BBO]), timeout_s=10)
                assert bbos["bid_price"].tolist() == [5] and bbos["epoch"].tolist() == [again.writer.epoch & 0xFFFFFFFF]
                assert dict(subscription.instruments) == {(0, 1): lob.Instrument("NEW", 1, 0)}
            finally:
                again.close(RingState.CLOSED, remove=True)


def test_drain_waits_as_long_as_it_was_told_for_a_record_that_is_wanted(instance):
    with made_ring(instance, "public") as ring, lob.subscribe(f"shm:{ring.name}") as subscription:
        start = time.monotonic()
        assert not len(subscription.drain(np.empty(9, ROWS[RecordType.BBO]), timeout_s=0.15)[0])
        assert 0.15 <= time.monotonic() - start < 2
        ring.writer.write(build(RecordType.STATUS))
        assert not len(subscription.drain(np.empty(9, ROWS[RecordType.BBO]))[0])


@pytest.mark.parametrize(
    "arrays",
    [
        (),
        (np.empty(4),),
        (np.empty(4, LEVEL),),
        (np.empty((2, 2), HEADER),),
        (np.empty(0, HEADER),),
        (np.empty(8, HEADER)[::2],),
        (np.frombuffer(bytes(80), HEADER),),
    ],
)
def test_arrays_that_take_no_rows_are_refused(instance, arrays):
    with made_ring(instance, "public") as ring, lob.subscribe(f"shm:{ring.name}") as subscription:
        ring.writer.write(build(RecordType.STATUS))
        with pytest.raises(ValueError):
            subscription.drain(*arrays)
        assert subscription.poll() is not None


def test_the_batches_of_the_man_page_run_as_they_stand_there(instance):
    """A late subscriber: silent about a book until its snapshot is repeated, and while it is stale."""
    text = (Path(__file__).parents[2] / "tools/lob-publish/README.md").read_text()
    (block,) = [block for block in text.split("\n\n    import lob\n")[1:] if "records.drain(" in block]
    code = "import lob\n" + "\n".join(line[4:] for line in block.split("\n\nRows are")[0].splitlines())
    code = code.replace("/lob.binance.public", f"/lob.{instance}.public")
    with made_ring(instance, "public") as ring:
        made = BookStream(ring.writer.write, seed=13)
        made.begin()
        one, two = made.instruments
        ring.manifest["instruments"] = [
            {"id": i.number, "version": 1, "symbol": i.symbol, "price_scale": 2, "qty_scale": 5} for i in (one, two)
        ]
        ring.write_manifest()
        with subprocess.Popen([sys.executable, "-u", "-c", code], stdout=subprocess.PIPE, text=True) as process:
            try:
                assert process.stdout is not None
                for _ in range(2000):  # until it is there and has understood
                    time.sleep(0.01)
                    made.snapshot(one, Flag.REFRESH)
                    made.diff(one)
                    if select.select([process.stdout], [], [], 0)[0]:
                        break
                assert process.stdout.readline().startswith("COIN0USDT 1 BBOs, spread 0.")
                made.status(one, BookState.STALE)
                made.status(two, BookState.LIVE)
                for _ in range(50):
                    made.diff(one)
                    made.diff(two)
                ring.writer.set_state(int(RingState.CLOSED))
                lines = process.stdout.read().splitlines()
                assert process.wait(20) == 0
            finally:
                process.kill()
        counts = [int(line.split()[1]) for line in lines if line.startswith("COIN1USDT ")]
        assert sum(counts) == 50
