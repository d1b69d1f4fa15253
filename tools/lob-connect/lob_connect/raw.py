"""Raw records on their way into the ring, under its policy; and on their way into a recording, whatever the ring does.

`drop`: a record that finds the ring full is counted, its number in the ring stays empty, and as soon as there is
room a LOST record says how many of which connection. `wait`: the writer waits for the reader.

Link, lost and answer records are never dropped: they wait in `_owed`, in order, and nothing overtakes them.
"""

from __future__ import annotations

import time
from collections import deque
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

from lob import _native
from lob.recording import Recorder
from lob.records import NO_CONNECTION, Outcome, Reason, RecordType, RequestKind, Scope, build
from lob.rings import OutputRing
from lob.stage import Stage
from lob_connect._native import FrameReader, RawSink

if TYPE_CHECKING:
    from lob_connect._native import FrameOwner

RAW_FRAME, RAW_HTTP, RAW_SENT = int(RecordType.RAW_FRAME), int(RecordType.RAW_HTTP), int(RecordType.RAW_SENT)
WRITTEN, FULL, OVERSIZE = 0, 1, 2
WAIT_MS = 50
MANIFEST_FORMAT = 1
SAY_AGAIN_S = 60.0


class Stopped(Exception):
    """The stage was asked to stop while the ring was full."""


@dataclass
class Connection:
    """What the manifest says about a connection. `session` 0: never open so far."""

    id: int
    label: str
    url: str = ""
    symbols: list[str] = field(default_factory=list)
    session: int = 0
    up: bool = False
    ping_ms: float | None = None


@dataclass
class _Lost:
    """Records of one connection that are missing from the ring."""

    connection: Connection
    session: int
    count: int
    reason: Reason

    def record(self) -> bytes:
        return _lost_record(self.connection.id, self.session, self.count, Scope.CONNECTION, self.reason, time.time_ns())


