"""lob.Board on a real board, whose slots the test writes itself."""

from __future__ import annotations

import mmap
import os
import time
from contextlib import contextmanager
from pathlib import Path

import numpy as np
import pytest

import lob
from book_stream import unique_instance
from lob import _native
from lob.board import SILENT_NS
from lob.names import ring_name
from lob.records import BOARD_ENTRY, LEVEL, BookState, Reason
from lob.rings import OutputRing
from lob.segments import Kind, RingState, unlink

DEPTH, SLOTS = 5, 8
DATA = _native.segment_bytes(0)
STRIDE = _native.board_capacity_bytes(1, DEPTH)
LEVELS = 192


class BoardWriter:
    def __init__(self, instance: str) -> None:
        self.ring = OutputRing(
            ring_name(instance, "board"), Kind.BOARD, manifest={"venue": "test"}, board_slots=SLOTS, board_depth=DEPTH
        )
        fd = os.open(Path("/dev/shm") / self.ring.name[1:], os.O_RDWR)
        self.memory = mmap.mmap(fd, 0)
        os.close(fd)

    def write(self, slot, symbol, bids, asks, state=BookState.LIVE, reason=Reason.NONE, stamp=2):
        entry = np.zeros(1, BOARD_ENTRY)
        entry["updates"], entry["last_seq"], entry["ring_seq"] = 3, 160, 12
        entry["symbol"], entry["instrument"], entry["version"] = symbol.encode(), slot, 1
        entry["state"], entry["reason"] = int(state), int(reason)
        entry["price_scale"], entry["qty_scale"] = 2, 8
        entry["bid_count"], entry["ask_count"] = len(bids), len(asks)
        entry["updated_ns"] = _native.mono_ns()
        at = DATA + slot * STRIDE
        self.memory[at : at + 8] = stamp.to_bytes(8, "little")
        self.memory[at + 8 : at + 8 + BOARD_ENTRY.itemsize] = entry.tobytes()
        for side, levels in enumerate((bids, asks)):
            start = at + LEVELS + side * DEPTH * LEVEL.itemsize
            data = np.array(levels, LEVEL).tobytes()
            self.memory[start : start + len(data)] = data

    def close(self, remove=True):
        self.ring.close(RingState.CLOSED, remove=remove)


@contextmanager
def board_of(instance):
    writer = BoardWriter(instance)
    try:
        yield writer
    finally:
        writer.close()
        unlink(writer.ring.name)


@pytest.fixture
def instance():
    return unique_instance()


def test_live_book_has_its_levels_as_numbers_and_as_text(instance):
    with board_of(instance) as writer:
        writer.write(0, "BTCUSDT", [(6160000, 27), (6159900, 100000000)], [(6160050, 5)])
        writer.write(3, "ETHUSDT", [], [])
        board = lob.Board(instance)
        assert board.symbols() == ["BTCUSDT", "ETHUSDT"]
        top = board.top("BTCUSDT", 1)
        assert top.live and top.reason is Reason.NONE
        assert top.bids.tolist() == [(6160000, 27)]
        assert top.bid_texts() == [("61600", "0.00000027")]
        assert board.top("BTCUSDT").bid_texts()[1] == ("61599", "1")
        assert top.ask_texts() == [("61600.5", "0.00000005")]
        assert (top.last_seq, top.ring_seq, top.version) == (160, 12, 1)
        assert 0 <= top.age_ns < 10**9
        assert len(board.top("ETHUSDT").bids) == 0


def test_full_name_is_a_board_too(instance):
    with board_of(instance):
        assert lob.Board(f"/lob.{instance}.board").symbols() == []


def test_state_of_the_book_is_passed_on(instance):
    with board_of(instance) as writer:
        writer.write(0, "BTCUSDT", [(1, 1)], [], BookState.STALE, Reason.GAP)
        top = lob.Board(instance).top("BTCUSDT")
        assert (top.state, top.reason) == (BookState.STALE, Reason.GAP)


