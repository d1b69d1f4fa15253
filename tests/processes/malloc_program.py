"""How often parse, book, publish and ring code allocates in the steady state; test_no_malloc.py preloads a counter.

`python malloc_program.py VENUE RECORDING MESSAGES COUNTER.so` replays the recording's market data again and again
through the native parts on real rings. Prints as JSON: messages, records in the book ring, allocations of the warm-up,
of all later passes, and of a thousand calls without anything to do.
"""

from __future__ import annotations

import ctypes
import json
import os
import sys
from pathlib import Path

from lob import _native, recording, venues
from lob.records import RecordType
from lob.rings import InputRing, OutputRing
from lob.segments import Kind, RingState
from lob_book import _native as book_native
from lob_parse.parser import parser_of
from lob_publish import _native as publish_native
from pipeline import unique_instance


def main(venue: str, path: Path, most: int, counter: str) -> None:
    mallocs = ctypes.CDLL(counter).mallocs
    mallocs.restype = ctypes.c_long
    texts = [recording.payload(line) for line in recording.read(path) if line.get("dir") == "in"]
    # What the venue answers to our own requests is left out: Python's business (and it allocates).
    market = [text for text in texts if text.startswith((b'{"channel":"book"', b'{"channel":"trade"'))]
    instance = unique_instance("malloc")
    manifest = {"venue": venue, "source": "replay", "policy": "wait"}
    raw = OutputRing(f"/lob.{instance}.raw", Kind.SPSC, policy="wait", capacity_bytes=1 << 22, manifest=manifest)
    events = OutputRing(f"/lob.{instance}.events", Kind.SPSC, policy="wait", capacity_bytes=1 << 22, manifest=manifest)
    book = OutputRing(f"/lob.{instance}.book", Kind.BROADCAST, policy="drop", capacity_bytes=1 << 22, manifest=manifest)
    board = OutputRing(f"/lob.{instance}.board", Kind.BOARD, board_slots=16, board_depth=10)
    rings = [raw, events, book, board]
    try:
        raw_in, events_in = InputRing(raw.name, "parse"), InputRing(events.name, "book")
        parser = parser_of(venues.load(venue), lambda _: None)
        books = book_native.Books(board_depth=10, asks=False, refresh_ns=0)
        pump = book_native.Pump(
            books, events_in.reader, book.writer, _native.Board(board.segment), None, clock="records", wait="yield"
        )

        publish = publish_native.Pump(InputRing(book.name, "publish").reader)
        public = OutputRing(f"/lob.{instance}.public", Kind.BROADCAST, policy="drop", capacity_bytes=1 << 22)
        texts_out = [publish_native.TextSink(os.open(os.devnull, os.O_WRONLY)) for _ in range(2)]
        rings.append(public)
        publish.add_ring(public.writer, 0)
        for sink in texts_out:
            sink.set_waits(True)
            publish.add_text(sink)

        def work() -> int:
            """Parse, book and publish what lies in the raw ring; the allocations of that, also of writing threads."""
            before = mallocs()
            parser.run(raw_in.reader, events.writer, "yield", 1000, 0)
            pump.run(0)
            pump.run(0)
            while not publish.drained:
                publish.run("yield", 0)
            return int(mallocs() - before)

        def replay(messages: list[bytes]) -> int:
            allocated = 0
            for first in range(0, len(messages), 64):
                for text in messages[first : first + 64]:
                    assert raw.writer.write_raw(int(RecordType.RAW_FRAME), 0, 1, 1, _native.mono_ns(), b"", text) == 0
                while not raw_in.reader.drained or not events_in.reader.drained:
                    allocated += work()
            return allocated

        warm_up = replay(texts) + replay(market)
        passes = -(-most // len(market))
        steady = sum(replay(market) for _ in range(passes))
        idle = sum(work() for _ in range(1000))
        for sink in texts_out:
            sink.finish()
            assert sink.wait_written(10_000)
        print(
            json.dumps(
                {
                    "lines": [sink.counts()[0] for sink in texts_out],
                    "messages": passes * len(market),
                    "records": int(book.segment.facts()["records"]),
                    "warm_up": warm_up,
                    "steady": steady,
                    "idle": idle,
                }
            )
        )
    finally:
        for ring in rings:
            ring.close(RingState.CLOSED, remove=True)


if __name__ == "__main__":
    main(sys.argv[1], Path(sys.argv[2]), int(sys.argv[3]), sys.argv[4])
