"""Kill, stop and end each stage in turn, at Binance (numbered) and Kraken (not numbered), joined by pipes and by name.

Somebody watches the board all the time, as a strategy would: `stale` within a second, never a wrong level under `live`,
`live` again within ten seconds.
"""

from __future__ import annotations

import contextlib
import json
import signal
import threading
import time
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest

import lob
from exchange.running import Running, running
from lob.errors import RingError
from lob.names import list_rings
from lob.records import BookState
from pipeline import STAGES, Pipeline, pipeline, wait_for

STALE_WITHIN_S = 1.0
LIVE_WITHIN_S = 10.0

VENUES = {
    "binance": ("BTCUSDT", ["BTCUSDT", "ETHUSDT"], lambda v: ["--url", v.ws, "--rest-url", v.rest]),
    "kraken": ("BTC/USD", ["BTC/USD", "ETH/USD"], lambda v: ["--url", v.kraken_ws, "--rest-url", v.rest]),
}


@dataclass(frozen=True)
class Sight:
    """What a reader of the board saw at a moment."""

    at: float
    state: BookState
    last_seq: int
    bids: tuple[tuple[str, str], ...]
    asks: tuple[tuple[str, str], ...]


class Watcher(threading.Thread):
    """Looks at one book every few ms, as a strategy would; keeps each change of state and a sight now and then."""

    def __init__(self, instance: str, symbol: str) -> None:
        super().__init__(daemon=True)
        self.instance, self.symbol = instance, symbol
        self.state: BookState | None = None
        self.changes: list[tuple[float, BookState]] = []
        self.sights: list[Sight] = []
        self.stopped = threading.Event()
        self.error: BaseException | None = None

    def look(self) -> Sight | None:
        """What a reader sees now; None: nothing that could be taken for a book."""
        raise NotImplementedError

    def run(self) -> None:
        next_sight = 0.0
        try:
            while not self.stopped.wait(0.005):
                sight = self.look()
                now = time.monotonic()
                state = BookState.CLOSED if sight is None else sight.state
                if state != self.state:
                    self.state = state
                    self.changes.append((now, state))
                    next_sight = 0.0
                if sight is not None and state is BookState.LIVE and now >= next_sight:
                    next_sight = now + 0.05
                    self.sights.append(sight)
        except BaseException as error:
            self.error = error
            raise

    def first(self, after: float, want: set[BookState]) -> float | None:
        """When it first was in one of these states after that moment (or was in it then already)."""
        before = [state for at, state in self.changes if at <= after]
        if before and before[-1] in want:
            return after
        return next((at for at, state in self.changes if at > after and state in want), None)


class BoardWatcher(Watcher):
    """Reads the board."""

    board: lob.Board | None = None

    def look(self) -> Sight | None:
        try:
            self.board = self.board or lob.Board(self.instance)
            top = self.board.top(self.symbol, 5)
        except (RingError, lob.NoSuchSymbol):
            self.board = None
            return None
        bids, asks = tuple(top.bid_texts()), tuple(top.ask_texts())
        return Sight(time.monotonic(), BookState(top.state), top.last_seq, bids, asks)


class RingWatcher(Watcher):
    """Rebuilds the book from the public ring."""

    subscription: lob.Subscription | None = None
    books: lob.SortedBook

    def look(self) -> Sight | None:
        try:
            if self.subscription is None:
                self.subscription = lob.subscribe(f"shm:/lob.{self.instance}.public")
                self.books = lob.SortedBook()
            while (record := self.subscription.poll()) is not None:
                self.books.apply(record)
        except RingError:
            self.subscription = None
            return None
        if self.symbol not in self.books:
            return None
        book = self.books[self.symbol]
        bids, asks = (tuple(side) for side in book.top(5))
        state = BookState.STALE if self.subscription.silent else book.state
        return Sight(time.monotonic(), state, book.last_seq, bids, asks)


def check_truth(venue: Running, name: str, symbol: str, sights: list[Sight]) -> int:
    """Every sight of a live book is a state that the venue's own book had; how many were compared."""
    compared = 0
    for sight in sights:
        if len(sight.bids) < 5 or len(sight.asks) < 5:
            continue
        if name == "binance":
            truth = venue.get("truth/book", symbol=symbol, id=sight.last_seq, depth=5)
            told = [list(map(list, side)) for side in (sight.bids, sight.asks)]
            assert [truth["bids"], truth["asks"]] == told, f"wrong levels under live at id {sight.last_seq}"
        else:
            top = json.dumps({"bids": sight.bids, "asks": sight.asks})
            assert venue.get("truth/contains", symbol=symbol, top=top)["found"], f"the venue never had this top: {top}"
        compared += 1
    return compared


def not_live() -> set[BookState]:
    return {state for state in BookState if state is not BookState.LIVE}


@pytest.fixture(scope="module")
def venue() -> Any:
    with running("--seed", "5", "--rate", "200", "--symbols", "BTCUSDT,ETHUSDT") as started:
        yield started


