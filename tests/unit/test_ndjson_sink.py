"""The end of the NDJSON sink: what a reader that takes nothing costs."""

from __future__ import annotations

import os
import time
from pathlib import Path

import pytest

from book_stream import BookStream, made_ring, unique_instance
from lob import _native
from lob.memory import AS_IT_COMES
from lob.rings import InputRing
from lob_publish._native import Pump
from lob_publish.sinks import Place, SinkFailed, ndjson


def test_reader_that_takes_nothing_is_given_up_once(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(ndjson, "PATIENCE_S", 0.5)
    path = tmp_path / "fifo"
    os.mkfifo(path)
    reader = os.open(path, os.O_RDWR | os.O_NONBLOCK)
    with os.fdopen(reader, "rb", buffering=0) as fifo, made_ring(unique_instance()) as ring:
        source = InputRing(ring.name, "test")
        assert isinstance(source.reader, _native.BroadcastReader)
        pump = Pump(source.reader)
        sink = ndjson.NdjsonSink(f"ndjson:{path}", str(path))
        sink.open(Place("test", True, 4096, None, AS_IT_COMES))
        sink.join(pump, source)
        made = BookStream(ring.writer.write, seed=1, instruments=1)
        made.begin()
        for _ in range(1000):
            made.step()
        while not pump.drained:
            pump.run("block", 50, 0)
        start_s = time.monotonic()
        with pytest.raises(SinkFailed, match="takes nothing"):
            sink.flush()
        sink.close(ended=False)
        assert 0.5 <= time.monotonic() - start_s < 0.9
        assert 0 < sink.counts.bytes < 1 << 17
        while fifo.read(1 << 16):  # its thread ends
            time.sleep(0.01)
