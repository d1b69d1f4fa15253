"""lob.subscribe on real rings, written by the test."""

from __future__ import annotations

import time

import pytest

import lob
from book_stream import BookStream, made_ring, unique_instance
from lob.instruments import entry, instrument_records
from lob.records import BookState, Flag, RecordType, build, parse
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
