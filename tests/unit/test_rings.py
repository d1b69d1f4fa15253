"""Both ends of a ring, in one process (OFD locks of two descriptors exclude each other here too)."""

from __future__ import annotations

import os
import sys
import threading
import time
from pathlib import Path
from typing import Any

import pytest

from lob import _native
from lob.errors import NoRing, RoleTaken, WrongLayout
from lob.names import instance_of, list_rings
from lob.records import HEADER
from lob.rings import InputRing, OutputRing
from lob.roles import role_held
from lob.segments import Kind, RingState, open_segment
from poke import CHECKPOINTS, DATA, INTENT, TAIL, Poke, left_behind
from processes.peer import eventually, read_all, record

CAPACITY = 4096


def payloads(reader: _native.SpscReader | _native.BroadcastReader) -> list[bytes]:
    return [one.text for one in read_all(reader)]


# -- making ------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("size", [0, 1, 2048, 4095, 4097, 12288, 1 << 37])
def test_a_size_that_is_no_power_of_two_in_range_is_refused(name: str, size: int) -> None:
    with pytest.raises(ValueError, match="power of two"):
        OutputRing(name, Kind.SPSC, capacity_bytes=size)
    assert left_behind(instance_of(name)) == set()


def test_a_ring_appears_whole_private_and_without_a_trace_of_its_making(name: str) -> None:
    ring = OutputRing(name, Kind.SPSC, capacity_bytes=CAPACITY, manifest={"venue": "v"})
    assert left_behind(instance_of(name)) == {name[1:], name[1:] + ".lock"}
    for path in (Path("/dev/shm" + name), Path("/dev/shm" + name + ".lock")):
        assert path.stat().st_mode & 0o777 == 0o600
    assert list_rings(instance_of(name)) == [name]
    ring.close(RingState.CLOSED, remove=True)
    assert left_behind(instance_of(name)) == set()


# -- owners ------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("keep", [False, True])
def test_a_live_owner_is_refused_with_its_pid(name: str, keep: bool) -> None:
    first = OutputRing(name, Kind.SPSC, capacity_bytes=CAPACITY)
    with pytest.raises(RoleTaken, match=rf"{name} has a live owner \(pid {os.getpid()}\)"):
        OutputRing(name, Kind.SPSC, capacity_bytes=CAPACITY, keep=keep)
    first.close(RingState.PAUSED, remove=False)
    OutputRing(name, Kind.SPSC, capacity_bytes=CAPACITY, keep=keep).close(RingState.PAUSED, remove=True)


@pytest.mark.parametrize("kind", [Kind.SPSC, Kind.BROADCAST])
def test_a_takeover_raises_the_epoch_and_goes_on_with_the_numbers(name: str, kind: Kind) -> None:
    first = OutputRing(name, kind, capacity_bytes=CAPACITY, keep=True, manifest={"venue": "v", "n": 1})
    epoch = first.writer.epoch
    for text in (b"a", b"b"):
        assert first.writer.write(record(text, raw_seq=7))
    first.close(RingState.PAUSED, remove=False)
    second = OutputRing(name, kind, capacity_bytes=CAPACITY, keep=True, manifest={"venue": "v", "n": 2})
    assert second.taken_over and second.inherited == {"venue": "v", "n": 1}
    assert second.writer.epoch == epoch + 1 and second.writer.next_seq == 3
    if kind is Kind.BROADCAST:
        assert second.writer.raw_seq == 7
    assert second.writer.write(record(b"c"))
    reader = InputRing(name, "test").reader
    found = read_all(reader)
    assert [(int(r.header["ring_seq"]), int(r.header["epoch"]) - epoch, r.text) for r in found] == [
        (1, 0, b"a"), (2, 0, b"b"), (3, 1, b"c")
    ]  # fmt: skip


def test_without_keep_what_a_dead_owner_left_is_made_anew(name: str) -> None:
    old = OutputRing(name, Kind.SPSC, capacity_bytes=CAPACITY)
    old.writer.write(record(b"old"))
    reader = InputRing(name, "test")
    old.close(RingState.PAUSED, remove=False)
    new = OutputRing(name, Kind.SPSC, capacity_bytes=CAPACITY)
    assert not new.taken_over and new.writer.next_seq == 1
    # The reader of the old one is neither fooled about its writer nor in the way of the new one's reader.
    assert not reader.writer_alive and reader.replaced() and payloads(reader.reader) == [b"old"]
    other = InputRing(name, "test")
    new.writer.write(record(b"new"))
    assert payloads(other.reader) == [b"new"]


def test_reattach_goes_over_to_the_new_segment(name: str) -> None:
    old = OutputRing(name, Kind.SPSC, capacity_bytes=CAPACITY)
    reader = InputRing(name, "test")
    assert not reader.replaced()
    old.close(RingState.PAUSED, remove=True)
    assert not reader.replaced()
    with pytest.raises(NoRing):
        reader.reattach()
    assert payloads(reader.reader) == []  # still whole: it reads on in what it has
    new = OutputRing(name, Kind.SPSC, capacity_bytes=2 * CAPACITY)
    new.writer.write(record(b"new"))
    assert reader.replaced()
    reader.reattach()
    assert reader.writer_alive and payloads(reader.reader) == [b"new"]


