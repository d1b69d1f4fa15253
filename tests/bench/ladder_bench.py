"""How fast the ladder takes levels, and the books whole messages: `python tests/bench/ladder_bench.py`.

Flow made by seed 7: 48 % removals, a tenth of the changes anywhere in the book, the others near the touch (geometric,
mean given), the touch walking. Both contenders must hold the same book before they are timed. CPU time of one thread,
median of 5 runs; what is not measured: cold caches, and the venue's own order of levels inside a message.
"""

from __future__ import annotations

import os
import secrets
import statistics
import time
from typing import Any

import numpy as np
from sortedcontainers import SortedDict

from lob import _native as rings
from lob.records import Flag, RecordType, build
from lob.rings import InputRing, OutputRing
from lob.segments import Kind, RingState
from lob_book import _native

RUNS = 5
MESSAGES, LEVELS = 4000, 20


def flow(levels: int, mean: float, count: int, seed: int = 7) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """(prices of the book at the start, prices, qtys) of a bid side."""
    rng = np.random.default_rng(seed)
    start = 6_000_000 - np.flatnonzero(rng.random(2 * levels) < 0.5)
    near = rng.geometric(1 / (2 * mean), count)
    distance = np.where(rng.random(count) < 0.9, near, rng.integers(0, 2 * levels, count))
    prices = 6_000_000 + np.cumsum(rng.normal(0, 0.05, count)).astype(np.int64) - distance
    qtys = np.where(rng.random(count) < 0.48, 0, rng.integers(1, 1000, count))
    return start, prices.astype(np.int64), qtys.astype(np.int64)


def ladder_row(levels: int, mean: float) -> str:
    start, prices, qtys = flow(levels, mean, 400_000)
    few = 40_000
    plain: SortedDict[int, int] = SortedDict({int(p): 1 for p in start})
    begin = time.thread_time_ns()
    for price, qty in zip(prices[:few].tolist(), qtys[:few].tolist(), strict=True):
        if qty:
            plain[price] = qty
        else:
            plain.pop(price, None)
    plain_ns = (time.thread_time_ns() - begin) / few
    pairs = [(int(p), 1) for p in start]
    ladder = _native.Ladder("bid")
    ladder.assign(pairs)
    before = np.empty_like(prices)
    ladder.set_all(prices[:few], qtys[:few], before[:few])
    assert ladder.levels() == list(reversed(plain.items()))
    times = []
    for _ in range(RUNS):
        ladder.assign(pairs)
        begin = time.thread_time_ns()
        ladder.set_all(prices, qtys, before)
        times.append((time.thread_time_ns() - begin) / len(prices))
    native_ns = statistics.median(times)
    speed, ratio = 1e3 / native_ns, plain_ns / native_ns
    return f"{levels:>8}{mean:>8.0f}{plain_ns:>12.0f}{native_ns:>12.1f}{speed:>10.1f}{ratio:>8.1f}"


def messages_row(with_board: bool, per_message: int) -> str:
    """The whole way of a diff: event ring -> book -> book ring, and board."""
    _, prices, qtys = flow(2000, 50, MESSAGES * per_message)
    times = []
    for _ in range(RUNS):
        stem = f"/lob.bench-{os.getpid()}-{secrets.token_hex(3)}"
        events = OutputRing(f"{stem}.events", Kind.SPSC, policy="wait", capacity_bytes=1 << 24)
        book = OutputRing(f"{stem}.book", Kind.BROADCAST, policy="drop", capacity_bytes=1 << 23)
        slots = OutputRing(f"{stem}.board", Kind.BOARD, board_slots=1, board_depth=20)
        source = InputRing(events.name, "bench")
        try:
            assert isinstance(source.reader, rings.SpscReader)
            assert isinstance(book.writer, rings.BroadcastWriter)
            head: dict[str, Any] = {"instrument": 0, "version": 1, "connection": 0, "session": 1}
            events.writer.write(build(RecordType.INSTRUMENT, {"symbol": b"X", "joins": 1, "rule": 1}, **head))
            asks = [(6_100_000 + i, 1) for i in range(2000)]
            numbers = {"first_seq": 1, "last_seq": 1, "rule": 1}
            bids = [(6_000_000 - 2 * i, 1) for i in range(2000)]
            events.writer.write(
                build(RecordType.SNAPSHOT, numbers, bids=bids, asks=asks, flags=int(Flag.ASKED), **head)
            )
            for n in range(MESSAGES):
                part = slice(n * per_message, (n + 1) * per_message)
                levels = list(zip(prices[part].tolist(), qtys[part].tolist(), strict=True))
                numbers = {"first_seq": n + 2, "last_seq": n + 2, "rule": 1}
                events.writer.write(build(RecordType.DIFF, numbers, bids=levels, **head))
            books = _native.Books(asks=False)
            board = rings.Board(slots.segment) if with_board else None
            pump = _native.Pump(books, source.reader, book.writer, board, None, "records", "spin")
            begin = time.thread_time_ns()
            done = 0
            while done < MESSAGES + 2:
                done += pump.run(1)[0]
            times.append((time.thread_time_ns() - begin) / MESSAGES)
            described = books.describe_one(0)
            assert described is not None and described["updates"] == MESSAGES
        finally:
            source.close()
            for ring in (events, book, slots):
                ring.close(RingState.CLOSED, remove=True)
    ns = statistics.median(times)
    each_ns = ns / per_message
    return f"{per_message:>8}{'yes' if with_board else 'no':>8}{ns:>12.0f}{each_ns:>12.1f}{1e3 / each_ns:>10.1f}"


def main() -> None:
    print(f"ladder, seed 7, 400000 changes, median of {RUNS}")
    print(f"{'levels':>8}{'near':>8}{'plain_ns':>12}{'native_ns':>12}{'M/s':>10}{'ratio':>8}")
    for levels, mean in [(1000, 10), (1000, 50), (5000, 50), (27000, 50), (27000, 300)]:
        print(ladder_row(levels, mean))
    print(f"\nmessages through the pump, {MESSAGES} diffs, median of {RUNS}")
    print(f"{'levels':>8}{'board':>8}{'ns/message':>12}{'ns/level':>12}{'M/s':>10}")
    for per_message in (2, LEVELS):
        for board in (False, True):
            print(messages_row(board, per_message))


if __name__ == "__main__":
    main()
