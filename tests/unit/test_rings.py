"""Rings by name, in one process (OFD locks of two descriptors exclude each other here too)."""

from __future__ import annotations

import mmap
import os
import struct
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from hypothesis import HealthCheck, example, given, settings
from hypothesis import strategies as st

from lob import _native, rings
from lob.records import Reason, RequestKind
from lob.rings import (
    Descriptor,
    InputRing,
    Kind,
    NoRing,
    OutputRing,
    RingError,
    RingState,
    Roles,
    RoleTaken,
    WrongLayout,
    check_name,
    instance_of,
    list_rings,
    open_segment,
    ring_name,
    role_held,
    unlink_if_idle,
)
from processes.peer import own_instance, read_all, record

CAPACITY = 4096
TAIL, INTENT, LATEST = 256, 264, 272  # offsets in the header; shared/native/segment.hpp asserts them
CHECKPOINTS = 384
QUEUE = 4096
MANIFEST = 16384
DATA = MANIFEST + (1 << 20)


@pytest.fixture
def instance() -> Iterator[str]:
    with own_instance() as name:
        yield name


@pytest.fixture
def name(instance: str) -> str:
    return ring_name(instance, "raw")


class Poke:
    """The bytes of a segment, as somebody would find or leave them who does not use our code."""

    def __init__(self, name: str) -> None:
        with Path(f"/dev/shm{name}").open("r+b") as file:
            self.bytes = mmap.mmap(file.fileno(), 0)

    def u64(self, offset: int) -> int:
        return int(struct.unpack_from("<Q", self.bytes, offset)[0])

    def put(self, offset: int, value: int) -> None:
        struct.pack_into("<Q", self.bytes, offset, value)


def left_behind(instance: str) -> set[str]:
    return {path.name for path in rings.SHM.glob(f"*lob.{instance}*")}


def payloads(reader: _native.SpscReader | _native.BroadcastReader) -> list[bytes]:
    return [one.text for one in read_all(reader)]


# -- names and sizes ----------------------------------------------------------------------------------------------


@pytest.mark.parametrize("good", ["/lob.binance.raw", "/lob.B-1_x.book-2", "/lob." + "a" * 64 + "." + "b" * 32])
def test_a_name_of_instance_and_what_is_taken(good: str) -> None:
    assert check_name(good) == good
    assert instance_of(good) == good.split(".")[1]


@pytest.mark.parametrize(
    "bad",
    ["", "lob.a.raw", "/lob.a", "/lob.a.raw.lock", "/lob..raw", "/lob.a.RAW", "/lob.a/../b.raw", "/lob.ä.raw",
     "/lob.a.raw\n", "/lob." + "a" * 65 + ".raw", "/.lob.a.raw"],
)  # fmt: skip
def test_any_other_name_is_refused(bad: str) -> None:
    with pytest.raises(ValueError, match="is no ring name"):
        check_name(bad)
    with pytest.raises(ValueError, match="is no ring name"):
        open_segment(bad, writable=False)


@pytest.mark.parametrize("size", [0, 1, 2048, 4095, 4097, 12288, 1 << 37])
def test_a_size_that_is_no_power_of_two_in_range_is_refused(name: str, size: int) -> None:
    with pytest.raises(ValueError, match="power of two"):
        OutputRing(name, Kind.SPSC, capacity_bytes=size)
    assert left_behind(instance_of(name)) == set()


# -- making -------------------------------------------------------------------------------------------------------


def test_a_ring_appears_whole_private_and_without_a_trace_of_its_making(name: str) -> None:
    ring = OutputRing(name, Kind.SPSC, capacity_bytes=CAPACITY, manifest={"venue": "v"})
    assert left_behind(instance_of(name)) == {name[1:], name[1:] + ".lock"}
    for path in (Path("/dev/shm" + name), Path("/dev/shm" + name + ".lock")):
        assert path.stat().st_mode & 0o777 == 0o600
    assert list_rings(instance_of(name)) == [name]
    ring.close(RingState.CLOSED, remove=True)
    assert left_behind(instance_of(name)) == set()


def test_a_ring_that_cannot_be_finished_never_gets_its_name(name: str, monkeypatch: pytest.MonkeyPatch) -> None:
    def fail(*_: Any) -> None:
        assert list_rings(instance_of(name)) == []
        raise RuntimeError("no")

    monkeypatch.setattr(_native, "format_segment", fail)
    with pytest.raises(RuntimeError, match="no"):
        OutputRing(name, Kind.SPSC, capacity_bytes=CAPACITY)
    assert left_behind(instance_of(name)) == {name[1:] + ".lock"}
    assert not role_held(name)


