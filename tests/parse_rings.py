"""A parser between two rings in anonymous memory, for tests: raw records in, event records out."""

from __future__ import annotations

import itertools
import os
from typing import Any

from lob import _native, venues
from lob.records import NO_CONNECTION, Record, RecordType, build, parse
from lob_parse.parser import parser_of, restore

_nonces = itertools.count(1)


def segment(capacity_bytes: int) -> _native.Segment:
    """An empty spsc ring without a name."""
    fd = os.memfd_create("ring")
    try:
        os.ftruncate(fd, _native.segment_bytes(capacity_bytes))
        _native.format_segment(fd, 1, 0, capacity_bytes, next(_nonces))
        return _native.Segment(fd, True)
    finally:
        os.close(fd)


class Bench:
    """`frame`, `http`, `sent`, `link` put raw records in; `events` runs the parser and takes out what came."""

    def __init__(self, venue: str, *, raw_bytes: int = 32 << 20, event_bytes: int = 32 << 20) -> None:
        self.venue = venues.load(venue)
        self._raw, self._out = segment(raw_bytes), segment(event_bytes)
        self.raw = _native.SpscWriter(self._raw)
        self.raw.take_over(os.getpid())
        self.reader = _native.SpscReader(self._out)
        self.manifest: list[dict[str, Any]] = []
        self.complaints: list[str] = []
        self.session = 1
        self._begin()

    def _begin(self) -> None:
        self.input = _native.SpscReader(self._raw)
        self.output = _native.SpscWriter(self._out)
        self.output.take_over(os.getpid())
        self.parser = parser_of(self.venue, self._changed, self.complaints.append)

    def _changed(self, raw_seq: int) -> None:
        self.manifest = self.parser.instruments()

    def restart(self) -> None:
        """As after a crash: the input is as far as it was released, the output as far as it was committed."""
        self._begin()
        restore(self.parser, self.manifest, self.output.raw_seq)
        self.parser.resume(self.output.raw_seq)

    def put(self, kind: RecordType, payload: bytes = b"", url: str = "", connection: int = 0, recv_ns: int = 7) -> None:
        origin_ns = _native.mono_ns()
        assert self.raw.write_raw(int(kind), connection, self.session, recv_ns, origin_ns, url.encode(), payload) == 0

    def frame(self, payload: bytes | str, connection: int = 0, recv_ns: int = 7) -> None:
        text = payload if isinstance(payload, bytes) else payload.encode()
        self.put(RecordType.RAW_FRAME, text, connection=connection, recv_ns=recv_ns)

    def http(self, url: str, payload: bytes | str, connection: int = NO_CONNECTION, recv_ns: int = 7) -> None:
        text = payload if isinstance(payload, bytes) else payload.encode()
        self.put(RecordType.RAW_HTTP, text, url, connection, recv_ns)

    def sent(self, payload: str, connection: int = 0) -> None:
        self.put(RecordType.RAW_SENT, payload.encode(), "wss://there", connection)

    def link(self, url: str, up: int = 1, connection: int = 0) -> None:
        record = build(RecordType.LINK, {"up": up}, url=url.encode(), connection=connection, session=self.session)
        assert self.raw.write(record)

    def run(self, budget_ms: int = 50) -> int:
        return self.parser.run(self.input, self.output, "yield", budget_ms, 0)

    def take(self) -> list[Record]:
        """Event records that are there now."""
        records = []
        while (record := self.reader.read()) is not None:
            records.append(parse(record))
        return records

    def events(self) -> list[Record]:
        """All events of all raw records that were put in."""
        records = []
        while True:
            self.run()
            fresh = self.take()
            records += fresh
            if not fresh and self.input.drained:
                return records
