"""A recording, put into the raw ring as the network put it there. Nothing is ever dropped.

Which lines are the named venue's is told by its labels: a label belongs to it if its own note says so, or if the venue
recognises a URL under which it connected or asked. A label that shows no URL in the first megabyte of a file belongs to
the venue too: some programs record frames only. If one shows a foreign URL after that, the replay ends there with an
error, for its frames are in the ring already.
"""

from __future__ import annotations

import time
from pathlib import Path
from typing import Any

import orjson

from lob import recording
from lob.recording import Line, RecordingError
from lob.records import Outcome, Reason, RequestKind
from lob.stage import Stage
from lob.venues.venue import Venue
from lob_connect._native import LinePlayer
from lob_connect.raw import RAW_FRAME, Connection, RawRing, Stopped

HOUSEKEEPING_LINES = 256
FAST_LINES = 2048  # a few ms
LOOK_AHEAD_BYTES = 1 << 20
MINE, FOREIGN, UNDECIDED = "mine", "foreign", "undecided"
_URL_MARKS = (b'"url"', b'"venue"')  # quotes inside of `raw` are escaped, so these are keys


class Pace:
    """When a line is due, if the recording's own times, `speed` times as fast, are kept."""

    def __init__(self, speed: float, mono_ns: int) -> None:
        self._speed = speed
        self._due_ns = float(mono_ns)
        self._last_ts_ns: int | None = None

    def due_ns(self, ts_ns: int | None) -> int:
        """Monotonic time of a line. A line without a time is due at once; a clock that steps back stands still."""
        if ts_ns is not None:
            if self._last_ts_ns is not None and ts_ns > self._last_ts_ns:
                self._due_ns += (ts_ns - self._last_ts_ns) / self._speed
            self._last_ts_ns = ts_ns
        return int(self._due_ns)

    def next_file(self) -> None:
        """The time between two files is not waited for."""
        self._last_ts_ns = None