def test_an_unknown_group_is_an_error_and_no_ring(name: str) -> None:
    with pytest.raises(RingError, match="cannot give it to group 'no-such-group'"):
        OutputRing(name, Kind.BROADCAST, capacity_bytes=CAPACITY, group="no-such-group")
    assert list_rings(instance_of(name)) == []


# -- owners -------------------------------------------------------------------------------------------------------


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


# -- what is no ring ----------------------------------------------------------------------------------------------


def damaged(name: str, change: Any) -> None:
    OutputRing(name, Kind.SPSC, capacity_bytes=CAPACITY).close(RingState.PAUSED, remove=False)
    change(Path("/dev/shm" + name))


def set_bytes(offset: int, value: bytes) -> Any:
    def change(path: Path) -> None:
        with path.open("r+b") as file:
            file.seek(offset)
            file.write(value)

    return change


@pytest.mark.parametrize(
    ("change", "sentence"),
    [
        (lambda path: path.write_bytes(b""), "is cut short: 0 bytes"),
        (lambda path: path.write_bytes(b"garbage" * 4096), "no ring of ours"),
        (lambda path: os.truncate(path, 8192), "cut short or grown"),
        (lambda path: os.truncate(path, 1 << 22), "cut short or grown"),
        (set_bytes(8, b"\x09\0\0\0"), "has layout 9, this build reads 1"),
        (set_bytes(24, b"\x01" * 8), "records of another build"),
        (set_bytes(12, b"\x07\0\0\0"), "unknown kind 7"),
        (set_bytes(16, b"\x07\0\0\0"), "unknown policy 7"),
        (set_bytes(136, b"\x07\0\0\0"), "in no state we know"),
        (set_bytes(TAIL, b"\x04"), "contradicts itself"),
        (set_bytes(TAIL + 7, b"\xff"), "contradicts itself"),
        (set_bytes(1024, b"\x08"), "contradicts itself"),
        (set_bytes(1024 + 32, b"\xff"), "no text"),
    ],
)  # fmt: skip
@pytest.mark.parametrize("writable", [False, True])
def test_a_segment_that_is_no_ring_of_this_build_is_refused_in_words(
    name: str, change: Any, sentence: str, writable: bool
) -> None:
    damaged(name, change)
    with pytest.raises(WrongLayout, match=sentence) as caught:
        open_segment(name, writable=writable)
    assert name in str(caught.value)
    with pytest.raises(WrongLayout):
        InputRing(name, "test")
    with pytest.raises(WrongLayout):
        OutputRing(name, Kind.SPSC, capacity_bytes=CAPACITY, keep=True)
    assert not role_held(name)
    # Without keep it is only rubbish in the way.
    OutputRing(name, Kind.SPSC, capacity_bytes=CAPACITY).close(RingState.PAUSED, remove=True)


def test_a_pipe_a_folder_or_a_link_of_that_name_is_refused_at_once(name: str) -> None:
    path = Path("/dev/shm" + name)
    os.mkfifo(path)
    with pytest.raises(RingError, match=name):
        open_segment(name, writable=False)
    path.unlink()
    path.mkdir()
    with pytest.raises(RingError, match=name):
        open_segment(name, writable=False)
    path.rmdir()
    path.symlink_to("/etc/passwd")
    with pytest.raises(RingError, match=name):
        open_segment(name, writable=False)


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


