"""Records written and read in place, through memoryviews of the ring; and what may be written from."""

from __future__ import annotations

import gc
import tracemalloc
from collections.abc import Callable
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from lob import _native
from lob.names import ring_name
from lob.records import HEADER, ROWS, RecordType, parse
from lob.rings import InputRing, OutputRing
from lob.segments import Kind, open_segment
from processes.peer import own_instance, read_all, record

CAPACITY = 4096


def spsc(name: str) -> tuple[_native.SpscWriter, _native.SpscReader]:
    ring = OutputRing(name, Kind.SPSC, policy="wait", capacity_bytes=CAPACITY)
    assert isinstance(ring.writer, _native.SpscWriter)
    return ring.writer, _native.SpscReader(ring.segment)


def broadcast(name: str) -> tuple[_native.BroadcastWriter, _native.BroadcastReader]:
    ring = OutputRing(name, Kind.BROADCAST, policy="wait", capacity_bytes=CAPACITY)
    reader = InputRing(name, "test").reader
    assert isinstance(ring.writer, _native.BroadcastWriter) and isinstance(reader, _native.BroadcastReader)
    return ring.writer, reader


# -- writing from whatever has bytes ------------------------------------------------------------------------------


@pytest.mark.parametrize("make", [spsc, broadcast])
@given(size=st.integers(80, 700), skew=st.integers(0, 7))
@settings(max_examples=60, deadline=None)
def test_any_contiguous_bytes_are_written_as_bytes_are(make: Any, size: int, skew: int) -> None:
    """Also at an odd address and of an odd length: the rest of the last word is 0."""
    plain = (record(bytes(range(256)) * 3, raw_seq=7))[:size]
    odd = memoryview(bytearray(skew) + plain)[skew:]
    with own_instance() as instance:
        writer, reader = make(ring_name(instance, "raw"))
        given_as = [plain, bytearray(plain), memoryview(plain), odd, np.frombuffer(plain, np.uint8)]
        for one in given_as:
            assert writer.write(one)
            copy = reader.read()
            assert copy is not None and len(copy) == (size + 7) // 8 * 8
            assert (copy[4:8], copy[16:60], copy[64:size]) == (plain[4:8], plain[16:60], plain[64:])
            assert copy[size:] == bytes(-size % 8)
            assert parse_header(copy)["ring_seq"] == writer.next_seq - 1


def parse_header(data: bytes | memoryview) -> Any:
    return np.frombuffer(data, HEADER, 1)[0]


@pytest.mark.parametrize("make", [spsc, broadcast])
def test_a_row_of_an_array_is_a_record(name: str, make: Any) -> None:
    writer, reader = make(name)
    rows = np.zeros(3, ROWS[RecordType.BBO])
    rows["type"], rows["bid_price"] = int(RecordType.BBO), [1, 2, 3]
    for i in range(3):
        assert writer.write(rows[i])
    assert [int(one.body["bid_price"]) for one in read_all(reader)] == [1, 2, 3]


@pytest.mark.parametrize("make", [spsc, broadcast])
def test_what_is_no_record_is_refused_and_leaves_no_trace(name: str, make: Any) -> None:
    writer, reader = make(name)
    good = record(b"good")
    for bad, error in (
        (b"short", ValueError),
        (bytes(96), ValueError),  # of type 0
        (record(b"x" * CAPACITY), ValueError),
        (np.zeros((20, 20), np.uint8)[::2], (ValueError, BufferError)),
        ("text", TypeError),
        (None, TypeError),
        (96, TypeError),
    ):
        with pytest.raises(error):
            writer.write(bad)
    with pytest.raises(TypeError):
        writer.write()
    assert writer.write(good)
    (read,) = read_all(reader)
    assert (read.text, int(read.header["ring_seq"])) == (b"good", 1)


def test_a_writer_or_reader_that_was_never_made_is_refused() -> None:
    for kind, call in (
        (_native.SpscWriter, lambda made: made.write(record())),
        (_native.BroadcastWriter, lambda made: made.write(record())),
        (_native.SpscReader, lambda made: made.read()),
        (_native.BroadcastReader, lambda made: made.drain(0, bytearray(80))),
    ):
        with pytest.raises((ValueError, TypeError)):
            call(kind.__new__(kind))
    with pytest.raises(TypeError):
        _native.SpscWriter.write(object(), record())


# -- claiming -----------------------------------------------------------------------------------------------------


