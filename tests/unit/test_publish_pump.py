"""lob-publish's pump on a ring of this process."""

from __future__ import annotations

from book_stream import BookStream, made_ring, unique_instance
from lob import _native
from lob.records import RecordType, build
from lob.rings import InputRing
from lob_publish._native import Pump


def test_time_is_looked_at_after_each_record_that_is_large() -> None:
    side = [(10**6 + n, 1 + n) for n in range(40_000)]
    with made_ring(unique_instance(), capacity_bytes=1 << 24) as ring:
        source = InputRing(ring.name, "test")
        assert isinstance(source.reader, _native.BroadcastReader)
        pump = Pump(source.reader)
        BookStream(ring.writer.write, seed=1, instruments=1).begin()
        while not pump.drained:
            pump.run("block", 50, 0)
        before = pump.records
        for n in range(4):
            sides = {"bids": side[::-1], "asks": side}
            assert ring.writer.write(build(RecordType.SNAPSHOT, {"last_seq": n}, **sides, instrument=0, version=1))
        for n in range(1, 5):
            assert pump.run("block", 0, 0) == "time" and pump.records == before + n
