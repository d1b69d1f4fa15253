"""Board, subscription and summary say the same of a book: the three ways to read one, through the real processes.

Their `last_seq` is the newest update that each has seen: the board is written when one of its levels changes, a diff
goes out when any level changes, and the summary counts them all.
"""

from __future__ import annotations

import json
import signal
import time
from pathlib import Path
from typing import Any

import pytest

import lob
from exchange.running import running
from pipeline import REPOSITORY, Pipeline, pipeline, wait_for

RECORDINGS = REPOSITORY / "tests" / "recordings"
DEPTH = 10
QUIET_S = 0.5

Told = tuple[str, list[list[str]], list[list[str]]]  # state, bids, asks; best first


class Subscriber:
    """A SortedBook, fed from the public ring."""

    def __init__(self, stages: Pipeline, start: Any) -> None:
        self.books = lob.SortedBook()
        self._subscription = lob.subscribe(f"shm:/lob.{stages.instance}.public", start=start, timeout_s=10)

    def read(self, quiet_s: float = 0.0) -> None:
        """All that comes, until nothing has come for so long."""
        while (record := self._subscription.poll(quiet_s)) is not None:
            self.books.apply(record)

    def told(self, symbol: str) -> Told:
        book = self.books[symbol]
        return (book.state.name.lower(), *_lists(*book.top(DEPTH)))


def board_told(board: lob.Board, symbol: str) -> Told:
    top = board.top(symbol, DEPTH)
    return (top.state.name.lower(), *_lists(top.bid_texts(), top.ask_texts()))


def summary_told(stages: Pipeline, symbol: str) -> Told:
    book = json.loads((stages.logs / "summary.json").read_bytes())["instruments"][symbol]
    return book["state"], book["bids"], book["asks"]


def _lists(*sides: list[tuple[str, str]]) -> tuple[list[list[str]], ...]:
    return tuple([list(level) for level in side] for side in sides)


def stop_book(stages: Pipeline) -> None:
    stages.signal("book", signal.SIGTERM)
    assert stages.processes["book"].wait(10) == 0, stages.stderr("book")


def options(connect: list[str], logs: Path) -> dict[str, list[str]]:
    return {"connect": connect, "book": ["--summary", str(logs / "summary.json")], "publish": ["--to", "shm:"]}


@pytest.mark.parametrize("venue", ["binance", "binance-usdm", "coinbase", "kraken"])
def test_three_readers_of_a_shipped_recording_see_the_true_top(venue: str, tmp_path: Path) -> None:
    recording = RECORDINGS / f"{venue}-seed7.jsonl.gz"
    truth = json.loads((RECORDINGS / f"{venue}-seed7.truth.json").read_bytes())["symbols"]
    with pipeline(options([venue, "--replay", str(recording)], tmp_path), tmp_path, named=True) as stages:
        subscriber = Subscriber(stages, "oldest")
        assert stages.processes["connect"].wait(30) == 0, stages.stderr("connect")
        subscriber.read(QUIET_S)
        board = lob.Board(stages.instance)
        from_board = {symbol: board_told(board, symbol) for symbol in board.symbols()}
        stop_book(stages)
    assert from_board.keys() == truth.keys() == set(subscriber.books)
    for symbol, expected in truth.items():
        assert from_board[symbol] == ("live", expected["bids_top10"], expected["asks_top10"]), symbol
        assert subscriber.told(symbol) == from_board[symbol] == summary_told(stages, symbol)


def test_three_readers_of_a_live_run_see_the_true_top_at_a_paused_moment(tmp_path: Path) -> None:
    symbols = ["BTCUSDT", "ETHUSDT"]
    with running("--seed", "12", "--rate", "400") as venue:
        connect = ["binance", *symbols, "--url", venue.ws, "--rest-url", venue.rest]
        with pipeline(options(connect, tmp_path), tmp_path, named=True) as stages:
            first = Subscriber(stages, "oldest")

            def live(*subscribers: Subscriber) -> bool:
                for subscriber in subscribers:
                    subscriber.read()
                return all(
                    s.books[symbol].whole if symbol in s.books else False for s in subscribers for symbol in symbols
                )

            wait_for(lambda: live(first), 15, "live books")
            time.sleep(0.5)  # some trade
            venue.get("control/pause")
            first.read(QUIET_S)  # what was due has arrived
            late = Subscriber(stages, "oldest")
            late.read(QUIET_S)
            board = lob.Board(stages.instance)
            from_board = {symbol: board_told(board, symbol) for symbol in symbols}
            truth = {symbol: venue.get("truth/book", symbol=symbol, depth=DEPTH) for symbol in symbols}
            stop_book(stages)
        for symbol in symbols:
            expected = ("live", truth[symbol]["bids"], truth[symbol]["asks"])
            assert from_board[symbol] == expected
            assert first.told(symbol) == late.told(symbol) == expected
            assert summary_told(stages, symbol) == expected