def test_claimed_records_appear_together_at_the_commit_numbered_and_sized_by_the_ring(name: str) -> None:
    writer, reader = spsc(name)
    plain = record(b"hello", recv_ns=5)
    for _ in range(3):
        view = writer.claim(len(plain))
        assert view is not None and not view.readonly and len(view) == len(plain)
        assert bytes(view[8 * 5 : 48]) == bytes(8) and view[len(plain) - 1] == 0  # nothing of older records
        view[:] = bytes([255]) * 4 + plain[4:8] + bytes([255]) * 8 + plain[16:]  # also over what is not ours to write
        assert reader.read() is None
    writer.commit(9)
    records = read_all(reader)
    assert [int(one.header["ring_seq"]) for one in records] == [1, 2, 3]
    assert [int(one.header["size_bytes"]) for one in records] == [len(plain)] * 3
    for one in records:
        assert (one.text, int(one.header["recv_ns"]), int(one.header["epoch"])) == (b"hello", 5, writer.epoch)
    assert writer.raw_seq == 9
    assert [int(one.header["raw_seq"]) for one in records] == [1, 2, 3]  # as with write: a record of its own


def test_a_row_is_filled_in_place(name: str) -> None:
    writer, reader = spsc(name)
    for price in range(200):  # many times around the ring
        view = writer.claim(ROWS[RecordType.TRADE].itemsize)
        row = np.frombuffer(view, ROWS[RecordType.TRADE], 1)
        row["type"], row["price"] = int(RecordType.TRADE), price
        del row
        writer.commit()
        (read,) = read_all(reader)
        assert (read.type, int(read.body["price"])) == (RecordType.TRADE, price)
        assert int(read.header["ring_seq"]) == price + 1


def test_a_view_ends_with_its_claim_and_a_commit_waits_for_nobody_who_still_looks(name: str) -> None:
    writer, reader = spsc(name)
    view = writer.claim(88)
    view[4] = int(RecordType.LINK)
    piece = view[80:]
    with pytest.raises(BufferError, match="still looks"):
        writer.commit()
    assert reader.read() is None
    piece.release()
    writer.commit()
    with pytest.raises(ValueError, match="released"):
        view[0]
    array = np.frombuffer(writer.claim(88), np.uint8)
    for end in (writer.commit, writer.abort):
        with pytest.raises((BufferError, ValueError)):
            end()
    assert array[0] == 88
    del array
    writer.abort()
    assert len(read_all(reader)) == 1 and writer.next_seq == 2


def test_claims_that_were_given_up_leave_no_hole(name: str) -> None:
    writer, reader = spsc(name)
    writer.claim(200)
    writer.claim(300)
    writer.abort()
    assert writer.write(record(b"next"))
    (read,) = read_all(reader)
    assert int(read.header["ring_seq"]) == 1


def test_claims_and_whole_writes_are_not_mixed(name: str) -> None:
    writer, _ = spsc(name)
    writer.claim(88)
    with pytest.raises(ValueError, match="neither committed nor aborted"):
        writer.write(record())
    with pytest.raises(ValueError, match="neither committed nor aborted"):
        writer.write_raw(1, 0, 0, 0, 0, b"", b"x")
    with pytest.raises(ValueError, match="type 0"):
        writer.commit()
    writer.abort()
    with pytest.raises(ValueError, match="nothing is claimed"):
        writer.commit()
    assert writer.write(record())


@pytest.mark.parametrize("size", [0, 79, CAPACITY, 1 << 40])
def test_a_claim_of_an_impossible_size_is_refused(name: str, size: int) -> None:
    writer, _ = spsc(name)
    with pytest.raises(ValueError):
        writer.claim(size)


def test_a_full_ring_gives_no_claim(name: str) -> None:
    writer, reader = spsc(name)
    views = []
    while (view := writer.claim(1000)) is not None:
        view[4] = int(RecordType.RAW_FRAME)
        views.append(view)
    assert len(views) == 4
    writer.commit()
    assert len(read_all(reader)) == 4
    assert writer.claim(1000) is not None
    writer.abort()


# -- looking in place ---------------------------------------------------------------------------------------------


@pytest.mark.parametrize("make", [spsc, broadcast])
@given(sizes=st.lists(st.integers(0, 600), min_size=1, max_size=60))
@settings(max_examples=40, deadline=None)
def test_a_view_holds_what_a_read_would_give(make: Any, sizes: list[int]) -> None:
    """Around the ring, read and peeked in turn."""
    with own_instance() as instance:
        writer, reader = make(ring_name(instance, "raw"))
        for n, size in enumerate(sizes):
            assert writer.write(record(b"%d" % n + b"x" * size))
            if n % 3 == 0:
                data = reader.read()
            else:
                view = reader.peek()
                assert view is not None and view.readonly and reader.peek() is view
                data = bytes(view)
                reader.release()
                with pytest.raises(ValueError, match="released"):
                    bytes(view)
            assert parse(data).text == b"%d" % n + b"x" * size
            assert int(parse(data).header["ring_seq"]) == n + 1
            assert reader.peek() is None and reader.read() is None


