"""Decode and book, raw ring to book ring, on one core: level updates a second, against plain Python in the same run.

Usage: python tests/bench/book_bench.py        (prints one JSON object a row; `make bench` makes the table)

The native part is what lob-parse and lob-book run, on real rings, in one process one after the other; ring writing
and the board are in the figure, waiting and lob-connect are not. The books are compared before anything is timed.
"""

from __future__ import annotations

import os
import sys
import time
from decimal import Decimal
from pathlib import Path
from typing import Any

import numpy as np
import orjson

sys.path.insert(0, str(Path(__file__).parents[1]))

from bench.flow import SNAPSHOT, SNAPSHOT_URL, PlainBook, depth_updates, levels_of, recorded
from bench.rows import best, row
from lob import _native, venues
from lob.records import RecordType
from lob.rings import InputRing, OutputRing
from lob.segments import Kind, RingState
from lob_book import _native as book_native
from lob_parse.parser import parser_of
from pipeline import data_folder, unique_instance

RING_BYTES = 64 << 20
REPEATS = 5


class Chain:
    """lob-parse's and lob-book's native parts on real rings, driven by hand."""

    def __init__(self, venue: str, board_depth: int | None = 10) -> None:
        instance = unique_instance("bench")
        manifest = {"venue": venue, "source": "replay", "policy": "wait"}
        made: list[OutputRing] = []

        def ring(what: str, kind: Kind, policy: Any) -> OutputRing:
            made.append(
                OutputRing(f"/lob.{instance}.{what}", kind, policy=policy, capacity_bytes=RING_BYTES, manifest=manifest)
            )
            return made[-1]

        self.raw = ring("raw", Kind.SPSC, "wait")
        self.events = ring("events", Kind.SPSC, "wait")
        self.book = ring("book", Kind.BROADCAST, "drop")
        self.rings = made
        self.raw_in = InputRing(self.raw.name, "parse")
        self.events_in = InputRing(self.events.name, "book")
        self.board = None
        if board_depth is not None:
            board = OutputRing(f"/lob.{instance}.board", Kind.BOARD, board_slots=16, board_depth=board_depth)
            made.append(board)
            self.board = _native.Board(board.segment)
        self.parser = parser_of(venues.load(venue), lambda _: None)
        self.books = book_native.Books(board_depth=board_depth or 1, asks=False, refresh_ns=0)
        self.pump = book_native.Pump(
            self.books, self.events_in.reader, self.book.writer, self.board, None, clock="records", wait="yield"
        )

    def put(self, kind: RecordType, url: bytes, text: bytes) -> None:
        written = self.raw.writer.write_raw(int(kind), 0, 1, 1, _native.mono_ns(), url, text)
        assert written == 0, written

    def parse(self) -> int:
        """ns to decode what lies in the raw ring."""
        start = time.perf_counter_ns()
        while not self.raw_in.reader.drained:
            self.parser.run(self.raw_in.reader, self.events.writer, "yield", 1000, 0)
        return time.perf_counter_ns() - start

    def apply(self) -> int:
        """ns to bring what lies in the event ring into the books."""
        start = time.perf_counter_ns()
        while not self.events_in.reader.drained:
            self.pump.run(0)
        return time.perf_counter_ns() - start

    def top(self, n: int) -> tuple[list[tuple[Decimal, Decimal]], list[tuple[Decimal, Decimal]]]:
        (book,) = self.books.describe(n)
        price, qty = Decimal(10) ** -book["price_scale"], Decimal(10) ** -book["qty_scale"]
        return (
            [(p * price, q * qty) for p, q in book["bids"]],
            [(p * price, q * qty) for p, q in book["asks"]],
        )

    def close(self) -> None:
        for ring in self.rings:
            ring.close(RingState.CLOSED, remove=True)


def native_ns(lines: list[tuple[str, bytes, bytes]], board_depth: int | None = 10) -> tuple[int, int, Chain]:
    """(ns decoding, ns booking, the chain at the end) of a run over all lines."""
    chain = Chain("binance-usdm" if any(b'"pu"' in text[:400] for _, _, text in lines[:50]) else "binance", board_depth)
    decode = book = 0
    pending = 0
    for way, url, text in lines:
        chain.put(RecordType.RAW_HTTP if way == "http" else RecordType.RAW_FRAME, url, text)
        pending += len(text) + 256
        if pending > RING_BYTES // 8:
            decode, book, pending = decode + chain.parse(), book + chain.apply(), 0
    return decode + chain.parse(), book + chain.apply(), chain