class Watched:
    """A pipeline with both kinds of readers beside it."""

    def __init__(self, stages: Pipeline, symbol: str) -> None:
        self.stages = stages
        self.board, self.ring = BoardWatcher(stages.instance, symbol), RingWatcher(stages.instance, symbol)
        self.watchers: list[Watcher] = [self.board, self.ring]
        for watcher in self.watchers:
            watcher.start()

    def all_live(self) -> bool:
        assert [watcher.error for watcher in self.watchers] == [None, None]
        return all(watcher.state is BookState.LIVE for watcher in self.watchers)

    def fault(self, stage: str, how: signal.Signals) -> None:
        """Send the signal; the readers that hang on that stage must see it within a second."""
        told = f"{how.name} of lob-{stage}"
        at = time.monotonic()
        self.stages.signal(stage, how)
        for watcher in [self.ring] if stage == "publish" else self.watchers:  # the board does not hang on lob-publish
            patience_s = STALE_WITHIN_S + 0.3
            wait_for(lambda w=watcher: w.first(at, not_live()) is not None, patience_s, f"{told}: {watcher} stale")
            stale_at = watcher.first(at, not_live())
            assert stale_at is not None and stale_at - at < STALE_WITHIN_S, (told, watcher)

    def stop(self) -> None:
        for watcher in self.watchers:
            watcher.stopped.set()
        for watcher in self.watchers:
            watcher.join()


@contextlib.contextmanager
def watched(name: str, venue: Running, logs: Path, *, named: bool) -> Iterator[Watched]:
    symbol, symbols, urls = VENUES[name]
    options = {
        "connect": [name, *symbols, *urls(venue)],
        "publish": ["--to", f"ndjson:{logs / 'out.ndjson'}", "--to", "shm:"],
        "book": ["--refresh", "1"],
    }
    with pipeline(options, logs, named=named) as stages:
        running_now = Watched(stages, symbol)
        try:
            wait_for(running_now.all_live, 15, "the first live book")
            time.sleep(0.5)  # some sights of live books to compare
            yield running_now
        finally:
            running_now.stop()
    for watcher in running_now.watchers:
        assert check_truth(venue, name, symbol, watcher.sights[-300:]) > 3


@pytest.mark.slow
@pytest.mark.timeout(240)
@pytest.mark.parametrize("name", ["binance", "kraken"])
def test_named_stages_survive_every_fault_of_every_stage(name: str, venue: Running, tmp_path: Path) -> None:
    with watched(name, venue, tmp_path, named=True) as book:
        for stage in STAGES:
            for how in (signal.SIGKILL, signal.SIGTERM, signal.SIGSTOP):
                book.fault(stage, how)
                if how is signal.SIGSTOP:
                    book.stages.signal(stage, signal.SIGCONT)
                else:
                    book.stages.processes[stage].wait(5)
                    book.stages.start(stage)
                wait_for(book.all_live, LIVE_WITHIN_S, f"{name}: {how.name} of lob-{stage}: live again")
                time.sleep(0.2)
        codes = {stage: process.poll() for stage, process in book.stages.processes.items()}
        assert set(codes.values()) == {None}, (codes, {s: book.stages.stderr(s) for s in codes})


@pytest.mark.slow
@pytest.mark.timeout(120)
@pytest.mark.parametrize("name", ["binance", "kraken"])
def test_piped_stages_survive_being_stopped_and_continued(name: str, venue: Running, tmp_path: Path) -> None:
    with watched(name, venue, tmp_path, named=False) as book:
        for stage in STAGES:
            book.fault(stage, signal.SIGSTOP)
            book.stages.signal(stage, signal.SIGCONT)
            wait_for(book.all_live, LIVE_WITHIN_S, f"{name}: SIGSTOP of lob-{stage}: live again")


@pytest.mark.slow
@pytest.mark.timeout(120)
@pytest.mark.parametrize("name", ["binance", "kraken"])
@pytest.mark.parametrize("how", [signal.SIGKILL, signal.SIGTERM])
@pytest.mark.parametrize("stage", STAGES)
def test_a_pipe_ends_with_one_of_its_stages_and_its_book_is_not_live_any_more(
    name: str, how: signal.Signals, stage: str, venue: Running, tmp_path: Path
) -> None:
    with watched(name, venue, tmp_path, named=False) as book:
        book.fault(stage, how)
        codes = book.stages.wait(15)
        place = STAGES.index(stage)
        for other, code in codes.items():
            if other == stage:
                assert code == (-how if how is signal.SIGKILL else 0), other
            elif STAGES.index(other) < place:
                assert code == 0, f"lob-{other} lost its reader: like `yes | head`"
            else:
                assert code == (1 if how is signal.SIGKILL else 0), f"lob-{other} lost its writer"


@pytest.mark.timeout(60)
def test_sigterm_to_the_first_stage_of_a_pipe_drains_all_and_leaves_nothing(venue: Running, tmp_path: Path) -> None:
    _, symbols, urls = VENUES["binance"]
    options = {"connect": ["binance", *symbols, *urls(venue)]}
    with pipeline(options, tmp_path) as stages:
        wait_for(lambda: stages.stdout.exists() and b'"bbo"' in stages.stdout.read_bytes(), 15, "the first bbo")
        stages.signal("connect", signal.SIGTERM)
        assert set(stages.wait(15).values()) == {0}
        assert list_rings(stages.instance) == []
    lines = stages.stdout.read_bytes().splitlines()
    assert all(json.loads(line) for line in lines)