@pytest.mark.parametrize("make", [spsc, broadcast])
def test_the_writer_waits_while_a_record_is_looked_at(name: str, make: Any) -> None:
    writer, reader = make(name)
    while writer.write(record(b"x" * 300)):
        pass
    view = reader.peek()
    before = bytes(view)
    reader.publish()
    assert not writer.write(record(b"y" * 300)) and bytes(view) == before
    for call in (reader.read, lambda: reader.drain(0, bytearray(80))):
        with pytest.raises(ValueError, match="not released"):
            call()
    row = np.frombuffer(view, HEADER, 1)
    with pytest.raises(ValueError):
        row["type"] = 3
    with pytest.raises(BufferError, match="still looks"):
        reader.release()
    assert row["ring_seq"][0] == 1
    del row
    reader.release()
    with pytest.raises(ValueError, match="nothing is peeked"):
        reader.release()
    assert len(read_all(reader)) > 5 and writer.write(record(b"z"))


def test_a_call_that_fails_because_something_looks_changes_nothing(name: str) -> None:
    writer, reader = spsc(name)
    views = [writer.claim(96), writer.claim(96)]
    for view in views:
        view[4] = int(RecordType.RAW_FRAME)
    looks: list[Callable[[memoryview], object]] = [
        lambda view: view[:8],
        lambda view: view[8:][1:],
        lambda view: np.frombuffer(view, np.uint8),
        lambda view: memoryview(view.obj),
    ]
    for look in looks:
        looking = look(views[1])
        for call in (writer.commit, writer.abort):
            with pytest.raises(BufferError, match="still looks"):
                call()
        for view in views:
            view[90] = 7
        del looking
    views[0].release()  # its holder may be done with it before the commit
    part = views[1][:8]
    views[1].release()
    with pytest.raises(BufferError, match="still looks"):
        writer.commit()
    part.release()
    assert reader.read() is None
    writer.commit()
    assert [one[90] for one in iter(reader.read, None)] == [7, 7]


def test_a_view_outlives_reader_and_ring(name: str) -> None:
    """It holds the mapping: what it shows may be old, it is never a stray address."""
    ring = OutputRing(name, Kind.SPSC, policy="wait", capacity_bytes=CAPACITY)
    ring.writer.write(record(b"last words"))
    reader = _native.SpscReader(open_segment(name, writable=True))
    view = reader.peek()
    claimed = ring.writer.claim(96)
    ring.close(2, remove=True)
    del reader, ring
    gc.collect()
    assert parse(bytes(view)).text == b"last words"
    claimed[:] = bytes(96)


def test_only_a_reader_that_is_waited_for_looks_in_place(name: str) -> None:
    ring = OutputRing(name, Kind.BROADCAST, policy="wait", capacity_bytes=CAPACITY)
    ring.writer.write(record())
    with pytest.raises(ValueError, match="registered"):
        _native.BroadcastReader(ring.segment, "oldest").peek()
    guest = InputRing(name, "guest").reader
    assert isinstance(guest, _native.BroadcastReader)
    assert guest.peek() is not None
    with pytest.raises(ValueError, match="not released"):
        guest.unregister()
    guest.release()
    guest.unregister()
    name = name.replace("raw", "book")
    ring = OutputRing(name, Kind.BROADCAST, policy="drop", capacity_bytes=CAPACITY)
    ring.writer.write(record())
    with pytest.raises(ValueError, match="registered"):
        InputRing(name, "guest").reader.peek()


def test_a_view_of_what_the_writer_does_not_wait_for_is_a_copy_that_outlives_the_reader(name: str) -> None:
    ring = OutputRing(name, Kind.BROADCAST, policy="wait", capacity_bytes=CAPACITY)
    ring.writer.write(record(b"first", raw_seq=1))
    before = _native.BroadcastReader(ring.segment, "slot", 0)
    assert before.read() is not None
    before.publish()
    before.unregister()
    while ring.writer.next_seq < 12:  # it had to look, and found nobody
        assert ring.writer.write(record(b"x" * 300))
    reader = _native.BroadcastReader(ring.segment, "slot", 0)
    view = reader.peek()
    assert view is not None
    was = bytes(view)
    for _ in range(20):
        ring.writer.write(record(b"y" * 300))
    assert bytes(view) == was and parse(was).header["ring_seq"] == 2
    part = view[:8]
    with pytest.raises(BufferError, match="still looks"):
        reader.release()
    del reader
    gc.collect()
    assert bytes(part) == was[:8]


def test_views_leak_nothing(name: str) -> None:
    writer, reader = spsc(name)
    def turn() -> None:
        view = writer.claim(120)
        view[4] = 1
        writer.commit()
        reader.peek()
        reader.release()
        writer.write(bytearray(record()))
        reader.drain(0, bytearray(800))

    for _ in range(100):
        turn()
    tracemalloc.start()
    try:
        before = tracemalloc.get_traced_memory()[0]
        for _ in range(2000):
            turn()
        assert tracemalloc.get_traced_memory()[0] - before < 20_000
    finally:
        tracemalloc.stop()