HEADER_BYTES = 4096
changes = st.lists(st.tuples(st.integers(0, HEADER_BYTES // 8 - 1), st.integers(0, (1 << 64) - 1)), max_size=6)
hot_words = [TAIL // 8, INTENT // 8, LATEST // 8, CHECKPOINTS // 8, 11, 16, 17, 128, 130]
hot = st.lists(st.tuples(st.sampled_from(hot_words), st.integers(0, 1 << 20)), max_size=4)


@pytest.mark.parametrize("kind", [Kind.SPSC, Kind.BROADCAST, Kind.BOARD])
def test_a_scribbled_header_is_an_error_or_readable_and_never_a_crash(kind: Kind) -> None:
    with own_instance() as instance:
        name = ring_name(instance, "raw")

        @settings(max_examples=150, deadline=None, suppress_health_check=list(HealthCheck))
        @given(changes | hot, st.booleans())
        @example([(TAIL // 8, CAPACITY - 4)], True)
        @example([(LATEST // 8, CAPACITY - 4), (TAIL // 8, 2 * CAPACITY)], False)
        @example([(INTENT // 8, 1 << 40)], True)
        def scribble(words: list[tuple[int, int]], writable: bool) -> None:
            ring = OutputRing(name, kind, capacity_bytes=CAPACITY, board_slots=2, board_depth=3)
            if kind is not Kind.BOARD:
                for text in (b"one", b"two" * 100, b"three"):
                    ring.writer.write(record(text))
            ring.close(RingState.PAUSED, remove=False)
            segment = Poke(name)
            for index, word in words:
                segment.put(8 * index, word)
            try:
                use(open_segment(name, writable=writable))
                taken = OutputRing(name, kind, capacity_bytes=CAPACITY, board_slots=2, board_depth=3, keep=True)
                taken.close(RingState.PAUSED, remove=False)
            except (RingError, _native.LayoutError, _native.CorruptRing):
                pass

        def use(segment: _native.Segment) -> None:
            segment.facts()
            segment.read_manifest()
            if kind is Kind.BOARD:
                board = _native.Board(segment)
                for slot in range(board.slots):
                    board.read(slot)
                return
            reader: _native.SpscReader | _native.BroadcastReader
            if kind is Kind.SPSC and not segment.writable:
                return
            if kind is Kind.SPSC:
                reader = _native.SpscReader(segment)
            else:
                reader = _native.BroadcastReader(segment, "oldest")
                reader.drain_headers(10)
            for _ in range(10):
                if reader.read() is None:
                    break
            if not segment.writable:
                return
            writer = _native.SpscWriter(segment) if kind is Kind.SPSC else _native.BroadcastWriter(segment)
            for _ in range(10):
                if not writer.write(record(b"more" * 50)):
                    break

        scribble()


# -- full, gated, lapped ------------------------------------------------------------------------------------------


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


def test_drain_headers_gives_the_same_as_reading_one_by_one(name: str) -> None:
    ring = OutputRing(name, Kind.BROADCAST, policy="drop", capacity_bytes=1 << 16)
    fast = _native.BroadcastReader(ring.segment, "oldest")
    slow = _native.BroadcastReader(ring.segment, "oldest")
    for burst in (5, 1000, 7):
        for n in range(burst):
            ring.writer.write(record(b"y" * (n % 64)))
        heads = b"".join(iter(lambda: fast.drain_headers(3), b""))
        assert heads == b"".join(one.header.tobytes() for one in read_all(slow))
        assert (fast.lost, fast.laps) == (slow.lost, slow.laps)


def test_a_writer_that_died_in_a_batch_of_more_than_a_ring_does_not_hold_its_readers(name: str) -> None:
    ring = OutputRing(name, Kind.BROADCAST, capacity_bytes=CAPACITY)
    ring.writer.write(record(b"one"))
    Poke(name).put(INTENT, 4 * CAPACITY)
    reader = _native.BroadcastReader(ring.segment, "oldest")
    assert reader.read() is None and reader.drain_headers(10) == b""


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


# -- manifest -----------------------------------------------------------------------------------------------------


def test_a_manifest_is_read_whole_while_the_next_one_is_half_written(name: str) -> None:
    ring = OutputRing(name, Kind.SPSC, capacity_bytes=CAPACITY, manifest={"n": 0})
    reader = InputRing(name, "test")
    for n in range(1, 6):
        assert reader.manifest == {"n": n - 1}
        version = reader.manifest_version
        # The half that comes next is being written when its writer dies.
        half = MANIFEST + ((version + 1) & 1) * (1 << 19)
        Poke(name).bytes[half : half + 64] = b"\xee" * 64
        assert rings.read_manifest(ring.segment) == {"n": n - 1}
        ring.manifest["n"] = n
        ring.write_manifest()
        assert reader.manifest_version == version + 1


def test_a_corrupt_manifest_is_refused_in_words(name: str) -> None:
    ring = OutputRing(name, Kind.SPSC, capacity_bytes=CAPACITY, manifest={"n": 0})
    half = MANIFEST + (ring.segment.manifest_version & 1) * (1 << 19)
    for text, size in ((b"[1, 2]  ", 6), (b'{"n": 0 ', 8), (b"\xff\xff\xff\xff    ", 4)):
        Poke(name).bytes[half : half + 8] = struct.pack("<II", size, ~size & 0xFFFFFFFF)
        Poke(name).bytes[half + 16 : half + 24] = text
        with pytest.raises(WrongLayout, match="a manifest"):
            rings.read_manifest(ring.segment)
    Poke(name).bytes[half : half + 8] = b"\xff" * 8
    with pytest.raises(WrongLayout, match="corrupt manifest"):
        rings.read_manifest(ring.segment)


# -- requests -----------------------------------------------------------------------------------------------------


def test_requests_travel_upstream_in_order_until_the_queue_is_full(name: str) -> None:
    ring = OutputRing(name, Kind.SPSC, capacity_bytes=CAPACITY)
    reader = InputRing(name, "test")
    queue = _native.RequestQueue(ring.segment)
    assert queue.take() is None
    for round_ in range(2):
        for n in range(64):
            assert reader.request(RequestKind.RESYNC, f"SYM{round_}-{n}", Reason.GAP)
        assert not reader.request(RequestKind.RESYNC, "one-too-many", Reason.GAP)
        for n in range(64):
            taken = queue.take()
            assert taken is not None and taken[1:] == (RequestKind.RESYNC, Reason.GAP, f"SYM{round_}-{n}")
        assert queue.take() is None


def test_a_symbol_longer_than_a_request_is_refused(name: str) -> None:
    OutputRing(name, Kind.SPSC, capacity_bytes=CAPACITY)
    with pytest.raises((ValueError, RuntimeError), match="too long"):
        InputRing(name, "test").request(RequestKind.SNAPSHOT, "x" * 64)


@pytest.mark.parametrize("phase", [1, 3])  # COPY_IN: a producer died there; COPY_OUT: a consumer
def test_a_slot_whose_holder_died_is_taken_back_after_a_second(name: str, phase: int) -> None:
    ring = OutputRing(name, Kind.SPSC, capacity_bytes=CAPACITY)
    queue = _native.RequestQueue(ring.segment)
    segment = Poke(name)
    now = time.monotonic_ns()
    for age_ns, recovered in ((0, 0), (2_000_000_000, 64)):
        for slot in range(64):
            segment.put(QUEUE + 128 * slot, (now - age_ns) * 4 + phase)
            segment.put(QUEUE + 128 * slot + 8, now - age_ns)
        if phase == 3:
            assert queue.take() is None
        assert queue.post(1, 2, 0, "A") is bool(recovered)
    assert queue.recovered > 0
    taken = queue.take()
    assert taken is not None and taken[3] == "A"


def test_a_scribbled_request_is_thrown_away_and_counted(name: str) -> None:
    ring = OutputRing(name, Kind.SPSC, capacity_bytes=CAPACITY)
    queue = _native.RequestQueue(ring.segment)
    queue.post(1, 2, 0, "A")
    queue.post(2, 2, 0, "B")
    Poke(name).bytes[QUEUE + 24] ^= 1
    taken = queue.take()
    assert taken is not None and taken[3] == "B" and queue.damaged == 1
    assert queue.take() is None


# -- unlinking ----------------------------------------------------------------------------------------------------


def test_only_a_ring_in_which_nobody_holds_a_role_is_unlinked(name: str) -> None:
    ring = OutputRing(name, Kind.BROADCAST, capacity_bytes=CAPACITY)
    readers = [InputRing(name, f"r{n}") for n in range(_native.READER_SLOTS)]
    assert not unlink_if_idle(name)
    ring.close(RingState.PAUSED, remove=False)
    for reader in readers:
        assert not unlink_if_idle(name) and list_rings(instance_of(name)) == [name]
        reader.close()
    assert unlink_if_idle(name)
    assert left_behind(instance_of(name)) == set()


def test_a_role_taken_on_a_lock_file_that_was_unlinked_meanwhile_is_taken_on_the_new_one(name: str) -> None:
    early = Roles(name)
    owner = OutputRing(name, Kind.SPSC, capacity_bytes=CAPACITY)  # puts a new lock file in place
    assert not early.try_take(rings.WRITER_ROLE)
    owner.close(RingState.CLOSED, remove=True)
    assert early.try_take(rings.WRITER_ROLE) and role_held(name, rings.WRITER_ROLE)
    early.close()
    assert not role_held(name)


# -- descriptor ---------------------------------------------------------------------------------------------------


def test_a_descriptor_survives_the_pipe() -> None:
    line = Descriptor("/lob.a.raw", "spsc", "binance", "drop", 7).line()
    assert line.endswith(b"\n") and line.count(b"\n") == 1
    assert Descriptor.parse(line) == Descriptor("/lob.a.raw", "spsc", "binance", "drop", 7)


@given(st.binary(max_size=60) | st.sampled_from([b"5", b"[]", b"{}", b'{"lob":1}', b'{"lob":1,"ring":5}', b"null"]))
def test_any_other_line_is_one_sentence(line: bytes) -> None:
    with pytest.raises(ValueError, match=r"no line of|format|no ring name"):
        Descriptor.parse(line)


def test_a_descriptor_of_another_format_names_both() -> None:
    with pytest.raises(ValueError, match="format 2, this build reads 1"):
        Descriptor.parse(b'{"lob":2}')
