"""lob_connect/raw.py: the ring's policy, what is owed to the reader, the manifest."""

from __future__ import annotations

import os
import secrets
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from lob import recording
from lob.options import Common
from lob.recording import Recorder
from lob.records import Outcome, Reason, Record, RecordType, RequestKind, Scope
from lob.rings import InputRing, OutputRing
from lob.segments import Kind, RingState
from lob.stage import Stage
from lob_connect.raw import Connection, RawRing
from processes.peer import read_all

CAPACITY = 1 << 14


class Bench:
    """A raw ring of 16 KiB and its reader, in one process."""

    def __init__(self, policy: Any) -> None:
        self.name = f"/lob.raw-{os.getpid()}-{secrets.token_hex(3)}.raw"
        self.said: list[str] = []
        common = Common(None, None, None, False, None, None, "auto", None, None, None)
        self.stage = Stage("test", common, writes=False)
        self.stage.say = self.said.append  # type: ignore[assignment, method-assign]
        manifest = {"venue": "x", "connections": []}
        self.ring = OutputRing(self.name, Kind.SPSC, policy=policy, capacity_bytes=CAPACITY, manifest=manifest)
        self.reader = InputRing(self.name, "test")
        self.raw = RawRing(self.stage, self.ring)

    def read(self) -> list[Record]:
        return read_all(self.reader.reader)

    def fill(self, connection: Connection) -> int:
        """Frames until one is dropped; how many fitted."""
        count = 0
        while not self.raw.drops:
            self.raw.frame(connection, 1, 1, b"x" * 1000)
            count += 1
        return count - 1


@pytest.fixture
def bench() -> Iterator[Bench]:
    made = Bench("drop")
    yield made
    made.reader.close()
    made.ring.close(RingState.CLOSED, remove=True)


def test_frames_keep_bytes_stamps_connection_and_session(bench: Bench) -> None:
    connection = bench.raw.add_connection("ws-0")
    bench.raw.link_up(connection, "wss://x", 7)
    bench.raw.frame(connection, 123, 456, b"payload")
    bench.raw.sent(connection, 8, "wss://x", "hello")
    bench.raw.http(connection, 9, 10, "https://x", b"{}")
    bench.raw.link_down(connection, "wss://x", 11)
    up, frame, sent, http, down = bench.read()
    assert (up.type, int(up.body["up"]), up.url, int(up.header["session"])) == (RecordType.LINK, 1, b"wss://x", 1)
    assert (frame.type, frame.text) == (RecordType.RAW_FRAME, b"payload")
    assert (int(frame.header["recv_ns"]), int(frame.header["origin_ns"])) == (123, 456)
    assert (int(frame.header["connection"]), int(frame.header["session"])) == (0, 1)
    assert (sent.type, sent.url, sent.text) == (RecordType.RAW_SENT, b"wss://x", b"hello")
    assert (http.type, http.url, http.text, int(http.header["recv_ns"])) == (
        RecordType.RAW_HTTP,
        b"https://x",
        b"{}",
        9,
    )
    assert (down.type, int(down.body["up"])) == (RecordType.LINK, 0)


def test_full_ring_drops_counts_leaves_a_hole_and_tells_as_soon_as_there_is_room(bench: Bench) -> None:
    one, two = bench.raw.add_connection("ws-0"), bench.raw.add_connection("ws-1")
    fitted = bench.fill(one)
    bench.raw.frame(two, 1, 1, b"y" * 1000)
    bench.raw.frame(one, 1, 1, b"x" * 1000)
    assert len(bench.read()) == fitted
    bench.raw.tick()  # no data needed
    lost = bench.read()
    assert [(int(r.header["connection"]), int(r.body["count"])) for r in lost] == [(0, 2), (1, 1)]
    assert all(r.type is RecordType.LOST and int(r.body["reason"]) == Reason.LOST for r in lost)
    assert all(int(r.body["scope"]) == Scope.CONNECTION for r in lost)
    assert int(lost[0].header["ring_seq"]) == fitted + 3 + 1
    assert bench.raw.drops == 3
    bench.raw.frame(one, 1, 1, b"after")
    assert [r.text for r in bench.read()] == [b"after"]


def test_link_and_answer_records_wait_for_room_in_order_and_nothing_overtakes_them(bench: Bench) -> None:
    connection = bench.raw.add_connection("ws-0")
    bench.fill(connection)
    bench.raw.link_down(connection, "u", 1)
    bench.raw.link_up(connection, "u", 2)
    bench.raw.frame(connection, 3, 3, b"of the new session")  # may not pass the link record: dropped
    bench.raw.answer(connection, 4, 99, RequestKind.RESYNC, Outcome.DONE, "BTC", "x" * 100)
    bench.read()
    bench.raw.tick()
    found = bench.read()
    kinds = [r.type for r in found]
    assert kinds == [RecordType.LOST, RecordType.LINK, RecordType.LINK, RecordType.LOST, RecordType.ANSWER]
    assert [int(r.header["session"]) for r in found] == [0, 0, 1, 1, 1]
    answer = found[-1]
    assert (int(answer.body["request_id"]), answer.symbol, len(bytes(answer.body["detail"]))) == (99, "BTC", 63)


def test_message_larger_than_the_ring_takes_is_told_in_band_and_names_the_option(bench: Bench) -> None:
    connection = bench.raw.add_connection("ws-0")
    bench.raw.frame(connection, 1, 1, b"x" * CAPACITY)
    bench.raw.frame(connection, 1, 1, b"x" * CAPACITY)
    first, second = bench.read()
    assert first.type is second.type is RecordType.LOST
    assert int(first.body["reason"]) == Reason.OVERSIZE
    assert int(first.header["connection"]) == 0
    assert len(bench.said) == 1  # not once a message
    assert "--ring-bytes" in bench.said[0]
    assert bench.raw.oversize == 2


def test_only_a_message_that_never_came_is_noted_as_lost_in_the_recording(bench: Bench, tmp_path: Path) -> None:
    recorder = Recorder(tmp_path / "r.jsonl")
    raw = RawRing(bench.stage, bench.ring, recorder)
    connection = raw.add_connection("ws-0")
    raw.frame(connection, 1, 1, b"x" * CAPACITY)
    raw.too_large(connection, 2, "frame exceeds the limit", received=False)
    recorder.close()
    frame, note = recording.read(tmp_path / "r.jsonl")
    assert len(frame["raw"]) == CAPACITY
    assert (note["dir"], note["event"], note["reason"], note["scope"]) == ("note", "lost", "oversize", "connection")
    assert [r.type for r in bench.read()] == [RecordType.LOST] * 2


def test_manifest_tells_connections_and_follows_their_state(bench: Bench) -> None:
    connection = bench.raw.add_connection("ws-0", "wss://x", ["BTCUSDT"])
    bench.raw.link_up(connection, "wss://x", 1)
    (entry,) = bench.reader.manifest["connections"]
    assert entry == {
        "id": 0,
        "label": "ws-0",
        "url": "wss://x",
        "symbols": ["BTCUSDT"],
        "session": 1,
        "up": True,
        "ping_ms": None,
    }
    bench.raw.link_down(connection, "wss://x", 2)
    assert bench.reader.manifest["connections"][0]["up"] is False


def test_sessions_go_on_from_an_inherited_manifest(bench: Bench) -> None:
    bench.ring.inherited = {"connections": [{"id": 0, "session": 4}]}
    raw = RawRing(bench.stage, bench.ring)
    connection = raw.add_connection("ws-0")
    raw.link_up(connection, "u", 1)
    assert connection.session == 5
