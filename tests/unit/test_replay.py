"""lob_connect/replay.py: which lines are the venue's, which records they become, when they are due."""

from __future__ import annotations

import os
import secrets
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import orjson
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from lob import _native, records, venues
from lob.options import Common
from lob.recording import RecordingError
from lob.records import NO_CONNECTION, Outcome, Reason, Record, RecordType, RequestKind, Scope
from lob.rings import InputRing, OutputRing
from lob.segments import Kind, RingState
from lob.stage import Stage
from lob_connect._native import LinePlayer
from lob_connect.raw import RawRing
from lob_connect.replay import Pace, Player
from processes.peer import read_all

WS, REST = "wss://stream.binance.com:9443/stream", "https://api.binance.com/api/v3/depth?symbol=A"
FOREIGN = "wss://ws.kraken.com/v2"


def line(direction: str, raw: str = "", conn: str = "ws", ts_ns: int | None = 5, **more: Any) -> dict[str, Any]:
    return {"ts_ns": ts_ns, "conn": conn, "dir": direction, "raw": raw, **more}


class Desk:
    """Plays lines of a recording as venue binance into a ring and reads the records back."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.name = f"/lob.replay-{os.getpid()}-{secrets.token_hex(3)}.raw"
        common = Common(None, None, None, False, None, None, "auto", None, None, None)
        self.stage = Stage("test", common, writes=False)
        self.ring = OutputRing(self.name, Kind.SPSC, policy="wait", capacity_bytes=1 << 22)
        self.reader = InputRing(self.name, "test")
        self.raw = RawRing(self.stage, self.ring)
        self.player = Player(self.stage, self.raw, venues.load("binance"), None)
        self._files = 0

    def play(self, *lines: dict[str, Any]) -> list[Record]:
        self._files += 1
        path = self.folder / f"{self._files}.jsonl"
        path.write_bytes(b"".join(orjson.dumps(each) + b"\n" for each in lines))
        try:
            self.player.play(path)
        finally:
            self.found = read_all(self.reader.reader)
        return self.found


@pytest.fixture
def desk(tmp_path: Path) -> Iterator[Desk]:
    made = Desk(tmp_path)
    yield made
    made.reader.close()
    made.ring.close(RingState.CLOSED, remove=True)


class Lines:
    """The native way alone: lines of label "ws" are those of connection 3, session 7."""

    def __init__(self) -> None:
        name = f"/lob.lines-{os.getpid()}-{secrets.token_hex(3)}.raw"
        self.ring = OutputRing(name, Kind.SPSC, policy="wait", capacity_bytes=1 << 20)
        assert isinstance(self.ring.writer, _native.SpscWriter)
        self.writer = self.ring.writer
        self.reader = _native.SpscReader(self.ring.segment)
        self.player = LinePlayer()
        self.player.open("ws", 3, 7)


@pytest.fixture
def lines() -> Iterator[Lines]:
    made = Lines()
    yield made
    made.ring.close(RingState.CLOSED, remove=True)


def kinds(found: list[Record]) -> list[str]:
    return [record.type.name for record in found]


def numbers(found: list[Record], field: str) -> list[int]:
    return [int(record.header[field]) for record in found]


def test_every_kind_of_line_becomes_its_record(desk: Desk) -> None:
    found = desk.play(
        line("out", url=WS, event="connect", ts_ns=1),
        line("out", "subscribe", url=WS, ts_ns=2),
        line("in", "frame é", ts_ns=3),
        line("http", "{}", url=REST, ts_ns=4),
        line("out", url=WS, event="close", ts_ns=6),
    )
    assert kinds(found) == ["LINK", "RAW_SENT", "RAW_FRAME", "RAW_HTTP", "LINK"]
    assert numbers(found, "recv_ns") == [1, 2, 3, 4, 6]
    assert numbers(found, "session") == [1] * 5
    assert [int(found[0].body["up"]), int(found[4].body["up"])] == [1, 0]
    assert [found[0].url, found[1].url, found[2].url, found[3].url] == [WS.encode(), WS.encode(), b"", REST.encode()]
    assert [found[1].text, found[2].text, found[3].text] == [b"subscribe", "frame é".encode(), b"{}"]


def test_frames_before_any_connect_line_get_a_link_without_url(desk: Desk) -> None:
    found = desk.play(line("in", "a", ts_ns=None), line("in", "b"))
    assert kinds(found) == ["LINK", "RAW_FRAME", "RAW_FRAME"]
    assert (found[0].url, int(found[0].body["up"])) == (b"", 1)
    assert numbers(found, "session") == [1, 1, 1]
    assert numbers(found, "recv_ns") == [0, 0, 5]


def test_each_connect_line_begins_a_session(desk: Desk) -> None:
    found = desk.play(
        line("out", url=WS, event="connect"), line("in", "a"), line("out", url=WS, event="connect"), line("in", "b")
    )
    assert numbers(found, "session") == [1, 1, 2, 2]


def test_session_numbers_of_the_recording_are_kept_and_never_fall(desk: Desk) -> None:
    found = desk.play(
        line("out", url=WS, event="connect", session=4),
        line("out", url=WS, event="connect", session=1),
        line("in", "a"),
    )
    assert numbers(found, "session") == [4, 5, 5]


def test_a_second_file_continues_the_session_of_the_first(desk: Desk) -> None:
    desk.play(line("in", "a"))
    found = desk.play(line("in", "b"))
    assert kinds(found) == ["RAW_FRAME"]
    assert numbers(found, "session") == [1]


def test_labels_get_ids_by_appearance_and_http_alone_opens_no_link(desk: Desk) -> None:
    found = desk.play(
        line("http", "{}", "rest", url=REST),
        line("out", conn="b", url=WS, event="connect"),
        line("out", conn="a", url=WS, event="connect"),
        line("in", "x", "a"),
        line("in", "y", "b"),
    )
    assert kinds(found) == ["RAW_HTTP", "LINK", "LINK", "RAW_FRAME", "RAW_FRAME"]
    assert numbers(found, "connection") == [0, 1, 2, 2, 1]
    assert [entry["label"] for entry in desk.reader.manifest["connections"]] == ["rest", "b", "a"]
    assert [entry["up"] for entry in desk.reader.manifest["connections"]] == [False, True, True]


def test_notes_of_our_own_recordings_give_ids_symbols_answers_and_losses(desk: Desk) -> None:
    facts: dict[str, Any] = {"event": "connection", "venue": "binance", "url": "ws://127.0.0.1:1/stream", "session": 2}
    found = desk.play(
        line("note", conn="ws-0", **facts, connection=0, symbols=["A"]),
        line("note", conn="ws-1", **facts, connection=1, symbols=["B"]),
        line("out", conn="ws-1", url="ws://127.0.0.1:1/stream", event="connect", session=3),
        line("note", conn="ws-1", event="answer", id=9, kind="resync", outcome="refused", symbol="B", detail="why"),
        line("note", conn="ws-1", event="lost", count=3, scope="connection", reason="oversize"),
        line("note", conn="ws-1", event="lost", count=4, scope="all", reason="lost"),
    )
    assert kinds(found) == ["LINK", "ANSWER", "LOST", "LOST"]
    assert numbers(found, "connection") == [1, 1, 1, NO_CONNECTION]
    assert int(found[0].header["session"]) == 3
    answer = found[1].body
    assert [int(answer[key]) for key in ("request_id", "kind", "outcome")] == [9, RequestKind.RESYNC, Outcome.REFUSED]
    assert [int(found[2].body[key]) for key in ("count", "scope", "reason")] == [3, Scope.CONNECTION, Reason.OVERSIZE]
    assert [int(found[3].body[key]) for key in ("count", "scope", "reason")] == [4, Scope.ALL, Reason.LOST]
    assert [entry["symbols"] for entry in desk.reader.manifest["connections"]] == [["A"], ["B"]]


def test_only_the_lines_of_the_venue_are_played(desk: Desk) -> None:
    found = desk.play(
        line("out", conn="k", url=FOREIGN, event="connect"),
        line("out", conn="b", url=WS, event="connect"),
        line("in", "foreign", "k"),
        line("in", "ours", "b"),
        line("in", "of nobody", "?"),
    )
    assert [record.text for record in found if record.type is RecordType.RAW_FRAME] == [b"ours", b"of nobody"]
    assert desk.player.skipped == 2
    assert desk.player.foreign_urls == [FOREIGN]


def test_label_whose_url_comes_later_is_known_before_its_first_frame(desk: Desk) -> None:
    found = desk.play(
        line("in", "foreign", "k"), line("in", "ours", "b"), line("http", "{}", "k", url="https://api.kraken.com/x")
    )
    assert [record.text for record in found if record.type is RecordType.RAW_FRAME] == [b"ours"]


def test_label_that_turns_out_foreign_after_its_frames_were_played_is_an_error(desk: Desk) -> None:
    many = [line("in", "x" * 1000, "k") for _ in range(2000)]
    with pytest.raises(RecordingError, match=r"1\.jsonl:2001: k is of wss://ws\.kraken\.com/v2, not of binance"):
        desk.play(*many, line("out", conn="k", url=FOREIGN, event="connect"))


@pytest.mark.parametrize("text", ["{", '{"ts_ns":1,"conn":"ws","dir":"in"}', '{"conn":"ws","dir":"in","raw":"x"}', "5"])
def test_corrupt_line_is_named_and_what_stood_before_it_is_played(desk: Desk, text: str) -> None:
    path = desk.folder / "bad.jsonl"
    good = orjson.dumps(line("in", "x")) + b"\n"
    path.write_bytes(good * 3 + text.encode() + b"\n" + good)
    with pytest.raises(RecordingError, match=r"bad\.jsonl:4: "):
        desk.player.play(path)
    assert desk.raw.frames == 3


def test_binary_frames_of_our_own_recordings_keep_their_bytes(desk: Desk) -> None:
    found = desk.play(line("in", "", enc="binary", wire_b64="/wD+"), line("in", "", enc="binary", wire_b64="/wD+"))
    assert [record.text for record in found[1:]] == [b"\xff\x00\xfe"] * 2


def test_requests_from_downstream_are_taken_and_counted_and_not_answered(desk: Desk) -> None:
    assert desk.reader.request(RequestKind.RESYNC, "A")
    found = desk.play(line("in", "a"))
    assert kinds(found) == ["LINK", "RAW_FRAME"]
    assert desk.player.requests == 1
    assert desk.ring.requests.take() is None


def test_pace_keeps_the_times_of_the_recording() -> None:
    pace = Pace(2.0, 1000)
    assert [pace.due_ns(ts) for ts in (500, 700, None, 600, 1000)] == [1000, 1100, 1100, 1100, 1300]
    pace.next_file()
    assert pace.due_ns(90_000) == 1300


@given(st.lists(st.one_of(st.none(), st.integers(0, 10**12)), max_size=50))
def test_due_times_never_fall(times: list[int | None]) -> None:
    pace = Pace(1.0, 0)
    due = [pace.due_ns(ts) for ts in times]
    assert due == sorted(due)


@settings(max_examples=300, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(
    st.lists(
        st.one_of(st.text("ab0 .[]{}:,", max_size=90), st.sampled_from(['"', '"' * 70, "\\", "\n", "/", "\x1f"])),
        max_size=12,
    )
)
def test_the_native_short_way_gives_the_text_that_json_gives(lines: Lines, parts: list[str]) -> None:
    """Quotes, escapes and plain runs of any length at any place."""
    text = "x" + "".join(parts)
    line = b'{"ts_ns":12,"conn":"ws","dir":"in","raw":%b}\n' % orjson.dumps(text)
    played = lines.player.play(lines.writer, line, 0, 10)
    if "\x1f" in text:  # written as \\u001f: left to Python
        assert played == (0, 0, 0)
    else:
        assert played == (len(line), 1, len(text))
        assert records.parse(lines.reader.read() or b"").text == text.encode()
        lines.reader.publish()


def test_the_native_short_way_takes_only_what_it_understands_to_the_byte(lines: Lines) -> None:
    """A line that differs in anything from the usual form is left to Python, where it is."""
    play, writer = lines.player.play, lines.writer
    good = b'{"ts_ns":12,"conn":"ws","dir":"in","raw":"{\\"a\\":\\"b\\\\n\\/\\t\\"}"}\n'
    assert play(writer, good, 0, 10) == (len(good), 1, 13)
    record = records.parse(lines.reader.read() or b"")
    assert record.text == orjson.loads(good)["raw"].encode()
    assert (record.header["connection"], record.header["session"], record.header["recv_ns"]) == (3, 7, 12)
    for line in (
        b'{"conn":"ws","ts_ns":12,"dir":"in","raw":"x"}\n',
        b'{"ts_ns":12,"conn":"other","dir":"in","raw":"x"}\n',
        b'{"ts_ns":12,"conn":"ws","dir":"out","raw":"x"}\n',
        b'{"ts_ns":12,"conn":"ws","dir":"in","raw":""}\n',
        b'{"ts_ns":12,"conn":"ws","dir":"in","raw":"x","enc":"binary"}\n',
        b'{"ts_ns":12,"conn":"ws","dir":"in","raw":"\\u00e4"}\n',
        '{"ts_ns":12,"conn":"ws","dir":"in","raw":"ä"}\n'.encode(),
        b'{"ts_ns":12,"conn":"ws","dir":"in","raw":"tab\there"}\n',
        b'{"ts_ns":12,"conn":"ws","dir":"in","raw":"cut\n',
        b'{"ts_ns":12,"conn":"ws","dir":"in","raw":"cut\\\n',
        b'{"ts_ns":12.5,"conn":"ws","dir":"in","raw":"x"}\n',
        b'{"ts_ns":012,"conn":"ws","dir":"in","raw":"x"}\n',
        b'{"ts_ns":-1,"conn":"ws","dir":"in","raw":"x"}\n',
        b'{"ts_ns":99999999999999999999,"conn":"ws","dir":"in","raw":"x"}\n',
        b'{"ts_ns":12,"conn":"ws","dir":"in","raw":"no newline"}',
        # ... also behind blocks that were as usual
        b'{"ts_ns":12,"conn":"ws","dir":"in","raw":"%b\xc3\xa4%b"}\n' % (b"x" * 150, b"x" * 150),
        b'{"ts_ns":12,"conn":"ws","dir":"in","raw":"%b"tail"}\n' % (b"x" * 150),
        b'{"ts_ns":12,"conn":"ws","dir":"in","raw":"%b\\","more":"%b"}\n' % (b"x" * 22, b"x" * 150),
    ):
        assert play(writer, line, 0, 10) == (0, 0, 0), line
    lines.player.close("ws")
    assert play(writer, good, 0, 10) == (0, 0, 0)