@pytest.mark.parametrize("kind", [Kind.SPSC, Kind.BROADCAST])
def test_what_was_claimed_and_never_committed_does_not_exist_for_the_next_owner(name: str, kind: Kind) -> None:
    first = OutputRing(name, kind, capacity_bytes=CAPACITY, keep=True)
    first.writer.write(record(b"one"))
    segment = Poke(name)
    tail = segment.u64(TAIL)
    # As a writer leaves it that dies between claim and commit: bytes beyond the tail, the intent raised.
    segment.bytes[DATA + tail : DATA + tail + 200] = b"\xab" * 200
    segment.put(INTENT, tail + 200)
    first.close(RingState.PAUSED, remove=False)
    second = OutputRing(name, kind, capacity_bytes=CAPACITY, keep=True)
    second.writer.write(record(b"two"))
    found = read_all(InputRing(name, "test").reader)
    assert [(int(r.header["ring_seq"]), r.text) for r in found] == [(1, b"one"), (2, b"two")]


def test_a_writer_killed_between_checkpoint_and_tail_leaves_the_last_number(name: str) -> None:
    for _ in range(3):  # each owner commits once: the third is about to write its first checkpoint
        ring = OutputRing(name, Kind.BROADCAST, capacity_bytes=CAPACITY, keep=True)
        before = Poke(name).u64(TAIL)
        ring.writer.write(record(b"x"))
        ring.close(RingState.PAUSED, remove=False)
        # Had it died just before the tail was raised, the checkpoint of the old tail must still be there.
        tails = {Poke(name).u64(CHECKPOINTS), Poke(name).u64(CHECKPOINTS + 32)}
        assert before in tails


# -- what is no ring to own or to read ---------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("facts", "sentence"),
    [
        ({"kind": Kind.BROADCAST}, "is a spsc, not a broadcast"),
        ({"manifest": {"venue": "kraken"}}, "belongs to venue binance, not kraken"),
        ({"policy": "wait"}, "has the policy drop, not wait"),
    ],
)
def test_a_named_ring_of_another_kind_venue_or_policy_is_refused(name: str, facts: Any, sentence: str) -> None:
    given_first: dict[str, Any] = {"kind": Kind.SPSC, "manifest": {"venue": "binance"}, "policy": "drop"}
    given_first["capacity_bytes"] = CAPACITY
    OutputRing(name, **given_first).close(RingState.PAUSED, remove=False)
    with pytest.raises(WrongLayout, match=sentence):
        OutputRing(name, **{**given_first, **facts}, keep=True)
    assert not role_held(name)


def test_a_board_is_no_ring_to_read(name: str) -> None:
    OutputRing(name, Kind.BOARD, board_slots=4, board_depth=5)
    with pytest.raises(WrongLayout, match="is a board, no ring"):
        InputRing(name, "test")


def test_a_missing_ring_is_named_and_leaves_no_lock_file(name: str) -> None:
    with pytest.raises(NoRing, match=f"no ring named {name}"):
        InputRing(name, "test")
    assert left_behind(instance_of(name)) == set()


# -- full, gated, lapped -----------------------------------------------------------------------------------------


def test_a_full_spsc_ring_says_so_and_a_drop_is_a_hole_in_the_numbers(name: str) -> None:
    ring = OutputRing(name, Kind.SPSC, capacity_bytes=CAPACITY)
    reader = InputRing(name, "test").reader
    written = 0
    while ring.writer.write(record(b"x" * 200)):
        written += 1
    ring.writer.drop()
    ring.writer.drop()
    assert ring.writer.take_dropped() == 2 and ring.segment.facts()["drops"] == 2
    assert len(read_all(reader)) == written
    assert ring.writer.write(record(b"after"))
    (after,) = read_all(reader)
    assert int(after.header["ring_seq"]) == written + 3


@pytest.mark.parametrize("size", [1, 100, 700])
def test_a_lapped_reader_is_told_exactly_how_many_it_lost(name: str, size: int) -> None:
    ring = OutputRing(name, Kind.BROADCAST, policy="drop", capacity_bytes=CAPACITY)
    reader = _native.BroadcastReader(open_segment(name, writable=False), "oldest")
    ring.writer.write(record(b"first"))
    assert len(read_all(reader)) == 1
    total, read = 1, 1
    for burst in (3, 200, 1, 500):
        for _ in range(burst):
            ring.writer.write(record(b"x" * size))
        total += burst
        found = read_all(reader)
        read += len(found)
        assert int(found[-1].header["ring_seq"]) == total == reader.seq
        assert read + reader.lost == total
    assert reader.laps == 2