class Player:
    """Plays recordings one after the other."""

    def __init__(self, stage: Stage, raw: RawRing, venue: Venue, speed: float | None) -> None:
        self.lines = 0
        self.skipped = 0
        self.requests = 0
        self._queue = raw.ring.requests
        self._stage = stage
        self._raw = raw
        self._venue = venue
        self._pace = None if speed is None else Pace(speed, time.monotonic_ns())
        self._owner: dict[str, str] = {}
        self._urls: set[str] = set()
        self._by_label: dict[str, Connection] = {}
        self._up: dict[str, Connection] = {}  # those whose frames may go straight into the ring
        self._fast = LinePlayer()

    def play(self, path: Path) -> None:
        """One file. Raises RecordingError, and Stopped if the stage should end before the file does."""
        if self._pace is not None:
            self._pace.next_file()
        number, looked_at = 0, 0
        for text in recording.blocks_of_text(path):
            if looked_at < LOOK_AHEAD_BYTES:
                self._look_ahead(text.splitlines())
                looked_at += len(text)
            self.take_requests()
            before = number
            if self._pace is None:
                number = self._play_text(path, number, text)
            else:
                lines = text[:-1].split(b"\n")
                self._play_block(path, number, lines)
                number += len(lines)
            self.lines += number - before

    def take_requests(self) -> None:
        """Count what comes from downstream; the place of an answer in the ring would depend on the clock."""
        while self._queue.take() is not None:
            self.requests += 1

    @property
    def foreign_urls(self) -> list[str]:
        """URLs of lines that were left out, for the sentence that says why nothing was replayed."""
        return sorted(self._urls)

    # -- whose line is it ---------------------------------------------------------------------------------------------

    def _look_ahead(self, lines: list[bytes]) -> None:
        for line in lines:
            if any(mark in line for mark in _URL_MARKS) and recording.check(line) is None:
                self._learn(orjson.loads(line))

    def _learn(self, message: Line) -> None:
        label = message["conn"]
        venue, url = message.get("venue"), message.get("url") or ""
        if (venue == self._venue.name) if venue else (url and self._venue.recognises(url)):
            self._owner[label] = MINE
        elif (venue or url) and self._owner.get(label) != MINE:
            self._owner[label] = FOREIGN
            self._urls.add(url)

    def _is_mine(self, message: Line, path: Path, number: int) -> bool:
        label = message["conn"]
        owner = self._owner.setdefault(label, UNDECIDED)
        if owner == UNDECIDED and (message.get("url") or message.get("venue")):
            self._learn(message)
            if self._owner[label] == FOREIGN and label in self._by_label:
                raise RecordingError(path, number, f"{label} is of {message.get('url')}, not of {self._venue.name}")
        return self._owner[label] != FOREIGN

    # -- the loop -----------------------------------------------------------------------------------------------------

    def _play_text(self, path: Path, before: int, text: bytes) -> int:
        """At full speed: the usual lines natively, the others one by one. The number of the last line."""
        play, writer, raw = self._fast.play, self._raw.writer, self._raw
        offset, number = 0, before
        while offset < len(text):
            if not self._stage.running():
                raise Stopped
            offset, played, payload_bytes = play(writer, text, offset, FAST_LINES)
            raw.frames += played
            raw.bytes += payload_bytes
            number += played
            if played < FAST_LINES and offset < len(text):  # a line for Python, or one that found no room
                end = text.index(b"\n", offset)
                self._play_block(path, number, [text[offset:end]])
                offset, number = end + 1, number + 1
        return number

    def _open(self, label: str, connection: Connection) -> None:
        self._up[label] = connection
        self._fast.open(label, connection.id, connection.session)

    def _play_block(self, path: Path, before: int, lines: list[bytes]) -> None:
        """Lines one by one. The usual ones, frames of an open connection, take the short way."""
        loads, write_raw, mono_ns, up = orjson.loads, self._raw.writer.write_raw, time.monotonic_ns, self._up
        pace, raw = self._pace, self._raw
        frames = payload_bytes = index = 0
        try:
            for index, line in enumerate(lines):
                if not index % HOUSEKEEPING_LINES and not self._stage.running():
                    raise Stopped
                message = loads(line)
                if pace is not None:
                    self._sleep_until(pace.due_ns(message["ts_ns"]))
                if message["dir"] == "in" and message["conn"] in up and (text := message["raw"]):
                    connection = up[message["conn"]]
                    payload = text.encode()
                    result = write_raw(
                        RAW_FRAME, connection.id, connection.session, message["ts_ns"] or 0, mono_ns(), b"", payload
                    )
                    if result:
                        raw.frame(connection, message["ts_ns"] or 0, mono_ns(), payload)
                    else:
                        frames += 1
                        payload_bytes += len(payload)
                else:
                    why = recording.check(line)
                    if why is not None:
                        raise RecordingError(path, before + index + 1, why)
                    self._other(message, path, before + index + 1)
        except (orjson.JSONDecodeError, KeyError, TypeError, AttributeError) as error:
            why = recording.check(lines[index])
            if why is None:
                raise
            raise RecordingError(path, before + index + 1, why) from error
        finally:
            raw.frames += frames
            raw.bytes += payload_bytes

    def _sleep_until(self, due_ns: int) -> None:
        while (left_ns := due_ns - time.monotonic_ns()) > 0:
            if not self._stage.running():
                raise Stopped
            time.sleep(min(left_ns / 1e9, 0.02))

    def _other(self, message: Line, path: Path, number: int) -> None:
        """Everything but a plain frame of an open connection."""
        if not self._is_mine(message, path, number):
            self.skipped += 1
            return
        raw, label, direction = self._raw, message["conn"], message["dir"]
        recv_ns, url, event = message["ts_ns"] or 0, message.get("url") or "", message.get("event")
        if direction == "note":
            self._note(message, label, recv_ns, event)
            return
        connection = self._connection(label)
        if direction == "in":
            if label not in self._up:
                raw.link_up(connection, "", recv_ns)
                self._open(label, connection)
            raw.frame(connection, recv_ns, time.monotonic_ns(), recording.payload(message))
        elif direction == "http":
            raw.http(connection, recv_ns, time.monotonic_ns(), url, message["raw"].encode())
        elif event == "connect":
            raw.link_up(connection, url, recv_ns, message.get("session"))
            self._open(label, connection)
        elif event == "close":
            raw.link_down(connection, url, recv_ns)
            self._up.pop(label, None)
            self._fast.close(label)
        else:
            raw.sent(connection, recv_ns, url, message["raw"])

    def _connection(self, label: str) -> Connection:
        connection = self._by_label.get(label)
        if connection is None:
            connection = self._by_label[label] = self._raw.add_connection(label)
            self._raw.write_manifest()
        return connection

    def _note(self, message: Line, label: str, recv_ns: int, event: Any) -> None:
        raw = self._raw
        if event == "connection":
            connection = self._connection(label)
            connection.url, connection.symbols = message.get("url", ""), list(message.get("symbols", ()))
            connection.session = max(connection.session, int(message.get("session", 0)))
            raw.write_manifest()
        elif event == "lost":
            whole = message.get("scope") == "all"
            reason = Reason.__members__.get(str(message.get("reason")).upper(), Reason.LOST)
            raw.lost(None if whole else self._connection(label), recv_ns, int(message.get("count", 0)), reason)
        elif event == "answer":
            kind = RequestKind.__members__.get(str(message.get("kind")).upper(), 0)
            outcome = Outcome.__members__.get(str(message.get("outcome")).upper(), Outcome.FAILED)
            texts = str(message.get("symbol", "")), str(message.get("detail", ""))
            raw.answer(
                self._connection(label) if label else None, recv_ns, int(message["id"]), int(kind), outcome, *texts
            )