class RawRing:
    """The one way into the raw ring, for a live feed and for a replay."""

    def __init__(self, stage: Stage, ring: OutputRing, recorder: Recorder | None = None) -> None:
        writer = ring.writer
        assert isinstance(writer, _native.SpscWriter)
        self.ring = ring
        self.writer = writer
        self.waits = ring.policy == "wait"
        self.connections: list[Connection] = []
        self.frames = 0
        self.bytes = 0
        self.drops = 0
        self.oversize = 0
        self._stage = stage
        self._recorder = recorder
        self._write_raw = writer.write_raw
        self._owed: deque[bytes | _Lost] = deque()
        self._lost: dict[int, _Lost] = {}  # those in _owed that may still grow, by connection
        self._room_bytes = self.writer.record_max_bytes // 2
        self._sink = RawSink(writer, self._room_bytes)
        self._sink.copies = recorder is not None
        self._say_oversize_s = 0.0
        self._inherited = {
            entry["id"]: int(entry.get("session", 0))
            for entry in ring.inherited.get("connections", ())
            if "id" in entry
        }

    # -- connections --------------------------------------------------------------------------------------------------

    def add_connection(self, label: str, url: str = "", symbols: list[str] | None = None) -> Connection:
        """The next connection; on a ring with a past its sessions go on from there."""
        number = len(self.connections)
        if number >= NO_CONNECTION:
            raise ValueError(f"more than {NO_CONNECTION} connections")
        connection = Connection(number, label, url, symbols or [], self._inherited.get(number, 0))
        self.connections.append(connection)
        return connection

    def write_manifest(self) -> None:
        """Publish the connections as they are now."""
        self.ring.manifest["connections"] = [vars(connection) for connection in self.connections]
        self.ring.write_manifest()

    def link_up(self, connection: Connection, url: str, recv_ns: int, session: int | None = None) -> None:
        """The connection is open: a new session begins."""
        connection.session = max(connection.session + 1, session or 0)
        connection.up, connection.url = True, url or connection.url
        self._link(connection, url, recv_ns)

    def link_down(self, connection: Connection, url: str, recv_ns: int) -> None:
        """The session is over."""
        connection.up, connection.ping_ms = False, None
        self._link(connection, url, recv_ns)

    def _link(self, connection: Connection, url: str, recv_ns: int) -> None:
        self._control(
            build(
                RecordType.LINK,
                {"up": connection.up},
                url=url.encode(),
                connection=connection.id,
                session=connection.session,
                recv_ns=recv_ns,
                origin_ns=time.monotonic_ns(),
            )
        )
        self.write_manifest()
        self._note(
            connection.label,
            recv_ns,
            {"url": url, "raw": "", "event": "connect" if connection.up else "close", "session": connection.session},
            direction="out",
        )

    # -- data ---------------------------------------------------------------------------------------------------------

    @property
    def received(self) -> tuple[int, int]:
        """(messages of the venue, their bytes), whichever way they came."""
        return self.frames + self._sink.frames, self.bytes + self._sink.payload_bytes

    def frame(self, connection: Connection, recv_ns: int, origin_ns: int, payload: bytes) -> None:
        """A message of the venue."""
        self.frames += 1
        self.bytes += len(payload)
        if not self._owed or self.pay():
            result = self._write_raw(RAW_FRAME, connection.id, connection.session, recv_ns, origin_ns, b"", payload)
            if result:
                self._not_written(result, RAW_FRAME, connection, recv_ns, b"", payload)
        else:
            self._drop(connection)
        self.record(connection, recv_ns, payload)

    def record(self, connection: Connection, recv_ns: int, payload: bytes) -> None:
        """A message of the venue that is in the ring, or counted there as lost."""
        if self._recorder is not None:
            self._recorder.frame(recv_ns, connection.label, payload)

    def frame_reader(
        self,
        connection: Connection,
        owner: FrameOwner,
        message_max_bytes: int,
        mark_size_max: int,
        marks: Sequence[str],
    ) -> FrameReader:
        """What reads the frames of the session that has just begun. Only for a ring that drops."""
        assert not self.waits
        return FrameReader(
            owner, self._sink, connection.id, connection.session, message_max_bytes, mark_size_max, marks
        )

    def sent(self, connection: Connection, recv_ns: int, url: str, text: str) -> None:
        """What we send on the connection. Called just before, so that it stands before the answer."""
        self._data(RAW_SENT, connection, recv_ns, time.monotonic_ns(), url.encode(), text.encode())
        self._note(connection.label, recv_ns, {"url": url, "raw": text}, direction="out")

    def http(self, connection: Connection, recv_ns: int, origin_ns: int, url: str, body: bytes) -> None:
        """The answer to a REST request."""
        self._data(RAW_HTTP, connection, recv_ns, origin_ns, url.encode(), body)
        self._note(connection.label, recv_ns, {"url": url, "raw": body.decode("utf-8", "replace")}, direction="http")

    def _data(
        self, kind: int, connection: Connection, recv_ns: int, origin_ns: int, url: bytes, payload: bytes
    ) -> None:
        if not self._owed or self.pay():
            result = self._write_raw(kind, connection.id, connection.session, recv_ns, origin_ns, url, payload)
            if result:
                self._not_written(result, kind, connection, recv_ns, url, payload)
        else:
            self._drop(connection)

    def _not_written(
        self, result: int, kind: int, connection: Connection, recv_ns: int, url: bytes, payload: bytes
    ) -> None:
        if result == OVERSIZE:
            self.too_large(connection, recv_ns, f"a message of {len(payload)} bytes", received=True)
        elif self.waits:
            size = len(url) + len(payload) + 96
            self.wait_until(
                lambda: (
                    self._write_raw(kind, connection.id, connection.session, recv_ns, time.monotonic_ns(), url, payload)
                    == WRITTEN
                ),
                size,
            )
        else:
            self._drop(connection)

    def wait_until(self, written: Callable[[], bool], size_bytes: int) -> None:
        """Try until there is room. Raises Stopped if the stage should end before."""
        while True:
            if not self._stage.running():
                raise Stopped
            if written():
                return
            self.writer.wait_free(size_bytes, self._stage.wait, WAIT_MS)

    def _drop(self, connection: Connection) -> None:
        self.writer.drop()
        self.dropped(connection, 1)

    def dropped(self, connection: Connection, count: int) -> None:
        """So many messages found no room, and their numbers in the ring are skipped."""
        self.drops += count
        lost = self._lost.get(connection.id)
        if lost is not None and lost.session == connection.session:
            lost.count += count
            return
        lost = self._lost[connection.id] = _Lost(connection, connection.session, count, Reason.LOST)
        self._owe(lost)

    # -- records that must arrive -------------------------------------------------------------------------------------

    def too_large(self, connection: Connection, recv_ns: int, what: str, *, received: bool) -> None:
        """A message that the ring cannot take: said in-band and, once a minute, on stderr.

        `received`: we have it, and so does the recording: its replay comes to this by itself.
        """
        self.oversize += 1
        if received:
            record = _Lost(connection, connection.session, 1, Reason.OVERSIZE).record()
            self._control(record)
        else:
            self.lost(connection, recv_ns, 1, Reason.OVERSIZE)
        now = time.monotonic()
        if now >= self._say_oversize_s:
            self._say_oversize_s = now + SAY_AGAIN_S
            self._stage.say(
                f"{connection.label}: {what}; give a larger --ring-bytes (a message may have a quarter of it, "
                f"{self.writer.record_max_bytes} bytes now)"
            )

    def lost(self, connection: Connection | None, recv_ns: int, count: int, reason: Reason) -> None:
        """Data are missing that never came here. None: of any connection."""
        number, session = (NO_CONNECTION, 0) if connection is None else (connection.id, connection.session)
        scope = Scope.ALL if connection is None else Scope.CONNECTION
        self._control(_lost_record(number, session, count, scope, reason, recv_ns))
        if connection is not None:
            note = {"event": "lost", "count": count, "scope": scope.name.lower(), "reason": reason.name.lower()}
            self._note(connection.label, recv_ns, note)

    def answer(
        self,
        connection: Connection | None,
        recv_ns: int,
        request_id: int,
        kind: int,
        outcome: Outcome,
        symbol: str,
        detail: str,
    ) -> None:
        """What became of a request."""
        record = build(
            RecordType.ANSWER,
            {
                "request_id": request_id,
                "kind": kind,
                "outcome": int(outcome),
                "symbol": symbol.encode()[:63],
                "detail": detail.encode()[:63],
            },
            connection=NO_CONNECTION if connection is None else connection.id,
            session=0 if connection is None else connection.session,
            recv_ns=recv_ns,
            origin_ns=time.monotonic_ns(),
        )
        self._control(record)
        name = RequestKind(kind).name.lower() if kind in RequestKind.__members__.values() else str(kind)
        note = {"event": "answer", "id": request_id, "kind": name, "outcome": outcome.name.lower()}
        self._note(
            "" if connection is None else connection.label, recv_ns, {**note, "symbol": symbol, "detail": detail}
        )

    def _control(self, record: bytes) -> None:
        if self.waits:
            if not self.writer.write(record):
                self.wait_until(lambda: self.writer.write(record), len(record))
        elif (self._owed and not self.pay()) or not self.writer.write(record):
            self._lost.clear()  # what is dropped from here on is told after this record
            self._owe(record)

    def _owe(self, what: bytes | _Lost) -> None:
        self._owed.append(what)
        self._sink.owing = True

    def pay(self) -> bool:
        """Write what is owed, in order; False if not all of it found room.

        Not before an eighth of the ring is free: else each gap that a small record fits into would get its own LOST
        record with a count of one.
        """
        if self.writer.free_bytes < self._room_bytes:
            return False
        while self._owed:
            first = self._owed[0]
            if not self.writer.write(first if isinstance(first, bytes) else first.record()):
                return False
            self._owed.popleft()
            if isinstance(first, _Lost) and self._lost.get(first.connection.id) is first:
                del self._lost[first.connection.id]
        self._sink.owing = False
        return True

    def tick(self) -> None:
        """Now and then, also without data."""
        if self._owed:
            self.pay()

    def _note(self, label: str, ts_ns: int, fields: dict[str, Any], direction: str = "note") -> None:
        if self._recorder is not None:
            self._recorder.line({"ts_ns": ts_ns, "conn": label, "dir": direction, **fields})

    def declare(self, connection: Connection, venue: str) -> None:
        """Tell the recording which connection this is, so that a replay gives it the same id."""
        facts = {"url": connection.url, "symbols": connection.symbols, "session": connection.session}
        note = {"event": "connection", "connection": connection.id, "venue": venue, **facts}
        self._note(connection.label, time.time_ns(), note)


def _lost_record(connection: int, session: int, count: int, scope: Scope, reason: Reason, recv_ns: int) -> bytes:
    return build(
        RecordType.LOST,
        {"count": count, "scope": int(scope), "reason": int(reason)},
        connection=connection,
        session=session,
        recv_ns=recv_ns,
        origin_ns=time.monotonic_ns(),
    )