def test_a_writer_that_died_in_a_batch_of_more_than_a_ring_does_not_hold_its_readers(name: str) -> None:
    ring = OutputRing(name, Kind.BROADCAST, capacity_bytes=CAPACITY)
    ring.writer.write(record(b"one"))
    Poke(name).put(INTENT, 4 * CAPACITY)
    reader = _native.BroadcastReader(ring.segment, "oldest")
    assert reader.read() is None and reader.drain(_native.ANY_TYPE, bytearray(HEADER.itemsize)) == (0, 0, 0)


def test_under_wait_the_writer_waits_for_a_registered_reader_and_loses_nothing(name: str) -> None:
    ring = OutputRing(name, Kind.BROADCAST, policy="wait", capacity_bytes=CAPACITY)
    written = 0
    while ring.writer.write(record(b"%d" % written)):
        written += 1
    assert not ring.writer.wait_free(200, "block", 10)
    reader = InputRing(name, "test")  # takes the slot that was kept for it from the first moment
    assert payloads(reader.reader) == [b"%d" % n for n in range(written)]
    assert ring.writer.wait_free(200, "block", 1000) and ring.writer.write(record(b"more"))
    assert payloads(reader.reader) == [b"more"]


def test_under_wait_a_dead_reader_is_given_up_but_not_the_stage_downstream(name: str) -> None:
    ring = OutputRing(name, Kind.BROADCAST, policy="wait", capacity_bytes=CAPACITY)
    downstream, guest = InputRing(name, "publish"), InputRing(name, "guest")
    assert (downstream.slot, guest.slot) == (0, 1)
    assert ring.free_dead_readers() == []
    guest.close()
    downstream.close()
    assert ring.free_dead_readers() == ["guest"]
    assert [r["name"] for r in ring.segment.facts()["readers"]] == ["publish"]
    assert InputRing(name, "publish").slot == 0


def test_a_reader_that_takes_a_dead_ones_slot_is_never_freed_with_it(name: str) -> None:
    ring = OutputRing(name, Kind.BROADCAST, policy="wait", capacity_bytes=CAPACITY)
    downstream = InputRing(name, "publish")
    ended = threading.Event()

    def free() -> None:
        while not ended.is_set():
            ring.free_dead_readers()

    interval_s = sys.getswitchinterval()
    sys.setswitchinterval(1e-6)  # between any two steps of theirs
    freeing = threading.Thread(target=free)
    freeing.start()
    try:
        for _ in range(4000):
            guest = InputRing(name, "guest")
            time.sleep(2e-4)
            assert guest.slot in [reader["slot"] for reader in ring.segment.facts()["readers"]]
            guest.close()
    finally:
        ended.set()
        freeing.join()
        sys.setswitchinterval(interval_s)
    eventually(lambda: len(ring.free_dead_readers()) == 0, "the last one is freed")
    assert [reader["slot"] for reader in ring.segment.facts()["readers"]] == [downstream.slot]


def test_under_drop_nobody_is_waited_for(name: str) -> None:
    ring = OutputRing(name, Kind.BROADCAST, policy="drop", capacity_bytes=CAPACITY)
    reader = _native.BroadcastReader(ring.segment, "newest", 3)
    ring.writer.write(record(b"first"))
    assert len(read_all(reader)) == 1
    assert all(ring.writer.write(record(b"x" * 500)) for _ in range(100))
    assert len(read_all(reader)) == 1 and reader.lost == 99
    reader.publish()
    (seen,) = ring.segment.facts()["readers"]
    assert (seen["slot"], seen["lost"], seen["seq"]) == (3, 99, 101)


def test_the_next_reader_of_a_name_goes_on_where_the_last_one_stopped(name: str) -> None:
    for kind in (Kind.SPSC, Kind.BROADCAST):
        ring = OutputRing(name, kind, policy="wait", capacity_bytes=CAPACITY)
        first = InputRing(name, "test")
        for text in (b"a", b"b"):
            ring.writer.write(record(text))
        assert first.reader.read() is not None
        first.close()
        second = InputRing(name, "test")
        ring.writer.write(record(b"c"))
        assert payloads(second.reader) == [b"b", b"c"]
        second.close()
        ring.close(RingState.PAUSED, remove=True)


def test_a_second_reader_of_an_spsc_ring_is_refused_with_the_pid_of_the_first(name: str) -> None:
    OutputRing(name, Kind.SPSC, capacity_bytes=CAPACITY)
    first = InputRing(name, "test")
    with pytest.raises(RoleTaken, match=rf"live reader \(pid {os.getpid()}\)"):
        InputRing(name, "test")
    first.close()
    InputRing(name, "test")


def test_a_broadcast_ring_takes_as_many_readers_as_it_has_slots(name: str) -> None:
    OutputRing(name, Kind.BROADCAST, capacity_bytes=CAPACITY)
    readers = [InputRing(name, f"r{n}") for n in range(_native.READER_SLOTS)]
    with pytest.raises(RoleTaken):
        InputRing(name, "one-too-many")
    readers[5].close()
    assert InputRing(name, "other").slot == 5
