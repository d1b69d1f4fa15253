"""Segments by name: made whole or not at all, refused when they are none of ours, unlinked when nobody needs them."""

from __future__ import annotations

import os
from pathlib import Path
from typing import Any

import pytest
from hypothesis import HealthCheck, example, given, settings
from hypothesis import strategies as st

from lob import _native
from lob.errors import RingError, WrongLayout
from lob.manifest import read_manifest
from lob.names import instance_of, list_rings, ring_name
from lob.records import HEADER
from lob.rings import InputRing, OutputRing
from lob.roles import role_held
from lob.segments import Kind, RingState, open_segment, unlink_if_idle
from poke import CHECKPOINTS, INTENT, LATEST, TAIL, Poke, left_behind
from processes.peer import own_instance, record

CAPACITY = 4096


# -- making ------------------------------------------------------------------------------------------------------


def test_a_ring_that_cannot_be_finished_never_gets_its_name(name: str, monkeypatch: pytest.MonkeyPatch) -> None:
    def fail(*_: Any) -> None:
        assert list_rings(instance_of(name)) == []
        raise RuntimeError("no")

    monkeypatch.setattr(_native, "format_segment", fail)
    with pytest.raises(RuntimeError, match="no"):
        OutputRing(name, Kind.SPSC, capacity_bytes=CAPACITY)
    assert left_behind(instance_of(name)) == {name[1:] + ".lock"}
    assert not role_held(name)


def test_a_ring_has_its_manifest_before_it_has_its_name(name: str, monkeypatch: pytest.MonkeyPatch) -> None:
    found: list[dict[str, Any]] = []
    link = os.link

    def linked(source: Path, target: Path) -> None:
        link(source, target)
        found.append(read_manifest(open_segment(name, writable=False)))  # as who waits for it would

    monkeypatch.setattr(os, "link", linked)
    OutputRing(name, Kind.SPSC, capacity_bytes=CAPACITY, manifest={"venue": "v"})
    assert found == [{"venue": "v"}]


def test_an_unknown_group_is_an_error_and_no_ring(name: str) -> None:
    with pytest.raises(RingError, match="cannot give it to group 'no-such-group'"):
        OutputRing(name, Kind.BROADCAST, capacity_bytes=CAPACITY, group="no-such-group")
    assert list_rings(instance_of(name)) == []


# -- what is no ring ---------------------------------------------------------------------------------------------


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
        (set_bytes(8, b"\x09\0\0\0"), f"has layout 9, this build reads {_native.LAYOUT_VERSION}"),
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
                reader.drain(_native.ANY_TYPE, bytearray(10 * HEADER.itemsize))
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


# -- unlinking ---------------------------------------------------------------------------------------------------


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
