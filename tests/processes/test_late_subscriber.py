"""A late or lapped subscriber rebuilds exactly the full-depth book of one that was there from the start.

Across a change of scale (finer digits arrive) and a restart of lob-book; the real processes on the simulated venue.
"""

from __future__ import annotations

import json
import signal
import time
from pathlib import Path

import pytest

import lob
from exchange.running import Running, running
from lob.subscription import Start
from pipeline import pipeline, wait_for

SYMBOLS = ["BTCUSDT", "ETHUSDT"]


class Subscriber:
    """A SortedBook fed from the public ring, up to a given record."""

    def __init__(self, uri: str, start: Start) -> None:
        self.subscription = lob.subscribe(uri, start=start, timeout_s=10)
        self.books = lob.SortedBook()
        self.epoch_seq = (0, 0)
        self.versions: set[tuple[str, int]] = set()

    def read_to(self, target: tuple[int, int] | None, timeout_s: float = 10.0) -> None:
        """Apply records up to (epoch, ring_seq) `target`; None: what is there now."""
        deadline = time.monotonic() + timeout_s
        while target is None or self.epoch_seq < target:
            record = self.subscription.poll(0.0 if target is None else 0.2)
            if record is None:
                if target is None:
                    return
                assert time.monotonic() < deadline, f"no record {target}, only {self.epoch_seq}"
                continue
            book = self.books.apply(record)
            if book is not None:
                self.versions.add((book.symbol, book.version))
            if record.header["ring_seq"]:
                self.epoch_seq = (int(record.header["epoch"]), int(record.header["ring_seq"]))


def assert_equal_books(one: Subscriber, other: Subscriber) -> int:
    """Compares all whole books of `other` at full depth; how many."""
    assert one.epoch_seq == other.epoch_seq
    compared = 0
    for symbol in other.books:
        ours, theirs = one.books[symbol], other.books[symbol]
        if not theirs.whole:
            continue
        assert ours.whole
        assert (ours.state, ours.last_seq, ours.version) == (theirs.state, theirs.last_seq, theirs.version)
        assert ours.top() == theirs.top(), symbol
        compared += 1
    return compared


def inject_finer_digits(venue: Running, symbol: str) -> None:
    """One diff of the venue with more decimals than any before it, its numbers unbroken."""
    venue.get("control/pause", symbol=symbol)
    time.sleep(0.25)  # what was due has been sent
    last = venue.get("truth/last", symbol=symbol)["id"]
    data = {
        "e": "depthUpdate",
        "E": int(time.time() * 1000),
        "s": symbol,
        "U": last + 1,
        "u": last + 1,
        "b": [["1.01234567", "0.12345678"]],
        "a": [],
    }
    text = json.dumps({"stream": f"{symbol.lower()}@depth@100ms", "data": data}, separators=(",", ":"))
    venue.get("control/garbage", text=text)
    venue.get("control/step", n=20, symbol=symbol)
    venue.get("control/resume", symbol=symbol)


@pytest.mark.slow
@pytest.mark.timeout(120)
def test_late_subscribers_equal_the_first_across_a_scale_change_and_a_restart_of_lob_book(tmp_path: Path) -> None:
    with running("--seed", "9", "--rate", "150", "--symbols", ",".join(SYMBOLS)) as venue:
        options = {
            "connect": ["binance", *SYMBOLS, "--url", venue.ws, "--rest-url", venue.rest],
            "book": ["--refresh", "1"],
            "publish": ["--to", "shm:"],
        }
        with pipeline(options, tmp_path, named=True) as stages:
            uri = f"shm:/lob.{stages.instance}.public"
            first = Subscriber(uri, "oldest")

            def all_live(subscriber: Subscriber) -> bool:
                subscriber.read_to(None)
                books = subscriber.books
                return len(books) == 2 and all(books[symbol].state == lob.BookState.LIVE for symbol in SYMBOLS)

            wait_for(lambda: all_live(first), 15, "live books")
            late = Subscriber(uri, "newest")
            wait_for(lambda: all_live(late), 10, "the late one is whole")
            assert sum(versions[0] == "BTCUSDT" for versions in first.versions) >= 1

            def compare(*others: Subscriber) -> None:
                first.read_to(None)
                for other in others:
                    other.read_to(first.epoch_seq)
                    while other.epoch_seq > first.epoch_seq:
                        first.read_to(other.epoch_seq)
                    assert assert_equal_books(first, other) == 2

            compare(late)
            before = {version for symbol, version in first.versions if symbol == "BTCUSDT"}
            inject_finer_digits(venue, "BTCUSDT")
            wait_for(lambda: all_live(first) and first.books["BTCUSDT"].version > max(before), 10, "a new version")
            assert first.books["BTCUSDT"].qty_scale == 8
            after_change = Subscriber(uri, "newest")
            wait_for(lambda: all_live(after_change), 10, "whole after the change of scale")
            compare(late, after_change)

            stages.signal("book", signal.SIGKILL)
            stages.processes["book"].wait(5)
            stages.start("book")
            wait_for(lambda: not all_live(first), 5, "first is told that the book was restarted")
            wait_for(lambda: all_live(first), 10, "live after the restart")
            wait_for(lambda: all_live(late) and all_live(after_change), 10, "the others too")
            after_restart = Subscriber(uri, "newest")
            wait_for(lambda: all_live(after_restart), 10, "whole after the restart")
            compare(late, after_change, after_restart)
            venue.get("control/pause")
            time.sleep(0.5)
            compare(late, after_change, after_restart)
            for symbol in SYMBOLS:
                told = first.books[symbol].top(20)
                truth = venue.get("truth/book", symbol=symbol, id=first.books[symbol].last_seq, depth=20)
                assert [list(map(list, side)) for side in told] == [truth["bids"], truth["asks"]]
