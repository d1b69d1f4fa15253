"""Kill, stop and end each stage in turn, at Binance (numbered) and Kraken (not numbered), joined by pipes and by name.

Somebody watches the board all the time, as a strategy would: `stale` within a second, never a wrong level under `live`,
`live` again within ten seconds.
"""

from __future__ import annotations

import json
import signal
import threading
import time
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest

import lob
from exchange.running import Running, running
from lob.records import BookState
from lob.rings import RingError, list_rings
from pipeline import Pipeline, pipeline, wait_for

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
    """Looks at one book of the board every few ms; keeps each change of state and a sight now and then."""

    def __init__(self, instance: str, symbol: str) -> None:
        super().__init__(daemon=True)
        self.instance, self.symbol = instance, symbol
        self.state: BookState | None = None
        self.changes: list[tuple[float, BookState]] = []
        self.sights: list[Sight] = []
        self.stopped = threading.Event()

    def run(self) -> None:
        board: lob.Board | None = None
        next_sight = 0.0
        while not self.stopped.wait(0.005):
            now = time.monotonic()
            try:
                board = board or lob.Board(self.instance)
                top = board.top(self.symbol, 5)
                state = BookState(top.state)
            except (RingError, lob.NoSuchSymbol):
                board, state, top = None, BookState.CLOSED, None  # no board at all: nobody can take it for live
            if state != self.state:
                self.state = state
                self.changes.append((now, state))
                next_sight = 0.0
            if top is not None and state is BookState.LIVE and now >= next_sight:
                next_sight = now + 0.05
                bids, asks = top.bid_texts(), top.ask_texts()
                self.sights.append(Sight(now, state, top.last_seq, tuple(bids), tuple(asks)))

    def first(self, after: float, want: set[BookState]) -> float | None:
        """When it first was in one of these states after that moment (or was in it then already)."""
        before = [state for at, state in self.changes if at <= after]
        if before and before[-1] in want:
            return after
        return next((at for at, state in self.changes if at > after and state in want), None)


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


def cause(running_pipeline: Pipeline, stage: str, how: str) -> None:
    number = {"SIGKILL": signal.SIGKILL, "SIGTERM": signal.SIGTERM, "SIGSTOP": signal.SIGSTOP}[how]
    running_pipeline.signal(stage, number)


@pytest.fixture(scope="module")
def venue() -> Any:
    with running("--seed", "5", "--rate", "200", "--symbols", "BTCUSDT,ETHUSDT") as started:
        yield started


@pytest.mark.slow
@pytest.mark.timeout(180)
@pytest.mark.parametrize("name", ["binance", "kraken"])
def test_named_stages_survive_every_fault_of_every_stage(name: str, venue: Running, tmp_path: Path) -> None:
    symbol, symbols, urls = VENUES[name]
    options = {"connect": [name, *symbols, *urls(venue)], "publish": ["--to", f"ndjson:{tmp_path / 'out.ndjson'}"]}
    with pipeline(options, tmp_path, named=True) as stages:
        watcher = Watcher(stages.instance, symbol)
        watcher.start()
        try:
            wait_for(lambda: watcher.state is BookState.LIVE, 15, "the first live book")
            for stage in ("connect", "parse", "book", "publish"):
                for how in ("SIGKILL", "SIGTERM", "SIGSTOP"):
                    told = f"{name}: {how} of lob-{stage}"
                    at = time.monotonic()
                    cause(stages, stage, how)
                    if stage != "publish":  # the board does not hang on lob-publish
                        patience_s = STALE_WITHIN_S + 0.2
                        wait_for(lambda at=at: watcher.first(at, not_live()) is not None, patience_s, f"{told}: stale")
                        stale_at = watcher.first(at, not_live())
                        assert stale_at is not None and stale_at - at < STALE_WITHIN_S, told
                    else:
                        time.sleep(0.3)
                    if how == "SIGSTOP":
                        stages.signal(stage, signal.SIGCONT)
                    else:
                        stages.processes[stage].wait(5)
                        stages.start(stage)
                    again = time.monotonic()
                    wait_for(lambda: watcher.state is BookState.LIVE, LIVE_WITHIN_S, f"{told}: live again")
                    assert time.monotonic() - again < LIVE_WITHIN_S, told
                    time.sleep(0.2)
        finally:
            watcher.stopped.set()
            watcher.join()
        codes = {stage: process.poll() for stage, process in stages.processes.items()}
        assert set(codes.values()) == {None}, (codes, {s: stages.stderr(s) for s in codes})
    assert check_truth(venue, name, symbol, watcher.sights[-400:]) > 50


@pytest.mark.slow
@pytest.mark.timeout(120)
@pytest.mark.parametrize("name", ["binance", "kraken"])
@pytest.mark.parametrize("stage", ["connect", "parse", "book", "publish"])
def test_a_pipe_ends_when_a_stage_is_killed_and_its_book_is_not_live_any_more(
    name: str, stage: str, venue: Running, tmp_path: Path
) -> None:
    symbol, symbols, urls = VENUES[name]
    options = {"connect": [name, *symbols, *urls(venue)], "publish": ["--to", f"ndjson:{tmp_path / 'out.ndjson'}"]}
    with pipeline(options, tmp_path) as stages:
        watcher = Watcher(stages.instance, symbol)
        watcher.start()
        try:
            wait_for(lambda: watcher.state is BookState.LIVE, 15, "the first live book")
            time.sleep(0.3)
            at = time.monotonic()
            stages.signal(stage, signal.SIGKILL)
            wait_for(lambda: watcher.first(at, not_live()) is not None, STALE_WITHIN_S + 0.2, "not live any more")
            codes = stages.wait(15)
        finally:
            watcher.stopped.set()
            watcher.join()
        order = ("connect", "parse", "book", "publish")
        for other, code in codes.items():
            if other == stage:
                assert code == -signal.SIGKILL
            elif order.index(other) < order.index(stage):
                assert code == 0, f"lob-{other} lost its reader: like `yes | head`"
            else:
                assert code == 1, f"lob-{other} lost its writer"
    assert check_truth(venue, name, symbol, watcher.sights) > 3


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