def measure(name: str, lines: list[tuple[str, bytes, bytes]]) -> None:
    """All rows of one flow: the answer first, then the time."""
    frames = [text for way, _, text in lines if way == "in" and b'"depthUpdate"' in text[:120]]
    count = sum(map(levels_of, frames))

    plain = PlainBook()
    started, buffered = False, []

    def plainly() -> float:
        nonlocal plain, started, buffered
        plain, started, buffered = PlainBook(), False, []
        start = time.perf_counter_ns()
        for way, url, text in lines:
            if way == "http" and b"/depth?" in url and not started:
                plain.snapshot(text)
                last = orjson.loads(text)["lastUpdateId"]
                started = True
                for held in buffered:
                    if orjson.loads(held).get("data", orjson.loads(held))["u"] > last:
                        plain.apply(held)
            elif b'"depthUpdate"' in text[:120]:
                if started:
                    plain.apply(text)
                else:
                    buffered.append(text)
        return float(time.perf_counter_ns() - start)

    plain_ns = best(plainly, 2)
    decode, book, chain = native_ns(lines)
    assert chain.top(10) == plain.top(10), f"{name}: the books differ"
    chain.close()

    totals, decodes, tops = [], [], []
    for _ in range(REPEATS):
        decode, book, chain = native_ns(lines)
        chain.close()
        totals.append(decode + book)
        decodes.append(decode)
        _, without, chain = native_ns(lines, board_depth=None)
        chain.close()
        tops.append((book, without))
    loads_ns = best(lambda: float(loads(lines)), REPEATS)
    total, decode = min(totals), min(decodes)
    row(f"decode+book, {name}", count / total * 1e3, "M level updates/s", plain_ns / total, "orjson + sortedcontainers")
    row(f"decode alone, {name}", decode / len(lines), "ns/message", loads_ns / decode, "orjson.loads")
    with_board, without = min(t[0] for t in tops), min(t[1] for t in tops)
    row(f"best 10 to the board after every message, {name}", (with_board / without - 1) * 100, "% of book time")


def loads(lines: list[tuple[str, bytes, bytes]]) -> int:
    start = time.perf_counter_ns()
    for _, _, text in lines:
        orjson.loads(text)
    return time.perf_counter_ns() - start


def latency(name: str, lines: list[tuple[str, bytes, bytes]]) -> None:
    """Latency of single messages by size class, ring to ring, called from Python (about 1 us of that is the calls)."""
    chain = Chain("binance-usdm" if any(b'"pu"' in text[:400] for _, _, text in lines[:50]) else "binance")
    sizes = (2, 20, 100, 400, 1 << 30)
    taken: dict[int, list[int]] = {size: [] for size in sizes}
    for way, url, text in lines:
        chain.put(RecordType.RAW_HTTP if way == "http" else RecordType.RAW_FRAME, url, text)
        ns = chain.parse() + chain.apply()
        levels = levels_of(text) if way == "in" else 0
        if levels:
            taken[next(size for size in sizes if levels <= size)].append(ns)
    chain.close()
    for size, values in taken.items():
        if len(values) < 20:
            continue
        p50, p99 = np.percentile(values, [50, 99])
        about = f"parse+book of a message of up to {size} levels" if size < sizes[-1] else "parse+book of a larger one"
        row(f"{about} ({len(values)}), {name}, p50", p50 / 1e3, "us")
        row(f"{about} ({len(values)}), {name}, p99", p99 / 1e3, "us")


def main() -> None:
    if hasattr(os, "sched_setaffinity"):
        os.sched_setaffinity(0, {sorted(os.sched_getaffinity(0))[-1]})
    data = data_folder()
    if data is not None:
        for name in ("binance-spot-6", "binance-usdm-4"):
            lines = recorded(data / "recordings" / f"{name}.jsonl.gz")
            depth_only = [line for line in lines if line[0] == "http" or b'"depthUpdate"' in line[2][:120]]
            measure(f"recording {name}, depth messages", depth_only)
            latency(f"recording {name}", depth_only)
    for levels, count in ((2, 40_000), (20, 10_000), (200, 1_500)):
        frames = depth_updates(levels, count)
        lines = [("in", b"", frame) for frame in frames]
        lines.insert(1, ("http", SNAPSHOT_URL, SNAPSHOT))
        measure(f"generated, {levels} levels a message", lines)


if __name__ == "__main__":
    main()