def test_book_is_stale_once_its_writer_gives_no_sign_of_life(instance):
    with board_of(instance) as writer:
        writer.write(0, "BTCUSDT", [(1, 1)], [])
        board = lob.Board(instance)
        writer.ring.writer.beat()
        assert board.top("BTCUSDT").live
        beaten = time.monotonic_ns()
        deadline = time.monotonic() + 5
        while board.top("BTCUSDT").live and time.monotonic() < deadline:
            time.sleep(0.005)
        top = board.top("BTCUSDT")
        assert (top.state, top.reason) == (BookState.STALE, Reason.UPSTREAM_SILENT)
        assert top.bids.tolist() == [(1, 1)]
        assert SILENT_NS <= time.monotonic_ns() - beaten < 1_500_000_000
        writer.ring.writer.beat()
        assert board.top("BTCUSDT").live


def test_book_is_stale_at_once_when_its_owner_is_gone(instance):
    with board_of(instance) as writer:
        writer.write(0, "BTCUSDT", [(1, 1)], [])
        board = lob.Board(instance)
        assert board.top("BTCUSDT").live
        writer.ring.writer.beat()
        writer.close(remove=False)
        top = board.top("BTCUSDT")
        assert (top.state, top.reason, top.detail) == (BookState.STALE, Reason.UPSTREAM_SILENT, "owner gone")


def test_slot_that_stays_half_written_is_stale_and_says_owner_dead(instance):
    with board_of(instance) as writer:
        writer.write(0, "BTCUSDT", [(1, 1)], [])
        board = lob.Board(instance)
        assert board.top("BTCUSDT").live
        writer.write(0, "BTCUSDT", [(1, 1)], [], stamp=3)
        started = time.monotonic()
        top = board.top("BTCUSDT")
        assert time.monotonic() - started < 1
        assert (top.state, top.detail, len(top.bids)) == (BookState.STALE, "owner dead", 0)
        assert board.symbols() == ["BTCUSDT"]


def test_board_made_anew_is_followed(instance):
    with board_of(instance) as writer:
        writer.write(0, "BTCUSDT", [(1, 1)], [])
        board = lob.Board(instance)
        assert board.symbols() == ["BTCUSDT"]
        writer.close()
        with board_of(instance) as again:
            again.write(0, "ETHUSDT", [(2, 2)], [])
            again.write(1, "BTCUSDT", [(3, 3)], [])
            deadline = time.monotonic() + 5
            while board.symbols() != ["ETHUSDT", "BTCUSDT"] and time.monotonic() < deadline:
                again.ring.writer.beat()
                time.sleep(0.02)
            again.ring.writer.beat()
            assert board.top("BTCUSDT").bids.tolist() == [(3, 3)]
            assert board.top("BTCUSDT").live


def test_symbol_that_moved_to_another_slot_is_found(instance):
    with board_of(instance) as writer:
        writer.write(0, "BTCUSDT", [(1, 1)], [])
        board = lob.Board(instance)
        board.top("BTCUSDT")
        writer.write(0, "ETHUSDT", [(2, 2)], [])
        writer.write(1, "BTCUSDT", [(3, 3)], [])
        assert board.top("BTCUSDT").bids.tolist() == [(3, 3)]


def test_symbol_that_the_board_does_not_have_is_named(instance):
    with board_of(instance), pytest.raises(lob.NoSuchSymbol, match="has no XRPUSDT"):
        lob.Board(instance).top("XRPUSDT")


def test_missing_board_is_named(instance):
    with pytest.raises(lob.NoRing, match=instance):
        lob.Board(instance)


def test_reading_needs_no_write_access(instance):
    with board_of(instance) as writer:
        writer.write(0, "BTCUSDT", [(1, 1)], [])
        (Path("/dev/shm") / writer.ring.name[1:]).chmod(0o400)
        assert lob.Board(instance).top("BTCUSDT").live
